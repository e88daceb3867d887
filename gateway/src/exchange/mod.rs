//! What one request and its response are made of: who asked, what it may cost, how it ended.

#![expect(clippy::disallowed_types, reason = "counters are read by the control thread")]

pub mod affinity;
pub mod context;
pub mod error;
pub mod inquiry;
pub mod pages;
pub mod request_id;
pub mod responder;
pub mod template;
pub mod trust;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use affinity::Affinity;
pub use context::{Context, Identity, Request};
pub use error::{Error, Side};
pub use pages::{Page, Pages};
pub use request_id::RequestIds;
pub use responder::{Responder, ResponseWriter};
pub use trust::{ProxyProtocol, Trust};

use crate::http::encode::DateCache;
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::parse::HeadLimits;
use crate::net::{Buffers, Deadlines, Pace};
use crate::telemetry::metrics;

/// What a worker lends to each of its exchanges.
pub struct Resources {
    /// Buffers to read into.
    pub buffers: Rc<Buffers>,
    /// Heads to parse into.
    pub request_heads: Kept<RequestHead>,
    /// Heads to parse into.
    pub response_heads: Kept<ResponseHead>,
    /// The deadlines of the worker's sockets.
    pub deadlines: Rc<Deadlines>,
    /// Names for requests that come without.
    pub request_ids: RequestIds,
    /// What the gateway's own answers say.
    pub pages: Pages,
    /// The value of Date fields.
    pub date: RefCell<DateCache>,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// How large each part may be.
    pub limits: Limits,
    /// What the worker counts.
    pub metrics: Arc<metrics::Worker>,
    /// Whether the worker is to end: no connection is kept any more.
    pub draining: Rc<Cell<bool>>,
}

/// How many heads of a kind a worker keeps; those of a burst above it are freed.
const KEPT_MAX: usize = 512;

/// Values that are used again for the memory they have grown.
#[derive(Debug, Default)]
pub struct Kept<T>(RefCell<Vec<T>>);

impl<T: Default> Kept<T> {
    /// One that was kept, or a new one.
    pub fn take(&self) -> T {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps `value` for the next one who takes.
    pub fn give(&self, value: T) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(value);
        }
    }
}

impl Resources {
    /// The bounds of a head.
    pub fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.limits.head_bytes,
            start_line: self.limits.request_line_bytes,
            fields: self.limits.fields,
            underscores: self.limits.underscores,
        }
    }

    /// How slowly a client may send or take a body.
    pub fn pace(&self) -> Pace {
        Pace::new(self.timeouts.body, self.limits.body_rate)
    }
}

/// How long each step of an exchange may take. Every one of them ends in a defined answer or a
/// closed connection; none can be switched off.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// A request's whole head, from its first byte.
    pub head: Duration,
    /// The gap between two reads or writes of a body, on either side.
    pub body: Duration,
    /// How long a client connection may idle between requests.
    pub keep_alive: Duration,
    /// Connecting to an endpoint.
    pub connect: Duration,
    /// From a request sent whole to its response's head.
    pub response: Duration,
    /// How long both sides of a tunnel may be silent.
    pub tunnel: Duration,
    /// A whole TLS handshake.
    pub handshake: Duration,
    /// A whole exchange, from the request's head to the end of the response, if there is a bound.
    pub request: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            connect: Duration::from_secs(3),
            response: Duration::from_secs(60),
            tunnel: Duration::from_secs(600),
            handshake: Duration::from_secs(5),
            request: None,
        }
    }
}

/// How much a client may ask one worker to hold or to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request's or response's head, start line included.
    pub head_bytes: usize,
    /// Bytes of a request's line, its end included.
    pub request_line_bytes: usize,
    /// Fields in one head.
    pub fields: usize,
    /// Whether field names of requests may have underscores.
    pub underscores: bool,
    /// Bytes of a request's body; a route may set its own.
    pub body_bytes: u64,
    /// Bytes a second at which a client must send or take a body, over the whole of it, after
    /// [`Timeouts::body`]; 0 for no such bound.
    pub body_rate: u64,
    /// Client connections open at once, the machine over; `None` takes what RLIMIT_NOFILE allows.
    pub connections: Option<usize>,
    /// TLS handshakes going on at once, the machine over: each costs far more than a request.
    pub handshakes: usize,
    /// Requests served on one connection before it is closed.
    pub requests_per_connection: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            request_line_bytes: 8 * 1024,
            fields: 100,
            underscores: false,
            body_bytes: 10 * 1024 * 1024,
            body_rate: 240,
            connections: None,
            handshakes: 1024,
            requests_per_connection: 10_000,
        }
    }
}
