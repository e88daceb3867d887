//! Connections of one source that two CPUs decide about at once: as many as its limit allows.

use std::thread;
use std::time::{Duration, Instant};

use gateway::xdp::Program;
use gateway_ebpf::bucket::{Limits, TICK_SHIFT};
use gateway_ebpf::verdict::{Action, Reason};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::limiter::repeat;
use crate::packets::syn_from_ipv4;
use crate::{Setup, load, packets, settings, skip};

/// Packets that each CPU sees.
const PACKETS: u32 = 1_000_000;
const RATE: u64 = 20_000;
const BURST: u32 = 20_000;
/// The longest step of the program's clock (`CONFIG_HZ` is 100 at least).
const STEP: Duration = Duration::from_millis(10);

/// `None` where this thread may run on one only.
fn two_cpus() -> Option<[usize; 2]> {
    let usable = sched_getaffinity(None).expect("the CPUs");
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu));
    let two = cpus.next().zip(cpus.next()).map(<[usize; 2]>::from);
    if two.is_none() {
        skip("there is one CPU");
    }
    two
}

/// Lets both see packets of one source at once: how long each was busy with it.
fn run_on(cpus: [usize; 2], program: &Program) -> [Duration; 2] {
    let frame = &syn_from_ipv4([192, 0, 2, 1]);
    thread::scope(|scope| {
        let run = |cpu: usize| {
            scope.spawn(move || {
                let mut own = CpuSet::new();
                own.set(cpu);
                sched_setaffinity(None, &own).expect("run on one CPU");
                repeat(program, frame, PACKETS).duration * PACKETS
            })
        };
        cpus.map(run).map(|thread| thread.join().expect("a run"))
    })
}

fn class(burst: u32) -> Setup {
    let mut setup = settings(burst, true);
    setup.class().connection_rate = RATE as f64;
    setup
}

#[test]
fn two_cpus_admit_what_one_source_may_have() {
    let Some(program) = load(&class(BURST)) else { return };
    let Some(cpus) = two_cpus() else { return };
    let begun = Instant::now();
    let busy = run_on(cpus, &program);
    let elapsed = begun.elapsed() + STEP;

    // The rate as the program has it, in whole ticks.
    let interval = Limits::new(1_000_000_000 / RATE, BURST).interval << TICK_SHIFT;
    let within = |time: Duration| time.as_nanos() as u64 / interval;
    let counted = packets(&program, Action::Pass, Reason::WithinLimit);
    let dropped = packets(&program, Action::Drop, Reason::OverLimit);
    let contended = packets(&program, Action::Pass, Reason::Contended);
    assert_eq!(counted + contended + dropped, 2 * u64::from(PACKETS));
    let most = u64::from(BURST) + within(elapsed);
    assert!(counted <= most, "{counted} of {most} in {elapsed:?}");
    assert!(contended <= 2, "{contended} uncounted: only a new source's first may be");
    // For as long as the longer run took the source was never quiet.
    let longest = busy.into_iter().max().unwrap_or_default();
    let least = u64::from(BURST) + within(longest.saturating_sub(STEP));
    assert!(counted + contended >= least, "{counted} of {least} in {longest:?}");
}

/// Where every packet changes the source's state, all are counted all the same.
#[test]
fn two_cpus_that_always_compete_lose_no_count() {
    let Some(program) = load(&class(3 * PACKETS)) else { return };
    let Some(cpus) = two_cpus() else { return };
    run_on(cpus, &program);
    let contended = packets(&program, Action::Pass, Reason::Contended);
    assert!(contended <= 2, "{contended} uncounted: only a new source's first may be");
    let counted = packets(&program, Action::Pass, Reason::WithinLimit);
    assert_eq!(counted + contended, 2 * u64::from(PACKETS));
}
