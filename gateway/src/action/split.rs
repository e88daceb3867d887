//! Divides the requests of one route among upstreams: some for the new version, most for the old.

use crate::exchange::Affinity;

/// Upstreams and their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Positions of upstreams with their weights, at least one.
    pub shares: Vec<(usize, u32)>,
    /// What makes requests stay together. A cookie is set where there is none.
    pub sticky: Option<Affinity>,
}

impl Split {
    /// The upstream for a point among all numbers: shares lie side by side in the order written, so that
    /// a share that grows at the end takes only from its neighbour.
    pub fn at(&self, point: u64) -> Option<usize> {
        let total: u64 = self.shares.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = (u128::from(point) * u128::from(total)) >> 64;
        let share = self.shares.iter().find(|(_, weight)| {
            let within = left < u128::from(*weight);
            left = left.saturating_sub(u128::from(*weight));
            within
        });
        share.map(|(upstream, _)| *upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::affinity::point;

    #[test]
    fn shares_are_kept_and_grow_into_their_neighbour() {
        let split = |weights: [u32; 2]| Split {
            shares: weights.into_iter().enumerate().collect(),
            sticky: None,
        };
        let points: Vec<u64> = (0..10_000u32).map(|number| point(&number.to_le_bytes())).collect();
        let second = |weights| {
            let split = split(weights);
            points.iter().map(|point| split.at(*point).unwrap() == 1).collect::<Vec<_>>()
        };
        let (tenth, fifth) = (second([90, 10]), second([80, 20]));
        let count = |chosen: &[bool]| chosen.iter().filter(|chosen| **chosen).count();
        assert!((900..1100).contains(&count(&tenth)), "{}", count(&tenth));
        assert!((1850..2150).contains(&count(&fifth)), "{}", count(&fifth));
        assert!(tenth.iter().zip(&fifth).all(|(before, after)| !before || *after));
        assert_eq!(split([0, 1]).at(0), Some(1));
        assert_eq!(split([1, 0]).at(u64::MAX), Some(0));
    }
}
