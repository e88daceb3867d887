//! The limiter: GCRA, one 64-bit word per source, as many sources to a line of the table as fit into one of the cache.
//!
//! A source's whole state is the time at which it will owe nothing (its "theoretical arrival
//! time", ITU-T I.371). A connection moves that time on by one interval; it is refused when the
//! time lies further ahead than the burst allows. A refused connection changes nothing, so TCP's own
//! retransmission succeeds as soon as the rate permits: for an honest client a drop is a delay.
//!
//! The table has no list to maintain, no lock, no allocation and cannot fill up: where a line has no
//! way for a new source, the source that owes least gives up its own. Of invented sources, each seen
//! once, it takes a line's worth in that of one that is being limited, a table's worth in all, to let it have
//! one more, whatever its burst. A new source takes over nothing of that debt: then as many invented
//! ones in the time of an interval would keep out everybody who is new.
//!
//! Pure: the clock and the memory come in as arguments.

/// Sources in one line of a table at most: as many as there are words in a line of the cache.
pub const WAYS: usize = 8;

/// Time is counted in ticks of 2^14 ns, or 16 µs.
pub const TICK_SHIFT: u32 = 14;
/// A way holds a tag of 20 bits over a time of 44: nine years of uptime.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// How far ahead a source's time may run: half a year, so that no sum leaves the 44 bits.
const TICKS_AHEAD_MAX: u64 = 1 << 40;

/// Compare-and-swap attempts until a source's time is moved on without comparing. More would not do: of two
/// CPUs that compete for a line of memory one can lose for as long as it tries.
const ATTEMPTS: usize = 2;

/// Nanoseconds of a monotonic clock as ticks.
#[inline(always)]
pub const fn ticks(ns: u64) -> u64 {
    ns >> TICK_SHIFT
}

/// How fast one source may go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ticks between two events at the sustained rate, at least 1.
    pub interval: u64,
    /// Ticks a source's time may lie ahead of now: all but one of the burst's intervals.
    pub tolerance: u64,
}

impl Limits {
    /// One event each `interval_ns`, and `burst` of them at once after a pause (0 means 1).
    ///
    /// The interval is rounded to whole ticks, at least one: above 61,035 events a second there is
    /// no finer limit. Bursts are cut where they would last for more than half a year.
    pub const fn new(interval_ns: u64, burst: u32) -> Self {
        let rounded = interval_ns.saturating_add(1 << (TICK_SHIFT - 1)) >> TICK_SHIFT;
        let interval = at_least_one(rounded);
        let interval = if interval < TICKS_AHEAD_MAX { interval } else { TICKS_AHEAD_MAX };
        let tolerance = (burst.saturating_sub(1) as u64).saturating_mul(interval);
        let tolerance = if tolerance < TICKS_AHEAD_MAX { tolerance } else { TICKS_AHEAD_MAX };
        Self { interval, tolerance }
    }
}

const fn at_least_one(n: u64) -> u64 {
    if n == 0 { 1 } else { n }
}

/// One step of GCRA: the source's next state, or `None` when it is over its limit.
#[inline(always)]
pub const fn step(state: u64, now: u64, limits: Limits) -> Option<u64> {
    let arrival = if state < now { now } else { state };
    if arrival - now > limits.tolerance { None } else { Some(arrival + limits.interval) }
}

/// The memory of one line of the table.
pub trait Line {
    /// How many ways it has, at most [`WAYS`]. They are numbered from 0.
    const WAYS: usize = WAYS;

    /// Reads a way; any value that was ever stored will do.
    fn load(&self, way: usize) -> u64;
    /// Stores `new` where the way still holds `old`, and says whether it did.
    fn swap(&self, way: usize, old: u64, new: u64) -> bool;
    /// Adds to a way, around the end of 64 bits, and returns what it held before.
    fn add(&self, way: usize, by: u64) -> u64;
}

/// Whether a source may have one more.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes, and it has been counted.
    Within,
    /// The same of a source that the table did not know, or no longer.
    New,
    /// No; nothing has changed.
    Over,
    /// Yes, uncounted: other CPUs gave every way that it could have taken to other sources.
    Contended,
}

/// Admits the source whose tag is in the upper bits of `tag`, at `now` in ticks.
///
/// Two sources of one line share a state when their 20 bits of tag are equal: once in 150,000 pairs
/// of neighbours.
#[inline(always)]
pub fn admit(line: &impl Line, tag: u64, now: u64, limits: Limits) -> Admission {
    let tag = tag & !TIME_MASK;
    for _ in 0..ATTEMPTS {
        let found = find(line, tag, now);
        let Some(next) = step(found.state, now, limits) else {
            return Admission::Over;
        };
        if line.swap(found.way, found.word, tag | (next & TIME_MASK)) {
            return if found.state == 0 { Admission::New } else { Admission::Within };
        }
    }
    add(line, tag, now, limits)
}

