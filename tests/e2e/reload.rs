//! A changed configuration, while requests and tunnels go on.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

use crate::harness::{Client, Gateway, Length, Origin, Setup, set_up, until};

const APPLIED: &str = "gateway_reloads_total{result=\"applied\"}";
const REFUSED: &str = "gateway_reloads_total{result=\"refused\"}";

fn to(origin: &Origin) -> Setup {
    set_up().to(&[origin.address])
}

/// Until the worker has it: control publishes first and counts with it.
fn reload_and_see(gateway: &Gateway, setup: Setup, body: &str) {
    gateway.reload(setup);
    until("the new configuration to serve", || gateway.get("/").text() == body);
}

#[test]
fn the_next_request_is_served_by_the_new_one() {
    let (old, new) = (Origin::saying("old"), Origin::saying("new"));
    let gateway = to(&old).start();
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "old");
    reload_and_see(&gateway, to(&new), "new");
    assert_eq!(client.get("/").text(), "new", "on the same connection");
    assert_eq!(gateway.metric(APPLIED), 1.0);
    let removed = set_up().upstream("main", &[new.address]).route("path = '/x'\nupstream = 'main'");
    gateway.reload(removed);
    until("the route to be gone", || client.get("/").status == 404);
}

#[test]
fn what_has_not_changed_keeps_its_connections() {
    let origin = Origin::saying("hello");
    let gateway = to(&origin).start();
    let mut client = gateway.client();
    client.get("/");
    let other =
        to(&origin).set("timeouts", "response = '59s'").route("host = 'x'\nupstream = 'main'");
    gateway.reload(other);
    for _ in 0..5 {
        client.get("/");
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(gateway.metric("gateway_upstream_requests_total{upstream=\"main\"}"), 6.0);
}

#[test]
fn no_request_is_lost() {
    let origins = [Origin::saying("hello"), Origin::saying("hello")];
    let gateway = to(&origins[0]).start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").text(), "hello");
                    assert_eq!(gateway.get("/").text(), "hello");
                }
            });
        }
        for round in 0..100 {
            gateway.reload(to(&origins[round % 2]));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(gateway.metric(APPLIED), 100.0);
    assert!(origins.iter().all(|origin| !origin.requests().is_empty()));
}

#[test]
fn a_tunnel_lives_on() {
    let origin = crate::websocket::echo(5);
    let gateway = to(&origin).start();
    let mut client = gateway.client();
    assert_eq!(client.send(crate::websocket::HANDSHAKE).head().0, 101);
    assert_eq!(client.body(Length::Exactly(5)), b"hello");
    let elsewhere = Origin::saying("elsewhere");
    for _ in 0..10 {
        reload_and_see(&gateway, to(&elsewhere), "elsewhere");
    }
    client.send("still");
    assert_eq!(client.body(Length::Exactly(5)), b"still");
    client.half_close();
    client.expect_close();
}

#[test]
fn a_wrong_file_changes_nothing_and_is_told() {
    let origin = Origin::saying("hello");
    let gateway = to(&origin).start();
    gateway.reload_text("[limits]\nfields = 'many'\n");
    assert_eq!(gateway.metric(REFUSED), 1.0);
    let log = gateway.log();
    assert!(log.contains("not reloaded: ") && log.contains(".toml:2: limits.fields:"), "{log}");
    assert_eq!(gateway.get("/").text(), "hello");
    gateway.reload(to(&origin));
    assert_eq!(gateway.metric(APPLIED), 1.0);
}

#[test]
fn what_takes_a_restart_is_named() {
    let origin = Origin::saying("hello");
    let gateway = to(&origin).start();
    let setup = to(&origin).set("limits", "connections = 10");
    gateway.reload(setup.set("access_log", "format = 'json'"));
    assert_eq!(gateway.metric(REFUSED), 1.0);
    let log = gateway.log();
    let line = "changed, which takes a restart: limits.connections, access_log";
    assert!(log.contains(line), "{log}");
    assert_eq!(gateway.get("/").text(), "hello");
}

/// An address that nobody listens on, and that nobody else here will: the kernel gives away ports of 127.0.0.1.
fn free() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    ([127, 0, 9, number], 10_080 + u16::from(number)).into()
}

fn until_closed(address: SocketAddr) {
    until("the listener to be closed", || TcpStream::connect(address).is_err());
}

