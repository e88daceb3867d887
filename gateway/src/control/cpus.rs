//! Which CPUs this process may run on.

use rustix::thread::{CpuSet, sched_getaffinity};

/// The CPUs the scheduler allows, in ascending order, at least one: a container or `taskset` may
/// leave fewer than the machine has.
pub fn usable_cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_else(|error| {
        // More CPUs than the set can hold (1024): the first one is there in any case.
        tracing::warn!("cannot ask which CPUs may be used, taking the first: {error}");
        let mut first = CpuSet::new();
        first.set(0);
        first
    });
    (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_and_none_twice() {
        let cpus = usable_cpus();
        assert!(!cpus.is_empty());
        assert!(cpus.is_sorted_by(|a, b| a < b));
    }
}
