//! What the tests of policies are written with.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;

use super::{Build, Parts, Policy, Verdict};
use crate::document::section::{Section, read_document};
use crate::document::value::Document;
use crate::exchange::inquiry::{Inquiry, Reply, Upstreams};
use crate::exchange::{Context, Error, Identity, Request};
use crate::http::forward::Client;
use crate::http::framing;
use crate::http::head::RequestHead;
use crate::http::parse::{self, HeadLimits, Scan};

/// Reads settings from the lines of their table.
pub fn settings<T>(
    lines: &str,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<T, Vec<String>> {
    let document = Document::parse(lines);
    let text = |problem: &crate::document::Problem| format!("{}: {}", problem.key, problem.message);
    read_document(&document, read).map_err(|problems| problems.iter().map(text).collect())
}

/// A request in the making.
#[derive(Clone)]
pub struct Asker {
    text: String,
    source: IpAddr,
    route: String,
    identity: String,
    scheme: &'static str,
    host: Option<String>,
    certificate: String,
    received: Instant,
}

/// What came of it.
pub struct Answered {
    pub verdict: Verdict,
    /// The fields that were added for the origin, a line each.
    pub request: String,
    /// The fields that were added for the client, a line each.
    pub response: String,
}

impl Asker {
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn new(method: &str, target: &str) -> Self {
        Self {
            text: format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n"),
            source: [192, 0, 2, 1].into(),
            route: String::new(),
            identity: String::new(),
            scheme: "http",
            host: None,
            certificate: String::new(),
            received: Instant::now(),
        }
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.text += &format!("{name}: {value}\r\n");
        self
    }

    pub fn from(self, address: &str) -> Self {
        Self { source: address.parse().unwrap(), ..self }
    }

    /// By what a proxy in front says.
    pub fn for_host(self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self }
    }

    /// What the origin is told of one.
    pub fn certificate(self, lines: &str) -> Self {
        Self { certificate: lines.to_owned(), ..self }
    }

    pub fn route(self, route: &str) -> Self {
        Self { route: route.to_owned(), ..self }
    }

    pub fn identity(self, identity: &str) -> Self {
        Self { identity: identity.to_owned(), ..self }
    }

    pub fn later(&self, seconds: u64) -> Self {
        let received = self.received + Duration::from_secs(seconds);
        Self { received, ..self.clone() }
    }

    /// Shows the request, which is parsed anew each time.
    pub fn ask<T>(&self, look: impl FnOnce(&Request<'_>, &Context) -> T) -> T {
        let text = format!("{}\r\n", self.text);
        let bytes = text.as_bytes();
        let limits = HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: true };
        let mut head = RequestHead::default();
        assert_eq!(parse::request(bytes, &mut Scan::default(), limits, &mut head), Ok(true));
        let identity = Identity::default();
        if !self.identity.is_empty() {
            identity.set(&self.identity);
        }
        let chain = self.source.to_string();
        let request = Request {
            head: &head,
            bytes,
            framing: framing::request(&head, bytes).unwrap(),
            persistent: true,
            upgrade: false,
            client: Client {
                chain: &chain,
                scheme: self.scheme,
                host: self.host.as_deref().map(str::as_bytes),
                trusted: false,
                request_id: b"7",
                certificate: self.certificate.as_bytes(),
            },
            received: self.received,
            route: &self.route,
            identity: &identity,
            source: SocketAddr::new(self.source, 0),
            destination: None,
            certificate: None,
        };
        look(&request, &Context::default())
    }

    /// What `policy` makes of it.
    pub fn of(&self, policy: &dyn Policy) -> Answered {
        self.ask(|request, context| {
            let verdict = policy.request(request, context);
            let lines = |edits: &std::cell::RefCell<crate::http::edits::Edits>| {
                let mut out = bytes::BytesMut::new();
                edits.borrow().write(&mut out);
                String::from_utf8(out.to_vec()).unwrap().replace("\r\n", "\n")
            };
            let request = lines(&context.request_edits);
            Answered { verdict, request, response: lines(&context.response_edits) }
        })
    }
}

/// Upstreams none of which answers.
pub struct Nobody;

impl Upstreams for Nobody {
    fn ask<'a>(&'a self, _: Inquiry<'a>) -> LocalBoxFuture<'a, Result<Reply, Error>> {
        Box::pin(std::future::ready(Err(Error::Unavailable)))
    }
}

/// A policy of this name, alone with what it shares.
pub(super) fn build(name: &str, settings: &impl Build) -> std::rc::Rc<dyn Policy> {
    let metrics = &crate::telemetry::metrics::Worker::new();
    let counters = metrics.policy(name);
    settings.build(&Parts { name, shared: settings.shared(), counters, metrics, members: &[] })
}
