//! Connections of one source that two CPUs decide about at once: as many as its limit allows.

use std::thread;
use std::time::{Duration, Instant};

use gateway_ebpf::bucket::{Limits, TICK_SHIFT};
use gateway_ebpf::verdict::{Action, Reason};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::limiter::repeat;
use crate::packets::syn_from_ipv4;
use crate::{load, packets, settings, skip};

/// Packets that each CPU sees.
const PACKETS: u32 = 1_000_000;
const RATE: u64 = 20_000;
const BURST: u64 = 20_000;
/// The longest step of the program's clock (`CONFIG_HZ` is 100 at least).
const STEP: Duration = Duration::from_millis(10);

/// The CPUs this thread may run on, two at most.
fn two_cpus() -> Vec<usize> {
    let usable = sched_getaffinity(None).expect("the CPUs");
    (0..CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu)).take(2).collect()
}

#[test]
fn two_cpus_admit_what_one_source_may_have() {
    let mut fast = settings(BURST as u32, true);
    fast.class().connection_rate = RATE as f64;
    let Some(program) = load(&fast) else { return };
    let cpus = two_cpus();
    let [_, _] = cpus[..] else { return skip("there is one CPU") };

    let frame = syn_from_ipv4([192, 0, 2, 1]);
    let begun = Instant::now();
    let busy: Vec<Duration> = thread::scope(|scope| {
        let run = |cpu: usize| {
            let (program, frame) = (&program, &frame);
            scope.spawn(move || {
                let mut own = CpuSet::new();
                own.set(cpu);
                sched_setaffinity(None, &own).expect("run on one CPU");
                repeat(program, frame, PACKETS).duration * PACKETS
            })
        };
        let threads: Vec<_> = cpus.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("a run")).collect()
    });
    let elapsed = begun.elapsed() + STEP;

    // The rate as the program has it, in whole ticks.
    let interval = Limits::new(1_000_000_000 / RATE, BURST as u32).interval << TICK_SHIFT;
    let within = |time: Duration| time.as_nanos() as u64 / interval;
    let counted = packets(&program, Action::Pass, Reason::WithinLimit);
    let dropped = packets(&program, Action::Drop, Reason::OverLimit);
    let contended = packets(&program, Action::Pass, Reason::Contended);
    assert_eq!(counted + contended + dropped, 2 * u64::from(PACKETS));
    let most = BURST + within(elapsed);
    assert!(counted <= most, "{counted} of {most} in {elapsed:?}");
    assert!(contended <= 2, "{contended} uncounted: more than one for each CPU");
    // For as long as the longer run took the source was never quiet.
    let longest = busy.into_iter().max().unwrap_or_default();
    let least = BURST + within(longest.saturating_sub(STEP));
    assert!(counted + contended >= least, "{counted} of {least} in {longest:?}");
}
