//! Lets in whom a service of your own lets in, which is asked about each request: by a GET with the request's
//! fields, to which it answers 2xx or what the client is to be told.

mod known;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use known::{Cache, Known};

use super::caller::NAME_BYTES_MAX;
use super::{Build, Parts, Policy, Verdict, headers};
use crate::document::section::Section;
use crate::document::units::{bytes, duration};
use crate::document::value::Kind;
use crate::document::values::{once, text, word};
use crate::exchange::error::Denial;
use crate::exchange::inquiry::{Inquiry, LEFT_OUT, Reply, Upstreams};
use crate::exchange::{Context, Error, Request};
use crate::http::edits::Edits;
use crate::http::head::values_of;

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const BODY_BYTES: RangeInclusive<u64> = 0..=1 << 20;
/// Bytes of fields that are remembered of one answer.
const REMEMBERED_BYTES_MAX: usize = 4 << 10;

/// What of an answer that lets nobody in the client is told, beside status and body.
const TOLD: [&str; 7] = [
    "cache-control",
    "location",
    "proxy-authenticate",
    "retry-after",
    "set-cookie",
    "vary",
    "www-authenticate",
];

/// Whom, and about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    upstream: String,
    path: String,
    timeout: Duration,
    /// Fields of the answer that the origin gets, and clients cannot send.
    copy: Vec<Bytes>,
    /// Fields of the answer that the client gets.
    tell: Vec<Bytes>,
    /// The field of the answer that says who the client is.
    identity: Option<Bytes>,
    /// Whether requests pass when nobody answers.
    passes_unanswered: bool,
    body_bytes_max: usize,
    cache: Option<Cache>,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let hint = "write the name of an upstream";
        let upstream = table.required("upstream", hint, |kind| Ok(text(kind)?.to_owned()));
        Self {
            upstream: upstream.unwrap_or_default(),
            path: table.value("path", "/".to_owned(), target),
            timeout: table.value("timeout", Duration::from_secs(5), duration(TIMEOUT)),
            copy: fields(table, "copy"),
            tell: fields(table, "tell"),
            identity: table.optional("identity", |kind| headers::name(text(kind)?, false)),
            passes_unanswered: table.value(
                "unanswered",
                false,
                word(&[("refuse", false), ("pass", true)]),
            ),
            body_bytes_max: table.value("body_bytes", 64 << 10, bytes(BODY_BYTES)),
            cache: table.has("cache").then(|| table.table("cache", Cache::read)),
        }
    }
}

/// Names of fields.
fn fields(table: &mut Section<'_>, key: &'static str) -> Vec<Bytes> {
    if !table.has(key) {
        return Vec::new();
    }
    let mut seen = std::collections::HashSet::new();
    table.list(key, "write [\"x-user\"]", |kind| {
        let name = headers::name(text(kind)?, key == "copy")?;
        once(&mut seen, name.to_ascii_lowercase(), kind)?;
        Ok(name)
    })
}

/// A path with a query, if it has one.
fn target(kind: &Kind) -> Result<String, String> {
    let text = text(kind)?;
    let is_plain = text.bytes().all(|byte| (b'!'..=b'~').contains(&byte) && byte != b'#');
    match text.starts_with('/') && is_plain {
        true => Ok(text.to_owned()),
        false => Err("must be a path such as \"/verify\"".to_owned()),
    }
}

impl Build for Settings {
    fn upstream(&self) -> Option<&str> {
        Some(&self.upstream)
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let name = parts.name.to_owned();
        Rc::new(ForwardAuth { name, settings: self.clone(), known: RefCell::default() })
    }
}

/// A worker's part in it.
struct ForwardAuth {
    name: String,
    settings: Settings,
    known: RefCell<Known>,
}

/// What the service says of a client that it lets in.
#[derive(Clone, Debug, Default)]
struct Passed {
    /// For the origin.
    copied: Vec<(Bytes, Bytes)>,
    /// For the client.
    told: Vec<(Bytes, Bytes)>,
    identity: Option<String>,
}

impl Policy for ForwardAuth {
    fn rule(&self, _: &Request<'_>) -> String {
        let Settings { upstream, path, timeout, passes_unanswered, cache, .. } = &self.settings;
        let otherwise = if *passes_unanswered { "it passes" } else { "503" };
        let cached = if cache.is_some() { ", or what it said of late" } else { "" };
        format!("GET {path} of {upstream} in {timeout:?}, else {otherwise}{cached}")
    }

    fn strip(&self, _: &Request<'_>, context: &Context) {
        let mut edits = context.request_edits.borrow_mut();
        for name in &self.settings.copy {
            edits.remove(name.clone());
        }
        if let Some(name) = &self.settings.identity {
            edits.remove_received(name.clone());
        }
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        self.strip(request, context);
        let known = self.settings.cache.as_ref().and_then(|cache| {
            let key = cache.key(request, &context.request_edits.borrow())?;
            self.known.borrow().find(&key, cache.entries, request.received)
        });
        match known {
            Some(passed) => passed.let_in(request, context),
            None => Verdict::Wait,
        }
    }

