//! Bounds how many requests are in flight at once; a few more may wait for their turn.

#![expect(clippy::disallowed_types, reason = "all workers count in one table")]

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use super::key::Key;
use super::slots::{COUNT_MAX, Entry, Place, Slots};
use super::{Build, Parts, Policy, Shared, Verdict};
use crate::document::section::Section;
use crate::document::units::{bytes, duration};
use crate::document::values::{boolean, integer};
use crate::exchange::error::Denial;
use crate::exchange::inquiry::Upstreams;
use crate::exchange::{Context, Error, Request};
use crate::net::{Deadline, rt};
use crate::telemetry::metrics;

/// How long a request that waits may not notice a place that another worker's has left: workers cannot
/// wake each other for it. Places of its own worker it is woken for.
const LOOK: Duration = Duration::from_millis(5);

const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(300);

/// 512 keys with requests in flight to 134 million.
const TABLE_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 30;
const TABLE_BYTES_DEFAULT: usize = 256 << 10;

/// How many of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    key: Key,
    limit: u16,
    queue: u16,
    wait: Duration,
    table: usize,
    observe: bool,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let limit = table.required("limit", "write 100", integer(1..=COUNT_MAX));
        Self {
            key: Key::read(table),
            limit: limit.unwrap_or(1),
            queue: table.value("queue", 0, integer(0..=COUNT_MAX)),
            wait: table.value("wait", Duration::from_secs(5), duration(WAIT)),
            table: table.value("table", TABLE_BYTES_DEFAULT, bytes(TABLE_BYTES)),
            observe: table.value("observe", false, boolean),
        }
    }
}

impl Settings {
    /// What it counts together.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

/// What all workers count in.
#[derive(Debug)]
struct Counts {
    hashes: RandomState,
    slots: Slots,
}

impl Build for Settings {
    fn shared(&self) -> Shared {
        Some(Arc::new(Counts { hashes: RandomState::new(), slots: Slots::new(self.table) }))
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let shared = parts.shared.clone().or_else(|| self.shared());
        Rc::new(Concurrency {
            name: parts.name.to_owned(),
            settings: self.clone(),
            counts: shared.and_then(|shared| shared.downcast().ok()),
            line: Rc::default(),
            counters: Arc::clone(&parts.counters),
        })
    }
}

/// A worker's part in it.
struct Concurrency {
    name: String,
    settings: Settings,
    /// `None` if it were another policy's, which cannot be.
    counts: Option<Arc<Counts>>,
    line: Rc<Waiters>,
    counters: Arc<metrics::Policy>,
}

impl Policy for Concurrency {
    fn rule(&self, _: &Request<'_>) -> String {
        let Settings { key, limit, queue, wait, observe, .. } = &self.settings;
        let waiting = match queue {
            0 => String::new(),
            queue => format!(", {queue} more wait for {wait:?}"),
        };
        let observed = if *observe { ", which is only counted" } else { "" };
        format!("{limit} in flight, {key}{waiting}{observed}")
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let Settings { key, limit, queue, observe, .. } = &self.settings;
        let Some(counts) = &self.counts else { return Verdict::Continue };
        let (entry, is_shared) =
            counts.slots.enter(key.point(request, context, &counts.hashes), *limit, 0);
        self.counters.shared.add(u64::from(is_shared));
        match entry {
            Entry::Held(place) => context.hold(self.held(counts, place)),
            Entry::Queued(_) | Entry::Full if *observe => {
                self.counters.observed.add(1);
                context.observe(&self.name);
            }
            Entry::Queued(_) | Entry::Full if *queue > 0 => return Verdict::Wait,
            Entry::Queued(_) | Entry::Full => return refuse(context),
        }
        Verdict::Continue
    }

    fn wait<'a>(
        &'a self,
        request: &'a Request<'_>,
        context: &'a Context,
        _upstreams: &'a dyn Upstreams,
    ) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(async move {
            let Settings { key, limit, queue, wait, .. } = &self.settings;
            let Some(counts) = &self.counts else { return Verdict::Continue };
            let until = Deadline::after(*wait);
            let point = key.point(request, context, &counts.hashes);
            match counts.slots.enter(point, *limit, *queue).0 {
                Entry::Held(place) => context.hold(self.held(counts, place)),
                Entry::Full => return refuse(context),
                Entry::Queued(place) => {
                    let queued = Queued::new(Arc::clone(counts), place, Rc::clone(&self.line));
                    while !queued.promote(*limit) {
                        let left = until.left();
                        if left.is_zero() {
                            return refuse(context);
                        }
                        let _ = rt::timeout(left.min(LOOK), queued.woken()).await;
                    }
                    context.hold(self.held(counts, place));
                }
            }
            Verdict::Continue
        })
    }
}

