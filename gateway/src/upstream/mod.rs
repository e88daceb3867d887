//! Named groups of endpoints, and the connections a worker keeps to them.

use std::time::Duration;

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
}

/// One `host:port` as written: the host is a name or an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSpec {
    /// A DNS name, or an IPv4 or IPv6 address.
    pub host: String,
    /// Never 0.
    pub port: u16,
}
