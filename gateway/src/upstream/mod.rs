//! Named groups of endpoints, and the connections a worker keeps to them.

#![expect(clippy::disallowed_types, reason = "counters are read by the control thread")]

pub mod balance;
pub mod load;
mod pool;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::{Affinity, Error};
use crate::net::{Buffers, Deadline, Deadlines, Stream, proxy_protocol};
use crate::telemetry::metrics;
use crate::tls::{self, Connector};
use balance::{Balance, Chooser};
use load::{Ejection, Load};
use pool::Endpoint;

/// One upstream as configured. Addresses come later: control resolves names before a worker starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What routes call it.
    pub name: String,
    /// At least one.
    pub endpoints: Vec<EndpointSpec>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// When one is not asked for a while.
    pub ejection: Ejection,
    /// When a request is sent again.
    pub retry: Retry,
    /// Idle connections kept per worker.
    pub idle_connections: usize,
    /// How long one of them may idle.
    pub idle_timeout: Duration,
    /// Whether each connection says first whose it is; it then serves one request.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// How TLS is spoken to it, if it is.
    pub tls: Option<tls::client::Settings>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What to connect to.
    pub socket: SocketAddr,
    /// The host it was configured by.
    pub host: String,
    /// Its share beside others.
    pub weight: u32,
    /// Whether it is asked only when no others are left.
    pub backup: bool,
}

/// One `host:port` as written: the host is a name or an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSpec {
    /// A DNS name, or an IPv4 or IPv6 address.
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// Its share beside others, for each of its addresses.
    pub weight: u32,
    /// Whether it is asked only when no others are left.
    pub backup: bool,
}

/// As a configuration has it.
impl fmt::Display for EndpointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// When a request is sent again, to another endpoint if there is one. Only what is idempotent and still
/// whole at hand is, and only while no byte of an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Times beyond the first.
    pub attempts: u32,
    /// How many of a worker's requests may be such times, percent; some are free.
    pub budget: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, budget: 20 }
    }
}

/// Retries a worker has at first, and saves at most.
const RETRIES_SAVED: f64 = 10.0;

/// What all endpoints of one upstream have in common on one worker.
pub struct Settings {
    /// What the configuration says.
    pub spec: Spec,
    /// How long connecting may take.
    pub connect_timeout: Duration,
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
}

impl Settings {
    fn metrics(&self) -> &metrics::Upstream {
        &self.metrics
    }
}

/// One upstream as a worker uses it.
pub struct Upstream {
    /// What routes call it.
    pub name: Rc<str>,
    endpoints: Vec<Rc<Endpoint>>,
    /// In the same order.
    loads: Vec<Rc<Load>>,
    chooser: Chooser,
    /// Retries that the budget has left.
    retries_left: Cell<f64>,
    settings: Rc<Settings>,
}

impl Upstream {
    /// An upstream without connections for this worker.
    pub fn new(addresses: &[Address], worker: usize, settings: Settings) -> Self {
        let settings = Rc::new(settings);
        let named = |address: &Address| (address.socket.to_string(), address.weight);
        let names: Vec<_> = addresses.iter().map(named).collect();
        let new_load = |address: &Address| Rc::new(Load::new(address.weight, address.backup));
        Self {
            name: settings.spec.name.as_str().into(),
            endpoints: addresses
                .iter()
                .map(|address| Endpoint::new(address.clone(), Rc::clone(&settings)))
                .collect(),
            loads: addresses.iter().map(new_load).collect(),
            chooser: Chooser::new(settings.spec.balance.clone(), &names, worker as u64),
            retries_left: Cell::new(RETRIES_SAVED),
            settings,
        }
    }

    /// Whether it is what these would make.
    pub fn is_same(&self, spec: &Spec, addresses: &[Address], connect_timeout: Duration) -> bool {
        self.settings.spec == *spec
            && self.settings.connect_timeout == connect_timeout
            && self.endpoints.iter().map(|endpoint| &endpoint.address).eq(addresses)
    }

    /// Whether each connection says first whose it is.
    pub fn proxy_protocol(&self) -> Option<proxy_protocol::Version> {
        self.settings.spec.proxy_protocol
    }

    /// What this worker counts about it.
    pub fn metrics(&self) -> &metrics::Upstream {
        self.settings.metrics()
    }

    /// What of requests decides where they go, if anything.
    pub fn affinity(&self) -> Option<&Affinity> {
        self.chooser.affinity()
    }

