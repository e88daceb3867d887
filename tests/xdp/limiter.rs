//! The limiter as the loaded program has it: its count, its prefixes, its settings.

use std::net::Ipv4Addr;
use std::thread;

use aya::programs::{TestRun, TestRunOptions, TestRunResult};
use gateway::admission::{Class, Entry, Treatment, unix_now};
use gateway::xdp::{Ban, Program};
use gateway_ebpf::abi;
use gateway_ebpf::verdict::{Action, Reason};
use ipnet::Ipv4Net;

use crate::packets::{syn_from_ipv4, syn_from_ipv6};
use crate::{LISTENERS, NEVER, PORT, Setup, frames, load, packets, settings};

pub fn repeat(program: &Program, frame: &[u8], times: u32) -> TestRunResult {
    let options =
        TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() };
    let entry_point = program.entry_point(abi::PROGRAM_FRAGS).expect("entry point");
    entry_point.test_run(options).expect("test run")
}

/// `(admitted, dropped)` so far.
fn tally(program: &Program) -> (u64, u64) {
    (
        packets(program, Action::Pass, Reason::WithinLimit),
        packets(program, Action::Drop, Reason::OverLimit),
    )
}

fn v6(last_group: u16, subnet: u16) -> [u8; 16] {
    std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, last_group).octets()
}

#[test]
fn the_burst_is_exact() {
    for burst in [1, 2, 200] {
        let Some(program) = load(&settings(burst, true)) else {
            return;
        };
        repeat(&program, &syn_from_ipv4([192, 0, 2, 1]), 1000);
        assert_eq!(tally(&program), (u64::from(burst), 1000 - u64::from(burst)));
        // Another source has a burst of its own.
        repeat(&program, &syn_from_ipv4([192, 0, 2, 2]), burst);
        assert_eq!(tally(&program).0, 2 * u64::from(burst));
    }
}

#[test]
fn cpus_share_one_count() {
    let Some(program) = load(&settings(500, true)) else {
        return;
    };
    let frame = syn_from_ipv4([192, 0, 2, 1]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| repeat(&program, &frame, 100_000));
        }
    });
    let contended = packets(&program, Action::Pass, Reason::Contended);
    let (admitted, dropped) = tally(&program);
    assert_eq!(admitted, 500);
    assert_eq!(admitted + dropped + contended, 400_000);
}

#[test]
fn the_rate_gives_connections_back() {
    let mut fast = settings(1, true);
    fast.class().connection_rate = 50.0;
    let Some(program) = load(&fast) else {
        return;
    };
    let frame = syn_from_ipv4([192, 0, 2, 1]);
    while tally(&program).0 < 5 {
        repeat(&program, &frame, 1);
    }
    assert!(tally(&program).1 > 0, "five connections at 50/s take time, but none was dropped");
}

#[test]
fn an_ipv6_source_is_its_prefix() {
    let Some(program) = load(&settings(10, true)) else {
        return;
    };
    for last_group in 0..30 {
        repeat(&program, &syn_from_ipv6(v6(last_group, 1)), 1);
    }
    assert_eq!(tally(&program), (10, 20));
    repeat(&program, &syn_from_ipv6(v6(0, 2)), 10);
    assert_eq!(tally(&program), (20, 20));
}

#[test]
fn prefixes_can_be_chosen() {
    let mut wide = settings(10, true);
    (wide.sources.ipv4_prefix, wide.sources.ipv6_prefix) = (24, 128);
    let Some(program) = load(&wide) else {
        return;
    };
    for last in 0..30 {
        repeat(&program, &syn_from_ipv4([192, 0, 2, last]), 1);
    }
    assert_eq!(tally(&program), (10, 20), "a /24 of IPv4 is one source");
    for last_group in 0..30 {
        repeat(&program, &syn_from_ipv6(v6(last_group, 1)), 1);
    }
    assert_eq!(tally(&program), (40, 20), "a /128 of IPv6 is one source each");
}

#[test]
fn who_owes_much_at_a_slow_rate_pushes_out_nobody_at_another() {
    let mut setup = settings(5, true);
    setup.xdp.table_bytes = 1 << 12;
    let slow = Class { connection_rate: NEVER / 100.0, ..setup.class().clone() };
    setup.sources.classes.push(slow);
    let Some(program) = load(&setup.list("198.18.0.0/15", Treatment::Class(1))) else {
        return;
    };
    repeat(&program, &syn_from_ipv4([192, 0, 2, 1]), 10);
    assert_eq!(tally(&program), (5, 5));
    for invented in 0..5000_u16 {
        let [high, low] = invented.to_be_bytes();
        repeat(&program, &syn_from_ipv4([198, 18, high, low]), 1);
    }
    assert_eq!(tally(&program), (5005, 5), "nobody is refused for others");
    repeat(&program, &syn_from_ipv4([192, 0, 2, 1]), 10);
    assert_eq!(tally(&program), (5005, 15), "it is known that it has had its five");
}

