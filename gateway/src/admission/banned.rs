//! Which sources are banned, for workers to ask: a table of fixed size that control writes and nobody
//! waits for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use gateway_ebpf::abi::BANS_MAX;
use gateway_ebpf::bucket::WAYS;

/// As many places as the kernel's map has, in lines of eight.
const LINES: usize = BANS_MAX as usize / WAYS;

/// A place holds a tag of 32 bits over the Unix time in seconds at which the ban ends; 0 is free.
const TIME_BITS: u32 = 32;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// The table. Where a line has no place, the ban that ends first gives way.
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
        let places = self.line(hash).iter().map(|place| place.load(Relaxed));
        self.is_used() && places.into_iter().any(|word| holds(word, hash) && word & TIME_MASK > now)
    }

    /// Bans until `until`; only control's thread calls this. A time that has passed ends a ban.
    pub fn set(&self, hash: u64, until: u64, now: u64) {
        let line = self.line(hash);
        let known = line.iter().find(|place| holds(place.load(Relaxed), hash));
        let first_to_end = || line.iter().min_by_key(|place| place.load(Relaxed) & TIME_MASK);
        let Some(place) = known.or_else(first_to_end) else { return };
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

    fn line(&self, hash: u64) -> &[AtomicU64] {
        self.lines.get(hash as usize % LINES).map_or(&[], <[AtomicU64; WAYS]>::as_slice)
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

    #[test]
    fn in_a_full_line_the_ban_that_ends_first_gives_way() {
        let banned = Banned::default();
        let source = |number: u64| number << TIME_BITS;
        for number in 1..=8 {
            banned.set(source(number), 100 + number, 10);
        }
        banned.set(source(9), 200, 10);
        assert!(!banned.contains(source(1), 10));
        assert!((2..=9).all(|number| banned.contains(source(number), 10)));
    }
}
