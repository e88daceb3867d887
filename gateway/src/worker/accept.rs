//! The door of one worker: connections come in here, and are counted until they end.

#![expect(clippy::disallowed_types, reason = "counters are read by the control thread")]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::{AbortHandle, FutureExt as _, abortable};

use super::Entrance;
use crate::admission::{Seat, Source, Traffic, Verdict};
use crate::downstream::{Current, connection};
use crate::net::{Deadlines, Listener, Stream, rt};
use crate::sys;
use crate::telemetry::metrics::{self, Refusal};

/// How long to wait after accept(2) failed: most likely the process is out of descriptors, and
/// trying again at once would only burn the core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Which part of the connections allowed is kept free of idle ones.
const RESERVE_SHARE: usize = 16;

/// Connections accepted before others on this worker get a turn.
const BATCH: usize = 64;

/// A listener that is accepted from until it is aborted.
struct Open {
    number: usize,
    listener: Rc<Listener>,
    accepting: AbortHandle,
}

/// Lets connections in and knows how many there are.
pub(super) struct Door {
    pub current: Rc<Current>,
    /// What is accepted from.
    open_entrances: RefCell<Vec<Open>>,
    metrics: Arc<metrics::Worker>,
    traffic: Rc<Traffic>,
    deadlines: Rc<Deadlines>,
    connections_max: usize,
    open: Cell<usize>,
    /// Connections to let in before idle ones are looked for again.
    until_reaping: Cell<usize>,
    closed: RefCell<Option<Waker>>,
    failed: Cell<bool>,
    failing: RefCell<Option<Waker>>,
}

impl Door {
    pub fn new(current: Rc<Current>, connections_max: usize) -> Self {
        let shared = current.get();
        let (resources, traffic) = (&shared.resources, Rc::clone(&shared.traffic));
        let metrics = Arc::clone(&resources.metrics);
        let deadlines = Rc::clone(&resources.deadlines);
        let (open, until_reaping) = (Cell::new(0), Cell::new(0));
        Self {
            current,
            open_entrances: RefCell::default(),
            metrics,
            traffic,
            deadlines,
            connections_max,
            open,
            until_reaping,
            closed: RefCell::default(),
            failed: Cell::default(),
            failing: RefCell::default(),
        }
    }

    /// Begins to accept from a socket.
    ///
    /// # Errors
    /// When it cannot be waited on.
    pub fn open(self: &Rc<Self>, entrance: Entrance) -> io::Result<()> {
        let Entrance { listener: number, socket } = entrance;
        let listener = Rc::new(Listener::new(socket)?);
        let (door, own) = (Rc::clone(self), Rc::clone(&listener));
        let (accepting, handle) = abortable(async move { door.accept_from(number, &own).await });
        let broken = Rc::clone(self);
        rt::spawn(async move { accepting.await.unwrap_or(()) }, move || broken.fail());
        self.open_entrances.borrow_mut().push(Open { number, listener, accepting: handle });
        Ok(())
    }

    /// Closes all but those of these listeners.
    pub fn close_others(self: &Rc<Self>, numbers: &[usize]) {
        let mut all = self.open_entrances.borrow_mut();
        let closing = all.extract_if(.., |open| !numbers.contains(&open.number));
        let closing: Vec<_> = closing.collect();
        drop(all);
        for Open { number, listener, accepting } in closing {
            accepting.abort();
            // What has queued by now was promised a connection; closing the socket would reset it.
            self.accept_queued(number, &listener);
        }
    }

    /// Closes all.
    pub fn close_all(self: &Rc<Self>) {
        self.close_others(&[]);
    }

