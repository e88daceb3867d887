//! What one worker knows of an endpoint: how busy, how fast, how healthy. Pure: no clock but the one
//! passed in, whose unit is a millisecond.

use std::cell::Cell;
use std::time::Duration;

/// How long a slow answer is remembered: after so many milliseconds it counts for a third.
const MEMORY_MS: f64 = 10_000.0;

/// What an endpoint that has not answered yet is taken to need, microseconds, once it has been asked.
const UNKNOWN_US: f64 = 1_000_000.0;

/// Added to every latency: differences well below it are noise, microseconds.
const GRAIN_US: f64 = 1000.0;

/// How often the time of an ejection doubles at most.
const DOUBLINGS_MAX: u32 = 5;

/// How long after its last ejection an endpoint counts as one that was never ejected, milliseconds.
const FORGIVEN_MS: u64 = 300_000;

/// When an endpoint is not asked for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures in a row; 0 for never.
    pub failures: u32,
    /// How long at first; it doubles each time.
    pub duration: Duration,
    /// The most of an upstream's endpoints that may be ejected at once, percent.
    pub share_max: u32,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, duration: Duration::from_secs(10), share_max: 50 }
    }
}

/// What one worker knows of an endpoint.
#[derive(Debug)]
pub struct Load {
    weight: u32,
    backup: bool,
    in_flight: Cell<u32>,
    /// The slowest of late, which fades: microseconds, 0 if nothing is known.
    latency: Cell<f64>,
    measured: Cell<u64>,
    /// Turns it has coming, for round robin.
    pub(super) credit: Cell<i64>,
    /// In a row.
    failures: Cell<u32>,
    ejections: Cell<u32>,
    ejected_until: Cell<u64>,
}

impl Load {
    /// Of an endpoint nothing is known of.
    pub fn new(weight: u32, backup: bool) -> Self {
        Self {
            weight,
            backup,
            in_flight: Cell::new(0),
            latency: Cell::new(0.0),
            measured: Cell::new(0),
            credit: Cell::new(0),
            failures: Cell::new(0),
            ejections: Cell::new(0),
            ejected_until: Cell::new(0),
        }
    }

    /// Its share beside others.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Whether it is asked only when no others are left.
    pub fn is_backup(&self) -> bool {
        self.backup
    }

    /// Requests it has not answered yet.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Whether it is not to be asked.
    pub fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until.get()
    }

    /// It has been given a request.
    pub fn begin(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A request is no longer its own, whatever became of it.
    pub fn end(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    /// It has begun to answer after so many microseconds.
    pub fn answered(&self, latency_us: u64, now: u64) {
        self.failures.set(0);
        if now > self.ejected_until.get() + FORGIVEN_MS {
            self.ejections.set(0);
        }
        #[expect(clippy::cast_precision_loss, reason = "to the microsecond for 285 years")]
        let latency = latency_us as f64;
        let kept = self.fading(now);
        let known = self.latency.get();
        let average = known * kept + latency * (1.0 - kept);
        self.latency.set(if latency > average { latency } else { average });
        self.measured.set(now);
    }

    /// Both.
    pub fn end_well(&self, latency_us: u64, now: u64) {
        self.answered(latency_us, now);
        self.end();
    }

    /// It has failed. True when that is once too often in a row.
    pub fn failed(&self, ejection: &Ejection) -> bool {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        ejection.failures > 0 && failures >= ejection.failures
    }

    /// It is not asked until then.
    pub fn eject(&self, until: u64) {
        self.failures.set(0);
        self.ejections.set(self.ejections.get().saturating_add(1));
        self.ejected_until.set(until);
    }

    /// How long its next ejection is.
    pub fn ejection_time(&self, ejection: &Ejection) -> Duration {
        ejection.duration * 2u32.pow(self.ejections.get().min(DOUBLINGS_MAX))
    }

    /// What another request would have to wait for, about.
    pub(super) fn cost(&self, now: u64) -> f64 {
        let requests = f64::from(self.in_flight.get());
        match self.latency.get() {
            0.0 => requests * UNKNOWN_US,
            latency => (requests + 1.0) * (latency * self.fading(now) + GRAIN_US),
        }
    }

    /// How much of what was measured still counts.
    fn fading(&self, now: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since the last answer")]
        let age = now.saturating_sub(self.measured.get()) as f64;
        (-age / MEMORY_MS).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECTION: Ejection =
        Ejection { failures: 3, duration: Duration::from_secs(10), share_max: 50 };

    #[test]
    fn failures_in_a_row_are_too_many_and_each_time_is_longer() {
        let load = Load::new(1, false);
        assert_eq!([0; 3].map(|_| load.failed(&EJECTION)), [false, false, true]);
        assert_eq!(load.ejection_time(&EJECTION), Duration::from_secs(10));
        load.eject(10_000);
        assert!(load.is_ejected(9_999) && !load.is_ejected(10_000));
        assert_eq!(load.ejection_time(&EJECTION), Duration::from_secs(20));
        load.failed(&EJECTION);
        load.answered(100, 20_000);
        assert_eq!([0; 2].map(|_| load.failed(&EJECTION)), [false, false]);
        assert_eq!(load.ejection_time(&EJECTION), Duration::from_secs(20));
        load.answered(100, 10_000 + FORGIVEN_MS + 1);
        assert_eq!(load.ejection_time(&EJECTION), Duration::from_secs(10));
        (0..20).for_each(|_| load.eject(0));
        assert_eq!(load.ejection_time(&EJECTION), Duration::from_secs(320));
        assert!(!(0..100).any(|_| load.failed(&Ejection { failures: 0, ..EJECTION })));
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let load = Load::new(1, false);
        assert_eq!(load.cost(0), 0.0);
        load.begin();
        assert_eq!(load.cost(0), UNKNOWN_US);
        load.end_well(1000, 0);
        assert_eq!(load.cost(0), 2000.0);
        load.answered(5000, 1);
        assert_eq!(load.cost(1), 6000.0);
        load.answered(1000, 2);
        assert!(load.cost(2) > 5990.0);
        assert!(load.cost(30_002) < 1300.0);
    }
}