/// Admits a source whose state others keep changing: first counts, and takes that back where it was too much.
#[inline(always)]
fn add(line: &impl Line, tag: u64, now: u64, limits: Limits) -> Admission {
    let Found { way, state, .. } = find(line, tag, now);
    if state == 0 {
        return Admission::Contended;
    }
    let before = line.add(way, limits.interval);
    let is_ours = before & !TIME_MASK == tag;
    if is_ours && step(before & TIME_MASK, now, limits).is_some() {
        return Admission::Within;
    }
    line.add(way, limits.interval.wrapping_neg());
    if is_ours { Admission::Over } else { Admission::Contended }
}

impl Admission {
    /// Whether it has been counted and may go on.
    #[inline(always)]
    pub const fn is_within(self) -> bool {
        matches!(self, Self::Within | Self::New)
    }
}

/// How far the time of the source with `tag` lies ahead of `now`, in ticks: 0 for one that owes nothing.
/// Above the limits' tolerance it is over its limit.
pub fn debt(line: &impl Line, tag: u64, now: u64) -> u64 {
    find(line, tag & !TIME_MASK, now).state.saturating_sub(now)
}

struct Found {
    way: usize,
    /// What the way holds now.
    word: u64,
    /// The source's state: 0 for one not seen before.
    state: u64,
}

/// The way of the source with `tag`, else that whose source owes least: the first of those that owe nothing, which a CPU
/// soon predicts.
#[inline(always)]
fn find<L: Line>(line: &L, tag: u64, now: u64) -> Found {
    let mut words = [0; WAYS];
    for (way, place) in words.iter_mut().take(L::WAYS).enumerate() {
        let word = line.load(way);
        if word & !TIME_MASK == tag {
            return Found { way, word, state: word & TIME_MASK };
        }
        *place = word;
    }
    let mut least = Found { way: 0, word: u64::MAX, state: 0 };
    for (way, word) in words.into_iter().take(L::WAYS).enumerate() {
        if word & TIME_MASK <= now {
            return Found { way, word, state: 0 };
        }
        if word & TIME_MASK < least.word & TIME_MASK {
            least = Found { way, word, state: 0 };
        }
    }
    least
}

/// A line in ordinary memory. BPF has no such atomics and brings its own.
#[cfg(target_has_atomic = "64")]
impl Line for [core::sync::atomic::AtomicU64; WAYS] {
    fn load(&self, way: usize) -> u64 {
        self.get(way).map_or(0, |word| word.load(core::sync::atomic::Ordering::Relaxed))
    }

    fn swap(&self, way: usize, old: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::Relaxed;
        self.get(way).is_some_and(|word| word.compare_exchange(old, new, Relaxed, Relaxed).is_ok())
    }

