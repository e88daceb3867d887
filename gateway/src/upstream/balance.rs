//! Which endpoint is asked next. Pure: no sockets, no clock.

use std::cell::Cell;

/// Each endpoint in turn.
#[derive(Debug)]
pub struct RoundRobin {
    next: Cell<usize>,
}

impl RoundRobin {
    /// Begins with the endpoint `first`: workers begin at different ones, so that few requests on
    /// many workers do not all go to the same.
    pub fn new(first: usize) -> Self {
        Self { next: Cell::new(first) }
    }

    /// Positions of all `endpoints` in the order to try them.
    pub fn order(&self, endpoints: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.next.get() % endpoints.max(1);
        self.next.set(first + 1);
        (first..endpoints).chain(0..first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_turn_and_every_other_is_tried_after_it() {
        let balance = RoundRobin::new(1);
        let orders: Vec<Vec<usize>> = (0..4).map(|_| balance.order(3).collect()).collect();
        assert_eq!(orders, [[1, 2, 0], [2, 0, 1], [0, 1, 2], [1, 2, 0]]);
    }
}
