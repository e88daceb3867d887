//! Named groups of endpoints, and the connections a worker keeps to them.

#![expect(clippy::disallowed_types, reason = "counters are read by the control thread")]

mod attempts;
pub mod balance;
pub mod health;
pub mod load;
mod pool;
mod quantile;
mod queue;
mod spec;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::Affinity;
use crate::net::{Buffers, Deadline, Deadlines, proxy_protocol};
use crate::telemetry::metrics;
use crate::tls::Connector;
pub use attempts::{Attempts, Lease};
use balance::Chooser;
pub use health::Health;
use load::{Load, Terms};
use pool::Endpoint;
use quantile::Quantile;
use queue::Queue;
pub use spec::{Address, EndpointSpec, Pending, Probe, Retry, Spec};

/// Retries a worker has at first, and saves at most.
const RETRIES_SAVED: f64 = 10.0;

/// What all endpoints of one upstream have in common on one worker.
pub struct Settings {
    /// What the configuration says.
    pub spec: Spec,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The most requests this worker gives an endpoint at once.
    pub requests_max: u32,
    /// The most requests that wait on this worker.
    pub pending_max: usize,
    /// The worker's deadlines.
    pub deadlines: Rc<Deadlines>,
    /// What the specification's TLS comes to.
    pub connector: Option<Connector>,
    /// The worker's buffers.
    pub buffers: Rc<Buffers>,
    /// The worker's counters.
    pub counters: Arc<metrics::Worker>,
    /// What the worker counts about this one.
    pub metrics: Arc<metrics::Upstream>,
    /// The worker's position, from 0.
    pub worker: usize,
}

/// One upstream as a worker uses it.
pub struct Upstream {
    /// What routes call it.
    pub name: Rc<str>,
    group: RefCell<Rc<Group>>,
    /// Retries that the budget has left.
    retries_left: Cell<f64>,
    queue: Rc<Queue>,
    /// When another endpoint is asked, too, microseconds after the first.
    hedge_after: Option<Quantile>,
    settings: Rc<Settings>,
}

/// The endpoints there are at one time. An exchange asks those there were when it began.
struct Group {
    endpoints: Vec<Rc<Endpoint>>,
    /// In the same order.
    loads: Vec<Rc<Load>>,
    chooser: Chooser,
    addresses: Vec<Address>,
}

impl Upstream {
    /// An upstream without connections for this worker.
    pub fn new(addresses: &[Address], settings: Settings) -> Self {
        let settings = Rc::new(settings);
        let queue = Rc::<Queue>::default();
        let group = Group::new(addresses, &settings, None);
        Self {
            name: settings.spec.name.as_str().into(),
            group: RefCell::new(Rc::new(group)),
            retries_left: Cell::new(RETRIES_SAVED),
            queue,
            hedge_after: settings.spec.hedge.map(Quantile::new),
            settings,
        }
    }

    /// Whether it is what these would make, endpoints aside.
    pub fn is_same(&self, spec: &Spec, connect_timeout: Duration) -> bool {
        let own = &self.settings.spec;
        *own == Spec { endpoints: own.endpoints.clone(), ..spec.clone() }
            && self.settings.connect_timeout == connect_timeout
    }

    /// From now on these are its endpoints. Those that stay keep their connections and what is known of
    /// them; requests that others still answer are not disturbed.
    pub fn set_addresses(&self, addresses: &[Address]) {
        let before = Rc::clone(&self.group.borrow());
        if before.addresses == addresses {
            return;
        }
        let group = Rc::new(Group::new(addresses, &self.settings, Some(&before)));
        let gone = before.endpoints.iter();
        for endpoint in gone.filter(|old| !group.endpoints.iter().any(|new| Rc::ptr_eq(old, new))) {
            endpoint.retire();
        }
        self.group.replace(group);
        for _ in 0..self.queue.len() {
            self.queue.call();
        }
    }

    /// Whether each connection says first whose it is.
    pub fn proxy_protocol(&self) -> Option<proxy_protocol::Version> {
        self.settings.spec.proxy_protocol
    }

    /// The field in which endpoints are told how many milliseconds are left, if they are.
    pub fn timeout_field(&self) -> Option<&str> {
        self.settings.spec.timeout_field.as_deref()
    }

    /// What this worker counts about it.
    pub fn metrics(&self) -> &metrics::Upstream {
        &self.settings.metrics
    }

    /// The same, for what outlives it.
    pub fn shared_metrics(&self) -> &Arc<metrics::Upstream> {
        &self.settings.metrics
    }

    /// What of requests decides where they go, if anything.
    pub fn affinity(&self) -> Option<&Affinity> {
        self.settings.spec.balance.affinity()
    }
}

/// What it kept is closed; nobody else would.
impl Drop for Upstream {
    fn drop(&mut self) {
        for endpoint in &self.group.borrow().endpoints {
            endpoint.retire();
        }
    }
}

impl Group {
    fn new(addresses: &[Address], settings: &Rc<Settings>, before: Option<&Self>) -> Self {
        let named = |address: &Address| (address.socket.to_string(), address.weight);
        let names: Vec<_> = addresses.iter().map(named).collect();
        // What there is from the beginning need not start slowly.
        let born = before.map_or(0, |_| Deadline::now().millis());
        let (endpoints, loads) = addresses
            .iter()
            .map(|address| {
                let known = before.and_then(|before| before.find(address));
                let load = || {
                    let terms = Terms {
                        weight: address.weight,
                        backup: address.backup,
                        requests_max: settings.requests_max,
                        slow_start: settings.spec.slow_start,
                        born: if known.is_some() { 0 } else { born },
                        health: address.health.clone(),
                    };
                    Rc::new(Load::new(terms))
                };
                match known {
                    Some((old, endpoint, known)) => {
                        let load = if old == address { Rc::clone(known) } else { load() };
                        (Rc::clone(endpoint), load)
                    }
                    None => (Endpoint::new(address, Rc::clone(settings)), load()),
                }
            })
            .unzip();
        let chooser = Chooser::new(settings.spec.balance.clone(), &names, settings.worker as u64);
        Self { endpoints, loads, chooser, addresses: addresses.to_vec() }
    }

    fn find(&self, address: &Address) -> Option<(&Address, &Rc<Endpoint>, &Rc<Load>)> {
        let known = self.addresses.iter().zip(&self.endpoints).zip(&self.loads);
        let mut known = known.map(|((address, endpoint), load)| (address, endpoint, load));
        known.find(|(old, ..)| old.socket == address.socket && old.host == address.host)
    }
}
