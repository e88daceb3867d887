//! Who keeps a worker busy. Connections that are open are always counted by their source, as nobody could
//! count them later; everything else only while somebody looks (`gateway top`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::AddAssign;

use super::Source;

/// Sources whose doings are counted between two looks, a second apart. Those that come when there are as
/// many are left out of what is told.
const SEEN_MAX: usize = 1 << 16;

/// What one source has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections open now.
    pub open: u64,
    /// Connections let in; like all that follows, since the last look.
    pub opened: u64,
    /// Connections refused at accept.
    pub refused: u64,
    /// Connections that would have been, if all that is observed were enforced.
    pub observed: u64,
    /// Requests that have been answered.
    pub requests: u64,
    /// Those of them that were answered by a status of 4xx.
    pub client_errors: u64,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of responses' bodies.
    pub bytes_out: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.open += other.open;
        self.opened += other.opened;
        self.refused += other.refused;
        self.observed += other.observed;
        self.requests += other.requests;
        self.client_errors += other.client_errors;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

/// What sources have done.
pub type Tallies = Vec<(Source, Tally)>;

/// What one worker has seen of every source.
#[derive(Debug, Default)]
pub struct Traffic {
    open: RefCell<HashMap<Source, u64>>,
    /// Since the last look; `None` while nobody looks.
    seen: RefCell<Option<HashMap<Source, Tally>>>,
}

impl Traffic {
    /// A connection has been let in.
    pub fn enter(&self, source: Source) {
        *self.open.borrow_mut().entry(source).or_default() += 1;
        self.note(source, |tally| tally.opened += 1);
    }

    /// One that was let in has ended.
    pub fn leave(&self, source: Source) {
        let mut open = self.open.borrow_mut();
        match open.get_mut(&source) {
            Some(connections) if *connections > 1 => *connections -= 1,
            _ => drop(open.remove(&source)),
        }
    }

    /// Whether somebody looks.
    pub fn is_watched(&self) -> bool {
        self.seen.borrow().is_some()
    }

    /// Adds to what a source has done, if somebody looks.
    pub fn note(&self, source: Source, add: impl FnOnce(&mut Tally)) {
        let mut seen = self.seen.borrow_mut();
        let Some(seen) = &mut *seen else { return };
        if seen.len() < SEEN_MAX || seen.contains_key(&source) {
            add(seen.entry(source).or_default());
        }
    }

    /// What has been done since the last look, and whether to go on counting.
    pub fn take(&self, goes_on: bool) -> Tallies {
        let seen = self.seen.replace(goes_on.then(HashMap::new));
        let mut all = seen.unwrap_or_default();
        for (source, open) in self.open.borrow().iter() {
            all.entry(*source).or_default().open = *open;
        }
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = [1, 2];

    #[test]
    fn what_is_open_is_counted_always_and_the_rest_from_the_first_look_to_the_last() {
        let traffic = Traffic::default();
        traffic.enter(SOURCE);
        traffic.enter(SOURCE);
        traffic.note(SOURCE, |tally| tally.requests += 1);
        assert!(!traffic.is_watched());
        assert_eq!(traffic.take(true), [(SOURCE, Tally { open: 2, ..Tally::default() })]);

        traffic.leave(SOURCE);
        traffic.enter([3, 4]);
        traffic.leave([3, 4]);
        traffic.note(SOURCE, |tally| tally.requests += 1);
        let mut seen = traffic.take(false);
        seen.sort_by_key(|(source, _)| *source);
        let first = Tally { open: 1, requests: 1, ..Tally::default() };
        assert_eq!(seen, [(SOURCE, first), ([3, 4], Tally { opened: 1, ..Tally::default() })]);

        assert!(!traffic.is_watched());
        traffic.leave(SOURCE);
        assert_eq!(traffic.take(false), []);
    }

    #[test]
    fn so_many_sources_are_told_of_and_no_more() {
        let traffic = Traffic::default();
        traffic.take(true);
        for source in 0..SEEN_MAX as u64 + 10 {
            traffic.note([source, 0], |tally| tally.requests += 1);
        }
        traffic.note([0, 0], |tally| tally.requests += 1);
        let seen = traffic.take(true);
        assert_eq!(seen.len(), SEEN_MAX);
        assert!(seen.iter().any(|(source, tally)| *source == [0, 0] && tally.requests == 2));
    }
}