impl Concurrency {
    fn held(&self, counts: &Arc<Counts>, place: Place) -> Held {
        Held { counts: Arc::clone(counts), place, line: Rc::clone(&self.line) }
    }
}

fn refuse(context: &Context) -> Verdict {
    let mut edits = context.response_edits.borrow_mut();
    edits.set(Bytes::from_static(b"retry-after"), Bytes::from_static(b"1"));
    Verdict::Refuse(Error::Denied(Denial::TooManyInFlight))
}

/// A request in flight.
struct Held {
    counts: Arc<Counts>,
    place: Place,
    line: Rc<Waiters>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counts.slots.leave(self.place);
        self.line.wake_first(self.place);
    }
}

/// Requests of one worker that wait, the first first.
#[derive(Default)]
struct Waiters(RefCell<Vec<Rc<Waiter>>>);

struct Waiter {
    place: Place,
    /// There while it sleeps.
    waker: Cell<Option<Waker>>,
}

impl Waiters {
    fn wake_first(&self, place: Place) {
        let waiters = self.0.borrow();
        let mut same = waiters.iter().filter(|waiter| waiter.place == place);
        if let Some(waker) = same.find_map(|waiter| waiter.waker.take()) {
            waker.wake();
        }
    }
}

/// A request that waits.
struct Queued {
    counts: Arc<Counts>,
    line: Rc<Waiters>,
    waiter: Rc<Waiter>,
    promoted: Cell<bool>,
}

impl Queued {
    fn new(counts: Arc<Counts>, place: Place, line: Rc<Waiters>) -> Self {
        let waiter = Rc::new(Waiter { place, waker: Cell::new(None) });
        line.0.borrow_mut().push(Rc::clone(&waiter));
        Self { counts, line, waiter, promoted: Cell::new(false) }
    }

    /// Whether it is its turn now; it is in flight then.
    fn promote(&self, limit: u16) -> bool {
        self.promoted.set(self.counts.slots.promote(self.waiter.place, limit));
        self.promoted.get()
    }

    /// Waits until it has been woken. May be dropped.
    async fn woken(&self) {
        let mut slept = false;
        poll_fn(|context| {
            if std::mem::replace(&mut slept, true) {
                return Poll::Ready(());
            }
            self.waiter.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.line.0.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        if !self.promoted.get() {
            self.counts.slots.give_up(self.waiter.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, build, settings};
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_exchange_has_ended() {
        let policy = build("p", &settings("limit = 2", Settings::read).unwrap());
        let asker = Asker::get("/");
        asker.ask(|request, context| {
            assert_eq!(policy.request(request, context), Verdict::Continue);
            assert_eq!(policy.request(request, context), Verdict::Continue);
            let refused = Verdict::Refuse(Error::Denied(Denial::TooManyInFlight));
            assert_eq!(policy.request(request, &Context::default()), refused);
            assert_eq!(asker.of(&*policy).response, "retry-after: 1\n");
            let other = asker.clone().from("192.0.2.99").of(&*policy);
            assert_eq!(other.verdict, Verdict::Continue);
        });
        assert_eq!(asker.of(&*policy).verdict, Verdict::Continue);
    }

    #[test]
    fn nobody_passes_uncounted_where_there_are_too_many() {
        let settings = settings("limit = 1\ntable = '4KiB'", Settings::read).unwrap();
        let metrics = metrics::Worker::new();
        let counters = metrics.policy("p");
        let policy = settings.build(&Parts {
            name: "p",
            shared: None,
            counters: Arc::clone(&counters),
            metrics: &metrics,
            members: &[],
        });
        Asker::get("/").ask(|_, context| {
            let passes = |number: &u32| {
                let address = std::net::Ipv4Addr::from_bits(number << 8).to_string();
                Asker::get("/")
                    .from(&address)
                    .ask(|request, _| policy.request(request, context) == Verdict::Continue)
            };
            assert!((0..1000).filter(passes).count() <= 512);
            assert!(counters.shared.value() >= 1000 - 512);
        });
        assert_eq!(Asker::get("/").of(&*policy).verdict, Verdict::Continue);
    }

    #[test]
    fn what_observes_lets_pass_and_what_queues_waits() {
        let second = |lines: &str| {
            let policy = build("p", &settings(lines, Settings::read).unwrap());
            Asker::get("/").ask(|request, context| {
                assert_eq!(policy.request(request, context), Verdict::Continue);
                policy.request(request, context)
            })
        };
        assert_eq!(second("limit = 1\nobserve = true"), Verdict::Continue);
        assert_eq!(second("limit = 1\nqueue = 1"), Verdict::Wait);
    }
}
