//! Named groups of endpoints, and the connections a worker keeps to them.

#![expect(clippy::disallowed_types, reason = "counters are read by the control thread")]

mod balance;
mod pool;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::exchange::Error;
use crate::net::{Buffers, Deadline, Deadlines, Stream, proxy_protocol};
use crate::telemetry::metrics;
use crate::tls::{self, Connector};
use balance::RoundRobin;
use pool::Endpoint;

/// One upstream as configured. Addresses come later: control resolves names before a worker starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What routes call it.
    pub name: String,
    /// At least one.
    pub endpoints: Vec<EndpointSpec>,
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
}

/// One `host:port` as written: the host is a name or an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSpec {
    /// A DNS name, or an IPv4 or IPv6 address.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

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
    balance: RoundRobin,
    settings: Rc<Settings>,
}

impl Upstream {
    /// An upstream without connections that asks the endpoint `first` first.
    pub fn new(addresses: &[Address], first: usize, settings: Settings) -> Self {
        let settings = Rc::new(settings);
        Self {
            name: settings.spec.name.as_str().into(),
            endpoints: addresses
                .iter()
                .map(|address| Endpoint::new(address.clone(), Rc::clone(&settings)))
                .collect(),
            balance: RoundRobin::new(first),
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

    /// A connection to the endpoint whose turn it is, or to the next one that accepts. A kept one
    /// is taken unless `fresh` is asked for.
    ///
    /// # Errors
    /// When none accepts.
    pub async fn checkout(&self, fresh: bool) -> Result<Lease, Error> {
        let mut error = Error::Unavailable;
        for index in self.balance.order(self.endpoints.len()) {
            let Some(endpoint) = self.endpoints.get(index) else { continue };
            if !fresh && let Some(stream) = endpoint.take() {
                return Ok(Lease { stream, endpoint: Rc::clone(endpoint), reused: true });
            }
            // Boxed, because most exchanges find a kept connection, and its timer would make every
            // exchange's future larger and oddly aligned.
            match Box::pin(self.connect(endpoint)).await {
                Ok(stream) => {
                    self.metrics().connections.add(1);
                    return Ok(Lease { stream, endpoint: Rc::clone(endpoint), reused: false });
                }
                Err(failure) => {
                    self.metrics().connect_failures.add(1);
                    error = failure;
                }
            }
        }
        Err(error)
    }
}

impl Upstream {
    async fn connect(&self, endpoint: &Endpoint) -> Result<Stream, Error> {
        let Settings { connect_timeout, deadlines, connector, buffers, .. } = &*self.settings;
        let Address { socket, host } = &endpoint.address;
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

/// A connection to an endpoint for one exchange. Dropping it closes the connection.
pub struct Lease {
    /// The connection.
    pub stream: Stream,
    endpoint: Rc<Endpoint>,
    reused: bool,
}

impl Lease {
    /// Whether the connection has served an exchange before, so that it may have died unseen.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The endpoint's address.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address.socket
    }

    /// Keeps the connection for another exchange. Only for one whose request went out whole, whose
    /// response came in whole, and behind which nothing came.
    pub fn release(self) {
        self.endpoint.keep(self.stream);
    }
}
