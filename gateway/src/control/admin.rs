//! The admin address: `/metrics`, `/upstreams`, `/healthz` and `/readyz`, apart from the traffic it is about.

#![expect(clippy::disallowed_types, reason = "workers count on their threads, this one reads")]

use std::fs;
use std::net::{self, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::reload::Change;
use super::sources::Keeper;
use super::{Error, KernelCounters};
use crate::config::Config;
use crate::net::Deadline;
use crate::telemetry::metrics::{self, Counter};
use crate::telemetry::prometheus::{self, Scrape};
use crate::upstream::Address;

/// Connections at once. They share the process's descriptors with the traffic, so whoever
/// reaches this address must not be able to use those up.
pub(super) const CONNECTIONS_MAX: usize = 32;

/// A client's request has to be there within this time, also on a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// No connection lasts longer: its place is needed, and clients reconnect.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two attempts to accept when the process is out of descriptors.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the answers come from.
pub(super) struct Sources {
    pub started: SystemTime,
    /// How many the process may open.
    pub descriptors: u64,
    pub workers: Vec<Arc<metrics::Worker>>,
    pub kernel: Option<KernelCounters>,
    /// What is counted of sources, and who is banned.
    pub keeper: Option<Arc<Keeper>>,
    pub access_log_lines_lost: Option<Arc<Counter>>,
}

/// What the admin address tells.
pub(super) struct Status {
    sources: Sources,
    ready: AtomicBool,
    /// Of the configuration: applied, and refused.
    reloads: (Counter, Counter),
    /// Of files that TLS is set up from.
    file_reloads: (Counter, Counter),
    /// Of keys that tokens are verified by: fetched, and failed.
    key_fetches: (Counter, Counter),
    /// Those in use, and when each ends.
    certificates: Mutex<Vec<(String, i64)>>,
    /// Of every upstream, by name.
    endpoints: Mutex<Vec<(String, Vec<Address>)>>,
}

impl Status {
    pub(super) fn new(sources: Sources) -> Self {
        Self {
            sources,
            ready: AtomicBool::new(false),
            reloads: Default::default(),
            file_reloads: Default::default(),
            key_fetches: Default::default(),
            certificates: Mutex::default(),
            endpoints: Mutex::default(),
        }
    }

    /// Takes down which certificates are in use.
    pub(super) fn set_certificates(&self, config: &Config) {
        let identities = config.tls.iter().flat_map(|settings| &settings.identities);
        let certificates =
            identities.map(|identity| (identity.path.display().to_string(), identity.not_after));
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates.collect();
    }

    /// Takes down which endpoints there are.
    pub(super) fn set_endpoints(&self, config: &Config, endpoints: &[Vec<Address>]) {
        let names = config.upstreams.iter().map(|upstream| upstream.name.clone());
        let all = names.zip(endpoints.iter().cloned()).collect();
        *self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Whether new traffic is welcome.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// Counts what came of a change: a configuration is refused whole, of files those that are wrong.
    pub(super) fn count_reload(&self, change: Change, is_applied: bool, wrong: usize) {
        let ((applied, refused), wrong) = match change {
            Change::Configuration => (&self.reloads, wrong.min(1)),
            Change::Files => (&self.file_reloads, wrong),
        };
        applied.add(is_applied.into());
        refused.add(wrong as u64);
    }

    /// Counts what came of fetching keys.
    pub(super) fn count_key_fetch(&self, is_fetched: bool) {
        let (fetched, failed) = &self.key_fetches;
        if is_fetched { fetched } else { failed }.add(1);
    }

    pub(super) fn workers(&self) -> &[Arc<metrics::Worker>] {
        &self.sources.workers
    }

    /// Client connections, all workers summed.
    pub(super) fn tunnels_open(&self) -> u64 {
        self.sources.workers.iter().map(|worker| worker.tunnels_open.value()).sum()
    }

    pub(super) fn connections_open(&self) -> u64 {
        self.sources.workers.iter().map(|worker| worker.connections_open.value()).sum()
    }

    /// The endpoints there are, and what is known of each.
    fn endpoints(&self) -> Vec<prometheus::Endpoint> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let counters: Vec<_> =
            self.sources.workers.iter().map(|worker| worker.upstreams()).collect();
        let now = Deadline::now().millis();
        let mut all = Vec::new();
        for (upstream, addresses) in endpoints.iter() {
            let own = counters.iter().flatten().filter(|(name, _)| name == upstream);
            let own: Vec<_> = own.flat_map(|(_, counters)| counters.endpoints()).collect();
            all.extend(addresses.iter().map(|address| {
                let own = own.iter().filter(|(socket, _)| *socket == address.socket);
                let mut endpoint = prometheus::Endpoint {
                    upstream: upstream.clone(),
                    address: address.socket,
                    host: address.host.clone(),
                    up: address.health.is_up(),
                    ejected: 0,
                    requests: 0,
                    requests_in_flight: 0,
                    failures: 0,
                };
                for (_, counters) in own {
                    endpoint.ejected += u64::from(counters.ejected_until.value() > now);
                    endpoint.requests += counters.requests.value();
                    endpoint.requests_in_flight += counters.requests_in_flight.value();
                    endpoint.failures += counters.failures.value();
                }
                endpoint
            }));
        }
        all
    }

    /// The same as JSON.
    fn upstreams(&self) -> serde_json::Value {
        let mut upstreams = serde_json::Map::new();
        for endpoint in self.endpoints() {
            let list = upstreams.entry(&endpoint.upstream).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(json!({
                    "address": endpoint.address.to_string(),
                    "host": endpoint.host,
                    "up": endpoint.up,
                    "workers_that_ejected_it": endpoint.ejected,
                    "requests": endpoint.requests,
                    "requests_in_flight": endpoint.requests_in_flight,
                    "failures": endpoint.failures,
                }));
            }
        }
        // Those without any are to be seen, too.
        for (name, _) in self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            upstreams.entry(name).or_insert_with(|| json!([]));
        }
        upstreams.into()
    }

    fn metrics(&self) -> String {
        let sources = &self.sources;
        let keeper = sources.keeper.as_deref();
        let workers: Vec<_> = sources.workers.iter().map(Arc::as_ref).collect();
        let kernel = sources.kernel.as_ref().map(|counters| counters()).unwrap_or_default();
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        prometheus::render(&Scrape {
            certificates: &certificates,
            endpoints: &self.endpoints(),
            workers: &workers,
            reloads: (self.reloads.0.value(), self.reloads.1.value()),
            key_fetches: (self.key_fetches.0.value(), self.key_fetches.1.value()),
            file_reloads: (self.file_reloads.0.value(), self.file_reloads.1.value()),
            kernel: &kernel,
            lists: &keeper.map(Keeper::hits_by_list).unwrap_or_default(),
            interfaces: &keeper.map(Keeper::interfaces).unwrap_or_default(),
            flood: keeper.and_then(Keeper::flood),
            sources_uncounted: keeper.map_or(0, |keeper| keeper.counts().uncounted()),
            bans: keeper.map(Keeper::ban_counts).unwrap_or_default(),
            access_log_lines_lost: sources
                .access_log_lines_lost
                .as_ref()
                .map_or(0, |lost| lost.value()),
            started: sources.started,
            open_fds: open_descriptors(),
            max_fds: sources.descriptors,
        })
    }
}

