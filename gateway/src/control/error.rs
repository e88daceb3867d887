//! Why the gateway could not start, or did not end well: one line each.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why [`run`](super::run) failed.
#[derive(Debug)]
pub enum Error {
    /// The control thread's own runtime could not be made.
    Runtime(io::Error),
    /// A signal cannot be caught.
    Signals(io::Error),
    /// Names cannot be looked up, or not all of them where all are required.
    Resolve(String),
    /// Keys that are required cannot be fetched.
    Keys(String),
    /// A listener's address cannot be bound.
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The admin address cannot be bound.
    Admin {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The admin socket cannot be made.
    Socket {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The access log cannot be opened.
    AccessLog {
        /// The file; none is standard output.
        path: Option<PathBuf>,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel program is required, and could not be attached.
    Xdp(Box<dyn std::error::Error + Send + Sync>),
    /// A worker's thread cannot be started.
    Worker {
        /// Which worker.
        index: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Some worker did not come up.
    StartTimeout {
        /// How many listen.
        listening: usize,
        /// How many should.
        workers: usize,
    },
    /// There is no randomness for the keys of session tickets.
    Tickets(String),
    /// The driver asked for cannot be used here.
    Driver(String),
    /// A worker could not go on.
    Died {
        /// Which worker.
        worker: usize,
        /// Why.
        reason: String,
    },
    /// Connections outlived the drain, or nobody wanted to wait for them.
    Cut {
        /// Client connections that were open.
        connections: u64,
        /// A second signal ended the drain, not its timeout.
        second_signal: bool,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(source) => write!(f, "cannot start the control thread: {source}"),
            Self::Signals(source) => write!(f, "cannot catch signals: {source}"),
            Self::Resolve(reason) | Self::Keys(reason) => f.write_str(reason),
            Self::Listen { address, source } => bind_failed(f, "listen", *address, source),
            Self::Admin { address, source } => bind_failed(f, "admin", *address, source),
            Self::Socket { path, source } => {
                write!(f, "admin socket {}: {source}", path.display())
            }
            Self::AccessLog { path: Some(path), source } => {
                write!(f, "access log {}: {source}", path.display())
            }
            Self::AccessLog { path: None, source } => {
                write!(f, "access log: cannot use standard output: {source}")
            }
            Self::Xdp(source) => write!(f, "xdp: {source}"),
            Self::Worker { index, source } => write!(f, "cannot start worker {index}: {source}"),
            Self::StartTimeout { listening, workers } => {
                write!(f, "only {listening} of {workers} workers came up in time")
            }
            Self::Tickets(reason) => write!(f, "cannot make keys for TLS tickets: {reason}"),
            Self::Driver(reason) => write!(f, "io_uring cannot be used: {reason}"),
            Self::Died { worker, reason } => write!(f, "worker {worker} died: {reason}"),
            Self::Cut { connections, second_signal: false } => {
                write!(f, "drain timeout: {connections} connections were cut")
            }
            Self::Cut { connections, second_signal: true } => {
                write!(f, "second signal: {connections} connections were cut")
            }
        }
    }
}

/// Says what to do where the kernel's word alone leaves one guessing.
fn bind_failed(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    address: SocketAddr,
    source: &io::Error,
) -> fmt::Result {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            write!(f, "{what} {address}: address already in use (another program holds it)")
        }
        io::ErrorKind::PermissionDenied => write!(
            f,
            "{what} {address}: permission denied (a port below 1024 needs CAP_NET_BIND_SERVICE)"
        ),
        io::ErrorKind::AddrNotAvailable => {
            write!(f, "{what} {address}: no interface of this machine has this address")
        }
        _ => write!(f, "{what} {address}: {source}"),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Runtime(source)
            | Self::Signals(source)
            | Self::Listen { source, .. }
            | Self::Admin { source, .. }
            | Self::Socket { source, .. }
            | Self::AccessLog { source, .. }
            | Self::Worker { source, .. } => Some(source),
            Self::Xdp(source) => Some(source.as_ref()),
            Self::StartTimeout { .. }
            | Self::Resolve(_)
            | Self::Keys(_)
            | Self::Tickets(_)
            | Self::Driver(_)
            | Self::Died { .. }
            | Self::Cut { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_bind_says_what_to_do() {
        let message = |kind: io::ErrorKind| {
            Error::Listen { address: "0.0.0.0:80".parse().unwrap(), source: kind.into() }
                .to_string()
        };
        assert_eq!(
            message(io::ErrorKind::AddrInUse),
            "listen 0.0.0.0:80: address already in use (another program holds it)"
        );
        assert_eq!(
            message(io::ErrorKind::PermissionDenied),
            "listen 0.0.0.0:80: permission denied (a port below 1024 needs CAP_NET_BIND_SERVICE)"
        );
    }
}
