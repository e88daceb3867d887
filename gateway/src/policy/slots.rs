//! How many requests each key has in flight and waiting, in one table for all workers, without locks.
//!
//! A word is a tag of 32 bits over two counts of 16. One whose counts are zero is free; no other is ever
//! taken from its key. Where eight keys with requests in flight share a line, a ninth is not counted:
//! nobody can choose who that is, as the hash is keyed.

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
    /// There is no room to count it.
    Uncounted,
}

impl Slots {
    /// One of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let lines = (bytes / LINE_BYTES).max(1).next_power_of_two();
        Self((0..lines).map(|_| Line::default()).collect())
    }

    /// Lets a request of the key with this hash in, where fewer than `limit` are in flight and none waits
    /// before it, or lets it wait, where fewer than `queue` do.
    pub fn enter(&self, hash: u64, limit: u16, queue: u16) -> Entry {
        let line = hash as usize & (self.0.len() - 1);
        for _ in 0..ATTEMPTS {
            let Some((way, before)) = self.find(line, hash & TAG) else { return Entry::Uncounted };
            let place = Place { line, way };
            let counts = if is_free(before) { 0 } else { before & !TAG };
            let (held, waiting) = (counts & 0xffff, counts >> 16);
            let (added, entry) = if held < limit.into() && waiting == 0 {
                (HELD, Entry::Held(place))
            } else if waiting < queue.into() {
                (WAITING, Entry::Queued(place))
            } else {
                return Entry::Full;
            };
            if self.swap(place, before, (hash & TAG) | (counts + added)) {
                return entry;
            }
        }
        Entry::Full
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

    /// The word of the key with this tag, else a free one.
    fn find(&self, line: usize, tag: u64) -> Option<(usize, u64)> {
        let mut free = None;
        for way in 0..WAYS {
            let word = self.load(Place { line, way });
            match is_free(word) {
                true => free = free.or(Some((way, word))),
                false if word & TAG == tag => return Some((way, word)),
                false => {}
            }
        }
        free
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn held(entry: Entry) -> Place {
        match entry {
            Entry::Held(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let slots = Slots::new(64);
        let key = 5 << 40;
        let first = held(slots.enter(key, 1, 1));
        let Entry::Queued(waiting) = slots.enter(key, 1, 1) else { panic!() };
        assert_eq!(slots.enter(key, 1, 1), Entry::Full);
        assert!(!slots.promote(waiting, 1));
        slots.leave(first);
        assert_eq!(slots.enter(key, 1, 1), Entry::Full);
        assert!(slots.promote(waiting, 1));
        slots.leave(waiting);
        held(slots.enter(key, 1, 0));
        assert_eq!(slots.enter(key, 1, 0), Entry::Full);
    }

    #[test]
    fn a_key_in_use_keeps_its_place() {
        let slots = Slots::new(64);
        let places: Vec<_> = (1..=8).map(|key| held(slots.enter(key << 32, 1, 0))).collect();
        assert_eq!(slots.enter(9 << 32, 1, 0), Entry::Uncounted);
        for key in 1..=8 {
            assert_eq!(slots.enter(key << 32, 1, 0), Entry::Full);
        }
        slots.leave(places[3]);
        assert_eq!(held(slots.enter(9 << 32, 1, 0)), places[3]);
        assert_eq!(slots.enter(4 << 32, 1, 0), Entry::Uncounted);
    }

    #[test]
    fn threads_share_the_limit() {
        let slots = Slots::new(4096);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let run = || {
            let mut times = 0;
            while times < 2000 {
                if let Entry::Held(place) = slots.enter(77 << 32, 3, 0) {
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
