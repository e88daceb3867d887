//! Endpoints by name: where they are may change while requests come.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::harness::{Dns, Gateway, Origin, Setup, Zone, bound, set_up, until};

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Two origins at the same port of different addresses.
fn two_origins() -> (Origin, Origin) {
    let first = Origin::saying("first");
    let second = SocketAddr::from((SECOND, first.address.port()));
    (first, Origin::saying_on(bound(second), "second"))
}

fn by_name(dns: &Dns, port: u16) -> Setup {
    let endpoint = format!("origin.test:{port}");
    let setup = set_up().set("dns", &dns.lines()).upstream_named("main", &endpoint);
    setup.route("upstream = 'main'")
}

fn says(gateway: &Gateway, text: &str) -> impl FnMut() -> bool {
    let mut client = gateway.client();
    move || client.get("/").text() == text
}

#[test]
fn all_addresses_of_a_name_are_asked() {
    let (first, second) = two_origins();
    let dns = Dns::start(Zone::Addresses(vec![FIRST, SECOND]));
    let setup = by_name(&dns, first.address.port()).upstream_line("balance = 'round_robin'");
    let gateway = setup.start();
    let mut client = gateway.client();
    (0..10).for_each(|_| drop(client.get("/")));
    assert_eq!((first.requests().len(), second.requests().len()), (5, 5));
}

#[test]
fn a_name_that_moves_loses_no_request() {
    let (first, second) = two_origins();
    let dns = Dns::start(Zone::Addresses(vec![FIRST]));
    let gateway = by_name(&dns, first.address.port())
        .set("limits", "requests_per_connection = 1000000000")
        .workers(2)
        .start();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !ended.load(Relaxed) {
                    assert_eq!(client.get("/").status, 200);
                }
            });
        }
        for (address, origin, other) in
            [(SECOND, &second, &first), (FIRST, &first, &second), (SECOND, &second, &first)]
        {
            let before = origin.requests().len();
            dns.says(Zone::Addresses(vec![address]));
            origin.wait_for("the requests", |seen| seen.requests.len() > before + 100);
            // Its connections are closed, also those that wait for a request.
            until("the other to be left", || other.open_connections() == 0);
        }
        ended.store(true, Relaxed);
    });
    assert_eq!(gateway.metric("gateway_upstream_endpoint_up{upstream=\"main\""), 1.0);
}

#[test]
fn a_name_without_address_is_503_until_it_has_one() {
    let origin = Origin::saying("here");
    for nothing in [Zone::NoSuchName, Zone::Nothing] {
        let dns = Dns::start(nothing.clone());
        let gateway = by_name(&dns, origin.address.port()).start();
        let refused = gateway.get("/");
        assert_eq!(refused.status, 503);
        assert_eq!(refused.field("retry-after"), "5");
        assert!(gateway.log().contains("cannot resolve \"origin.test\": "), "{}", gateway.log());
        dns.says(Zone::Addresses(vec![FIRST]));
        until("an answer", says(&gateway, "here"));
        dns.says(nothing.clone());
        match nothing {
            Zone::NoSuchName => until("no address", || gateway.get("/").status == 503),
            // Who says nothing does not say that there are none.
            _ => {
                let warning = "the 1 addresses it had stay in use";
                until("the notice", || gateway.log().contains(warning));
                assert_eq!(gateway.get("/").text(), "here");
            }
        }
    }
}

#[test]
fn a_reload_looks_up_its_names() {
    let origin = Origin::saying("here");
    let dns = Dns::start(Zone::Addresses(vec![FIRST]));
    let gateway = set_up().to(&[origin.address]).start();
    let by_name = || by_name(&dns, origin.address.port());
    gateway.reload(by_name());
    until("the new endpoint", || gateway.admin("/upstreams").text().contains("origin.test"));
    assert_eq!(gateway.get("/").text(), "here");

    dns.says(Zone::NoSuchName);
    gateway.reload(by_name().set_more("dns", "required = true"));
    let refused = "not reloaded: cannot resolve \"origin.test\", and dns.required is true";
    until("the refusal", || gateway.log().contains(refused));
}