    /// Accepts for as long as it is polled. May be dropped at any time.
    async fn accept_from(self: &Rc<Self>, index: usize, listener: &Listener) {
        loop {
            if let Err(error) = listener.ready().await {
                tracing::error!(%error, "cannot wait for connections");
                rt::sleep(ACCEPT_PAUSE).await;
            }
            for _ in 0..BATCH {
                match listener.accept() {
                    Ok(Some((socket, peer))) => self.enter(index, socket, peer),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        rt::sleep(ACCEPT_PAUSE).await;
                        break;
                    }
                }
                if !listener.is_ready() {
                    break;
                }
            }
        }
    }

    /// Accepts what has already queued.
    fn accept_queued(self: &Rc<Self>, index: usize, listener: &Listener) {
        while let Ok(Some((socket, peer))) = listener.accept() {
            self.enter(index, socket, peer);
        }
    }

    /// Starts to serve a connection, unless there are too many.
    fn enter(self: &Rc<Self>, index: usize, socket: std::net::TcpStream, peer: SocketAddr) {
        let metrics = &self.metrics;
        if self.open.get() >= self.connections_max {
            metrics.connections_refused.add(1);
            return;
        }
        let Ok((source, seat)) = self.ask(index, peer) else {
            // The next one is refused by the kernel, where it can: a reset costs both sides least.
            sys::reset_on_close(&socket);
            return;
        };
        let stream = match Stream::accepted(socket, &self.deadlines) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot serve a connection");
                return;
            }
        };
        metrics.connections_accepted.add(1);
        let guest = Guest::new(Rc::clone(self), source, seat);
        self.make_room();
        let current = Rc::clone(&self.current);
        let serving = connection::run(current, stream, peer, index).map(|()| drop(guest));
        let metrics = Arc::clone(&self.metrics);
        rt::spawn(serving, move || {
            metrics.panics.add(1);
            tracing::error!(%peer, "a connection's task panicked; the connection is closed");
        });
    }

    /// Whether the source of a connection may have it; its seat, where connections are counted.
    fn ask(&self, index: usize, peer: SocketAddr) -> Result<(Source, Option<Seat>), Refusal> {
        let shared = self.current.get();
        let class = shared.listener(index).map_or(0, |listener| listener.class);
        let source = shared.sources.source(peer.ip());
        shared.sources.accepted(source);
        let (verdict, refusal) = match shared.sources.enter(peer.ip(), class) {
            Verdict::Enter(seat) => return Ok((source, seat)),
            Verdict::Observe(refusal, seat) => (Ok((source, seat)), refusal),
            Verdict::Refuse(refusal) => (Err(refusal), refusal),
        };
        let refused = verdict.is_err();
        self.metrics.source_refused(refusal, refused);
        self.traffic.note(source, |tally| match refused {
            true => tally.refused += 1,
            false => tally.observed += 1,
        });
        verdict
    }

    /// Closes idle connections, those idle longest first, when hardly another one could come in. A
    /// share of them at a time, because finding the oldest means to look at all.
    fn make_room(&self) {
        let reserve = (self.connections_max / RESERVE_SHARE).max(1);
        if self.open.get() + reserve <= self.connections_max {
            return;
        }
        let left = self.until_reaping.get();
        if left > 0 {
            self.until_reaping.set(left - 1);
            return;
        }
        let reaped = self.deadlines.expire_oldest_idle(reserve);
        self.metrics.connections_reaped.add(reaped as u64);
        self.until_reaping.set(reserve / 2);
    }

    /// The worker cannot go on: it no longer does what the sockets it holds promise.
    pub fn fail(&self) {
        self.failed.set(true);
        if let Some(waker) = self.failing.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits until the worker cannot go on.
    pub async fn failed(&self) {
        poll_fn(|context| {
            if self.failed.get() {
                return Poll::Ready(());
            }
            *self.failing.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until no connection is left.
    pub async fn closed(&self) {
        poll_fn(|context| {
            if self.open.get() == 0 {
                return Poll::Ready(());
            }
            *self.closed.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A connection that counts as open for as long as this lives, a panic included.
struct Guest {
    door: Rc<Door>,
    source: Source,
    /// What its source has open.
    _seat: Option<Seat>,
}

impl Guest {
    fn new(door: Rc<Door>, source: Source, seat: Option<Seat>) -> Self {
        door.traffic.enter(source);
        door.open.set(door.open.get() + 1);
        door.metrics.connections_open.add(1);
        Self { door, source, _seat: seat }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let door = &self.door;
        let open = door.open.get() - 1;
        door.open.set(open);
        door.metrics.connections_open.sub(1);
        door.traffic.leave(self.source);
        if open == 0
            && let Some(waker) = door.closed.borrow_mut().take()
        {
            waker.wake();
        }
    }
}