#[test]
fn settings_change_while_it_runs() {
    let frame = syn_from_ipv4([192, 0, 2, 1]);
    let Some(program) = load(&settings(10, false)) else {
        return;
    };
    repeat(&program, &frame, 15);
    assert_eq!(packets(&program, Action::Observe, Reason::OverLimit), 5);
    assert_eq!(tally(&program), (10, 0));

    program.configure(&settings(10, true).sources, &LISTENERS).expect("configure");
    repeat(&program, &frame, 5);
    assert_eq!(packets(&program, Action::Observe, Reason::OverLimit), 5);
    assert_eq!(tally(&program), (10, 5), "what the source has used up is remembered");
}

#[test]
fn fragments_that_hide_a_header_are_dropped_where_anything_is_enforced() {
    let observing = settings(1, false);
    let Some(program) = load(&observing) else {
        return;
    };
    let tiny = frames::tcp(PORT, 0);
    let tiny = frames::ipv4([192, 0, 2, 1], 0, frames::MORE, frames::TCP, &tiny[..8]);
    let tiny = frames::ethernet(&[], frames::IPV4, &tiny);
    let is_dropped = |setup: &Setup| {
        program.configure(&setup.sources, &LISTENERS).expect("configure");
        let dropped = || packets(&program, Action::Drop, Reason::TinyFragment);
        let before = dropped();
        repeat(&program, &tiny, 1);
        dropped() > before
    };
    assert!(!is_dropped(&observing));
    for enforced in 0..5 {
        let mut setup = observing.clone();
        let other = setup.class().clone();
        setup.sources.classes.push(other);
        match enforced {
            0 => setup.sources.enforce_deny = true,
            1 | 2 => setup.sources.classes[enforced - 1].enforce_rate = true,
            _ => setup.sources.classes[enforced - 3].enforce_connections = true,
        }
        assert!(is_dropped(&setup), "{enforced}");
    }
}

/// Figures, not a test: run it with `--ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn nanoseconds_per_packet() {
    let Some(program) = load(&settings(1, true)) else {
        return;
    };
    for entry_point in [abi::PROGRAM, abi::PROGRAM_FRAGS] {
        let info = program.entry_point(entry_point).expect("entry point").info().expect("info");
        println!(
            "{entry_point}: {} instructions verified, {} bytes of machine code",
            info.verified_instruction_count().unwrap_or_default(),
            info.size_jitted()
        );
    }
    let counts = program.counts().expect("counts");
    let until = unix_now() + 3600;
    let ban = Ban { until, level: 0, reason: 0, hits: 0, in_kernel: true };
    let banned = syn_from_ipv4([203, 0, 113, 1]);
    let entry = |network| Entry::parse(network, Treatment::Deny, "here").expect("an entry");
    let denied = entry("198.51.100.0/24");
    let other = frames::ethernet(&[], 0x0806, &[0; 46]);
    for networks in [0, 10_000, 100_000] {
        if networks > 0 {
            let many = (0..networks).map(|number: u32| {
                let address = Ipv4Addr::from_bits(0x0a00_0000 + (number << 4));
                let network = Ipv4Net::new(address, 28).expect("a network").into();
                Entry { network, ..denied.clone() }
            });
            let list: Vec<_> = many.chain([denied.clone()]).collect();
            program.set_list(&list).expect("the list");
            for number in 0..10_000_u32 {
                let source = counts.source((0xcb00_7101 + number).to_be_bytes().into());
                program.ban(source, ban).expect("a ban");
            }
        }
        println!("{networks} networks on lists:");
        for (name, frame) in [
            ("not TCP", other.clone()),
            ("SYN over the limit, IPv4", syn_from_ipv4([192, 0, 2, 1])),
            ("SYN over the limit, IPv6", syn_from_ipv6(v6(1, 1))),
            ("SYN of a denied network", syn_from_ipv4([198, 51, 100, 1])),
            ("SYN of a banned source", banned.clone()),
        ] {
            let best = (0..9).map(|_| repeat(&program, &frame, 1_000_000).duration).min();
            println!("  {name}: {} ns", best.unwrap_or_default().as_nanos());
        }
    }
}