    fn add(&self, way: usize, by: u64) -> u64 {
        self.get(way).map_or(0, |word| word.fetch_add(by, core::sync::atomic::Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    type Memory = [AtomicU64; WAYS];

    /// An interval of 100 ticks and a burst of five.
    const LIMITS: Limits = Limits { interval: 100, tolerance: 400 };
    const ALICE: u64 = 1 << TIME_BITS;
    const NOW: u64 = 1_000_000;

    fn admitted(line: &Memory, tag: u64, at: impl IntoIterator<Item = u64>) -> usize {
        at.into_iter().filter(|now| admit(line, tag, *now, LIMITS).is_within()).count()
    }

    #[test]
    fn limits_come_out_in_ticks() {
        let per_second = |rate: u64, burst| Limits::new(1_000_000_000 / rate, burst);
        assert_eq!(per_second(50, 200), Limits { interval: 1221, tolerance: 199 * 1221 });
        assert_eq!(per_second(50, 1).tolerance, 0);
        assert_eq!(per_second(50, 0).tolerance, 0);
        assert_eq!(per_second(1_000_000, 10), Limits { interval: 1, tolerance: 9 });
        let endless = Limits::new(u64::MAX, u32::MAX);
        assert!(endless.interval <= TICKS_AHEAD_MAX && endless.tolerance <= TICKS_AHEAD_MAX);
    }

    #[test]
    fn the_burst_is_exact_and_the_rate_follows() {
        for burst in [1, 2, 5, 200] {
            let limits = Limits { interval: 100, tolerance: (burst - 1) * 100 };
            let line = Memory::default();
            let count = |now| admit(&line, ALICE, now, limits).is_within();
            assert_eq!((0..1000).filter(|_| count(NOW)).count() as u64, burst);
            assert_eq!((1..=1000).filter(|later| count(NOW + later)).count(), 10);
        }
    }

    #[test]
    fn a_tick_too_early_is_over_and_a_tick_later_within() {
        let line = Memory::default();
        assert_eq!(admitted(&line, ALICE, [NOW; 5]), 5);
        assert_eq!(admit(&line, ALICE, NOW + 99, LIMITS), Admission::Over);
        assert_eq!(admit(&line, ALICE, NOW + 100, LIMITS), Admission::Within);
        assert_eq!(admit(&line, ALICE, NOW + 100, LIMITS), Admission::Over);
    }

    #[test]
    fn a_pause_gives_the_burst_back_and_no_more() {
        let line = Memory::default();
        assert_eq!(admitted(&line, ALICE, [NOW; 9]), 5);
        assert_eq!(admitted(&line, ALICE, [NOW + 200; 9]), 2);
        assert_eq!(admitted(&line, ALICE, [NOW + 1_000_000; 9]), 5);
    }

    #[test]
    fn never_more_than_rate_times_time_plus_burst() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..200 {
            let line = Memory::default();
            let (mut now, mut count) = (NOW, 0);
            for _ in 0..500 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                now += seed % 60;
                count += u64::from(admit(&line, ALICE, now, LIMITS).is_within());
                assert!(count <= 5 + (now - NOW) / 100, "{count} after {} ticks", now - NOW);
            }
        }
    }

    #[test]
    fn what_is_owed_can_be_read() {
        let line = Memory::default();
        assert_eq!(debt(&line, ALICE, NOW), 0);
        assert_eq!(admitted(&line, ALICE, [NOW; 3]), 3);
        assert_eq!(debt(&line, ALICE, NOW), 300);
        assert_eq!(debt(&line, ALICE, NOW + 120), 180);
        assert_eq!(debt(&line, ALICE, NOW + 1000), 0);
        assert_eq!(debt(&line, 2 << TIME_BITS, NOW), 0);
    }

    #[test]
    fn a_refused_source_changes_nothing() {
        let line = Memory::default();
        assert_eq!(admitted(&line, ALICE, [NOW; 5]), 5);
        let before: Vec<u64> = (0..WAYS).map(|way| line.load(way)).collect();
        assert_eq!(admit(&line, ALICE, NOW, LIMITS), Admission::Over);
        let after: Vec<u64> = (0..WAYS).map(|way| line.load(way)).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn eight_sources_of_a_line_do_not_touch_each_other() {
        let line = Memory::default();
        for round in 0..5 {
            for source in 1..=WAYS as u64 {
                let got = admit(&line, source << TIME_BITS, NOW, LIMITS);
                let expected = if round == 0 { Admission::New } else { Admission::Within };
                assert_eq!(got, expected, "source {source}, round {round}");
            }
        }
        for source in 1..=WAYS as u64 {
            assert_eq!(admit(&line, source << TIME_BITS, NOW, LIMITS), Admission::Over);
        }
    }

    #[test]
    fn a_heavy_source_is_not_washed_out() {
        let line = Memory::default();
        assert_eq!(admitted(&line, ALICE, [NOW; 6]), 5);
        for invented in 2..100_000 {
            assert_eq!(admit(&line, invented << TIME_BITS, NOW, LIMITS), Admission::New);
        }
        assert_eq!(admit(&line, ALICE, NOW + 1, LIMITS), Admission::Over);
    }

    #[test]
    fn eight_invented_sources_in_its_line_let_a_limited_one_have_one_more() {
        const TICKS: u64 = 20_000;
        let alice_asks = |line: &Memory, now, limits| admit(line, ALICE, now, limits).is_within();
        for burst in [1, 2, 5] {
            let limits = Limits { interval: 100, tolerance: (burst - 1) * 100 };
            for invented_each_tick in [0, 1, 3] {
                // Asks all the time, or not before it has been forgotten.
                for greedy in [true, false] {
                    let line = Memory::default();
                    let (mut admitted, mut invented) = (0, 0);
                    for now in NOW..NOW + TICKS {
                        if greedy || debt(&line, ALICE, now) == 0 {
                            let asks = (0..burst).filter(|_| alice_asks(&line, now, limits));
                            admitted += asks.count() as u64;
                        }
                        for _ in 0..invented_each_tick {
                            invented += 1;
                            let new = admit(&line, (invented + 1) << TIME_BITS, now, limits);
                            assert_eq!(new, Admission::New, "nobody is refused for others");
                        }
                    }
                    let allowed = burst + TICKS / 100 + invented / WAYS as u64;
                    assert!(admitted <= allowed, "{burst}, {invented}: {admitted} of {allowed}");
                }
            }
        }
    }

    #[test]
    fn of_those_that_owe_nothing_one_gives_way_again_and_again() {
        let line = Memory::default();
        for source in 1..=WAYS as u64 {
            assert_eq!(admit(&line, source << TIME_BITS, NOW, LIMITS), Admission::New);
        }
        let later = NOW + 1000;
        for invented in 100..200 {
            assert_eq!(admit(&line, invented << TIME_BITS, later, LIMITS), Admission::New);
            // Who has asked once owes nothing by now.
            line[0].store((invented << TIME_BITS) | later, std::sync::atomic::Ordering::Relaxed);
        }
        let known =
            (2..=WAYS as u64).map(|source| admit(&line, source << TIME_BITS, later, LIMITS));
        assert_eq!(known.collect::<Vec<_>>(), [Admission::Within; WAYS - 1]);
    }

    #[test]
    fn the_source_that_owes_least_gives_way() {
        let line = Memory::default();
        // Source 3 takes one, the others two each; a ninth source then takes the place of 3.
        for source in 1..=8 {
            assert_eq!(admitted(&line, source << TIME_BITS, [NOW]), 1);
            assert_eq!(admitted(&line, source << TIME_BITS, [NOW; 5]), 4);
        }
        line[2].store((3 << TIME_BITS) | (NOW + 100), std::sync::atomic::Ordering::Relaxed);
        assert_eq!(admitted(&line, 9 << TIME_BITS, [NOW]), 1);
        assert_eq!(line.load(2) & !TIME_MASK, 9 << TIME_BITS);
    }

    #[test]
    fn a_tag_of_zero_is_a_source_like_any_other() {
        let line = Memory::default();
        assert_eq!(admitted(&line, 0, [NOW; 9]), 5);
        assert_eq!(admitted(&line, ALICE, [NOW; 9]), 5);
    }

    /// Another CPU wins the first `losses` swaps.
    #[derive(Default)]
    struct Racing {
        memory: Memory,
        losses: std::cell::Cell<usize>,
    }

    impl Line for Racing {
        fn load(&self, way: usize) -> u64 {
            self.memory.load(way)
        }
        fn swap(&self, way: usize, old: u64, new: u64) -> bool {
            match self.losses.get() {
                0 => self.memory.swap(way, old, new),
                left => {
                    self.losses.set(left - 1);
                    false
                }
            }
        }
        fn add(&self, way: usize, by: u64) -> u64 {
            self.memory.add(way, by)
        }
    }

    #[test]
    fn a_new_source_that_loses_every_race_is_let_through() {
        let after = |losses: usize| {
            let line = Racing { losses: losses.into(), ..Racing::default() };
            admit(&line, ALICE, NOW, LIMITS)
        };
        assert_eq!(after(1), Admission::New);
        assert_eq!(after(ATTEMPTS), Admission::Contended);
    }

    #[test]
    fn a_known_source_is_counted_though_it_loses_every_race() {
        let line = Racing::default();
        assert_eq!(admit(&line, ALICE, NOW, LIMITS), Admission::New);
        for connection in 2..=9 {
            line.losses.set(usize::MAX);
            let expected = if connection <= 5 { Admission::Within } else { Admission::Over };
            assert_eq!(admit(&line, ALICE, NOW, LIMITS), expected, "{connection}");
        }
        assert_eq!(debt(&line, ALICE, NOW), 500, "what was refused changes nothing");
        line.losses.set(0);
        assert_eq!(admit(&line, ALICE, NOW + 100, LIMITS), Admission::Within);
    }

    #[test]
    fn threads_share_one_count() {
        let line = Memory::default();
        let limits = Limits { interval: 100, tolerance: 999 * 100 };
        let run = || {
            let mut counts = (0, 0);
            for _ in 0..20_000 {
                match admit(&line, ALICE, NOW, limits) {
                    Admission::Within | Admission::New => counts.0 += 1,
                    Admission::Contended => counts.1 += 1,
                    Admission::Over => {}
                }
            }
            counts
        };
        let within: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().0).sum()
        });
        assert_eq!(within, 1000);
    }
}
