//! What a route does with its requests, and which one a request takes.

use std::time::Duration;

use bytes::Bytes;

use super::Shared;
use crate::action::mirror::Mirror;
use crate::action::rewrite::{Rewrite, Rewritten};
use crate::action::{Action, Fallback, split::Split};
use crate::exchange::affinity::{Affinity, point};
use crate::exchange::{Context, Error, Request};
use crate::http::ambiguity::Ambiguities;
use crate::http::{Reject, target};
use crate::policy::Policies;
use crate::routing::{Conditions, Facts, PathPattern, Unmet};

/// How long a client keeps the cookie that keeps its requests together, seconds.
const COOKIE_MAX_AGE: u32 = 30 * 86_400;

/// What a route does with a request.
pub struct Route {
    /// The host and path it is for.
    pub name: String,
    /// What it asks of a request beside host and path.
    pub conditions: Conditions,
    /// Which paths it serves.
    pub path: PathPattern,
    /// What becomes of a request.
    pub action: Action,
    /// What a request is called on its way to the origin.
    pub rewrite: Rewrite,
    /// The most a request's body may have.
    pub body_bytes_max: u64,
    /// How long an exchange may take, if there is a bound.
    pub timeout: Option<Duration>,
    /// What answers where its upstream cannot.
    pub fallback: Option<Fallback>,
    /// Where copies of some requests go.
    pub mirror: Option<Mirror>,
    /// In which ways its path may be ambiguous.
    pub allow_in_path: Ambiguities,
    /// What it asks of a request before that.
    pub policies: Policies,
}

/// The route of a request.
///
/// # Errors
/// When there is none, or only for other methods, which the answer then tells.
pub fn find<'s>(
    shared: &'s Shared,
    request: &Request<'_>,
    context: &Context,
) -> Result<&'s Route, Error> {
    let Request { head, bytes, source, .. } = *request;
    let authority = head.authority.map(|authority| authority.of(bytes));
    let host = authority.and_then(|authority| target::host(authority).ok());
    let facts = Facts { head, bytes, source: source.ip() };
    let mut methods: Vec<&str> = Vec::new();
    let found = shared.routes.lookup(host, head.target.path(bytes), |route| {
        let unmet = route.conditions.unmet(&facts);
        if unmet == Some(Unmet::Method) {
            methods.extend(route.conditions.methods.iter().map(String::as_str));
        }
        unmet.is_none()
    });
    found.ok_or_else(|| {
        if methods.is_empty() {
            return Error::NoRoute;
        }
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.sort_unstable();
        methods.dedup();
        // RFC 9110 §15.5.6: Allow goes with it.
        let allow = Bytes::from(methods.join(", "));
        context.response_edits.borrow_mut().set(Bytes::from_static(b"allow"), allow);
        Error::MethodNotAllowed
    })
}

impl Route {
    /// The most a request's body may have, by the route and by its policies.
    pub fn body_bytes_max(&self, context: &Context) -> u64 {
        context.body_bytes_max.get().unwrap_or(u64::MAX).min(self.body_bytes_max)
    }

    /// What a request is called instead.
    ///
    /// # Errors
    /// When what it brought along makes a path of it that servers read differently.
    pub fn rewrite(&self, request: &Request<'_>, context: &Context) -> Result<Rewritten, Error> {
        let rewritten = self.rewrite.apply(request, context, &self.path);
        let path = rewritten.path.as_deref().unwrap_or_default();
        match Ambiguities::of(path).beyond(self.allow_in_path) {
            Some(ambiguity) => Err(Error::Rejected(Reject::Malformed(ambiguity.reason()))),
            None => Ok(rewritten),
        }
    }
}

/// The upstream whose share a request is.
pub fn choose(
    split: &Split,
    shared: &Shared,
    request: &Request<'_>,
    context: &Context,
) -> Option<usize> {
    // Most have one.
    if let [(only, _)] = split.shares[..] {
        return Some(only);
    }
    let any = shared.resources.request_ids.make();
    let own = split.sticky.as_ref().and_then(|sticky| sticky.point(request));
    if let (None, Some(Affinity::Cookie(name))) = (own, &split.sticky) {
        let id = String::from_utf8_lossy(&any);
        let secure = if request.client.scheme == "https" { "; Secure" } else { "" };
        let cookie = format!(
            "{name}={id}; Path=/; Max-Age={COOKIE_MAX_AGE}; HttpOnly; SameSite=Lax{secure}"
        );
        context.response_edits.borrow_mut().add(Bytes::from_static(b"set-cookie"), cookie.into());
    }
    split.at(own.unwrap_or_else(|| point(&any)))
}
