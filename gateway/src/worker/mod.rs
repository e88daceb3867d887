//! All that one core owns. `mailbox` is the one seam between threads.

#![expect(clippy::disallowed_types, reason = "a worker's parts are handed over by another thread")]

pub mod mailbox;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::Config;
use crate::telemetry::{access_log, metrics};
use mailbox::{Event, Handle};

/// What control hands to a worker when it starts.
pub struct Spec {
    /// Position among the workers, from 0.
    pub index: usize,
    /// The CPU to run on.
    pub core: usize,
    /// The checked configuration.
    pub config: Arc<Config>,
    /// The resolved addresses of each upstream, in the configuration's order; none empty.
    pub endpoints: Arc<Vec<Vec<SocketAddr>>>,
    /// This worker's member of each listener's SO_REUSEPORT group, in the configuration's order.
    pub listeners: Vec<TcpListener>,
    /// This worker's counters.
    pub metrics: Arc<metrics::Worker>,
    /// Where access lines go.
    pub access_log: Option<access_log::Sender>,
    /// Client connections this worker may hold open.
    pub connections_max: usize,
    /// Called on the worker's thread for each event; must not block.
    pub events: Box<dyn Fn(Event) + Send>,
}

/// Starts a worker's thread.
///
/// # Errors
/// When the thread cannot be started. What fails later arrives as [`Event::Died`].
pub fn start(_spec: Spec) -> io::Result<Handle> {
    Err(io::ErrorKind::Unsupported.into())
}
