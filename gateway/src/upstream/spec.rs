//! What a configuration says of an upstream.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::balance::Balance;
use super::health::Health;
use super::load::Ejection;
use crate::net::proxy_protocol;
use crate::tls;

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
    /// After the time within which such a share of answers begins, percent, another endpoint is asked, too.
    pub hedge: Option<u32>,
    /// Tells endpoints how many milliseconds are left for the answer.
    pub timeout_field: Option<String>,
    /// The most requests each endpoint is given at once, the machine over, if there is a bound.
    pub connections_max: Option<usize>,
    /// Who waits while all endpoints have as many as that.
    pub pending: Pending,
    /// How long an endpoint that is new or back takes to get its whole share; 0 for no time.
    pub slow_start: Duration,
    /// How each endpoint is asked whether it is well, if it is.
    pub health: Option<Probe>,
    /// Idle connections kept per worker.
    pub idle_connections: usize,
    /// How long one of them may idle.
    pub idle_timeout: Duration,
    /// Whether each connection says first whose it is; it then serves one request.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// How TLS is spoken to it, if it is.
    pub tls: Option<tls::client::Settings>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Times beyond the first.
    pub attempts: u32,
    /// How many of a worker's requests may be such times, percent; some are free.
    pub budget: u32,
    /// Answers that are as good as none.
    pub statuses: Vec<u16>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, budget: 20, statuses: Vec::new() }
    }
}

#[cfg(test)]
impl Spec {
    /// One with the defaults of a configuration.
    pub(crate) fn of(name: &str, endpoints: Vec<EndpointSpec>) -> Self {
        Self {
            name: name.to_owned(),
            endpoints,
            balance: Balance::default(),
            ejection: Ejection::default(),
            retry: Retry::default(),
            hedge: None,
            timeout_field: None,
            connections_max: None,
            pending: Pending::default(),
            slow_start: Duration::ZERO,
            health: None,
            idle_connections: 1,
            idle_timeout: Duration::from_secs(1),
            proxy_protocol: None,
            tls: None,
        }
    }
}

/// Requests that wait until an endpoint may be given one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// How many at once, the machine over.
    pub max: usize,
    /// For how long.
    pub timeout: Duration,
}

impl Default for Pending {
    fn default() -> Self {
        Self { max: 1024, timeout: Duration::from_secs(1) }
    }
}

/// How an endpoint is asked whether it is well: once for the machine, not by each worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked for by GET; `None` to see only whether it accepts connections.
    pub path: Option<String>,
    /// What `Host` says; `None` for what the endpoint is written with.
    pub host: Option<String>,
    /// The answers that are well, first and last.
    pub statuses: (u16, u16),
    /// From one end to the next beginning, about.
    pub interval: Duration,
    /// The most it may take.
    pub timeout: Duration,
    /// So many good ones in a row make it up.
    pub rise: u32,
    /// So many bad ones in a row make it down.
    pub fall: u32,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// What to connect to.
    pub socket: SocketAddr,
    /// The host it was configured by.
    pub host: String,
    /// Its share beside others.
    pub weight: u32,
    /// Whether it is asked only when no others are left.
    pub backup: bool,
    /// What probes find of it; the same for all workers.
    pub health: Health,
}
