//! Which route a request takes: a pure look-up, no I/O, no clock.

/// What a route asks of the request's authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host, or none.
    Any,
    /// This name, lower case, without port.
    Exact(String),
    /// Any name that ends in this suffix, which begins with a dot: `*.example.com` is `.example.com`.
    Wildcard(String),
}

/// What a route asks of the request's path (without query).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path and no other.
    Exact(String),
    /// Every path that begins with this prefix, which ends in `/`: `/api/*` is `/api/`.
    Prefix(String),
}
