//! One request: what is known of it when it begins, and what becomes known on the way.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::Error;
use crate::http::edits::Edits;
use crate::http::forward::Client;
use crate::http::framing::Framing;
use crate::http::head::{RequestHead, values_of};
use crate::net::{Buffer, Deadline};
use crate::tls::ClientCertificate;

/// A request whose head has been read and whose framing is decided.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// The bytes the head was parsed from, and behind them what came along, if there is no body.
    pub bytes: &'a [u8],
    /// Where its body ends.
    pub framing: Framing,
    /// Whether the client's connection may serve another request afterwards.
    pub persistent: bool,
    /// Whether it asks to become a WebSocket.
    pub upgrade: bool,
    /// What is known of the client, for the origin.
    pub client: Client<'a>,
    /// When its head had come.
    pub received: Instant,
    /// The host and path its route is for; empty until that is known.
    pub route: &'a str,
    /// Who a policy has found the client to be.
    pub identity: &'a Identity,
    /// Where the client connects from.
    pub source: SocketAddr,
    /// Where it connected to, if any upstream wants to know.
    pub destination: Option<SocketAddr>,
    /// Who the client is by its verified certificate, if it has shown one.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Request<'a> {
    /// Who the client is: whom a policy has found it to be, else whom its certificate is of, else empty.
    pub fn identity(&self) -> &'a str {
        match (self.identity.name.get(), self.certificate) {
            (Some(name), _) => name,
            (None, Some(certificate)) => certificate.holder(),
            (None, None) => "",
        }
    }
}

/// Who a client is, once a policy has found out.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    name: OnceCell<Box<str>>,
    claims: OnceCell<Rc<Value>>,
}

impl Identity {
    /// Takes down who it is; who has been found first counts.
    pub fn set(&self, name: &str) {
        let _ = self.name.set(name.into());
    }

    /// Takes down what else is said of it by whoever is believed; what has been said first counts.
    pub fn set_claims(&self, claims: &Rc<Value>) {
        let _ = self.claims.set(Rc::clone(claims));
    }

    /// Takes down what another has taken down since it was this one's copy.
    pub fn adopt(&self, other: Self) {
        if let Some(name) = other.name.into_inner() {
            let _ = self.name.set(name);
        }
        if let Some(claims) = other.claims.into_inner() {
            let _ = self.claims.set(claims);
        }
    }

    /// What is said of it.
    pub fn claims(&self) -> Option<&Value> {
        self.claims.get().map(|claims| &**claims)
    }
}

/// A claim: by its name, or, behind a slash, by the names on the way to it (RFC 6901).
pub fn claim<'v>(claims: &'v Value, name: &str) -> Option<&'v Value> {
    match name.starts_with('/') {
        true => claims.pointer(name),
        false => claims.get(name),
    }
}

/// What becomes known while an exchange runs. Upload and response run side by side, so each part
/// is a cell.
#[derive(Debug, Default)]
pub struct Context {
    /// The status the client got; 0 until then.
    pub status: Cell<u16>,
    /// What of the request's body came with its head, and what came behind, until it is sent on.
    pub body: RefCell<Buffer>,
    /// Whether the whole request has been read.
    pub request_read: Cell<bool>,
    /// Bytes of the request's body.
    pub bytes_in: Cell<u64>,
    /// Bytes of the response's body.
    pub bytes_out: Cell<u64>,
    /// Which upstream the route chose.
    pub upstream: Cell<Option<usize>>,
    /// The endpoint that was asked last.
    pub endpoint: Cell<Option<SocketAddr>>,
    /// What the endpoint that was asked last has answered; 0 until then.
    pub upstream_status: Cell<u16>,
    /// When the request had been sent whole.
    pub sent_at: Cell<Option<Instant>>,
    /// From the request sent whole to the response's head.
    pub upstream_duration: Cell<Option<Duration>>,
    /// When the exchange has to be over.
    pub deadline: Cell<Deadline>,
    /// How long an endpoint that cannot has asked to be left alone.
    pub retry_after: Cell<Option<Duration>>,
    /// What went wrong before a fallback answered.
    pub fell_back: Cell<Option<Error>>,
    /// What policies change about the request for the origin.
    pub request_edits: RefCell<Edits>,
    /// What policies change about the response for the client.
    pub response_edits: RefCell<Edits>,
    /// Why a policy has refused the request, where that tells more than the error does.
    pub reason: RefCell<Option<Box<str>>>,
    /// What would have refused it, if it did not only observe: policies, with their rules where they have
    /// some.
    pub observed: RefCell<String>,
    /// What a policy answers with: a content type, and a body.
    pub content: RefCell<Option<(String, Vec<u8>)>>,
    /// What the access log shows in place of the query, where that has a secret in it.
    pub logged_query: RefCell<Option<Bytes>>,
    /// Bytes of the request's body, where a policy lets in less than the route.
    pub body_bytes_max: Cell<Option<u64>>,
    /// What policies keep until the exchange has ended.
    held: RefCell<Vec<Box<dyn Any>>>,
}

impl Context {
    /// Keeps `guard` until the exchange has ended, however it does.
    pub fn hold(&self, guard: impl Any) {
        self.held.borrow_mut().push(Box::new(guard));
    }

    /// Takes down that the policy or rule of this name would have refused the request.
    pub fn observe(&self, name: &str) {
        let mut observed = self.observed.borrow_mut();
        let separator = if observed.is_empty() { "" } else { ", " };
        observed.extend([separator, name]);
    }

    /// Shows `look` the first value of a request's field as the origin is to get it: policies may have
    /// removed what the client says there, and say it themselves.
    pub fn field<T>(
        &self,
        request: &Request<'_>,
        name: &str,
        look: impl FnOnce(Option<&[u8]>) -> T,
    ) -> T {
        let edits = self.request_edits.borrow();
        let mut sent = values_of(&request.head.fields, request.bytes, name);
        let sent = sent.next().filter(|_| !edits.removes(name.as_bytes()));
        look(sent.or_else(|| edits.values(name.as_bytes()).next()))
    }
}

impl Context {
    /// Whether the exchange may take longer.
    ///
    /// # Errors
    /// When it may not.
    pub fn in_time(&self) -> Result<(), Error> {
        match Deadline::now() < self.deadline.get() {
            true => Ok(()),
            false => Err(Error::OutOfTime),
        }
    }
}

/// Adds to a counter that is a cell.
pub fn add(counter: &Cell<u64>, n: usize) {
    counter.set(counter.get() + n as u64);
}
