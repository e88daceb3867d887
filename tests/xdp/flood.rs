//! Floods of invented sources: limits hold meanwhile and afterwards, and through a crash, too.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

use gateway::xdp::Mode;
use gateway_ebpf::verdict::{Action, Reason};

use crate::connections::{Connections, PATIENCE};
use crate::kept::{Folder, keeping};
use crate::netns::{GATEWAY_V4, INTERFACE, client_v4};
use crate::served::Served;
use crate::sources::{AT_ONCE, connect, net};
use crate::traffic::{Load, Passed, Syns, invented, lost};
use crate::{PORT, packets, settings};

const BURST: u32 = 10;

/// Six sources for each place of the table: every line is full again and again.
#[test]
fn invented_sources_push_nobody_out_of_the_table_and_nobody_is_refused_for_them() {
    const PLACES: u32 = 1 << 15;
    const FLOOD: u32 = 6 * PLACES;
    let Some(net) = net() else { return };
    let mut setup = settings(BURST, true).on(INTERFACE, Mode::Native);
    setup.xdp.table_bytes = u64::from(PLACES) * size_of::<u64>() as u64;
    let target = SocketAddr::new(GATEWAY_V4, PORT);
    let (xdp, _listener) = net
        .gateway
        .run(|| (setup.attach().expect("attach"), TcpListener::bind(target).expect("listen")));
    let heavy = client_v4(2);
    let passed = Passed::of(heavy, &net.gateway);
    let syns = Syns::from(&net.clients);
    syns.send_many(heavy, BURST as usize);

    let flood = Load::start(&net.clients, |syns, number| {
        if number < FLOOD {
            syns.send_many(invented(number), 1);
        }
    });
    let mut sent = BURST as usize;
    for quiet in [client_v4(3), client_v4(4)] {
        for _ in 0..BURST {
            flood.await_more(u64::from(FLOOD / (2 * BURST)));
            syns.send_many(heavy, 10);
            sent += 10;
            Connections::open(&net.clients, quiet, target, 1).wait_for(1);
        }
    }
    flood.end();
    syns.send_many(heavy, 10);
    sent += 10;

    // What the veth has lost nobody has decided.
    let above = sent as u64 - u64::from(BURST);
    let refused = || packets(xdp.program(), Action::Drop, Reason::OverLimit);
    await_packets(|| refused() + lost(&net.clients) >= above);
    assert!(refused() <= above, "{} of {above}: somebody else, too", refused());
    assert_eq!(passed.count(), BURST as usize);
    let admitted = packets(xdp.program(), Action::Pass, Reason::WithinLimit);
    assert!(admitted + lost(&net.clients) >= u64::from(FLOOD), "{admitted} of {FLOOD}");
    assert!(admitted >= u64::from(2 * PLACES), "{admitted}: not enough for the table");
}

/// Waits until what has been sent has been decided.
fn await_packets(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "packets are missing");
        thread::yield_now();
    }
}

#[test]
fn a_crash_under_a_flood_lets_nobody_in() {
    let Some(net) = net() else { return };
    let folder = Folder::new("flood");
    let limits = "connection_rate = \"1/m\"\nconnection_burst = 10\ndeny = [\"10.77.0.4\"]\n\
                  table = \"256KiB\"\nsyn_cookies = \"off\"";
    let config = keeping(&folder, limits);
    let begun = Instant::now();
    let mut served = Served::start(&net.gateway, &config);
    assert!(served.ask(&["ban", "10.77.0.3", "--for", "10m"]).0);
    let sources = [2, 3, 4].map(client_v4);
    let passed = sources.map(|source| Passed::of(source, &net.gateway));
    let flood = Load::start(&net.clients, move |syns, number| {
        sources.iter().for_each(|source| syns.send_many(*source, 1));
        (0..20).for_each(|more| syns.send_many(invented(number % 10_000 * 20 + more), 1));
    });
    for _ in 0..2 {
        flood.await_more(1000);
        let ended = served.kill();
        flood.await_more(1000);
        served = ended.restart(&config);
    }
    flood.await_more(1000);
    let rounds = flood.end();

    let minutes = begun.elapsed().as_secs() as usize / 60;
    let [heavy, banned, denied] = passed.map(|passed| passed.count());
    assert!((10..=10 + minutes).contains(&heavy), "{heavy} of {rounds}");
    assert_eq!((banned, denied), (0, 0), "of {rounds} each");
    let said = served.ask(&["bans"]).1;
    assert!(said.contains("10.77.0.3/32"), "{said}");
    let kept = connect(&net.clients, client_v4(2), AT_ONCE);
    assert!(kept.is_none(), "what it has used up is known");
}
