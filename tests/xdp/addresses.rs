//! Listeners at some addresses only: the same port of another address is somebody else's.

use std::net::{IpAddr, SocketAddr};

use gateway_ebpf::verdict::{Action, Reason};

use crate::frames::*;
use crate::limiter::repeat;
use crate::{LISTENERS, PORT, load, packets, settings};

const OURS: [&str; 2] = ["192.0.2.200", "2001:db8::200"];
const OTHERS: [&str; 2] = ["192.0.2.201", "2001:db8::201"];

/// SYNs to `to`, as many as there are places where the address may be.
fn syns(to: IpAddr) -> Vec<Vec<u8>> {
    let syn = tcp(PORT, SYN);
    match to {
        IpAddr::V4(to) => [(&[][..], 0), (&[], 8), (&[VLAN], 0), (&[QINQ, VLAN], 40)]
            .map(|(tags, options)| {
                let mut packet = ipv4([192, 0, 2, 1], options, 0, TCP, &syn);
                packet[16..20].copy_from_slice(&to.octets());
                ethernet(tags, IPV4, &packet)
            })
            .to_vec(),
        IpAddr::V6(to) => [(&[][..], 0), (&[], 1), (&[VLAN], 0), (&[QINQ, VLAN], 1)]
            .map(|(tags, extensions)| {
                let chain: [(u8, &[u8]); 1] = [(DESTINATION, &[0; 8])];
                let mut packet = ipv6([0x20; 16], &chain[..extensions], TCP, &syn);
                packet[24..40].copy_from_slice(&to.octets());
                ethernet(tags, IPV6, &packet)
            })
            .to_vec(),
    }
}

#[test]
fn only_what_is_for_an_address_that_is_listened_on_is_limited() {
    let Some(program) = load(&settings(1, true)) else {
        return;
    };
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    // Each source has its one.
    for to in OURS {
        repeat(&program, &syns(ip(to))[0], 1);
    }
    let judged = |to: &str| {
        let dropped = || packets(&program, Action::Drop, Reason::OverLimit);
        let passed = || packets(&program, Action::Pass, Reason::Other);
        let (before, syns) = ((dropped(), passed()), syns(ip(to)));
        for syn in &syns {
            repeat(&program, syn, 1);
        }
        let counts = (dropped() - before.0, passed() - before.1);
        assert_eq!(counts.0 + counts.1, syns.len() as u64, "{to}: {counts:?}");
        assert!(counts.0 == 0 || counts.1 == 0, "{to}: {counts:?}");
        counts.0 > 0
    };
    let listen = |listeners: &[SocketAddr]| {
        let listeners: Vec<_> = listeners.iter().map(|address| (*address, 0)).collect();
        program.configure(&settings(1, true).sources, &listeners).expect("configure");
    };
    assert!(OURS.into_iter().chain(OTHERS).all(judged), "at all addresses");

    let ours = OURS.map(|address| SocketAddr::new(ip(address), PORT));
    listen(&ours);
    assert!(OURS.into_iter().all(judged));
    assert!(!OTHERS.into_iter().any(judged), "of another's");
    // What was looked up last is not remembered for longer than it is so.
    assert!(judged(OURS[0]));
    listen(&[ours[1], SocketAddr::new(ip(OTHERS[0]), PORT)]);
    assert!(!judged(OURS[0]) && !judged(OTHERS[1]), "what is no longer listened on");
    assert!(judged(OURS[1]) && judged(OTHERS[0]));
    listen(&[ours[0], LISTENERS[0].0]);
    assert!(OURS.into_iter().chain(OTHERS).all(judged), "one is at all addresses");
    listen(&[]);
    assert!(!OURS.into_iter().chain(OTHERS).any(judged));
}
