//! When to answer connections by SYN cookies: while more sources that nobody has seen before ask for one than
//! the kernel should spend state on. Limits per source do nothing against invented sources; a cookie
//! keeps no state at all.
//!
//! Every CPU counts and decides for itself: the load is one CPU's, and a shared count would be a line of
//! memory that all of them fight for.
//!
//! Pure: the clock and the memory come in as arguments.

/// A count lasts for 2^30 ns, a little more than a second.
const WINDOW_SHIFT: u32 = 30;
const WINDOW_NS: u64 = 1 << WINDOW_SHIFT;

/// How long it goes on after the last window that was full enough, in ns.
pub const HOLD_NS: u64 = 10_000_000_000;

/// The threshold that nothing reaches.
pub const NEVER: u64 = u64::MAX;
/// The threshold below which nothing is.
pub const ALWAYS: u64 = 0;

/// What one CPU knows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flood {
    /// Which window it counts in.
    pub window: u64,
    /// New sources in it.
    pub new: u64,
    /// Until when there is a flood, by the clock that it counts by.
    pub until: u64,
    /// The same by the kernel's monotonic clock, in ns, for userspace: up to a window late.
    pub told: u64,
}

impl Flood {
    /// Counts a connection, which is from a new source or not, at `now` in ns; whether there is a flood.
    /// Once there is one, half of the threshold keeps it going. `clock` is the monotonic one, which is read once in a
    /// window at most.
    #[inline(always)]
    pub fn count(
        &mut self,
        is_new: bool,
        now: u64,
        threshold: u64,
        clock: impl FnOnce() -> u64,
    ) -> bool {
        if threshold == NEVER || threshold == ALWAYS {
            return self.is_on(now, threshold);
        }
        let window = now >> WINDOW_SHIFT;
        if self.window != window {
            self.window = window;
            self.new = 0;
        }
        self.new += is_new as u64;
        let needed = if now < self.until { threshold / 2 } else { threshold };
        if self.new > needed {
            self.until = now + HOLD_NS;
            if is_new && self.new == needed + 1 {
                self.told = clock() + HOLD_NS + WINDOW_NS;
            }
        }
        self.is_on(now, threshold)
    }

    /// Whether there is a flood, as far as is known before a connection is counted.
    #[inline(always)]
    pub const fn is_on(&self, now: u64, threshold: u64) -> bool {
        match threshold {
            NEVER => false,
            ALWAYS => true,
            _ => now < self.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = WINDOW_NS;
    const NOW: u64 = 1000 * SECOND;

    /// Counts one, the monotonic clock being half a second ahead.
    fn count(flood: &mut Flood, is_new: bool, now: u64, threshold: u64) -> bool {
        let is_flood = flood.count(is_new, now, threshold, || now + SECOND / 2);
        // Userspace never hears of an end before there is one.
        assert!(flood.told.saturating_sub(SECOND / 2) >= flood.until);
        is_flood
    }

    /// How many of so many new sources, all in one window, met with a flood.
    fn flooded(flood: &mut Flood, sources: usize, at: u64) -> usize {
        (0..sources).filter(|_| count(flood, true, at, 100)).count()
    }

    #[test]
    fn it_begins_above_the_threshold_and_not_at_it() {
        let flood = &mut Flood::default();
        assert_eq!(flooded(flood, 100, NOW), 0);
        assert_eq!(flooded(flood, 20, NOW), 20);
    }

    #[test]
    fn sources_that_are_known_count_for_nothing() {
        let flood = &mut Flood::default();
        assert!((0..1000).all(|_| !count(flood, false, NOW, 100)));
        assert_eq!(flooded(flood, 101, NOW), 1);
        assert!(count(flood, false, NOW, 100), "a flood is everybody's");
    }

    #[test]
    fn windows_begin_at_nothing() {
        let flood = &mut Flood::default();
        for second in 0..100 {
            assert_eq!(flooded(flood, 100, NOW + second * SECOND), 0);
        }
    }

    #[test]
    fn half_of_the_threshold_keeps_it_going_and_less_ends_it() {
        let flood = &mut Flood::default();
        assert_eq!(flooded(flood, 101, NOW), 1);
        for second in 1..60 {
            assert_eq!(flooded(flood, 51, NOW + second * SECOND), 51);
        }
        let last = NOW + 59 * SECOND;
        assert_eq!(flooded(flood, 50, last + HOLD_NS - 1), 50);
        assert_eq!(flooded(flood, 50, last + HOLD_NS + SECOND), 0);
    }

    #[test]
    fn always_and_never() {
        let flood = &mut Flood::default();
        assert!(count(flood, false, NOW, ALWAYS));
        assert!((0..1000).all(|_| !count(flood, true, NOW, NEVER)));
    }
}
