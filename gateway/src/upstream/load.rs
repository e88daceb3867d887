//! What one worker knows of an endpoint: how busy, how fast, how healthy. Pure: no clock but the one
//! passed in, whose unit is a millisecond.

use std::cell::Cell;
use std::time::Duration;

use super::health::Health;

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

/// Over how long the share of failures is counted, milliseconds.
const WINDOW_MS: u64 = 10_000;

/// Fewer requests than these have no share of failures.
const WINDOW_REQUESTS_MIN: u32 = 20;

/// What share of its weight an endpoint begins with when it starts slowly, percent.
const WARM_MIN: u64 = 10;

/// When an endpoint is not asked for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures in a row; 0 for never.
    pub failures: u32,
    /// After such a share of failures among the requests of ten seconds, percent; 0 for never.
    pub failure_share: u32,
    /// Answers that are failures, too.
    pub statuses: Vec<u16>,
    /// How long at first; it doubles each time.
    pub duration: Duration,
    /// The most of an upstream's endpoints that may be ejected at once, percent.
    pub share_max: u32,
}

impl Default for Ejection {
    fn default() -> Self {
        let duration = Duration::from_secs(10);
        Self { failures: 5, failure_share: 0, statuses: Vec::new(), duration, share_max: 50 }
    }
}

/// What is given about an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Its share beside others.
    pub weight: u32,
    /// Whether it is asked only when no others are left.
    pub backup: bool,
    /// The most requests it is given at once by this worker.
    pub requests_max: u32,
    /// How long it takes to be given its whole share once it is back.
    pub slow_start: Duration,
    /// Since when it is there: 0 if it was from the beginning.
    pub born: u64,
    /// What probes have found.
    pub health: Health,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            weight: 1,
            backup: false,
            requests_max: u32::MAX,
            slow_start: Duration::ZERO,
            born: 0,
            health: Health::default(),
        }
    }
}

/// What one worker knows of an endpoint.
#[derive(Debug)]
pub struct Load {
    terms: Terms,
    in_flight: Cell<u32>,
    /// The slowest of late, which fades: microseconds, 0 if nothing is known.
    latency: Cell<f64>,
    measured: Cell<u64>,
    /// Turns it has coming, for round robin.
    pub(super) credit: Cell<i64>,
    /// In a row.
    failures: Cell<u32>,
    window: Cell<Window>,
    ejections: Cell<u32>,
    ejected_until: Cell<u64>,
    /// Whether it has been ejected and has not answered since.
    on_trial: Cell<bool>,
}

/// What became of the requests of late.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    began: u64,
    requests: u32,
    failures: u32,
}

