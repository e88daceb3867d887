//! Deadlines for everything that waits on a socket, without a timer per operation.
//!
//! A deadline that passes shuts its socket down. The operation in the kernel then completes by
//! itself, so nothing is ever dropped half done: with io_uring a dropped read may already have
//! taken bytes. One task per worker sleeps until the earliest deadline; setting one is a store.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::{Either, select};
use monoio::io::{CancelHandle, Canceller};
use rustix::net::Shutdown;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::rt;
use crate::sys;

/// How late a deadline may be noticed. It bounds how often all of them are looked through.
const GRANULARITY: Duration = Duration::from_millis(20);

/// Requests in flight up to which a plain system call costs less than a turn of the ring: so few
/// share none. Above, the ring's batches save the peers more wake-ups than a call saves.
const CALM_MAX: usize = 8;

/// How long a connection that is asked again and again keeps its buffer between two requests.
pub const WARM: Duration = Duration::from_millis(50);

/// How many connections may. Each has a buffer meanwhile.
const WARM_MAX: usize = 512;

/// How often a watched socket is looked at.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// A point in time, in milliseconds of a clock that begins when the machine does and is read without
/// asking the hardware: it moves in steps of some milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

impl Default for Deadline {
    fn default() -> Self {
        Self::NEVER
    }
}

impl Deadline {
    /// No deadline.
    pub const NEVER: Self = Self(u64::MAX);
    /// A deadline that has passed.
    pub const PASSED: Self = Self(0);

    /// This moment.
    pub fn now() -> Self {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::MonotonicCoarse);
        Self(tv_sec.unsigned_abs() * 1000 + tv_nsec.unsigned_abs() / 1_000_000)
    }

    /// Milliseconds since a point in the past that is the same for all of the machine.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// The point in time `duration` from now.
    pub fn after(duration: Duration) -> Self {
        Self(Self::now().0.saturating_add(millis(duration)))
    }

    /// How long until it has passed.
    pub fn left(self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(Self::now().0))
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        Duration::from_millis(Self::now().0.saturating_sub(self.0))
    }
}

/// All deadlines of one worker, and how much its sockets have to do.
pub struct Deadlines {
    slots: RefCell<Slots>,
    /// When the task wakes next.
    next: Cell<Deadline>,
    /// Set when `next` changed under the sleeping task.
    rearmed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Requests that the worker's sockets carry now.
    in_flight: Cell<usize>,
    /// Ends all reads of those who wait with a buffer.
    warm: RefCell<Canceller>,
    warm_count: Cell<usize>,
    /// When it is used next.
    cool_at: Cell<Deadline>,
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    at: Deadline,
    fd: RawFd,
    direction: Direction,
    state: State,
    spared: bool,
    /// Whose connection it is, where it may be ended on its account.
    owner: Option<IpAddr>,
    /// Its owner has no claim to it any more: it ends as soon as nobody waits for an answer on it.
    doomed: bool,
}

impl Slot {
    /// Its deadline has passed.
    fn pass(&mut self, now: Deadline) {
        match (self.state, self.direction) {
            (State::Watching(_), _) if !sys::is_broken(self.fd) => {
                self.at = Deadline(now.0.saturating_add(millis(WATCH_INTERVAL)));
            }
            (State::Watching(other), _) => {
                self.at = Deadline::NEVER;
                let _ = sys::shutdown_socket(other, Shutdown::Both);
            }
            (State::Armed | State::Idle, Direction::Read) => self.shut_down(Shutdown::Read),
            (State::Armed | State::Idle, Direction::Write) => self.shut_down(Shutdown::Both),
            (State::Free | State::Expired, _) => self.at = Deadline::NEVER,
        }
    }

    fn shut_down(&mut self, how: Shutdown) {
        self.state = State::Expired;
        self.at = Deadline::NEVER;
        // The peer may have closed in the meantime; then there is nothing to shut down.
        let _ = sys::shutdown_socket(self.fd, how);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Armed,
    /// Armed, and waiting for a request that nobody promised: ends at once when the worker drains.
    Idle,
    /// Looked at now and then while nobody reads: if its peer has reset it, the socket with this
    /// descriptor is shut down.
    Watching(RawFd),
    Expired,
}

/// What a passed deadline shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Reading: an answer can still be written.
    Read,
    /// Everything: a peer that takes no bytes gets no more.
    Write,
}

