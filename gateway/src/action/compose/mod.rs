//! One request becomes several to upstreams, and their answers one.

mod shape;

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use serde_json::Value;

use super::call::{Answer, Call, Wanted};
use crate::exchange::inquiry::LEFT_OUT;
use crate::exchange::responder::Content;
use crate::exchange::template::{Escape, Template};
use crate::exchange::{Context, Error, Request, Resources};
use crate::http::ambiguity::Ambiguities;
use crate::http::forward::{self, RequestShape};
use crate::http::framing::Framing;
use crate::http::head::Method;
use crate::net::Deadline;
use crate::net::stream::Watcher;
use crate::routing::Pattern;
use crate::upstream::Upstream;
pub use shape::Shape;

/// What a route makes of several answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compose {
    /// At least one. None refers to one that refers back to it.
    pub parts: Vec<Part>,
    /// What the answer looks like; `None` for an object with a member for each part.
    pub merge: Option<Shape>,
    /// Statuses of parts that are passed on, where the answer needs the part.
    pub pass_statuses: Vec<u16>,
}

/// One request to an upstream, by GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What others call it.
    pub name: String,
    /// Position of the upstream.
    pub upstream: usize,
    /// Path and query, which may have values of the request and of other parts' answers.
    pub path: Template,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether the answer can do without it: then it is null.
    pub optional: bool,
    /// The most its answer may have.
    pub bytes_max: usize,
}

impl Part {
    /// The parts whose answers its path refers to.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        self.path.references().map(part_of)
    }
}

/// The name of the part that a reference begins with.
pub fn part_of(reference: &str) -> &str {
    reference.split('.').next().unwrap_or_default()
}

/// What it takes to ask.
pub struct Asking<'a> {
    /// What the worker lends.
    pub resources: &'a Resources,
    /// In the configuration's order.
    pub upstreams: &'a [Rc<Upstream>],
    /// What is answered.
    pub request: &'a Request<'a>,
    /// The route's expression, if it has one.
    pub pattern: Option<&'a Pattern>,
    /// Paths of parts may be ambiguous in these ways.
    pub allow_in_path: Ambiguities,
    /// What becomes known.
    pub context: &'a Context,
}

/// What the parts have answered, by their positions.
struct Answers<'a> {
    parts: &'a [Part],
    /// `None` until a part has come to an end.
    values: Vec<Option<Value>>,
}

