//! Who has a connection here, as the kernel program asks before it makes a SYN cookie without looking for a
//! socket, see [`gateway_ebpf::known`].

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gateway_ebpf::known::{self, WORDS};

use super::Source;
use crate::sys::SharedWords;

/// So many bits, an eighth of all, and for one in eight of the sources that are not known a socket is looked for.
const CROWD: u64 = WORDS as u64 * u64::BITS as u64 / 8;

/// A bit for each source that has had a connection.
#[derive(Debug)]
pub struct Known {
    words: SharedWords,
    marked: AtomicU64,
}

impl Known {
    /// The one in a map of the kernel program.
    ///
    /// # Errors
    /// When the map cannot be mapped into memory.
    pub fn over(map: BorrowedFd<'_>) -> io::Result<Self> {
        let words = SharedWords::new(WORDS as usize, Some(map))?;
        Ok(Self { words, marked: AtomicU64::new(0) })
    }

    /// Marks a source.
    pub fn mark(&self, source: Source) {
        let (word, bit) = known::bit(source);
        let Some(word) = self.words.get(word as usize) else { return };
        // Nearly always it is marked, and a line that nobody writes to all cores can have.
        if word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0 {
            self.marked.fetch_add(1, Relaxed);
        }
    }

    /// Whether it would be better to begin anew.
    pub fn is_crowded(&self) -> bool {
        self.marked.load(Relaxed) > CROWD
    }

    /// Begins anew.
    pub fn clear(&self) {
        self.marked.store(0, Relaxed);
        for word in self.words.iter() {
            word.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_marked_once_and_many_are_a_crowd() {
        let words = SharedWords::new(WORDS as usize, None).unwrap();
        let known = Known { words, marked: AtomicU64::new(0) };
        let bits = |known: &Known| -> u32 {
            known.words.iter().map(|word| word.load(Relaxed).count_ones()).sum()
        };
        for _ in 0..3 {
            known.mark([0, 7]);
        }
        assert_eq!((bits(&known), known.marked.load(Relaxed)), (1, 1));
        assert!(!known.is_crowded());
        (0..2 * CROWD).for_each(|source| known.mark([0, source]));
        assert!(known.is_crowded());
        assert_eq!(u64::from(bits(&known)), known.marked.load(Relaxed));
        known.clear();
        assert_eq!((bits(&known), known.is_crowded()), (0, false));
    }
}
