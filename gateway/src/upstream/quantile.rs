//! The time within which such a share of answers begins, followed without keeping any of them. Pure.

use std::cell::Cell;

/// How far one answer moves what is thought, once many have been seen.
const STEP: f64 = 0.05;

/// Before so many answers nothing is said.
const SEEN_MIN: u32 = 50;

/// Grows by a step for each value above it, and shrinks by a smaller one for each below, so that it rests
/// where the shares of both are as wanted.
#[derive(Debug)]
pub struct Quantile {
    /// 0 to 1.
    share: f64,
    estimate: Cell<f64>,
    seen: Cell<u32>,
}

impl Quantile {
    /// Of such a share, percent.
    pub fn new(percent: u32) -> Self {
        let share = f64::from(percent) / 100.0;
        Self { share, estimate: Cell::new(0.0), seen: Cell::new(0) }
    }

    /// Takes a value down.
    pub fn record(&self, value: f64) {
        let (seen, estimate) = (self.seen.get(), self.estimate.get());
        self.seen.set(seen.saturating_add(1));
        // The first ones move it further, so that it is soon about right.
        let step = STEP.max(1.0 / f64::from(seen + 1));
        self.estimate.set(match value > estimate {
            _ if seen == 0 => value,
            true => estimate * (1.0 + step * self.share),
            false => estimate * (1.0 - step * (1.0 - self.share)),
        });
    }

    /// What is thought, if enough has been seen.
    pub fn value(&self) -> Option<f64> {
        (self.seen.get() >= SEEN_MIN).then(|| self.estimate.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_value_and_follows_it() {
        let quantile = Quantile::new(95);
        let mut random = 7u64;
        let mut record = |scale: f64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            quantile.record(scale * (random >> 33) as f64 / (1u64 << 31) as f64);
        };
        (0..49).for_each(|_| record(1000.0));
        assert_eq!(quantile.value(), None);
        (0..5000).for_each(|_| record(1000.0));
        let found = quantile.value().unwrap();
        assert!((850.0..1100.0).contains(&found), "{found}");
        (0..5000).for_each(|_| record(10.0));
        let found = quantile.value().unwrap();
        assert!((8.5..11.0).contains(&found), "{found}");
    }
}
