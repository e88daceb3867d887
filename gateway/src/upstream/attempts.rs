//! The tries of one exchange: which endpoints it asks, one after the other, and what they were like.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::balance::Choice;
use super::load::Load;
use super::pool::Endpoint;
use super::queue::Queue;
use super::{Group, RETRIES_SAVED, Settings, Upstream};
use crate::exchange::Error;
use crate::net::{Deadline, Stream, rt};
use crate::telemetry::metrics;

/// The most an endpoint is left alone because it asked for it (`Retry-After`).
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What one exchange has tried.
pub struct Attempts<'u> {
    upstream: &'u Upstream,
    group: Rc<Group>,
    /// Where requests that belong together have their place, if they have one.
    point: Option<u64>,
    /// Positions of endpoints that failed.
    tried: Vec<usize>,
    /// When all of it has to be over.
    until: Deadline,
    /// How often it was sent once more.
    retries: Cell<u32>,
}

impl Upstream {
    /// An exchange begins, which earns a part of a retry. Its place is `point`, where it has one, and it
    /// has to be over by `until`.
    pub fn attempts(&self, point: Option<u64>, until: Deadline) -> Attempts<'_> {
        let earned = f64::from(self.settings.spec.retry.budget) / 100.0;
        self.retries_left.set((self.retries_left.get() + earned).min(RETRIES_SAVED));
        let group = Rc::clone(&self.group.borrow());
        Attempts { upstream: self, group, point, tried: Vec::new(), until, retries: Cell::new(0) }
    }
}

