//! Connections open at once, counted exactly: userspace counts at accept and at close, the program
//! only reads.
//!
//! Eight sources share a line, as in [`crate::bucket`]; a way holds a tag over a count, and is free
//! when the count is 0. A connection stays with the way it was counted in, so leaving looks for
//! nothing and cannot miss. Two threads that meet a new source at the same moment may count it in two
//! ways of its line: what counts is the sum.

use crate::bucket::{Line, WAYS};

/// A way holds a tag of 40 bits over a count of 24: more connections than a process has descriptors.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Attempts to count until a connection goes uncounted. One fails only when another thread has
/// changed the same way meanwhile.
const ATTEMPTS: usize = 64;

/// One connection, counted.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// For [`leave`].
    pub way: usize,
    /// How many its source has open, this one included.
    pub open: u32,
}

/// How many connections the source with `tag` has open.
#[inline(always)]
pub fn count(line: &impl Line, tag: u64) -> u32 {
    let tag = tag & !COUNT_MASK;
    let mut sum = 0;
    for way in 0..WAYS {
        let word = line.load(way);
        if word & !COUNT_MASK == tag {
            sum += word & COUNT_MASK;
        }
    }
    sum as u32
}

/// Counts one more. `None` when eight other sources have the whole line, which then goes uncounted.
pub fn enter(line: &impl Line, tag: u64) -> Option<Entered> {
    let tag = tag & !COUNT_MASK;
    for _ in 0..ATTEMPTS {
        let (way, word) = find(line, tag)?;
        let open = (word & COUNT_MASK) + 1;
        if line.swap(way, word, tag | open) {
            let elsewhere = (0..WAYS).filter(|other| *other != way).map(|other| line.load(other));
            let elsewhere = elsewhere.filter(|word| word & !COUNT_MASK == tag);
            let open = open + elsewhere.map(|word| word & COUNT_MASK).sum::<u64>();
            return Some(Entered { way, open: open as u32 });
        }
    }
    None
}

/// The way that counts the source with `tag`, else a free one; and what it holds.
fn find(line: &impl Line, tag: u64) -> Option<(usize, u64)> {
    let mut free = None;
    for way in 0..WAYS {
        let word = line.load(way);
        if word & COUNT_MASK == 0 {
            free = free.or(Some((way, word)));
        } else if word & !COUNT_MASK == tag && word & COUNT_MASK < COUNT_MASK {
            return Some((way, word));
        }
    }
    free
}

/// Takes away the connection that [`enter`] has counted in `way`.
pub fn leave(line: &impl Line, way: usize) {
    loop {
        let word = line.load(way);
        // Never 0, as the connection is counted here; but a count must not wrap.
        if word & COUNT_MASK == 0 || line.swap(way, word, word - 1) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::thread;

    use super::*;

    type Memory = [AtomicU64; WAYS];

    const ALICE: u64 = 1 << COUNT_BITS;

    #[test]
    fn what_comes_and_goes_is_counted() {
        let line = Memory::default();
        let first = enter(&line, ALICE).unwrap();
        let second = enter(&line, ALICE).unwrap();
        assert_eq!((first.open, second.open, count(&line, ALICE)), (1, 2, 2));
        leave(&line, first.way);
        leave(&line, second.way);
        assert_eq!(count(&line, ALICE), 0);
        // One leave too many changes nothing.
        leave(&line, first.way);
        assert_eq!(count(&line, ALICE), 0);
    }

    #[test]
    fn eight_sources_fit_and_the_ninth_goes_uncounted_until_one_leaves() {
        let line = Memory::default();
        let ways: Vec<_> =
            (0..8).map(|source| enter(&line, source << COUNT_BITS).unwrap().way).collect();
        assert_eq!(enter(&line, 8 << COUNT_BITS), None);
        leave(&line, ways[3]);
        assert_eq!(enter(&line, 8 << COUNT_BITS), Some(Entered { way: ways[3], open: 1 }));
        assert_eq!(count(&line, 3 << COUNT_BITS), 0);
        assert_eq!(count(&line, 4 << COUNT_BITS), 1);
    }

    #[test]
    fn a_source_in_two_ways_counts_as_one() {
        let line = Memory::default();
        line[2].store(ALICE | 3, Relaxed);
        line[5].store(ALICE | 4, Relaxed);
        assert_eq!(count(&line, ALICE), 7);
        assert_eq!(enter(&line, ALICE), Some(Entered { way: 2, open: 8 }));
    }

    #[test]
    fn threads_lose_no_connection() {
        let line = Memory::default();
        let run = |source: u64| {
            for _ in 0..20_000 {
                let entered = enter(&line, source << COUNT_BITS);
                if let Some(Entered { way, .. }) = entered {
                    leave(&line, way);
                }
            }
        };
        thread::scope(|scope| {
            for source in [1, 1, 2, 3] {
                let run = &run;
                scope.spawn(move || run(source));
            }
        });
        for source in 1..=3 {
            assert_eq!(count(&line, source << COUNT_BITS), 0);
        }
    }
}
