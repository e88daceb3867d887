//! Counters with one writer each, summed when somebody asks. A worker never shares a cache line
//! with another and never executes a locked instruction to count.

#![expect(clippy::disallowed_types, reason = "control reads what workers count")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::tls::Failure;

/// A number one thread changes and any thread may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread calls this, so a load and a store are enough.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away; for numbers that go down again, such as open connections.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Makes it `n`; for numbers that are not counted.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Bucket bounds of every duration histogram, in microseconds; the last bucket is unbounded.
pub const DURATION_BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// How often durations fell into each bucket, and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than the bounds: the last one holds what exceeds them all.
    pub buckets: [Counter; DURATION_BOUNDS_US.len() + 1],
    /// Microseconds in all.
    pub sum_us: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.add(1);
        }
        self.sum_us.add(us);
    }
}

/// Why a deadline ended something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Deadline {
    /// A request's head did not arrive in time.
    Head,
    /// A request's body stalled.
    RequestBody,
    /// A client stopped reading its response.
    ResponseWrite,
    /// An idle connection was closed.
    KeepAlive,
    /// An endpoint did not accept in time.
    Connect,
    /// An endpoint did not answer in time.
    Response,
    /// An endpoint's response body stalled.
    ResponseBody,
    /// Both sides of a tunnel were silent.
    Tunnel,
    /// A whole exchange took too long.
    Request,
}

impl Deadline {
    /// Every deadline with its label value, in the order of the discriminants.
    pub const LABELS: [&'static str; 9] = [
        "head",
        "request_body",
        "response_write",
        "keep_alive",
        "connect",
        "response",
        "response_body",
        "tunnel",
        "request",
    ];
}

/// A rule that a client broke, be it by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Offence {
    /// A request that breaks the grammar, or asks for what nobody may.
    Malformed,
    /// A request line over its limit.
    RequestLineTooLong,
    /// A head over its limits.
    HeadTooLarge,
    /// A body over its limit.
    BodyTooLarge,
    /// Chunk extensions or trailers over their limits.
    ChunksTooLarge,
    /// A head that did not come in time.
    SlowHead,
    /// A body that did not come in time.
    SlowBody,
    /// A response that was not taken in time.
    SlowRead,
    /// No PROXY header where there has to be one.
    ProxyHeader,
    /// A TLS handshake that was none, or did not come in time.
    Handshake,
    /// No client certificate where there has to be one, or one that is no good.
    Certificate,
    /// More requests than a policy allows.
    RateLimit,
    /// A request that a policy does not let in.
    Access,
    /// A password or a key that is wrong.
    Credentials,
    /// An answer of 4xx, whatever it is for. Taken down only where it can lead to a ban.
    ClientError,
}

impl Offence {
    /// Every offence with its label value, in the order of the discriminants.
    pub const LABELS: [&'static str; 15] = [
        "malformed",
        "request_line_too_long",
        "head_too_large",
        "body_too_large",
        "chunks_too_large",
        "slow_head",
        "slow_body",
        "slow_read",
        "proxy_header",
        "handshake",
        "certificate",
        "rate_limit",
        "access",
        "credentials",
        "client_error",
    ];
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// Its network is on a deny list.
    Denied,
    /// It comes from a banned source.
    Banned,
    /// Its source has as many open as it may.
    TooManyOpen,
}

