//! One gateway after another, and two at once: who has the interface, and who is let in meanwhile.

use std::net::SocketAddr;
use std::time::Instant;

use crate::PORT;
use crate::interface::{SECOND, SECOND_V4, join_again};
use crate::kept::{Folder, keeping, program_on};
use crate::netns::{GATEWAY_V4, INTERFACE, client_v4};
use crate::served::Served;
use crate::sources::{AT_ONCE, config, connect, net};
use crate::traffic::{Load, Passed, Syns};

const LIMITS: &str = "connection_rate = \"1/m\"\nconnection_burst = 10";

#[test]
fn a_restart_under_load_lets_nobody_in_on_any_interface() {
    let Some(net) = net() else { return };
    join_again(&net);
    let folder = Folder::new("replace");
    let on = |interfaces: &str| keeping(&folder, LIMITS).replace("\"gw0\"", interfaces);
    let both = on("\"gw0\", \"gw1\"");
    let begun = Instant::now();
    let mut served = Served::start(&net.gateway, &both);
    assert!(served.ask(&["ban", "10.77.0.3", "--for", "10m"]).0);
    let sources = [2, 3].map(client_v4);
    let passed = sources.map(|source| Passed::of(source, &net.gateway));
    let [heavy, banned] = sources;
    Syns::from(&net.clients).send_many(heavy, 10);
    let load = Load::start(&net.clients, move |syns, _| {
        for address in [GATEWAY_V4, SECOND_V4] {
            syns.send(heavy, SocketAddr::new(address, PORT));
            syns.send(banned, SocketAddr::new(address, PORT));
        }
    });
    let programs = || [INTERFACE, SECOND].map(|interface| program_on(&net, interface));
    for _ in 0..2 {
        load.await_more(500);
        let before = programs();
        assert!(before.iter().all(Option::is_some), "{before:?}");
        let ended = served.stop();
        assert_eq!(programs(), before, "they are still there");
        load.await_more(500);
        served = ended.restart(&both);
        assert!(before.iter().zip(programs()).all(|(before, after)| *before != after));
    }
    load.await_more(500);
    let rounds = load.end();
    let minutes = begun.elapsed().as_secs() as usize / 60;
    let [heavy, banned] = passed.map(|passed| passed.count());
    assert!((10..=10 + minutes).contains(&heavy), "{heavy} of {rounds}");
    assert_eq!(banned, 0, "of {rounds}");

    // What is no longer named is left, and what is goes on.
    let _served = served.stop().restart(&on("\"gw0\""));
    assert!(program_on(&net, INTERFACE).is_some());
    assert_eq!(program_on(&net, SECOND), None);
    assert!(connect(&net.clients, client_v4(2), AT_ONCE).is_none());
}

#[test]
fn of_two_that_start_at_once_one_serves_and_the_other_says_why_not() {
    let Some(net) = net() else { return };
    for keep in [false, true] {
        let folder = Folder::new("race");
        let config = match keep {
            false => config(INTERFACE, &format!("enforce = true\n{LIMITS}")),
            true => keeping(&folder, LIMITS),
        };
        let (served, said) = Served::race(&net.gateway, &[config.clone(), config]);
        let why = "address already in use (another program holds it)";
        assert!(said.iter().all(|said| said.contains(why)), "{said:?}");
        let Some(served) = served else { continue };
        let open = || connect(&net.clients, client_v4(2), AT_ONCE);
        assert!((0..10).all(|_| open().is_some()), "keep: {keep}");
        assert!(open().is_none(), "keep: {keep}");
        assert!(program_on(&net, INTERFACE).is_some());
        served.stop();
    }
}

/// On other ports nothing else would keep them apart.
#[test]
fn a_second_gateway_leaves_the_program_of_the_first_alone() {
    let Some(net) = net() else { return };
    let folder = Folder::new("second");
    let first = keeping(&folder, LIMITS);
    let served = Served::start(&net.gateway, &first);
    let before = program_on(&net, INTERFACE);
    let said = Served::refused(&net.gateway, &first);
    assert!(said.contains("another gateway does; end it first"), "{said}");
    assert_eq!(program_on(&net, INTERFACE), before);
    let open = || connect(&net.clients, client_v4(2), AT_ONCE);
    assert!((0..10).all(|_| open().is_some()) && open().is_none());
    drop((served, folder));

    let alone = Folder::new("alone");
    let served = Served::start(&net.gateway, &keeping(&alone, LIMITS));
    let said = Served::refused(&net.gateway, &config(INTERFACE, LIMITS));
    assert!(said.contains("gw0 is taken by program \"gateway_frags\""), "{said}");
    assert!(connect(&net.clients, client_v4(2), AT_ONCE).is_some());
    drop(served);
}
