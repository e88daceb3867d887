//! The state of a rate limit: the kernel's limiter ([`gateway_ebpf::bucket`]) in ordinary memory, one
//! table for all workers, without locks.
//!
//! The table never grows. Where eight keys share a line and a ninth comes, the one that owes least gives
//! up its place: of invented keys, each seen once, it takes as many as the table holds to let one that is
//! being limited have one request more. Which keys share a line nobody can know, as the hash is keyed.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use gateway_ebpf::bucket::{self, Admission, Limits, WAYS};

/// The least a tick lasts, so that the 44 bits of a time are nine years of uptime; rates above one in
/// this time have ticks of their interval.
const TICK: Duration = Duration::from_nanos(1 << bucket::TICK_SHIFT);

/// Rounds of the kernel's attempts until a request counts as over: who loses so often competes with
/// requests of the same key, which are counted.
const ROUNDS: usize = 32;

/// Bytes of a line, which is one of the processor's.
pub(super) const LINE_BYTES: usize = 64;

/// How many, in which time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Between two requests at the sustained rate, nanoseconds.
    pub interval_ns: u64,
    /// At once after a pause, at least 1.
    pub burst: u32,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

/// One limit's state of every key.
#[derive(Debug)]
pub(super) struct Table {
    lines: Box<[Line]>,
    epoch: Instant,
    limits: Limits,
    /// Ticks in a nanosecond, as a fraction of 2^64. An interval is a whole number of ticks, so no rate is
    /// rounded.
    ticks_per_ns: u64,
    interval_ns: u64,
}

/// What a key has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Requests it may make now.
    pub requests: u64,
    /// Until it may make one.
    pub wait: Duration,
    /// Until it may make the whole burst.
    pub reset: Duration,
}

impl Table {
    /// Begins at `epoch`, in so many bytes.
    pub fn new(rate: Rate, bytes: usize, epoch: Instant) -> Self {
        let lines = (bytes / LINE_BYTES).max(1).next_power_of_two();
        let tick_ns = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
        let interval = (rate.interval_ns / tick_ns).max(1);
        let fraction = (u128::from(interval) << 64) / u128::from(rate.interval_ns.max(2));
        let tolerance = u64::from(rate.burst.saturating_sub(1)).saturating_mul(interval);
        Self {
            lines: (0..lines).map(|_| Line::default()).collect(),
            epoch,
            limits: Limits { interval, tolerance },
            ticks_per_ns: u64::try_from(fraction).unwrap_or(u64::MAX),
            interval_ns: rate.interval_ns,
        }
    }

    /// Counts a request of the key with this hash, unless it is over its limit. Many threads may do so at
    /// once.
    pub fn admit(&self, hash: u64, now: Instant) -> bool {
        let (line, now) = (self.line(hash), self.ticks(now));
        for _ in 0..ROUNDS {
            match bucket::admit(line, hash, now, self.limits) {
                Admission::Within | Admission::New => return true,
                Admission::Over => return false,
                Admission::Contended => {}
            }
        }
        false
    }

    /// What the key with this hash has left.
    pub fn left(&self, hash: u64, now: Instant) -> Left {
        let Limits { interval, tolerance } = self.limits;
        let debt = bucket::debt(self.line(hash), hash, self.ticks(now));
        let requests = match tolerance.checked_sub(debt) {
            Some(free) => 1 + free / interval,
            None => 0,
        };
        Left {
            requests,
            wait: self.duration(debt.saturating_sub(tolerance)),
            reset: self.duration(debt),
        }
    }

    fn line(&self, hash: u64) -> &[AtomicU64; WAYS] {
        // The length is a power of two. The tag is in the upper bits, the line in the lower.
        let index = hash as usize & (self.lines.len() - 1);
        // Never empty, so there always is one.
        static NONE: Line = Line([const { AtomicU64::new(0) }; WAYS]);
        &self.lines.get(index).unwrap_or(&NONE).0
    }

    fn ticks(&self, now: Instant) -> u64 {
        let ns = now.saturating_duration_since(self.epoch).as_nanos();
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        ((u128::from(ns) * u128::from(self.ticks_per_ns)) >> 64) as u64
    }

    fn duration(&self, ticks: u64) -> Duration {
        let ns =
            u128::from(ticks) * u128::from(self.interval_ns) / u128::from(self.limits.interval);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const KIB: usize = 1024;

    fn rate(per_second: f64, burst: u32) -> Rate {
        Rate { interval_ns: (1e9 / per_second).round() as u64, burst }
    }

    #[test]
    fn a_rate_is_kept_to_a_hundredth_by_any_number_of_threads() {
        for (per_second, burst) in [(0.5, 3), (10.0, 10), (333.0, 1), (9999.0, 500), (70_000.0, 7)]
        {
            for threads in [1, 2, 3, 8] {
                let epoch = Instant::now();
                let table = Table::new(rate(per_second, burst), 4 * KIB, epoch);
                let seconds = 3000.0 / per_second;
                // Everybody asks at every moment of a clock of its own, four times as often as allowed.
                let ask = || {
                    let step = Duration::from_secs_f64(seconds / 12_000.0);
                    let times = (0..12_000u32).map(|number| epoch + step * number);
                    times.filter(|now| table.admit(7 << 50, *now)).count()
                };
                let admitted: usize = thread::scope(|scope| {
                    let asking: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
                    asking.into_iter().map(|thread| thread.join().unwrap()).sum()
                });
                let right = f64::from(burst) + per_second * seconds;
                let off = (admitted as f64 - right).abs() / right;
                assert!(off < 0.01, "{per_second}/s, {threads} threads: {admitted} of {right}");
            }
        }
    }

    #[test]
    fn what_is_left_is_told() {
        let epoch = Instant::now();
        let table = Table::new(rate(2.0, 5), KIB, epoch);
        let now = epoch + Duration::from_secs(100);
        let left = |now| {
            let Left { requests, wait, reset } = table.left(1, now);
            (requests, wait.as_millis(), reset.as_millis())
        };
        assert_eq!(left(now), (5, 0, 0));
        assert!(table.admit(1, now));
        assert_eq!(left(now), (4, 0, 500));
        assert_eq!((0..9).filter(|_| table.admit(1, now)).count(), 4);
        assert_eq!(left(now), (0, 500, 2500));
        assert_eq!(left(now + Duration::from_millis(400)).0, 0);
        assert_eq!(left(now + Duration::from_millis(501)).0, 1);
        assert_eq!(left(now + Duration::from_secs(9)), (5, 0, 0));
    }

    #[test]
    fn a_flood_of_invented_keys_frees_nobody() {
        let epoch = Instant::now();
        let table = Table::new(rate(0.001, 3), KIB, epoch);
        let now = epoch + Duration::from_secs(1);
        assert_eq!((0..9).filter(|_| table.admit(42, now)).count(), 3);
        for key in 0..100_000u64 {
            assert!(table.admit((key << 44) | (key & 15), now) || key < 16);
        }
        assert!(!table.admit(42, now));
    }

    #[test]
    fn years_of_uptime_are_nothing() {
        let epoch = Instant::now();
        let table = Table::new(rate(60_000.0, 2), KIB, epoch);
        let now = epoch + Duration::from_secs(8 * 365 * 86_400);
        assert_eq!((0..9).filter(|_| table.admit(42, now)).count(), 2);
        assert_eq!((0..9).filter(|_| table.admit(42, now + Duration::from_secs(1))).count(), 2);
    }
}
