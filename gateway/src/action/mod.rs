//! What answers a request once its route is known.

pub mod call;
pub mod compose;
pub mod forward;
pub mod mirror;
mod relay;
mod response;
pub mod rewrite;
pub mod split;
mod tunnel;

use bytes::Bytes;

use crate::exchange::responder::Content;
use crate::exchange::template::{Escape, Template};
use crate::exchange::{Context, Request};
use crate::routing::PathPattern;
use compose::Compose;
use split::Split;

/// What a route does with its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Passes them on, to the only upstream or to the one whose share they are.
    Forward(Split),
    /// Answers them.
    Respond(Respond),
    /// Sends their clients elsewhere.
    Redirect(Redirect),
    /// Makes one answer of several.
    Compose(Compose),
}

/// What answers where a route's upstream cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Another upstream, by its position: requests without a body that are safe to send there.
    Forward(usize),
    /// The gateway.
    Respond(Respond),
}

impl Fallback {
    /// The texts in it that a request has a part in.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        match self {
            Self::Forward(_) => None,
            Self::Respond(respond) => respond.body.as_ref(),
        }
        .into_iter()
    }
}

/// An answer of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// What the body is.
    pub content_type: String,
    /// The body; `None` for the page of the status.
    pub body: Option<Template>,
}

/// Where clients are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// A URI, or a path on the same host.
    pub to: Template,
}

impl Action {
    /// The texts in it that a request has a part in.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let own = match self {
            Self::Forward(_) => None,
            Self::Respond(respond) => respond.body.as_ref(),
            Self::Redirect(redirect) => Some(&redirect.to),
            Self::Compose(_) => None,
        };
        let parts = match self {
            Self::Compose(compose) => &compose.parts[..],
            _ => &[],
        };
        own.into_iter().chain(parts.iter().map(|part| &part.path))
    }

    /// The upstreams it may pass requests on to.
    pub fn upstreams(&self) -> impl Iterator<Item = usize> {
        let (shares, parts) = match self {
            Self::Forward(split) => (&split.shares[..], &[][..]),
            Self::Compose(compose) => (&[][..], &compose.parts[..]),
            Self::Respond(_) | Self::Redirect(_) => (&[][..], &[][..]),
        };
        let shares = shares.iter().map(|(upstream, _)| *upstream);
        shares.chain(parts.iter().map(|part| part.upstream))
    }
}

impl Respond {
    /// What it says to a request that a route for `path` serves.
    pub fn content(
        &self,
        request: &Request<'_>,
        context: &Context,
        path: &PathPattern,
    ) -> Option<Content<'_>> {
        let (content_type, body) = (self.content_type.as_str(), self.body.as_ref()?);
        let body = body.render(request, context, path.pattern(), Escape::of(content_type));
        Some(Content { content_type, body })
    }
}

impl Redirect {
    /// To the same address by HTTPS.
    pub fn to_https(port: u16) -> Self {
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let to = format!("https://{{host}}{port}{{path}}{{query}}");
        // Unlike 301 it keeps the method.
        Self { status: 308, to: to.parse().unwrap_or_default() }
    }

    /// Says where to, to a request that a route for `path` serves; with which status to answer.
    pub fn begin(&self, request: &Request<'_>, path: &PathPattern, context: &Context) -> u16 {
        let to = self.to.render(request, context, path.pattern(), Escape::Uri);
        let name = Bytes::from_static(b"location");
        context.response_edits.borrow_mut().set(name, to.into());
        self.status
    }
}