impl Refusal {
    /// Every refusal with its label value, in the order of the discriminants.
    pub const LABELS: [&'static str; 3] = ["denied", "banned", "connections_max"];
}

/// Everything one worker counts.
#[derive(Debug)]
#[repr(align(128))]
pub struct Worker {
    /// Client connections accepted.
    pub connections_accepted: Counter,
    /// Client connections refused because a cap was reached.
    pub connections_refused: Counter,
    /// Client connections their source was not to have, by [`Refusal`]: refused, and let in because it
    /// is not enforced.
    pub sources_refused: [(Counter, Counter); Refusal::LABELS.len()],
    /// Idle client connections closed early, because the cap was near.
    pub connections_reaped: Counter,
    /// Client connections open now.
    pub connections_open: Counter,
    /// Requests in flight now.
    pub requests_in_flight: Counter,
    /// Connections that are tunnels now.
    pub tunnels_open: Counter,
    /// Bytes tunnels carried from clients.
    pub tunnel_bytes_in: Counter,
    /// Bytes tunnels carried to clients.
    pub tunnel_bytes_out: Counter,
    /// Finished requests by status code; index 0 counts those whose client got no status.
    pub responses: Box<[Counter; 600]>,
    /// Time from a request's head to the end of its response.
    pub request_duration: Histogram,
    /// Bytes read from clients.
    pub downstream_bytes_in: Counter,
    /// Bytes written to clients.
    pub downstream_bytes_out: Counter,
    /// Deadlines that passed, by [`Deadline`].
    pub deadlines: [Counter; Deadline::LABELS.len()],
    /// Rules broken by clients, by [`Offence`].
    pub offences: [Counter; Offence::LABELS.len()],
    /// Offences that control had no time to hear of.
    pub offences_unreported: Counter,
    /// Requests refused by the HTTP parser before a route was looked up.
    pub requests_rejected: Counter,
    /// TLS handshakes with clients not known from before.
    pub handshakes_full: Counter,
    /// TLS handshakes that took up an earlier session.
    pub handshakes_resumed: Counter,
    /// TLS handshakes going on.
    pub handshakes_open: Counter,
    /// Failed TLS handshakes, by [`Failure`].
    pub handshake_failures: [Counter; Failure::LABELS.len()],
    /// Tasks that panicked; each cost one connection.
    pub panics: Counter,
    /// Access log lines that found the writer's queue full.
    pub access_log_dropped: Counter,
    /// By name; those that a changed configuration no longer has stay, as counters never go back.
    upstreams: Mutex<Vec<(String, Arc<Upstream>)>>,
    /// By name, as those.
    policies: Mutex<Vec<(String, Arc<Policy>)>>,
    /// By policy; only the names that it has now, of which there may be many.
    identities: Mutex<BTreeMap<String, Names>>,
}

/// Requests by the name of who was let in.
pub type Names = HashMap<String, Arc<Counter>>;

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

impl Worker {
    /// A worker's counters at zero.
    pub fn new() -> Self {
        Self {
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            sources_refused: Default::default(),
            connections_reaped: Counter::default(),
            connections_open: Counter::default(),
            requests_in_flight: Counter::default(),
            tunnels_open: Counter::default(),
            tunnel_bytes_in: Counter::default(),
            tunnel_bytes_out: Counter::default(),
            responses: Box::new([const { Counter(AtomicU64::new(0)) }; 600]),
            request_duration: Histogram::default(),
            downstream_bytes_in: Counter::default(),
            downstream_bytes_out: Counter::default(),
            deadlines: Default::default(),
            offences: Default::default(),
            offences_unreported: Counter::default(),
            requests_rejected: Counter::default(),
            handshakes_full: Counter::default(),
            handshakes_resumed: Counter::default(),
            handshakes_open: Counter::default(),
            handshake_failures: Default::default(),
            panics: Counter::default(),
            access_log_dropped: Counter::default(),
            upstreams: Mutex::default(),
            policies: Mutex::default(),
            identities: Mutex::default(),
        }
    }

    /// The counters of an upstream, made when they are first asked for. Not for the hot path.
    pub fn upstream(&self, name: &str) -> Arc<Upstream> {
        named(&self.upstreams, name)
    }

    /// The counters of a policy, made when they are first asked for. Not for the hot path.
    pub fn policy(&self, name: &str) -> Arc<Policy> {
        named(&self.policies, name)
    }

    /// The counters of these names, whom a policy lets in; those that it had before go on. Not for the hot path.
    pub fn identities<'a>(&self, policy: &str, names: impl Iterator<Item = &'a String>) -> Names {
        let mut all = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(policy).unwrap_or_default();
        let counter = |name: &String| before.get(name).cloned().unwrap_or_default();
        let mut now = Names::new();
        for name in names {
            now.entry(name.clone()).or_insert_with_key(counter);
        }
        all.insert(policy.to_owned(), now.clone());
        now
    }