impl Deadlines {
    /// No deadlines yet. [`Self::run`] must be running for them to pass.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            slots: RefCell::default(),
            next: Cell::new(Deadline::NEVER),
            rearmed: Cell::new(false),
            waker: RefCell::default(),
            in_flight: Cell::new(0),
            warm: RefCell::default(),
            warm_count: Cell::new(0),
            cool_at: Cell::new(Deadline::NEVER),
        })
    }

    /// A request has begun.
    pub fn request_begun(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A request has ended.
    pub fn request_ended(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// Lets every idle wait end now; used when the worker drains.
    pub fn expire_idle(&self) {
        for slot in &mut self.slots.borrow_mut().all {
            if slot.state == State::Idle {
                slot.at = Deadline::PASSED;
            }
        }
        self.wake_by(Deadline::PASSED);
    }

    /// Lets deadlines pass, for as long as the worker lives.
    pub async fn run(self: Rc<Self>) {
        loop {
            let rearmed = pin!(poll_fn(|context| {
                if self.rearmed.take() {
                    return Poll::Ready(());
                }
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }));
            let next = self.next.get();
            if next == Deadline::NEVER {
                rearmed.await;
                continue;
            }
            let now = Deadline::now();
            let wait = Duration::from_millis(next.0.saturating_sub(now.0)).max(GRANULARITY);
            // An earlier deadline only means to wait less: nothing has passed yet.
            if let Either::Left(_) = select(pin!(rt::sleep(wait)), rearmed).await {
                self.next.set(Deadline::NEVER);
                let next = self.expire(Deadline::now());
                self.next.set(next);
            }
        }
    }

    /// Shuts down whatever is due and returns the earliest deadline that is left.
    fn expire(&self, now: Deadline) -> Deadline {
        if self.cool_at.get() <= now {
            self.cool_at.set(Deadline::NEVER);
            let warm = self.warm.take();
            self.warm.replace(warm.cancel());
        }
        let mut next = self.cool_at.get();
        for slot in &mut self.slots.borrow_mut().all {
            if slot.at <= now {
                slot.pass(now);
            }
            next = next.min(slot.at);
        }
        next
    }

    /// Ends the idle waits that would end next, at most `count`: those whose connections
    /// have idled longest. Returns how many there were.
    pub fn expire_oldest_idle(&self, count: usize) -> usize {
        let mut slots = self.slots.borrow_mut();
        let mut idle: Vec<_> =
            slots.all.iter_mut().filter(|slot| slot.state == State::Idle).collect();
        let count = count.min(idle.len());
        if count == 0 {
            return 0;
        }
        if count < idle.len() {
            idle.select_nth_unstable_by_key(count, |slot| slot.at);
        }
        for slot in idle.into_iter().take(count) {
            slot.shut_down(Shutdown::Read);
        }
        count
    }

    /// Ends every connection that has not been [spared](Timer::spare).
    pub fn expire_unspared(&self) {
        for slot in &mut self.slots.borrow_mut().all {
            if !slot.spared && slot.state != State::Free {
                slot.shut_down(Shutdown::Both);
            }
        }
    }

    /// What ends a read after a while of which nobody knows whether it will read anything.
    fn warm(&self) -> CancelHandle {
        if self.cool_at.get() == Deadline::NEVER {
            let at = Deadline::after(WARM);
            self.cool_at.set(at);
            self.wake_by(at);
        }
        self.warm.borrow().handle()
    }

    /// Ends what belongs to whom `is_unwanted` says so of: idle waits and what is spared, which is tunnels, at once,
    /// others when they next are one of these.
    pub fn end_those_of(&self, is_unwanted: impl Fn(IpAddr) -> bool) {
        for slot in &mut self.slots.borrow_mut().all {
            let is_open = !matches!(slot.state, State::Free | State::Expired);
            if is_open && slot.owner.is_some_and(&is_unwanted) {
                slot.doomed = true;
                match (slot.spared, slot.state) {
                    (true, _) => slot.shut_down(Shutdown::Both),
                    (false, State::Idle) => slot.shut_down(Shutdown::Read),
                    _ => {}
                }
            }
        }
    }

    fn wake_by(&self, at: Deadline) {
        if at < self.next.get() {
            self.next.set(at);
            self.rearmed.set(true);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One direction of one socket among the deadlines; must be dropped before the socket is.
#[derive(Debug)]
pub struct Timer {
    deadlines: Rc<Deadlines>,
    slot: usize,
}

impl Timer {
    /// Registers a direction of the socket `fd`.
    pub fn new(deadlines: Rc<Deadlines>, fd: RawFd, direction: Direction) -> Self {
        let slot = {
            let mut slots = deadlines.slots.borrow_mut();
            let (at, state) = (Deadline::NEVER, State::Armed);
            let new = Slot { at, fd, direction, state, spared: false, owner: None, doomed: false };
            let index = slots.free.pop().unwrap_or(slots.all.len());
            match slots.all.get_mut(index) {
                Some(slot) => *slot = new,
                None => slots.all.push(new),
            }
            index
        };
        Self { deadlines, slot }
    }

    /// Sets the deadline, replacing the one before.
    pub fn arm(&self, at: Deadline) {
        self.set(at, State::Armed);
    }

    /// Sets the deadline of a wait that ends at once when the worker drains.
    pub fn arm_idle(&self, at: Deadline) {
        self.set(at, State::Idle);
    }

    /// Takes the deadline away.
    pub fn disarm(&self) {
        self.set(Deadline::NEVER, State::Armed);
    }

    /// Whether the worker has little to do.
    pub fn is_calm(&self) -> bool {
        self.deadlines.in_flight.get() <= CALM_MAX
    }

    /// Lets a read be ended after a while without an end to its connection, unless there are too many
    /// such reads. No byte is lost: one that has read something says so.
    pub(super) fn warm(&self) -> Option<(CancelHandle, Warm<'_>)> {
        let count = &self.deadlines.warm_count;
        if count.get() >= WARM_MAX {
            return None;
        }
        count.set(count.get() + 1);
        Some((self.deadlines.warm(), Warm(count)))
    }

    /// Whether the deadline has passed and the socket is shut down.
    pub fn expired(&self) -> bool {
        let slots = self.deadlines.slots.borrow();
        slots.all.get(self.slot).is_some_and(|slot| slot.state == State::Expired)
    }

    /// Keeps [`Deadlines::expire_unspared`] from it.
    pub fn spare(&self) {
        let mut slots = self.deadlines.slots.borrow_mut();
        if let Some(slot) = slots.all.get_mut(self.slot) {
            slot.spared = true;
            if slot.doomed {
                slot.shut_down(Shutdown::Both);
            }
        }
    }

    /// Says whose connection it is, for [`Deadlines::end_those_of`].
    pub fn belongs_to(&self, owner: IpAddr) {
        let mut slots = self.deadlines.slots.borrow_mut();
        if let Some(slot) = slots.all.get_mut(self.slot) {
            slot.owner = Some(owner);
        }
    }

    /// Whether [`Deadlines::end_those_of`] has ended it, or is about to.
    pub fn is_doomed(&self) -> bool {
        let slots = self.deadlines.slots.borrow();
        slots.all.get(self.slot).is_some_and(|slot| slot.doomed)
    }

    /// A way to set this deadline while the socket is borrowed by an operation.
    pub fn alarm(&self) -> Alarm {
        Alarm { deadlines: Rc::clone(&self.deadlines), slot: self.slot }
    }

    fn set(&self, at: Deadline, state: State) {
        self.deadlines.set(self.slot, at, state);
    }
}

/// Counts a read that may be ended.
pub(super) struct Warm<'a>(&'a Cell<usize>);

impl Drop for Warm<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Sets a [`Timer`]'s deadline from elsewhere. Of no use once the timer is gone.
#[derive(Debug)]
pub struct Alarm {
    deadlines: Rc<Deadlines>,
    slot: usize,
}

impl Alarm {
    /// Sets the deadline, replacing the one before.
    pub fn arm(&self, at: Deadline) {
        self.deadlines.set(self.slot, at, State::Armed);
    }

    /// Looks at the socket now and then, as long as the returned value lives: when its peer has
    /// reset the connection, the socket `other` is shut down. It must stay open that long.
    pub fn watch(&self, other: RawFd) -> Watch {
        let at = Deadline::after(WATCH_INTERVAL);
        self.deadlines.set(self.slot, at, State::Watching(other));
        Watch { deadlines: Rc::clone(&self.deadlines), slot: self.slot }
    }
}

/// A socket is looked at while this lives.
#[derive(Debug)]
pub struct Watch {
    deadlines: Rc<Deadlines>,
    slot: usize,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.deadlines.set(self.slot, Deadline::NEVER, State::Armed);
    }
}

impl Deadlines {
    fn set(&self, slot: usize, mut at: Deadline, state: State) {
        if let Some(slot) = self.slots.borrow_mut().all.get_mut(slot)
            && matches!(slot.state, State::Armed | State::Idle | State::Watching(_))
        {
            if slot.doomed && state == State::Idle {
                at = Deadline::PASSED;
            }
            slot.at = at;
            slot.state = state;
        }
        self.wake_by(at);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut slots = self.deadlines.slots.borrow_mut();
        if let Some(slot) = slots.all.get_mut(self.slot) {
            slot.at = Deadline::NEVER;
            slot.state = State::Free;
            slots.free.push(self.slot);
        }
    }
}
