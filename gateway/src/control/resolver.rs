//! Names to addresses, before a worker starts: a worker never resolves.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::Error;
use crate::upstream::{Address, EndpointSpec, Spec};

/// The addresses of every upstream, in the order of `upstreams`; none is empty. Asks the
/// system's resolver, so /etc/hosts counts, and blocks for as long as that takes.
pub(super) fn resolve(upstreams: &[Spec]) -> Result<Vec<Vec<Address>>, Error> {
    upstreams.iter().map(resolve_upstream).collect()
}

fn resolve_upstream(upstream: &Spec) -> Result<Vec<Address>, Error> {
    let mut addresses = Vec::new();
    for endpoint in &upstream.endpoints {
        let resolved = look_up(endpoint).map_err(|source| Error::Resolve {
            upstream: upstream.name.clone(),
            host: endpoint.host.clone(),
            source,
        })?;
        addresses.extend(resolved.into_iter().map(|socket| Address {
            socket,
            host: endpoint.host.clone(),
            weight: endpoint.weight,
            backup: endpoint.backup,
        }));
    }
    Ok(addresses)
}

/// Every address of a name is an endpoint of its own. The resolver repeats an address when a
/// name is listed twice, which would double its share.
fn look_up(endpoint: &EndpointSpec) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in (endpoint.host.as_str(), endpoint.port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn upstream(name: &str, hosts: &[&str]) -> Spec {
        let endpoint = |host: &&str| EndpointSpec {
            host: (*host).to_owned(),
            port: 9001,
            weight: 1,
            backup: false,
        };
        Spec {
            name: name.to_owned(),
            endpoints: hosts.iter().map(endpoint).collect(),
            balance: Default::default(),
            ejection: Default::default(),
            retry: Default::default(),
            idle_connections: 1,
            idle_timeout: Duration::from_secs(1),
            proxy_protocol: None,
            tls: None,
        }
    }

    #[test]
    fn addresses_need_no_resolver_and_keep_their_order() {
        let resolved =
            resolve(&[upstream("a", &["192.0.2.2", "::1"]), upstream("b", &["192.0.2.1"])]);
        let address = |socket: &str, host: &str| Address {
            socket: socket.parse().unwrap(),
            host: host.to_owned(),
            weight: 1,
            backup: false,
        };
        assert_eq!(
            resolved.unwrap(),
            [
                vec![address("192.0.2.2:9001", "192.0.2.2"), address("[::1]:9001", "::1")],
                vec![address("192.0.2.1:9001", "192.0.2.1")],
            ]
        );
    }

    #[test]
    fn localhost_resolves() {
        let resolved = resolve(&[upstream("a", &["localhost"])]).unwrap();
        assert!(resolved[0].iter().all(|address| address.socket.ip().is_loopback()));
    }

    #[test]
    fn an_unknown_host_names_its_upstream() {
        // RFC 6761 §6.4: no resolver knows a name below "invalid".
        let error = resolve(&[upstream("orders", &["nowhere.invalid"])]).unwrap_err();
        let start = "upstream \"orders\": cannot resolve host \"nowhere.invalid\": ";
        assert!(error.to_string().starts_with(start), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}
