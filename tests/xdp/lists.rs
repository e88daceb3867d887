//! Lists in the loaded program: what they decide, how they change, and what they cost.

use std::net::Ipv4Addr;
use std::thread;

use gateway::admission::lists::live;
use gateway::admission::{Entry, Treatment, unix_now};
use gateway::xdp::Program;
use gateway_ebpf::abi;
use gateway_ebpf::verdict::{Action, Reason};
use ipnet::{IpNet, Ipv4Net};

use crate::limiter::repeat;
use crate::packets::{syn_from_ipv4, syn_from_ipv6};
use crate::{load, packets, settings};

const DENIED: (Action, Reason) = (Action::Drop, Reason::Denied);
const ALLOWED: (Action, Reason) = (Action::Pass, Reason::Allowed);
const WITHIN: (Action, Reason) = (Action::Pass, Reason::WithinLimit);

/// What happens to a connection from this address.
fn verdict(program: &Program, address: &str) -> (Action, Reason) {
    let frame = match address.parse().expect("an address") {
        std::net::IpAddr::V4(address) => syn_from_ipv4(address.octets()),
        std::net::IpAddr::V6(address) => syn_from_ipv6(address.octets()),
    };
    let before = program.counters().expect("counters");
    repeat(program, &frame, 1);
    let after = program.counters().expect("counters");
    let moved = before.iter().zip(&after).find(|(before, after)| before != after);
    let verdict = moved.expect("a counter has moved").1.verdict;
    (verdict.action, verdict.reason)
}

fn entries(lines: &[(&str, Treatment)]) -> Vec<Entry> {
    let entries = lines.iter().map(|(line, treatment)| Entry::parse(line, *treatment, "here"));
    live(&entries.collect::<Result<Vec<_>, _>>().expect("entries"), unix_now())
}

#[test]
fn the_longest_network_decides_and_allow_wins() {
    let setup = settings(1000, true)
        .list("198.51.100.0/24", Treatment::Deny)
        .list("198.51.100.128/25", Treatment::Allow)
        .list("198.51.100.200", Treatment::Deny)
        .list("2001:db8::/32", Treatment::Deny)
        .list("2001:db8:1::/48", Treatment::Allow)
        .list("::/0", Treatment::Class(0));
    let Some(program) = load(&setup) else {
        return;
    };
    for (address, expected) in [
        ("198.51.100.1", DENIED),
        ("198.51.100.129", ALLOWED),
        // Its network is allowed as a whole.
        ("198.51.100.200", ALLOWED),
        ("198.51.101.1", WITHIN),
        ("2001:db8::1", DENIED),
        ("2001:db8:1::1", ALLOWED),
        ("2001:db9::1", WITHIN),
    ] {
        assert_eq!(verdict(&program, address), expected, "{address}");
    }
    let hits = program.list_hits().expect("hits");
    let of = |network: &str| hits[&network.parse::<IpNet>().expect("a network")];
    assert_eq!((of("198.51.100.0/24"), of("198.51.100.128/25")), (1, 2));
    assert_eq!((of("2001:db8::/32"), of("::/0")), (1, 1));
}

#[test]
fn a_class_has_limits_of_its_own() {
    let mut setup = settings(2, true).list("198.51.100.0/24", Treatment::Class(1));
    let class = gateway::admission::Class { connection_burst: 5, ..setup.class().clone() };
    setup.sources.classes.push(class);
    let Some(program) = load(&setup) else {
        return;
    };
    repeat(&program, &syn_from_ipv4([198, 51, 100, 1]), 10);
    assert_eq!(packets(&program, Action::Pass, Reason::WithinLimit), 5);
    repeat(&program, &syn_from_ipv4([192, 0, 2, 1]), 10);
    assert_eq!(packets(&program, Action::Pass, Reason::WithinLimit), 7);
}

#[test]
fn deny_is_only_counted_until_it_is_enforced() {
    let setup = settings(1, false).list("198.51.100.0/24", Treatment::Deny);
    let Some(program) = load(&setup) else {
        return;
    };
    assert_eq!(verdict(&program, "198.51.100.1"), (Action::Observe, Reason::Denied));
    program.configure(&settings(1, true).sources, &crate::LISTENERS).expect("configure");
    assert_eq!(verdict(&program, "198.51.100.1"), DENIED);
}