    /// How often each name was let in, by policy and name.
    pub fn requests_by_identity(&self) -> Vec<(String, Names)> {
        let all = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(policy, names)| (policy.clone(), names.clone())).collect()
    }

    /// Every policy there has been, and its counters.
    pub fn policies(&self) -> Vec<(String, Arc<Policy>)> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every upstream there has been, and its counters.
    pub fn upstreams(&self) -> Vec<(String, Arc<Upstream>)> {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a broken rule.
    pub fn offence(&self, which: Offence) {
        if let Some(counter) = self.offences.get(which as usize) {
            counter.add(1);
        }
    }

    /// Counts a connection that its source was not to have; `refused` or only observed.
    pub fn source_refused(&self, why: Refusal, refused: bool) {
        if let Some((refusals, observed)) = self.sources_refused.get(why as usize) {
            if refused { refusals.add(1) } else { observed.add(1) }
        }
    }

    /// Counts a TLS handshake that failed.
    pub fn handshake_failure(&self, which: Failure) {
        if let Some(counter) = self.handshake_failures.get(which as usize) {
            counter.add(1);
        }
    }

    /// Counts a deadline that passed.
    pub fn deadline(&self, which: Deadline) {
        if let Some(counter) = self.deadlines.get(which as usize) {
            counter.add(1);
        }
    }
}

fn named<T: Default>(all: &Mutex<Vec<(String, Arc<T>)>>, name: &str) -> Arc<T> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, counters)) = all.iter().find(|(known, _)| known == name) {
        return Arc::clone(counters);
    }
    let counters = Arc::<T>::default();
    all.push((name.to_owned(), Arc::clone(&counters)));
    counters
}

/// What one worker counts about one policy.
#[derive(Debug, Default)]
pub struct Policy {
    /// Requests it let pass.
    pub passed: Counter,
    /// Requests it answered itself.
    pub answered: Counter,
    /// Requests it refused.
    pub refused: Counter,
    /// Requests it would have refused if it did not only observe; they count as passed, too.
    pub observed: Counter,
    /// Requests it counted together with another key's, for want of room; they count as what became of
    /// them, too.
    pub shared: Counter,
}

/// What one worker counts about one upstream.
#[derive(Debug, Default)]
pub struct Upstream {
    /// Requests sent, tries included.
    pub requests: Counter,
    /// Connections opened.
    pub connections: Counter,
    /// Connections kept idle now.
    pub connections_idle: Counter,
    /// Attempts to connect that failed.
    pub connect_failures: Counter,
    /// Requests that failed after a connection stood.
    pub failures: Counter,
    /// Requests sent again.
    pub retries: Counter,
    /// Requests another endpoint was asked, too, because the first took long.
    pub hedges: Counter,
    /// Copies of requests sent.
    pub mirrors: Counter,
    /// Those that have not been answered.
    pub mirrors_in_flight: Counter,
    /// Requests that were to be copied and were not: too many at once, or a body that had not come whole.
    pub mirrors_skipped: Counter,
    /// Times an endpoint was not asked for a while.
    pub ejections: Counter,
    /// Requests that wait until an endpoint may be given one more.
    pub pending: Counter,
    /// Requests that did not wait, or not long enough.
    pub overflows: Counter,
    /// Time from a request sent to its response's head.
    pub response_duration: Histogram,
    endpoints: Mutex<Vec<(SocketAddr, Arc<Endpoint>)>>,
}

impl Upstream {
    /// The counters of an endpoint, made when they are first asked for. Not for the hot path.
    pub fn endpoint(&self, address: SocketAddr) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counters)) = endpoints.iter().find(|(known, _)| *known == address) {
            return Arc::clone(counters);
        }
        let counters = Arc::<Endpoint>::default();
        endpoints.push((address, Arc::clone(&counters)));
        counters
    }

    /// An endpoint is one no longer. Addresses come and go, so its counters do not stay, unless somebody
    /// else counts with them.
    pub fn forget(&self, endpoint: &Arc<Endpoint>) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        // This list and the one who forgets.
        if Arc::strong_count(endpoint) <= 2 {
            endpoints.retain(|(_, known)| !Arc::ptr_eq(known, endpoint));
        }
    }

    /// Every endpoint there is, and its counters.
    pub fn endpoints(&self) -> Vec<(SocketAddr, Arc<Endpoint>)> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one worker counts about one endpoint.
#[derive(Debug, Default)]
pub struct Endpoint {
    /// Requests it was given, tries included.
    pub requests: Counter,
    /// Requests it has not answered whole yet.
    pub requests_in_flight: Counter,
    /// Times it failed: it could not be reached, or did not answer as it should.
    pub failures: Counter,
    /// Until when it is not asked, milliseconds of the clock of [`Deadline`](crate::net::Deadline).
    pub ejected_until: Counter,
}
