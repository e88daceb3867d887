//! How many files the process may open, and how many connections that allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Descriptors for all that is not a connection: listeners, rings, kernel maps, logs, the admin
/// address, idle upstream connections that a new client is about to displace.
const RESERVED: u64 = 256;

/// A proxied client connection needs one descriptor on each side.
const PER_CONNECTION: u64 = 2;

/// Where the limit on descriptors is no limit (Docker's default is a thousand million), memory
/// is: a million connections that wait cost some gigabytes.
const CONNECTIONS_AUTO_MAX: u64 = 1 << 20;

/// Raises the soft limit on descriptors to the hard one and returns what holds then.
pub(super) fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let holds = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!("cannot raise the limit on open files: {error}");
            limit.current
        }
    };
    holds.unwrap_or(u64::MAX)
}

/// Client connections one worker may hold, at least one: its share of the configured number, or
/// of what `descriptors` allow.
pub(super) fn connections_max(config: &Config, descriptors: u64) -> usize {
    share(config.limits.connections, config.cores.len(), descriptors)
}

/// Client connections that so many descriptors are enough for, on all workers.
pub fn connections_for(descriptors: u64) -> usize {
    let allowed = (descriptors.saturating_sub(RESERVED) / PER_CONNECTION).min(CONNECTIONS_AUTO_MAX);
    usize::try_from(allowed).unwrap_or(usize::MAX)
}

fn share(configured: Option<usize>, workers: usize, descriptors: u64) -> usize {
    let allowed = connections_for(descriptors);
    let connections = configured.unwrap_or(allowed);
    if connections > allowed {
        tracing::warn!(
            "limits.connections is {connections}, but {descriptors} open files (ulimit -n, \
             LimitNOFILE=) are enough for {allowed}"
        );
    }
    (connections / workers.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_reaches_the_hard_limit() {
        let holds = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(limit.current.unwrap_or(u64::MAX), holds);
    }

    #[test]
    fn each_worker_gets_its_share() {
        assert_eq!(share(None, 2, 1256), 250);
        assert_eq!(share(Some(100), 2, 1256), 50);
        assert_eq!(share(Some(10_000), 2, 1256), 5_000);
        assert_eq!(share(None, 1, u64::MAX), 1 << 20);
        assert_eq!(share(None, 4, 100), 1);
        assert_eq!(share(Some(1), 4, 1256), 1);
    }
}
