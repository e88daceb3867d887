//! Connections to endpoints that wait for their next request.

#![expect(clippy::disallowed_types, reason = "counters are read by the control thread")]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Address, Settings};
use crate::net::{Deadline, Stream, rt};
use crate::telemetry::metrics;

/// How often idle connections are looked over. Only while there are any.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often each endpoint is complained of.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// One address of an upstream and the connections kept to it.
pub struct Endpoint {
    /// What to connect to.
    pub socket: SocketAddr,
    /// The host it was configured by.
    pub host: Box<str>,
    /// What the worker counts about it.
    pub metrics: Arc<metrics::Endpoint>,
    /// When it may be complained of again.
    complained: Cell<Option<Deadline>>,
    settings: Rc<Settings>,
    idle: RefCell<Vec<Idle>>,
    sweeping: Cell<bool>,
    /// Whether nobody is to be sent there any more.
    retired: Cell<bool>,
}

struct Idle {
    stream: Stream,
    until: Deadline,
}

impl Endpoint {
    /// An endpoint without connections.
    pub fn new(address: &Address, settings: Rc<Settings>) -> Rc<Self> {
        Rc::new(Self {
            socket: address.socket,
            host: address.host.as_str().into(),
            metrics: settings.metrics.endpoint(address.socket),
            complained: Cell::new(None),
            settings,
            idle: RefCell::default(),
            sweeping: Cell::new(false),
            retired: Cell::new(false),
        })
    }

    /// Closes what is kept, and keeps no more: it is no endpoint any longer.
    pub fn retire(&self) {
        self.retired.set(true);
        let idle = self.idle.take();
        self.settings.metrics.connections_idle.sub(idle.len() as u64);
        self.settings.metrics.forget(&self.metrics);
    }

    /// Whether a failure is worth a line: not when there was one just now.
    pub fn may_complain(&self) -> bool {
        let due = self.complained.get().is_none_or(|until| until <= Deadline::now());
        if due {
            self.complained.set(Some(Deadline::after(COMPLAINT_INTERVAL)));
        }
        due
    }

    /// The connection used last that is still good. One with anything to read is not: an endpoint
    /// owes nobody an answer, so it is closing, broken or out of step (RFC 9112 §9.2).
    pub fn take(&self) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(kept) = idle.pop() {
            self.settings.metrics.connections_idle.sub(1);
            if kept.stream.is_quiet() {
                return Some(kept.stream);
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended cleanly.
    pub fn keep(self: &Rc<Self>, stream: Stream) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.settings.spec.idle_connections || self.retired.get() {
            return;
        }
        let until = Deadline::after(self.settings.spec.idle_timeout);
        idle.push(Idle { stream, until });
        self.settings.metrics.connections_idle.add(1);
        if !self.sweeping.replace(true) {
            rt::spawn(Rc::clone(self).sweep(), || {});
        }
    }

    /// Closes what has idled too long or was closed by the endpoint, until nothing is left.
    async fn sweep(self: Rc<Self>) {
        loop {
            rt::sleep(SWEEP_INTERVAL).await;
            let now = Deadline::after(Duration::ZERO);
            let mut idle = self.idle.borrow_mut();
            let before = idle.len();
            idle.retain(|kept| kept.until > now && kept.stream.is_quiet());
            self.settings.metrics.connections_idle.sub((before - idle.len()) as u64);
            if idle.is_empty() {
                self.sweeping.set(false);
                return;
            }
        }
    }
}