impl Answers<'_> {
    /// What a reference refers to: a part's name, and behind it names of members and positions of elements,
    /// with points between them.
    fn find(&self, reference: &str) -> Option<&Value> {
        let mut keys = reference.split('.');
        let name = keys.next()?;
        let position = self.parts.iter().position(|part| part.name == name)?;
        let value = self.values.get(position)?.as_ref()?;
        keys.try_fold(value, |value, key| match value {
            Value::Object(members) => members.get(key),
            Value::Array(elements) => elements.get(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Whether all that a part refers to has come to an end.
    fn has_all(&self, part: &Part) -> bool {
        part.needs().all(|name| {
            let position = self.parts.iter().position(|other| other.name == name);
            position.is_some_and(|at| self.values.get(at).is_some_and(Option::is_some))
        })
    }
}

impl Compose {
    /// Names of parts whose answers are not in the merged one, and which no other part waits for.
    pub fn needless(&self) -> impl Iterator<Item = &str> {
        let merged = self.merge.as_ref().map(Shape::references);
        let used = move |name: &str| {
            let others = self.parts.iter().flat_map(Part::needs);
            let merged = merged.iter().flatten().map(|reference| part_of(reference));
            others.chain(merged).any(|other| other == name)
        };
        let names = self.parts.iter().map(|part| part.name.as_str());
        names.filter(move |name| self.merge.is_some() && !used(name))
    }

    /// The answer's body. All parts that wait for no other are asked at once.
    ///
    /// # Errors
    /// When a part that it needs did not answer well.
    pub async fn content(
        &self,
        asking: &Asking<'_>,
        client: Watcher,
    ) -> Result<Content<'static>, Error> {
        let gone = std::pin::pin!(client.broken());
        let answers = match select(std::pin::pin!(self.ask(asking)), gone).await {
            Either::Left((answers, _)) => answers?,
            Either::Right(((), _)) => return Err(Error::ClientGone),
        };
        let merged = match &self.merge {
            Some(shape) => shape.fill(asking.request, asking.context, asking.pattern, &answers),
            None => {
                let names = self.parts.iter().map(|part| part.name.clone());
                names.zip(answers.values.into_iter().map(Option::unwrap_or_default)).collect()
            }
        };
        // Whoever keeps answers knows nothing of the parts' ages.
        let (name, value) = (Bytes::from_static(b"cache-control"), Bytes::from_static(b"no-store"));
        asking.context.response_edits.borrow_mut().set(name, value);
        let body = merged.to_string().into_bytes();
        Ok(Content { content_type: "application/json", body })
    }

    async fn ask(&self, asking: &Asking<'_>) -> Result<Answers<'_>, Error> {
        let mut answers = Answers { parts: &self.parts, values: vec![None; self.parts.len()] };
        let mut waiting: Vec<usize> = (0..self.parts.len()).collect();
        let mut asked = FuturesUnordered::new();
        loop {
            let ready = waiting.extract_if(.., |position| {
                self.parts.get(*position).is_some_and(|part| answers.has_all(part))
            });
            for position in ready.collect::<Vec<_>>() {
                let Some(part) = self.parts.get(position) else { continue };
                let path = asking.path(part, &answers);
                asked.push(async move { (position, part, asking.part(part, path).await) });
            }
            let Some((position, part, result)) = asked.next().await else { return Ok(answers) };
            let value = match result {
                Ok(value) => value,
                Err(error) if part.optional => {
                    let (upstream, reason) = (part.upstream, error.message());
                    tracing::debug!(upstream, "part {:?} is left out: {reason}", part.name);
                    asking.context.fell_back.set(Some(error));
                    Value::Null
                }
                Err(Error::Answered(status)) if !self.pass_statuses.contains(&status) => {
                    return Err(Error::BadStatus);
                }
                Err(error) => return Err(error),
            };
            if let Some(own) = answers.values.get_mut(position) {
                *own = Some(value);
            }
        }
    }
}

impl Asking<'_> {
    /// Path and query of a part.
    ///
    /// # Errors
    /// When a value is missing, or would make a path that servers read differently.
    fn path(&self, part: &Part, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
        let is_missing = std::cell::Cell::new(false);
        let value = |reference: &str| {
            let text = match answers.find(reference) {
                Some(Value::String(text)) if !text.is_empty() => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => {
                    is_missing.set(true);
                    return None;
                }
            };
            Some(encoded(&text))
        };
        let path =
            part.path.render_with(self.request, self.context, self.pattern, Escape::Path, &value);
        let only = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let ambiguous = Ambiguities::of(only).beyond(self.allow_in_path).is_some();
        if is_missing.get() || ambiguous { Err(Error::NoValue) } else { Ok(path) }
    }

    async fn part(&self, part: &Part, path: Result<Vec<u8>, Error>) -> Result<Value, Error> {
        let path = path?;
        let Self { resources, request, context, .. } = *self;
        let upstream = self.upstreams.get(part.upstream).ok_or(Error::NoRoute)?;
        let split = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
        let (path, query) = path.split_at_checked(split).unwrap_or((&path, b""));
        let mut edits = context.request_edits.borrow().clone();
        for name in LEFT_OUT {
            edits.remove(Bytes::from_static(name.as_bytes()));
        }
        for (name, value) in [("accept", "application/json"), ("accept-encoding", "identity")] {
            let value = Bytes::from_static(value.as_bytes());
            edits.set(Bytes::from_static(name.as_bytes()), value);
        }
        let shape = RequestShape {
            framing: Framing::Empty,
            upgrade: false,
            method: Some(b"GET"),
            path: Some(path),
            query: Some(query),
            host: None,
        };
        let (memory, client) = (BytesMut::new(), request.client);
        let head = forward::request(memory, request.head, request.bytes, shape, client, &edits);
        let call = Call {
            resources,
            upstream,
            method: Method::Get,
            head: head.map_err(Error::Rejected)?,
            body: b"",
            point: upstream.affinity().and_then(|affinity| affinity.point(request)),
            announced: request.destination.map(|destination| (request.source, destination)),
            wanted: Wanted::Whole(part.bytes_max),
            until: Deadline::after(part.timeout).min(context.deadline.get()),
        };
        let Answer { head, body, .. } = call.run().await?;
        match head.status {
            204 => Ok(Value::Null),
            200..=299 => serde_json::from_slice(&body?).map_err(|_| Error::NotJson),
            status => Err(Error::Answered(status)),
        }
    }
}

/// What stands for itself in any part of a URI (RFC 3986 §2.3), and everything else encoded.
fn encoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(byte),
            byte => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}
