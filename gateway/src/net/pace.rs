//! How slow a peer may be: a bound on each step, and one on all of them together, so that bytes
//! that drip do not hold a connection for ever.

use std::time::Duration;

/// What one body may still take. Only time spent waiting for the peer counts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    gap: Duration,
    /// Bytes a second; 0 for a peer that is only held to the gap.
    rate: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Each step at most `gap`, and all together at most `gap` and a second for every `rate` bytes.
    pub fn new(gap: Duration, rate: u64) -> Self {
        Self { gap, rate, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long the next step may take.
    pub fn allowance(&self) -> Duration {
        if self.rate == 0 {
            return self.gap;
        }
        let millis = self.bytes.saturating_mul(1000) / self.rate;
        let in_all = self.gap.saturating_add(Duration::from_millis(millis));
        in_all.saturating_sub(self.waited).min(self.gap)
    }

    /// A step has taken `waited` and moved `bytes`.
    pub fn record(&mut self, waited: Duration, bytes: usize) {
        self.waited += waited;
        self.bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn drip_by_drip_the_allowance_runs_out() {
        let mut pace = Pace::new(10 * SECOND, 100);
        assert_eq!(pace.allowance(), 10 * SECOND);
        for _ in 0..9 {
            pace.record(SECOND, 1);
        }
        assert_eq!(pace.allowance(), SECOND + Duration::from_millis(90));
        pace.record(2 * SECOND, 1);
        assert_eq!(pace.allowance(), Duration::ZERO);
    }

    #[test]
    fn who_keeps_the_rate_has_the_whole_gap() {
        let mut pace = Pace::new(10 * SECOND, 100);
        for _ in 0..1000 {
            pace.record(SECOND, 100);
        }
        assert_eq!(pace.allowance(), 10 * SECOND);
        let mut unbounded = Pace::new(SECOND, 0);
        unbounded.record(100 * SECOND, 1);
        assert_eq!(unbounded.allowance(), SECOND);
    }
}
