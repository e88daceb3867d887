//! What one request and its response are made of: who asked, what it may cost, how it ended.

use std::time::Duration;

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
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            connect: Duration::from_secs(3),
            response: Duration::from_secs(60),
        }
    }
}

/// How much a client may ask one worker to hold or to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request's or response's head, start line included.
    pub head_bytes: usize,
    /// Fields in one head.
    pub fields: usize,
    /// Bytes of a request's body; a route may set its own.
    pub body_bytes: u64,
    /// Client connections open at once, the machine over; `None` takes what RLIMIT_NOFILE allows.
    pub connections: Option<usize>,
    /// Requests served on one connection before it is closed.
    pub requests_per_connection: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            fields: 100,
            body_bytes: 10 * 1024 * 1024,
            connections: None,
            requests_per_connection: 10_000,
        }
    }
}
