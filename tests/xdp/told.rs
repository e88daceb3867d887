//! What the program tells of those it refuses: who they are, and where they came in.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use gateway::admission::address_of;
use gateway::xdp::{Mode, Program};
use gateway_ebpf::abi;
use gateway_ebpf::verdict::{Action, Reason};
use rustix::thread::{CpuSet, sched_setaffinity};
use tracing::Level;

use crate::connections::{Connections, PATIENCE};
use crate::limiter::repeat;
use crate::logs::listen;
use crate::netns::{GATEWAY_V4, INTERFACE, Net, client_v4};
use crate::packets::syn_from_ipv4;
use crate::running::wait_until_clean;
use crate::{PORT, load, packets, settings};

/// Each CPU samples by itself.
fn stay_on_one_cpu() {
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("run on CPU 0");
}

/// `(refused, observed)` of a source.
fn offences(program: &Program, source: IpAddr) -> (u64, u64) {
    let offenders = program.offenders().expect("the offenders");
    let found = offenders.iter().find(|offender| address_of(offender.source) == source);
    found.map_or((0, 0), |offender| (offender.refused, offender.observed))
}

#[test]
fn every_refusal_is_somebodys() {
    stay_on_one_cpu();
    for (enforce, action) in [(true, Action::Drop), (false, Action::Observe)] {
        let Some(program) = load(&settings(5, enforce)) else { return };
        let frame = syn_from_ipv4([192, 0, 2, 1]);
        repeat(&program, &frame, 10_000);
        let begun = Instant::now();
        loop {
            repeat(&program, &frame, 1);
            let expected = packets(&program, action, Reason::OverLimit);
            let (refused, observed) = offences(&program, [192, 0, 2, 1].into());
            if refused + observed == expected {
                assert_eq!(refused == 0, action == Action::Observe);
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{refused} and {observed} of {expected}");
        }
        assert_eq!(offences(&program, [192, 0, 2, 2].into()), (0, 0));
    }
}

#[test]
fn refusals_are_lines_of_the_log() {
    let (_guard, lines) = listen(Level::INFO);
    let mut telling = settings(1, true);
    telling.xdp.log_rate = 1;
    if load(&telling).is_none() {
        return;
    }
    // No interface: the program is only fed by hand.
    let mut xdp = telling.attach().expect("load");
    let events = xdp.take_events().expect("somebody listens");
    assert!(xdp.take_events().is_none());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    let mut got = String::new();
    runtime.block_on(async {
        tokio::select! {
            end = events.forward(|| false) => panic!("it ended: {end:?}"),
            () = async {
                while !got.contains("more sources") {
                    for last in 1..=3 {
                        repeat(xdp.program(), &syn_from_ipv4([192, 0, 2, last]), 2);
                        // Longer than the program waits between two samples.
                        tokio::time::sleep(Duration::from_nanos(2 * abi::SAMPLE_NS)).await;
                    }
                    got.extend(lines.try_iter());
                }
            } => {}
        }
    });
    assert!(got.contains("xdp: drop source=192.0.2."), "{got}");
    assert!(got.contains("port=8080"), "{got}");
    assert!(got.contains("reason=\"over_limit\""), "{got}");
    assert_eq!(xdp.program().lost_events().expect("the samples"), 0);
}

#[test]
fn nobody_listens_where_no_lines_are_wanted() {
    if load(&settings(1, true)).is_none() {
        return;
    }
    let mut xdp = settings(1, true).attach().expect("load");
    assert!(xdp.take_events().is_none());
}

#[test]
fn interfaces_are_counted_apart() {
    let Some(net) = Net::new() else { return };
    let mut setup = settings(100, true).on(INTERFACE, Mode::Generic);
    setup.xdp.interfaces.push("lo".to_owned());
    for interface in [INTERFACE, "lo"] {
        wait_until_clean(&net.gateway, interface);
    }
    let (xdp, _listener) = net.gateway.run(|| {
        let xdp = setup.attach().expect("attach");
        (xdp, TcpListener::bind((GATEWAY_V4, PORT)).expect("listen"))
    });
    let target = SocketAddr::new(GATEWAY_V4, PORT);
    Connections::open(&net.clients, client_v4(2), target, 3).wait_for(3);
    net.gateway.run(|| TcpStream::connect(target).expect("connect"));
    let within = |interface: &str| {
        let counters = xdp.counters().expect("counters");
        let (_, counts) = counters.iter().find(|(name, _)| *name == interface).expect("counters");
        let passed = counts.iter().filter(|count| count.verdict.action == Action::Pass);
        let opened = |reason| matches!(reason, Reason::WithinLimit | Reason::Allowed);
        passed.filter(|count| opened(count.verdict.reason)).map(|count| count.packets).sum::<u64>()
    };
    assert_eq!((within(INTERFACE), within("lo")), (3, 1));
}