    fn wait<'a>(
        &'a self,
        request: &'a Request<'_>,
        context: &'a Context,
        upstreams: &'a dyn Upstreams,
    ) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(async move {
            let edits = question(request, &context.request_edits.borrow());
            let Settings { upstream, path, body_bytes_max, timeout, .. } = &self.settings;
            let inquiry = Inquiry {
                upstream,
                request,
                target: path.as_bytes(),
                edits: &edits,
                body_bytes_max: *body_bytes_max,
                timeout: *timeout,
            };
            match upstreams.ask(inquiry).await {
                Ok(reply) if (200..300).contains(&reply.head.status) => {
                    let passed = Rc::new(self.settings.passed(&reply));
                    self.remember(request, context, &passed);
                    passed.let_in(request, context)
                }
                Ok(reply) if (300..500).contains(&reply.head.status) => told(reply, context),
                Ok(reply) => self.unanswered(Error::Answered(reply.head.status), context),
                Err(error @ Error::Rejected(_)) => Verdict::Refuse(error),
                Err(error) => self.unanswered(error, context),
            }
        })
    }
}

impl ForwardAuth {
    fn remember(&self, request: &Request<'_>, context: &Context, passed: &Rc<Passed>) {
        let Some(cache) = &self.settings.cache else { return };
        let fits = passed.copied.iter().map(|(_, value)| value.len()).sum::<usize>()
            <= REMEMBERED_BYTES_MAX;
        // What a client is told once, as a new cookie, another is not told.
        if !fits || !passed.told.is_empty() {
            return;
        }
        let key = cache.key(request, &context.request_edits.borrow());
        let Some(key) = key else { return };
        let until = request.received + cache.ttl;
        self.known.borrow_mut().add(key, cache.entries, until, Rc::clone(passed));
    }

    /// Nobody has said whether the client may come in. Who has said what cannot be understood may have
    /// said no.
    fn unanswered(&self, error: Error, context: &Context) -> Verdict {
        if self.settings.passes_unanswered && !matches!(error, Error::BadResponse(_)) {
            return Verdict::Continue;
        }
        let reason = format!("{}: {}", self.name, error.message());
        context.reason.replace(Some(reason.into()));
        Verdict::Refuse(Error::Denied(Denial::Unanswered))
    }
}

/// What is asked: what the origin would be, as far as it is known by now. What this policy says nobody tells
/// the service, as [`Policy::strip`] has removed it.
fn question(request: &Request<'_>, edits: &Edits) -> Edits {
    let Request { head, bytes, .. } = *request;
    let method = Bytes::copy_from_slice(head.method_name.of(bytes));
    let query = edits.query().unwrap_or_else(|| head.target.query.of(bytes));
    let uri = [head.target.path(bytes), query].concat();
    let mut edits = edits.clone();
    for name in LEFT_OUT {
        edits.remove(Bytes::from_static(name.as_bytes()));
    }
    // What it says is told to a client that may have asked for another coding, or none.
    edits.set(Bytes::from_static(b"accept-encoding"), Bytes::from_static(b"identity"));
    edits.set(Bytes::from_static(b"x-forwarded-method"), method);
    edits.set(Bytes::from_static(b"x-forwarded-uri"), uri.into());
    edits
}

impl Settings {
    /// What an answer says of a client that may come in.
    fn passed(&self, Reply { head, bytes, .. }: &Reply) -> Passed {
        let all = |names: &[Bytes]| {
            let mut found = Vec::new();
            for name in names {
                let text = str::from_utf8(name).unwrap_or_default();
                let values = values_of(&head.fields, bytes, text);
                found.extend(values.map(|value| (name.clone(), Bytes::copy_from_slice(value))));
            }
            found
        };
        let identity = self.identity.as_ref().and_then(|name| {
            let name = str::from_utf8(name).ok()?;
            let value = values_of(&head.fields, bytes, name).next()?;
            str::from_utf8(value).ok().filter(|name| is_name(name)).map(str::to_owned)
        });
        Passed { copied: all(&self.copy), told: all(&self.tell), identity }
    }
}

/// It stands in log lines.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl Passed {
    fn let_in(&self, request: &Request<'_>, context: &Context) -> Verdict {
        if let Some(name) = &self.identity {
            request.identity.set(name);
        }
        let mut edits = context.request_edits.borrow_mut();
        for (name, value) in &self.copied {
            edits.add(name.clone(), value.clone());
        }
        let mut edits = context.response_edits.borrow_mut();
        for (name, value) in &self.told {
            edits.add(name.clone(), value.clone());
        }
        Verdict::Continue
    }
}

/// The client gets the answer in place of its own.
fn told(reply: Reply, context: &Context) -> Verdict {
    let Reply { head, bytes, body } = reply;
    // One that did not come whole is none: the status counts all the same.
    let body = body.unwrap_or_default();
    let mut edits = context.response_edits.borrow_mut();
    for name in TOLD {
        for value in values_of(&head.fields, &bytes, name) {
            let name = Bytes::from_static(name.as_bytes());
            edits.add(name, Bytes::copy_from_slice(value));
        }
    }
    let content_type = values_of(&head.fields, &bytes, "content-type").next();
    if let Some(content_type) = content_type.and_then(|value| str::from_utf8(value).ok())
        && !body.is_empty()
    {
        context.content.replace(Some((content_type.to_owned(), body)));
    }
    Verdict::Answer(head.status)
}

#[cfg(test)]
mod tests;
