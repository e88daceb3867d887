//! Asks endpoints whether they are well, once for the machine: what comes of it, all workers read.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::net::{Deadline, proxy_protocol};
use crate::tls::{self, Connector};
use crate::upstream::{Address, EndpointSpec, Health, Probe};

/// How far intervals differ, percent: those that begin together do not stay together.
const JITTER: u64 = 10;

/// All endpoints that are asked, by upstream and address.
#[derive(Debug, Default)]
pub(super) struct Prober {
    probing: HashMap<(String, SocketAddr), Probing>,
}

#[derive(Debug)]
struct Probing {
    target: Target,
    task: JoinHandle<()>,
}

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    upstream: String,
    endpoint: SocketAddr,
    /// As the configuration has it.
    written: String,
    host: String,
    probe: Probe,
    tls: Option<tls::client::Settings>,
    proxy_protocol: Option<proxy_protocol::Version>,
    health: Health,
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// From now on these are the endpoints: the addresses of each upstream, in the configuration's order.
    pub fn watch(&mut self, config: &Config, endpoints: &[Vec<Address>]) {
        let mut before = std::mem::take(&mut self.probing);
        for (upstream, addresses) in config.upstreams.iter().zip(endpoints) {
            let Some(probe) = &upstream.health else { continue };
            for address in addresses {
                let (host, endpoint) = (address.host.clone(), address.socket);
                let spec = EndpointSpec { host, port: endpoint.port(), weight: 1, backup: false };
                let target = Target {
                    upstream: upstream.name.clone(),
                    endpoint,
                    written: spec.to_string(),
                    host: spec.host,
                    probe: probe.clone(),
                    tls: upstream.tls.clone(),
                    proxy_protocol: upstream.proxy_protocol,
                    health: address.health.clone(),
                };
                let key = (upstream.name.clone(), endpoint);
                let probing = match before.remove(&key) {
                    Some(same) if same.target == target => same,
                    _ => Probing { target: target.clone(), task: tokio::spawn(target.watch()) },
                };
                self.probing.insert(key, probing);
            }
        }
        // Whom nobody asks any more is not to stay down.
        for probing in before.into_values().filter(|probing| !probing.target.health.is_up()) {
            let same = |now: &Probing| now.target.health == probing.target.health;
            if !self.probing.values().any(same) {
                probing.target.health.set_up(Deadline::now().millis());
            }
        }
    }
}

impl Target {
    /// Asks again and again.
    async fn watch(self) {
        let connector = match self.tls.as_ref().map(Connector::new).transpose() {
            Ok(connector) => connector,
            Err(error) => {
                return tracing::warn!("upstream {:?}: no probes: {error}", self.upstream);
            }
        };
        let mut streak = Streak::default();
        loop {
            let asked = tokio::time::timeout(self.probe.timeout, self.ask(connector.as_ref()));
            let asked = asked.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            let (upstream, endpoint) = (&*self.upstream, self.endpoint);
            match streak.add(asked.is_ok(), self.health.is_up(), &self.probe) {
                Some(true) => {
                    self.health.set_up(Deadline::now().millis());
                    tracing::info!(upstream, %endpoint, "up");
                }
                Some(false) => {
                    self.health.set_down();
                    let reason = asked.err().unwrap_or_default();
                    tracing::warn!(upstream, %endpoint, "down: {reason}");
                }
                None => {}
            }
            tokio::time::sleep(about(self.probe.interval)).await;
        }
    }

    async fn ask(&self, connector: Option<&Connector>) -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        let mut stream = TcpStream::connect(self.endpoint).await.map_err(told)?;
        if let Some(version) = self.proxy_protocol {
            let own = stream.local_addr().map_err(told)?;
            let header = proxy_protocol::encode(version, own, self.endpoint);
            stream.write_all(&header).await.map_err(told)?;
        }
        match connector {
            None => self.get(stream).await,
            Some(connector) => {
                let stream = connector.connect_tokio(&self.host, stream).await;
                self.get(stream.map_err(|error| format!("TLS: {error}"))?).await
            }
        }
    }

    async fn get<S>(&self, stream: S) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(path) = &self.probe.path else { return Ok(()) };
        let told = |error: hyper::Error| error.to_string();
        let request = Request::get(path)
            .header(header::HOST, self.probe.host.as_ref().unwrap_or(&self.written))
            .header(header::USER_AGENT, concat!("gateway/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(String::new())
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await;
        // Nobody wants its body.
        connection.abort();
        let status = response.map_err(told)?.status().as_u16();
        let (first, last) = self.probe.statuses;
        match (first..=last).contains(&status) {
            true => Ok(()),
            false => Err(format!("it answered {status}")),
        }
    }
}

/// An interval, a little longer or shorter.
pub(super) fn about(interval: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % (2 * JITTER + 1);
    let percent = u32::try_from(100 - JITTER + random).unwrap_or(100);
    interval * percent / 100
}

/// Results of the same kind in a row.
#[derive(Debug, Default)]
struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// Adds a result: whether the endpoint goes up or down by it.
    fn add(&mut self, good: bool, up: bool, probe: &Probe) -> Option<bool> {
        let length = match good {
            true => {
                self.bad = 0;
                self.good += 1;
                self.good
            }
            false => {
                self.good = 0;
                self.bad += 1;
                self.bad
            }
        };
        let enough = if good { probe.rise } else { probe.fall };
        (good != up && length >= enough).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_row_change_what_is_thought() {
        let probe = Probe {
            path: None,
            host: None,
            statuses: (200, 299),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        let (mut streak, mut up) = (Streak::default(), true);
        let mut history = Vec::new();
        for good in [false, false, true, false, false, false, true, false, true, true, true] {
            up = streak.add(good, up, &probe).unwrap_or(up);
            history.push(up);
        }
        let expected = [true, true, true, true, true, false, false, false, false, true, true];
        assert_eq!(history, expected);
    }

    #[test]
    fn intervals_differ_a_little() {
        let interval = Duration::from_secs(10);
        let all: Vec<_> = (0..100).map(|_| about(interval)).collect();
        assert!(all.iter().all(|one| (9..=11).contains(&one.as_secs())));
        assert!(all.iter().any(|one| *one != all[0]));
    }
}
