//! How many requests each key has in flight and waiting, in one table for all workers, without locks.
//!
//! A word is a tag of 32 bits over two counts of 16. One whose counts are zero is free; no other is ever
//! taken from its key. Where eight keys with requests in flight share a line, a ninth shares the word of the
//! one that has the fewest: together they have what one may. So no request passes uncounted, and nobody can
//! choose whom that meets, as the hash is keyed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WAYS: usize = 8;
pub(super) const LINE_BYTES: usize = 64;

const TAG: u64 = !0 << 32;
const WAITING: u64 = 1 << 16;
const HELD: u64 = 1;

/// The most of either count, with room for what comes between looking and changing.
pub(super) const COUNT_MAX: i64 = 60_000;

/// Attempts to change a word until the request counts as one too many.
const ATTEMPTS: usize = 64;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

/// The table.
#[derive(Debug)]
pub(super) struct Slots(Box<[Line]>);

/// Which word a request is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    way: usize,
}

/// What has become of a request that wants in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is counted as in flight.
    Held(Place),
    /// It is counted as waiting.
    Queued(Place),
    /// There is no room for it.
    Full,
}

/// The word that a key is counted in.
struct Found {
    way: usize,
    /// What it was when it was found.
    word: u64,
    /// Whether it is another key's, too.
    is_shared: bool,
}

impl Slots {
    /// One of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let lines = (bytes / LINE_BYTES).max(1).next_power_of_two();
        Self((0..lines).map(|_| Line::default()).collect())
    }

    /// Lets a request of the key with this hash in, where fewer than `limit` are in flight and none waits
    /// before it, or lets it wait, where fewer than `queue` do; and whether another key is counted with it.
    pub fn enter(&self, hash: u64, limit: u16, queue: u16) -> (Entry, bool) {
        let line = hash as usize & (self.0.len() - 1);
        let mut shared = false;
        for _ in 0..ATTEMPTS {
            let Found { way, word: before, is_shared } = self.find(line, hash & TAG);
            shared = is_shared;
            let place = Place { line, way };
            let counts = before & !TAG;
            let (held, waiting) = (counts & 0xffff, counts >> 16);
            let (added, entry) = if held < limit.into() && waiting == 0 {
                (HELD, Entry::Held(place))
            } else if waiting < queue.into() {
                (WAITING, Entry::Queued(place))
            } else {
                return (Entry::Full, shared);
            };
            let tag = if is_shared { before & TAG } else { hash & TAG };
            if self.swap(place, before, tag | (counts + added)) {
                return (entry, shared);
            }
        }
        (Entry::Full, shared)
    }

    /// Lets in one that waits, if fewer than `limit` are in flight.
    pub fn promote(&self, place: Place, limit: u16) -> bool {
        for _ in 0..ATTEMPTS {
            let before = self.load(place);
            if before & 0xffff >= limit.into() {
                return false;
            }
            if self.swap(place, before, before - WAITING + HELD) {
                return true;
            }
        }
        false
    }

    /// One that was in flight has ended.
    pub fn leave(&self, place: Place) {
        self.subtract(place, HELD);
    }

    /// One waits no longer.
    pub fn give_up(&self, place: Place) {
        self.subtract(place, WAITING);
    }

    /// The word of the key with this tag, else a free one, else that of the key with the fewest requests.
    fn find(&self, line: usize, tag: u64) -> Found {
        let mut least = Found { way: 0, word: self.load(Place { line, way: 0 }), is_shared: true };
        for way in 0..WAYS {
            let word = self.load(Place { line, way });
            if !is_free(word) && word & TAG == tag {
                return Found { way, word, is_shared: false };
            }
            if total(word) < total(least.word) {
                least = Found { way, word, is_shared: true };
            }
        }
        Found { is_shared: !is_free(least.word), ..least }
    }

    fn word(&self, Place { line, way }: Place) -> Option<&AtomicU64> {
        self.0.get(line)?.0.get(way)
    }

    fn load(&self, place: Place) -> u64 {
        self.word(place).map_or(0, |word| word.load(Relaxed))
    }

    fn swap(&self, place: Place, old: u64, new: u64) -> bool {
        let swap = |word: &AtomicU64| word.compare_exchange(old, new, Relaxed, Relaxed).is_ok();
        self.word(place).is_some_and(swap)
    }

    fn subtract(&self, place: Place, count: u64) {
        if let Some(word) = self.word(place) {
            word.fetch_sub(count, Relaxed);
        }
    }
}

fn is_free(word: u64) -> bool {
    word & !TAG == 0
}

/// Requests in flight and waiting.
fn total(word: u64) -> u64 {
    (word & 0xffff) + ((word & !TAG) >> 16)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn held(entry: (Entry, bool)) -> Place {
        match entry {
            (Entry::Held(place), false) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let slots = Slots::new(64);
        let key = 5 << 40;
        let first = held(slots.enter(key, 1, 1));
        let (Entry::Queued(waiting), _) = slots.enter(key, 1, 1) else { panic!() };
        assert_eq!(slots.enter(key, 1, 1), (Entry::Full, false));
        assert!(!slots.promote(waiting, 1));
        slots.leave(first);
        assert_eq!(slots.enter(key, 1, 1), (Entry::Full, false));
        assert!(slots.promote(waiting, 1));
        slots.leave(waiting);
        held(slots.enter(key, 1, 0));
        assert_eq!(slots.enter(key, 1, 0), (Entry::Full, false));
    }

    #[test]
    fn a_key_in_use_keeps_its_place() {
        let slots = Slots::new(64);
        let places: Vec<_> = (1..=8).map(|key| held(slots.enter(key << 32, 1, 0))).collect();
        assert_eq!(slots.enter(9 << 32, 1, 0), (Entry::Full, true));
        for key in 1..=8 {
            assert_eq!(slots.enter(key << 32, 1, 0), (Entry::Full, false));
        }
        slots.leave(places[3]);
        assert_eq!(held(slots.enter(9 << 32, 1, 0)), places[3]);
        assert_eq!(slots.enter(4 << 32, 1, 0), (Entry::Full, true));
    }

    #[test]
    fn a_ninth_key_is_counted_with_the_one_that_has_fewest() {
        let slots = Slots::new(64);
        let places: Vec<_> = (1..=8).map(|key| held(slots.enter(key << 32, 3, 0))).collect();
        for key in [1, 2, 3, 4, 6, 7, 8] {
            held(slots.enter(key << 32, 3, 0));
        }
        let ninth = || slots.enter(9 << 32, 3, 0);
        assert_eq!(ninth(), (Entry::Held(places[4]), true));
        // Now all have two, and the first is as good as any.
        assert_eq!(ninth(), (Entry::Held(places[0]), true));
        assert_eq!(slots.enter(1 << 32, 3, 0), (Entry::Full, false));
        let admitted = (0..99).filter(|_| matches!(ninth().0, Entry::Held(_))).count();
        assert_eq!(admitted, 7, "eight words of three are all there is");
    }

    #[test]
    fn threads_share_the_limit() {
        let slots = Slots::new(4096);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let run = || {
            let mut times = 0;
            while times < 2000 {
                if let (Entry::Held(place), _) = slots.enter(77 << 32, 3, 0) {
                    most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                    inside.fetch_sub(1, Relaxed);
                    slots.leave(place);
                    times += 1;
                }
            }
        };
        thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(run))));
        assert!(most.into_inner() <= 3);
        assert!(slots.0.iter().flat_map(|line| &line.0).all(|word| is_free(word.load(Relaxed))));
    }
}