    /// A connection to the endpoint that is chosen for the request at this point, or to the next one
    /// that accepts; none of those `tried`, to which those that fail here are added. A kept one is taken
    /// unless `fresh` is asked for.
    ///
    /// # Errors
    /// When none accepts.
    pub async fn checkout(
        &self,
        point: Option<u64>,
        tried: &mut Vec<usize>,
        fresh: bool,
    ) -> Result<Lease, Error> {
        let mut error = Error::Unavailable;
        let now = Deadline::now().millis();
        while let Some(index) = self.chooser.choose(&self.loads, tried, now, point) {
            let (Some(endpoint), Some(load)) = (self.endpoints.get(index), self.loads.get(index))
            else {
                break;
            };
            let turn = Turn::new(load);
            let endpoint = Rc::clone(endpoint);
            if !fresh && let Some(stream) = endpoint.take() {
                return Ok(Lease { stream, endpoint, turn, index, reused: true });
            }
            // Boxed, because most exchanges find a kept connection, and its timer would make every
            // exchange's future larger and oddly aligned.
            match Box::pin(self.connect(&endpoint)).await {
                Ok(stream) => {
                    self.metrics().connections.add(1);
                    return Ok(Lease { stream, endpoint, turn, index, reused: false });
                }
                Err(failure) => {
                    self.metrics().connect_failures.add(1);
                    self.note_failure(index);
                    tried.push(index);
                    error = failure;
                }
            }
        }
        Err(error)
    }

    /// Takes down that an endpoint has failed, and does not ask it for a while when that happens too
    /// often, unless too many are not asked already.
    pub fn note_failure(&self, index: usize) {
        let ejection = &self.settings.spec.ejection;
        let Some(load) = self.loads.get(index) else { return };
        if !load.failed(ejection) {
            return;
        }
        let now = Deadline::now().millis();
        let ejected = self.loads.iter().filter(|load| load.is_ejected(now)).count();
        if (ejected + 1) * 100 > self.loads.len() * ejection.share_max as usize {
            return;
        }
        let time = load.ejection_time(ejection);
        load.eject(now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        self.metrics().ejections.add(1);
        if let Some(endpoint) = self.endpoints.get(index) {
            let (upstream, endpoint) = (&*self.name, endpoint.address.socket);
            tracing::warn!(upstream, %endpoint, "failed too often, not asked for {time:?}");
        }
    }

    /// Adds an endpoint to those tried; when none is left, it may be tried again.
    pub fn leave_out(&self, index: usize, tried: &mut Vec<usize>) {
        tried.push(index);
        if tried.len() >= self.endpoints.len() {
            tried.clear();
        }
    }

    /// A request is about to be sent, which earns a part of a retry.
    pub fn begin_request(&self) {
        let earned = f64::from(self.settings.spec.retry.budget) / 100.0;
        self.retries_left.set((self.retries_left.get() + earned).min(RETRIES_SAVED));
    }

    /// Whether a request that has been sent so many times may be sent once more. Counts it.
    pub fn may_retry(&self, sent: u32) -> bool {
        let left = self.retries_left.get();
        let may = sent <= self.settings.spec.retry.attempts && left >= 1.0;
        if may {
            self.retries_left.set(left - 1.0);
        }
        may
    }
}

impl Upstream {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Stream, Error> {
        let Settings { connect_timeout, deadlines, connector, buffers, .. } = &*self.settings;
        let Address { socket, host, .. } = &endpoint.address;
        let failed = |error: io::Error, otherwise: Error| {
            tracing::debug!(upstream = &*self.name, endpoint = %socket, %error, "connect failed");
            if error.kind() == io::ErrorKind::TimedOut {
                self.settings.counters.deadline(metrics::Deadline::Connect);
                return Error::ConnectTimeout;
            }
            otherwise
        };
        let mut stream = Stream::connect(*socket, *connect_timeout, deadlines)
            .await
            .map_err(|error| failed(error, Error::Unavailable))?;
        if let Some(connector) = connector {
            let until = Deadline::after(*connect_timeout);
            let agreed = match connector.session(host) {
                Ok(session) => stream.connect_tls(session, buffers, until).await,
                Err(reason) => Err(io::Error::other(reason)),
            };
            agreed.map_err(|error| {
                if endpoint.may_complain() {
                    let name = connector.server_name(host);
                    let upstream = &*self.name;
                    tracing::warn!(upstream, endpoint = %socket, name, "TLS failed: {error}");
                }
                failed(error, Error::UpstreamTls)
            })?;
        }
        Ok(stream)
    }
}

/// A request that counts as in flight at an endpoint for as long as this lives.
struct Turn(Rc<Load>);

impl Turn {
    fn new(load: &Rc<Load>) -> Self {
        load.begin();
        Self(Rc::clone(load))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A connection to an endpoint for one exchange. Dropping it closes the connection.
pub struct Lease {
    /// The connection.
    pub stream: Stream,
    endpoint: Rc<Endpoint>,
    turn: Turn,
    index: usize,
    reused: bool,
}

impl Lease {
    /// Whether the connection has served an exchange before, so that it may have died unseen.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The endpoint's position in its upstream.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The endpoint's address.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address.socket
    }

    /// Takes down how long the endpoint took to begin its answer.
    pub fn note_answer(&self, latency: Duration) {
        let latency = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.turn.0.answered(latency, Deadline::now().millis());
    }

    /// Keeps the connection for another exchange. Only for one whose request went out whole, whose
    /// response came in whole, and behind which nothing came.
    pub fn release(self) {
        self.endpoint.keep(self.stream);
    }
}