/// Counts all but the one that looking takes.
fn open_descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(open.saturating_sub(1) as u64)
}

/// Takes the address; nobody answers yet.
pub(super) fn bind(address: SocketAddr) -> Result<net::TcpListener, Error> {
    net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| Error::Admin { address, source })
}

/// Starts to answer, and returns the address with its real port. Ends with the runtime.
pub(super) fn serve(listener: net::TcpListener, status: Arc<Status>) -> Result<SocketAddr, Error> {
    let listener = TcpListener::from_std(listener).map_err(Error::Runtime)?;
    let address = listener.local_addr().map_err(Error::Runtime)?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/upstreams", get(upstreams))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(status);
    tokio::spawn(accept(listener, router));
    Ok(address)
}

async fn metrics(State(status): State<Arc<Status>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], status.metrics())
}

async fn upstreams(State(status): State<Arc<Status>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], format!("{:#}\n", status.upstreams()))
}

async fn ready(State(status): State<Arc<Status>>) -> impl IntoResponse {
    if status.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// `axum::serve` would do, had it bounds.
async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed, so a place always comes.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    answer(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("admin: cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

pub(super) async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!("admin: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use tokio::net::TcpStream;

    fn status(kernel: Option<KernelCounters>) -> Arc<Status> {
        Arc::new(Status::new(Sources {
            started: SystemTime::now(),
            descriptors: 1024,
            workers: vec![Arc::new(metrics::Worker::new()), Arc::new(metrics::Worker::new())],
            kernel,
            keeper: None,
            access_log_lines_lost: None,
        }))
    }

    fn start(status: &Arc<Status>) -> SocketAddr {
        serve(bind("127.0.0.1:0".parse().unwrap()).unwrap(), Arc::clone(status)).unwrap()
    }

    /// The whole answer, asked for from another thread.
    async fn get(address: SocketAddr, path: &'static str) -> String {
        let client = move || {
            let mut client = net::TcpStream::connect(address).unwrap();
            write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        };
        tokio::task::spawn_blocking(client).await.unwrap()
    }

    #[tokio::test]
    async fn readiness_follows_the_gateway_and_health_does_not() {
        let status = status(None);
        let address = start(&status);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        status.set_ready(true);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        status.set_ready(false);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test]
    async fn metrics_sum_workers_and_hold_the_kernels_counters() {
        let dropped = prometheus::KernelCounter {
            interface: "eth0".to_owned(),
            verdict: "drop",
            reason: "rate",
            packets: 7,
        };
        let status = status(Some(Box::new(move || vec![dropped.clone()])));
        status.workers()[0].connections_accepted.add(2);
        status.workers()[1].connections_accepted.add(3);

        let answer = get(start(&status), "/metrics").await;

        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        for line in [
            "\ngateway_connections_accepted_total 5\n",
            "\ngateway_xdp_packets_total{interface=\"eth0\",verdict=\"drop\",reason=\"rate\"} 7\n",
            "\nprocess_max_fds 1024\n",
        ] {
            assert!(answer.contains(line), "{line} is not in {answer}");
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_wait_for_a_place() {
        let address = start(&status(None));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let waiting = tokio::spawn(get(address, "/healthz"));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        idle.pop();
        assert!(waiting.await.unwrap().starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_it() {
        let address = start(&status(None));
        assert_eq!(
            bind(address).unwrap_err().to_string(),
            format!("admin {address}: address already in use (another program holds it)")
        );
    }
}
