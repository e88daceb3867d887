//! Whether an endpoint is to be asked, as probes have found.

#![expect(clippy::disallowed_types, reason = "control writes what workers read")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Stands for an endpoint that is down.
const DOWN: u64 = u64::MAX;

/// One for all of the machine; its copies are the same. Up until probes say otherwise.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicU64>);

impl Health {
    /// It is to be asked from this moment on, of the clock of [`Deadline`](crate::net::Deadline).
    pub fn set_up(&self, now: u64) {
        self.0.store(now.min(DOWN - 1), Relaxed);
    }

    /// It is not to be asked.
    pub fn set_down(&self) {
        self.0.store(DOWN, Relaxed);
    }

    /// Whether it is to be asked.
    pub fn is_up(&self) -> bool {
        self.0.load(Relaxed) != DOWN
    }

    /// Since when, if it is: 0 for always.
    pub fn up_since(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Copies of one.
impl PartialEq for Health {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