#[test]
fn listeners_come_and_go() {
    let origin = Origin::saying("hello");
    let gateway = to(&origin).workers(2).start();
    let (first, second) = (free(), free());
    let mut kept = gateway.client();
    assert_eq!(kept.get("/").text(), "hello");

    gateway.reload(to(&origin).listen(first));
    // Every worker takes its share.
    (0..20).for_each(|_| assert_eq!(Client::connect(first).get("/").text(), "hello"));
    assert!(gateway.log().contains(&format!("listening on {first}")));

    // It moves, and what came by it lives on.
    let mut left = Client::connect(first);
    assert_eq!(left.get("/").text(), "hello");
    gateway.reload(to(&origin).listen(second));
    until_closed(first);
    assert_eq!(left.get("/").text(), "hello");
    assert_eq!(Client::connect(second).get("/").text(), "hello");
    assert!(gateway.log().contains(&format!("no longer listening on {first}")));

    // And back, twice.
    gateway.reload(to(&origin).listen(first).listen(second));
    gateway.reload(to(&origin).listen(second).listen(first));
    assert_eq!(Client::connect(first).get("/").text(), "hello");
    assert_eq!(left.get("/").text(), "hello");
    assert_eq!(kept.get("/").text(), "hello");
    gateway.reload(to(&origin));
    until_closed(first);
    until_closed(second);
    assert_eq!(left.get("/").text(), "hello");
    assert_eq!(gateway.get("/").text(), "hello");
    drop((left, kept));
    gateway.stop();
}

#[test]
fn a_connection_keeps_the_listener_it_came_by() {
    let origin = crate::websocket::echo(5);
    let address = free();
    let gateway = to(&origin).start();
    gateway.reload(to(&origin).listen(address));
    let mut tunnel = Client::connect(address);
    assert_eq!(tunnel.send(crate::websocket::HANDSHAKE).head().0, 101);
    assert_eq!(tunnel.body(Length::Exactly(5)), b"hello");
    gateway.reload(to(&origin));
    until_closed(address);
    tunnel.send("still");
    assert_eq!(tunnel.body(Length::Exactly(5)), b"still");
}

#[test]
fn a_listener_that_cannot_be_had_changes_nothing() {
    let (origin, other) = (Origin::saying("hello"), Origin::saying("other"));
    let gateway = to(&origin).start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (free, taken) = (free(), taken.local_addr().unwrap());
    gateway.reload(to(&other).listen(free).listen(taken));
    assert_eq!(gateway.metric(REFUSED), 1.0);
    let log = gateway.log();
    assert!(
        log.contains(&format!("not reloaded: listen {taken}: address already in use")),
        "{log}"
    );
    assert!(TcpStream::connect(free).is_err());
    assert_eq!(gateway.get("/").text(), "hello");
}

#[test]
fn listeners_that_come_and_go_cost_the_others_nothing() {
    let origin = Origin::saying("hello");
    let gateway = to(&origin).workers(2).start();
    let (address, over) = (free(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(gateway.get("/").text(), "hello");
                }
            });
        }
        for _ in 0..20 {
            gateway.reload(to(&origin).listen(address));
            assert_eq!(Client::connect(address).get("/").text(), "hello");
            gateway.reload(to(&origin));
            until_closed(address);
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_reloaded_in_quick_succession_is_all_accepted_from() {
    let origin = Origin::saying("hello");
    let gateway = to(&origin).start();
    let (one, two) = (free(), free());
    gateway.reload(to(&origin).listen(one));
    gateway.reload(to(&origin).listen(one).listen(two));
    assert_eq!(Client::connect(one).get("/").text(), "hello");
    assert_eq!(Client::connect(two).get("/").text(), "hello");
}

#[test]
fn a_gateway_that_drains_opens_no_listener() {
    let origin = crate::websocket::echo(5);
    let gateway = to(&origin).start();
    let mut tunnel = gateway.client();
    assert_eq!(tunnel.send(crate::websocket::HANDSHAKE).head().0, 101);
    assert_eq!(tunnel.body(Length::Exactly(5)), b"hello");
    gateway.signal(rustix::process::Signal::TERM);
    until("it to drain", || gateway.admin("/readyz").status == 503);
    until_closed(gateway.address());
    let address = free();
    gateway.reload(to(&origin).listen(address));
    assert!(TcpStream::connect(address).is_err(), "{}", gateway.log());
    assert_eq!(gateway.metric(REFUSED), 1.0);
    tunnel.half_close().expect_close();
    gateway.wait_for_success();
}

#[test]
fn a_wildcard_in_place_of_an_address_names_who_holds_the_port() {
    let origin = Origin::saying("hello");
    let gateway = to(&origin).start();
    let address = free();
    gateway.reload(to(&origin).listen(address));
    let wildcard = SocketAddr::from(([0, 0, 0, 0], address.port()));
    gateway.reload(to(&origin).listen(wildcard));
    let told = format!("listen {wildcard}: {address} overlaps and is still listened on");
    assert!(gateway.log().contains(&told), "{}", gateway.log());
    assert_eq!(Client::connect(address).get("/").text(), "hello");
    gateway.reload(to(&origin));
    until_closed(address);
    gateway.reload(to(&origin).listen(wildcard));
    assert_eq!(Client::connect(address).get("/").text(), "hello");
}
