//! Which sources are banned, for workers to ask: a table of fixed size that control writes and nobody
//! waits for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use gateway_ebpf::abi::BANS_MAX;
use gateway_ebpf::bucket::WAYS;

/// Twice as many places as there may be bans, in lines of eight. A ban goes into the emptier one of two, so
/// none is ever full: with one to choose from, every seventh ban would find no place.
const LINES: usize = 2 * BANS_MAX as usize / WAYS;

/// A place holds a tag of 32 bits over the Unix time in seconds at which the ban ends; 0 is free.
const TIME_BITS: u32 = 32;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// The table. Where both lines were full, the ban that ends first would give way.
#[derive(Debug)]
pub(super) struct Banned {
    lines: Box<[[AtomicU64; WAYS]]>,
    /// Places in use, so that asking costs nothing while nobody is banned.
    used: AtomicUsize,
}

impl Default for Banned {
    fn default() -> Self {
        let lines = (0..LINES).map(|_| Default::default()).collect();
        Self { lines, used: AtomicUsize::new(0) }
    }
}

impl Banned {
    /// Whether anybody is banned, or was.
    pub fn is_used(&self) -> bool {
        self.used.load(Relaxed) > 0
    }

    /// Whether the source with this hash is banned at `now`.
    pub fn contains(&self, hash: u64, now: u64) -> bool {
        let is_banned = |place: &AtomicU64| {
            let word = place.load(Relaxed);
            holds(word, hash) && word & TIME_MASK > now
        };
        self.is_used() && self.lines(hash).into_iter().flatten().any(is_banned)
    }

    /// Bans until `until`; only control's thread calls this. A time that has passed ends a ban.
    pub fn set(&self, hash: u64, until: u64, now: u64) {
        let lines = self.lines(hash);
        let known = lines.into_iter().flatten().find(|place| holds(place.load(Relaxed), hash));
        let ends = |place: &&AtomicU64| place.load(Relaxed) & TIME_MASK;
        let used = |line: &&[AtomicU64]| line.iter().filter(|place| ends(place) > now).count();
        let emptier = || lines.into_iter().min_by_key(used)?.iter().min_by_key(ends);
        let Some(place) = known.or_else(emptier) else { return };
        let new = match until > now {
            true => (hash & !TIME_MASK) | until.min(TIME_MASK),
            false if known.is_some() => 0,
            false => return,
        };
        let old = place.swap(new, Relaxed);
        match (old, new) {
            (0, 1..) => self.used.fetch_add(1, Relaxed),
            (1.., 0) => self.used.fetch_sub(1, Relaxed),
            _ => 0,
        };
    }

    /// The two that the source with this hash may be in, by bits of the hash that are not its tag.
    fn lines(&self, hash: u64) -> [&[AtomicU64]; 2] {
        let line = |number: u64| {
            self.lines.get(number as usize % LINES).map_or(&[][..], <[AtomicU64; WAYS]>::as_slice)
        };
        [line(hash), line(hash >> (TIME_BITS / 2))]
    }
}

fn holds(word: u64, hash: u64) -> bool {
    word != 0 && word & !TIME_MASK == hash & !TIME_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_begin_and_end() {
        let banned = Banned::default();
        let alice = 0xa11c_e000_0000_0007;
        assert!(!banned.contains(alice, 10) && !banned.is_used());
        banned.set(alice, 20, 10);
        assert!(banned.contains(alice, 19) && !banned.contains(alice, 20));
        banned.set(alice, 30, 10);
        assert!(banned.contains(alice, 29));
        banned.set(alice, 0, 10);
        assert!(!banned.contains(alice, 10) && !banned.is_used());
        // Ending what is no ban changes nothing.
        banned.set(alice, 0, 10);
        assert!(!banned.is_used());
    }

    /// Numbers as a good hash makes them (SplitMix64).
    fn hashes(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|number| {
            let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }

    #[test]
    fn as_many_as_there_may_be_all_find_a_place() {
        let banned = Banned::default();
        let all = || hashes(BANS_MAX.into());
        all().for_each(|hash| banned.set(hash, 100, 10));
        assert!(all().all(|hash| banned.contains(hash, 10)));
        all().for_each(|hash| banned.set(hash, 0, 10));
        assert!(!banned.is_used());
    }

    #[test]
    fn in_full_lines_the_ban_that_ends_first_gives_way() {
        let banned = Banned::default();
        // Both of their lines are the first.
        let source = |number: u64| number << TIME_BITS;
        for number in 1..=8 {
            banned.set(source(number), 100 + number, 10);
        }
        banned.set(source(9), 200, 10);
        assert!(!banned.contains(source(1), 10));
        assert!((2..=9).all(|number| banned.contains(source(number), 10)));
    }
}