#[test]
fn an_entry_ends_in_the_kernel_by_itself() {
    let Some(program) = load(&settings(1000, true)) else {
        return;
    };
    let mut ends = entries(&[("198.51.100.0/24", Treatment::Deny)]);
    ends[0].until = Some(unix_now() + 2);
    program.set_list(&ends).expect("the list");
    assert_eq!(verdict(&program, "198.51.100.1"), DENIED);
    while verdict(&program, "198.51.100.1") == DENIED {
        thread::yield_now();
    }
    assert!(unix_now() >= ends[0].until.expect("an end") - 1);
}

#[test]
fn a_list_is_swapped_whole_and_keeps_its_hits() {
    let Some(program) = load(&settings(1000, true)) else {
        return;
    };
    let first =
        entries(&[("198.51.100.0/24", Treatment::Deny), ("192.0.2.0/24", Treatment::Allow)]);
    let second =
        entries(&[("198.51.100.0/24", Treatment::Deny), ("203.0.113.0/24", Treatment::Deny)]);
    program.set_list(&first).expect("the first list");
    for round in 1..=3 {
        assert_eq!(verdict(&program, "198.51.100.1"), DENIED);
        program.set_list(&second).expect("the second list");
        assert_eq!(verdict(&program, "192.0.2.1"), WITHIN);
        assert_eq!(verdict(&program, "203.0.113.1"), DENIED);
        program.set_list(&first).expect("the first list");
        assert_eq!(verdict(&program, "203.0.113.1"), WITHIN);
        assert_eq!(verdict(&program, "192.0.2.1"), ALLOWED);
        let hits = program.list_hits().expect("hits");
        assert_eq!(hits.len(), 2);
        assert_eq!(hits[&"198.51.100.0/24".parse().expect("a network")], round);
    }
    program.set_list(&[]).expect("no list");
    assert_eq!(verdict(&program, "198.51.100.1"), WITHIN);
}

/// A denied source never gets through while the list around it is swapped.
#[test]
fn no_packet_sees_half_a_list() {
    let Some(program) = load(&settings(1_000_000, true)) else {
        return;
    };
    let around = |number: u8| -> Vec<Entry> {
        let mut list = entries(&[("198.51.100.0/24", Treatment::Deny)]);
        let others = (0..200).map(|last| {
            let network = Ipv4Net::new(Ipv4Addr::new(10, number, last, 0), 24).expect("a network");
            Entry { network: network.into(), ..list[0].clone() }
        });
        let others: Vec<_> = others.collect();
        list.extend(others);
        list
    };
    program.set_list(&around(0)).expect("a list");
    let frame = syn_from_ipv4([198, 51, 100, 1]);
    thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            for number in 1..50 {
                program.set_list(&around(number)).expect("a list");
            }
        });
        while !swapping.is_finished() {
            repeat(&program, &frame, 1000);
        }
    });
    assert_eq!(packets(&program, Action::Pass, Reason::WithinLimit), 0);
    assert!(packets(&program, Action::Drop, Reason::Denied) > 0);
}

#[test]
fn a_hundred_thousand_networks_fit_and_can_be_swapped() {
    let Some(program) = load(&settings(1000, true)) else {
        return;
    };
    let network = |number: u32| {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + (number << 4));
        Ipv4Net::new(address, 28).expect("a network").into()
    };
    let entry = &entries(&[("198.51.100.0/24", Treatment::Deny)])[0];
    let many: Vec<_> =
        (0..100_000).map(|number| Entry { network: network(number), ..entry.clone() }).collect();
    program.set_list(&many).expect("the first list");
    program.set_list(&many).expect("the second list");
    assert_eq!(verdict(&program, "10.0.0.1"), DENIED);
    assert_eq!(verdict(&program, "10.24.105.255"), DENIED);
    assert_eq!(verdict(&program, "10.24.106.0"), WITHIN);

    let one_too_many: Vec<_> = (0..2 * abi::LIST_MAX)
        .map(|number| Entry { network: network(number), ..entry.clone() })
        .collect();
    let error = program.set_list(&one_too_many).expect_err("too many");
    assert!(error.to_string().contains("write the list"), "{error}");
    assert_eq!(verdict(&program, "10.0.0.1"), DENIED, "the list is as it was");
}