impl Attempts<'_> {
    /// A connection to the endpoint that is chosen, or to the next one that accepts; none of those that
    /// failed. A kept one is taken unless `fresh` is asked for. Waits while all have as many requests as
    /// they may have.
    ///
    /// # Errors
    /// When none accepts, or too many wait already, or for too long.
    pub async fn checkout(&mut self, fresh: bool) -> Result<Lease, Error> {
        let mut error = Error::Unavailable;
        loop {
            let Group { loads, chooser, endpoints, .. } = &*self.group;
            let now = Deadline::now().millis();
            let index = match chooser.choose(loads, &self.tried, now, self.point) {
                Choice::One(index) => index,
                Choice::Full => {
                    Box::pin(self.wait()).await?;
                    continue;
                }
                Choice::Nobody => return Err(error),
            };
            let (Some(endpoint), Some(load)) = (endpoints.get(index), loads.get(index)) else {
                return Err(error);
            };
            let turn = Turn::new(load, endpoint, &self.upstream.queue);
            if !fresh && let Some(stream) = endpoint.take() {
                return Ok(self.lease(stream, turn, index, true));
            }
            // Boxed, because most exchanges find a kept connection, and its timer would make every
            // exchange's future larger and oddly aligned.
            match Box::pin(self.upstream.connect(endpoint, self.until)).await {
                Ok(stream) => {
                    self.upstream.metrics().connections.add(1);
                    return Ok(self.lease(stream, turn, index, false));
                }
                Err(_) if self.until <= Deadline::now() => return Err(Error::OutOfTime),
                Err(failure) => {
                    self.upstream.metrics().connect_failures.add(1);
                    self.note_failure(index);
                    self.tried.push(index);
                    error = failure;
                }
            }
        }
    }

    fn lease(&self, stream: Stream, turn: Turn, index: usize, reused: bool) -> Lease {
        self.upstream.metrics().requests.add(1);
        turn.endpoint.metrics.requests.add(1);
        Lease { stream, turn, index, reused }
    }

    /// Waits until an endpoint may be given one more, and looks anew which there are.
    async fn wait(&mut self) -> Result<(), Error> {
        let Upstream { queue, settings, .. } = self.upstream;
        let metrics = &settings.metrics;
        if queue.len() >= settings.pending_max {
            metrics.overflows.add(1);
            return Err(Error::Overloaded);
        }
        metrics.pending.add(1);
        let timeout = settings.spec.pending.timeout.min(self.until.left());
        let called = rt::timeout(timeout, queue.wait()).await;
        metrics.pending.sub(1);
        if called.is_none() && self.until <= Deadline::now() {
            return Err(Error::OutOfTime);
        }
        if called.is_none() {
            metrics.overflows.add(1);
            return Err(Error::Overloaded);
        }
        let newest = Rc::clone(&self.upstream.group.borrow());
        if !Rc::ptr_eq(&newest, &self.group) {
            self.group = newest;
            self.tried.clear();
        }
        Ok(())
    }

    /// The endpoint has begun to answer, after so long and with this status.
    pub fn answered(&self, lease: &Lease, latency: Duration, status: u16) {
        if self.upstream.settings.spec.ejection.statuses.contains(&status) {
            return self.note_failure(lease.index);
        }
        let latency = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        lease.turn.load.answered(latency, Deadline::now().millis());
        if let Some(quantile) = &self.upstream.hedge_after {
            #[expect(clippy::cast_precision_loss, reason = "to the microsecond for 285 years")]
            quantile.record(latency as f64);
        }
    }

    /// Another endpoint was faster. That it has not answered yet is no failure.
    pub fn overtaken(&self, lease: &Lease, after: Duration) {
        let after = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        lease.turn.load.took(after, Deadline::now().millis());
    }

    /// The endpoint was asked and has failed.
    pub fn failed(&self, lease: &Lease) {
        self.upstream.metrics().failures.add(1);
        self.note_failure(lease.index);
    }

    /// Takes down that an endpoint has failed, and does not ask it for a while when that happens too
    /// often, unless too many are not asked already.
    fn note_failure(&self, index: usize) {
        let ejection = &self.upstream.settings.spec.ejection;
        let (Some(load), Some(endpoint)) =
            (self.group.loads.get(index), self.group.endpoints.get(index))
        else {
            return;
        };
        endpoint.metrics.failures.add(1);
        let now = Deadline::now().millis();
        if !load.failed(ejection, now) || !self.may_leave_out_one_more(load, now) {
            return;
        }
        let time = load.ejection_time(ejection);
        load.eject(now.saturating_add(millis(time)));
        endpoint.metrics.ejected_until.set(load.ejected_until());
        self.upstream.metrics().ejections.add(1);
        let (upstream, endpoint) = (&*self.upstream.name, endpoint.socket);
        tracing::warn!(upstream, %endpoint, "failed too often, not asked for {time:?}");
    }

    /// Whether the share of those that are not asked may grow.
    fn may_leave_out_one_more(&self, load: &Rc<Load>, now: u64) -> bool {
        let loads = &self.group.loads;
        let others = loads.iter().filter(|other| !Rc::ptr_eq(other, load));
        let ejected = others.filter(|other| other.is_ejected(now)).count();
        let share_max = self.upstream.settings.spec.ejection.share_max;
        (ejected + 1) * 100 <= loads.len() * share_max as usize
    }

    /// The endpoint has asked to be left alone for so long.
    pub fn pause(&self, lease: &Lease, time: Duration) {
        let (load, now) = (&lease.turn.load, Deadline::now().millis());
        if self.may_leave_out_one_more(load, now) {
            load.pause(now.saturating_add(millis(time.min(PAUSE_MAX))));
            lease.turn.endpoint.metrics.ejected_until.set(load.ejected_until());
        }
    }

    /// Whether the request may be sent once more. Counts it.
    pub fn take_retry(&self) -> bool {
        let left = self.upstream.retries_left.get();
        let may = self.retries.get() < self.upstream.settings.spec.retry.attempts
            && left >= 1.0
            && Deadline::now() < self.until;
        if may {
            self.retries.set(self.retries.get() + 1);
            self.upstream.retries_left.set(left - 1.0);
        }
        may
    }

    /// Whether an answer with this status is as good as none, and the request may be sent once more.
    /// Counts it.
    pub fn refuses(&self, status: u16) -> bool {
        self.upstream.settings.spec.retry.statuses.contains(&status) && self.take_retry()
    }

    /// Asks another endpoint the next time, if there is one.
    pub fn leave_out(&mut self, lease: &Lease) {
        self.tried.push(lease.index);
        if self.tried.len() >= self.group.endpoints.len() {
            self.tried.clear();
        }
    }

    /// How long the endpoint has before another one is asked, too, if any is.
    pub fn hedge_after(&self) -> Option<Duration> {
        let others = self.group.endpoints.len() - self.tried.len().min(self.group.endpoints.len());
        let after = self.upstream.hedge_after.as_ref().filter(|_| others > 1)?.value()?;
        Some(Duration::from_secs_f64(after / 1e6))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Upstream {
    async fn connect(&self, endpoint: &Endpoint, until: Deadline) -> Result<Stream, Error> {
        let Settings { connect_timeout, deadlines, connector, buffers, .. } = &*self.settings;
        let connect_timeout = &(*connect_timeout).min(until.left());
        let (socket, host) = (&endpoint.socket, &*endpoint.host);
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

/// A request that counts as in flight at an endpoint for as long as this lives.
struct Turn {
    load: Rc<Load>,
    endpoint: Rc<Endpoint>,
    queue: Rc<Queue>,
}

impl Turn {
    fn new(load: &Rc<Load>, endpoint: &Rc<Endpoint>, queue: &Rc<Queue>) -> Self {
        load.begin();
        endpoint.metrics.requests_in_flight.add(1);
        Self { load: Rc::clone(load), endpoint: Rc::clone(endpoint), queue: Rc::clone(queue) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.load.end();
        self.endpoint.metrics.requests_in_flight.sub(1);
        if self.load.is_capped() {
            self.queue.call();
        }
    }
}

/// A connection to an endpoint for one exchange. Dropping it closes the connection.
pub struct Lease {
    /// The connection.
    pub stream: Stream,
    turn: Turn,
    index: usize,
    reused: bool,
}

impl Lease {
    /// Whether the connection has served an exchange before, so that it may have died unseen.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The endpoint's address.
    pub fn address(&self) -> SocketAddr {
        self.turn.endpoint.socket
    }

    /// Keeps the connection for another exchange. Only for one whose request went out whole, whose
    /// response came in whole, and behind which nothing came.
    pub fn release(self) {
        self.turn.endpoint.keep(self.stream);
    }
}