impl Load {
    /// Of an endpoint nothing else is known of.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            in_flight: Cell::new(0),
            latency: Cell::new(0.0),
            measured: Cell::new(0),
            credit: Cell::new(0),
            failures: Cell::new(0),
            window: Cell::default(),
            ejections: Cell::new(0),
            ejected_until: Cell::new(0),
            on_trial: Cell::new(false),
        }
    }

    /// Its share beside others.
    pub fn weight(&self) -> u32 {
        self.terms.weight
    }

    /// Its share in hundredths, less while it starts slowly.
    pub(super) fn share(&self, now: u64) -> u64 {
        u64::from(self.terms.weight) * self.warmth(now)
    }

    /// Whether it is asked only when no others are left.
    pub fn is_backup(&self) -> bool {
        self.terms.backup
    }

    /// Requests it has not answered yet.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Whether probes find it well.
    pub fn is_up(&self) -> bool {
        self.terms.health.is_up()
    }

    /// Whether it has as many requests as it may have.
    pub fn is_full(&self) -> bool {
        self.in_flight.get() >= self.terms.requests_max
    }

    /// Whether requests may have to wait for it.
    pub fn is_capped(&self) -> bool {
        self.terms.requests_max < u32::MAX
    }

    /// Whether it is not to be asked: it was ejected, and has had its time or not; after that one
    /// request tries whether it is well again.
    pub fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until.get() || (self.on_trial.get() && self.in_flight.get() > 0)
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
        self.on_trial.set(false);
        self.count(now, 0);
        if now > self.ejected_until.get() + FORGIVEN_MS {
            self.ejections.set(0);
        }
        self.took(latency_us, now);
    }

    /// It has taken so many microseconds, whether it answers or not.
    pub fn took(&self, latency_us: u64, now: u64) {
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

    /// It has failed. True when that is once too often.
    pub fn failed(&self, ejection: &Ejection, now: u64) -> bool {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let Window { requests, failures: failed, .. } = self.count(now, 1);
        let in_a_row = ejection.failures > 0 && failures >= ejection.failures;
        let share = ejection.failure_share > 0
            && requests >= WINDOW_REQUESTS_MIN
            && u64::from(failed) * 100 >= u64::from(requests) * u64::from(ejection.failure_share);
        // What was asked before an ejection and fails after it says nothing new.
        now >= self.ejected_until.get() && (in_a_row || share || self.on_trial.get())
    }

    fn count(&self, now: u64, failures: u32) -> Window {
        let mut window = self.window.get();
        if now.saturating_sub(window.began) >= WINDOW_MS {
            window = Window { began: now, ..Window::default() };
        }
        window.requests = window.requests.saturating_add(1);
        window.failures = window.failures.saturating_add(failures);
        self.window.set(window);
        window
    }

    /// It is not asked until then.
    pub fn eject(&self, until: u64) {
        self.failures.set(0);
        self.window.take();
        self.ejections.set(self.ejections.get().saturating_add(1));
        self.ejected_until.set(until);
        self.on_trial.set(true);
    }

    /// It has asked to be left alone until then.
    pub fn pause(&self, until: u64) {
        self.ejected_until.set(self.ejected_until.get().max(until));
    }

    /// Until when it is not asked; in the past if it is.
    pub fn ejected_until(&self) -> u64 {
        self.ejected_until.get()
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

    /// How much of its share it is given, percent.
    fn warmth(&self, now: u64) -> u64 {
        let Terms { slow_start, born, health, .. } = &self.terms;
        let slow_start = slow_start.as_millis() as u64;
        if slow_start == 0 {
            return 100;
        }
        let since = health.up_since().max(*born).max(self.ejected_until.get());
        let age = now.saturating_sub(since).min(slow_start);
        WARM_MIN + (100 - WARM_MIN) * age / slow_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ejection() -> Ejection {
        Ejection { failures: 3, ..Ejection::default() }
    }

    #[test]
    fn failures_in_a_row_are_too_many_and_each_time_is_longer() {
        let (load, ejection) = (Load::new(Terms::default()), ejection());
        assert_eq!([0; 3].map(|_| load.failed(&ejection, 0)), [false, false, true]);
        assert_eq!(load.ejection_time(&ejection), Duration::from_secs(10));
        load.eject(10_000);
        assert!(load.is_ejected(9_999) && !load.is_ejected(10_000));
        assert_eq!(load.ejection_time(&ejection), Duration::from_secs(20));
        assert!(!(0..9).any(|_| load.failed(&ejection, 9_999)), "they had been asked before");
        load.failed(&ejection, 20_000);
        load.answered(100, 20_000);
        assert_eq!([0; 2].map(|_| load.failed(&ejection, 20_000)), [false, false]);
        assert_eq!(load.ejection_time(&ejection), Duration::from_secs(20));
        load.answered(100, 10_000 + FORGIVEN_MS + 1);
        assert_eq!(load.ejection_time(&ejection), Duration::from_secs(10));
        let never = Ejection { failures: 0, ..ejection.clone() };
        (0..20).for_each(|_| load.eject(0));
        assert_eq!(load.ejection_time(&ejection), Duration::from_secs(320));
        let load = Load::new(Terms::default());
        assert!(!(0..100).any(|_| load.failed(&never, 0)));
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let load = Load::new(Terms::default());
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

    #[test]
    fn after_its_time_one_request_tries() {
        let load = Load::new(Terms::default());
        load.eject(1000);
        assert!(load.is_ejected(999) && !load.is_ejected(1000));
        load.begin();
        assert!(load.is_ejected(1000));
        assert!(load.failed(&ejection(), 1001), "a failed trial is the last straw");
        load.end();
        load.begin();
        load.answered(100, 1002);
        assert!(!load.is_ejected(1002));
        assert!(!load.failed(&ejection(), 1003));
    }

    #[test]
    fn a_share_of_failures_is_too_much_once_there_are_enough_requests() {
        let load = Load::new(Terms::default());
        let ejection = Ejection { failures: 0, failure_share: 50, ..Ejection::default() };
        for _ in 0..9 {
            load.answered(100, 0);
            assert!(!load.failed(&ejection, 0));
        }
        load.answered(100, 0);
        assert!(load.failed(&ejection, 0));
        assert!(!load.failed(&ejection, WINDOW_MS), "counted anew");
    }

    #[test]
    fn what_is_back_starts_slowly() {
        let slow_start = Duration::from_secs(10);
        let load = Load::new(Terms { weight: 2, slow_start, ..Terms::default() });
        assert_eq!(load.share(100_000), 200);
        load.terms.health.set_up(100_000);
        assert_eq!([100_000, 105_000, 110_000].map(|now| load.share(now)), [20, 110, 200]);
        load.eject(120_000);
        assert_eq!([120_000, 130_000].map(|now| load.share(now)), [20, 200]);
        let load = Load::new(Terms { born: 5000, slow_start, ..Terms::default() });
        assert_eq!([5000, 15_000].map(|now| load.share(now)), [10, 100]);
    }
}
