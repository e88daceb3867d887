//! Connections that become tunnels, and those that must not.

use rustix::process::Signal;

use crate::harness::{After, Gateway, Length, Origin, pattern, set_up};

pub const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nX-Other: kept\r\n\r\n";

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Accepts, greets in the same breath, then sends back what it gets, `length` bytes.
pub fn echo(length: usize) -> Origin {
    Origin::start(move |exchange| {
        if exchange.request.target != "/chat" {
            return exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        exchange.send(format!("{ACCEPTED}hello"))?;
        let received = exchange.receive(length)?;
        exchange.send(received)?;
        exchange.wait_for_close();
        Ok(After::Close)
    })
}

#[test]
fn bytes_pass_both_ways_until_both_have_closed() {
    const LENGTH: usize = 10 * 1024 * 1024;
    let origin = echo(LENGTH);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send(HANDSHAKE);
    let (status, fields) = client.head();
    assert_eq!(status, 101);
    assert_eq!(fields.one("upgrade"), Some("websocket"));
    assert_eq!(fields.one("connection"), Some("upgrade"));
    assert_eq!(fields.one("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.body(Length::Exactly(5)), b"hello");
    gateway.wait_for_metric("gateway_tunnels_open", 1.0);

    client.send(pattern(LENGTH));
    assert!(client.body(Length::Exactly(LENGTH)) == pattern(LENGTH));
    client.half_close();
    client.expect_close();
    gateway.wait_for_metric("gateway_tunnels_open", 0.0);
    gateway.wait_for_metric("gateway_connections_open", 0.0);

    let request = origin.request();
    assert_eq!(request.field("connection"), "upgrade");
    assert_eq!(request.field("upgrade"), "websocket");
    assert_eq!(request.field("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(request.field("x-other"), "kept");
}

#[test]
fn what_is_sent_ahead_waits_for_the_answer() {
    let origin = echo(5);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send(format!("{HANDSHAKE}ahead"));
    assert_eq!(client.head().0, 101);
    assert_eq!(client.body(Length::Exactly(10)), b"helloahead");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_exchange() {
    let origin = Origin::saying("no");
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    // What follows is the next request: nothing was tunnelled.
    client.send(format!("{HANDSHAKE}GET /next HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(client.response().text(), "no");
    assert_eq!(client.response().text(), "no");
    assert_eq!(origin.targets(), ["/chat", "/next"]);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn what_is_no_handshake_asks_for_nothing() {
    let origin = Origin::scripted(ACCEPTED, After::Close);
    let gateway = Gateway::in_front_of(&origin);
    for (part, instead) in [
        ("websocket\r\n", "h2c\r\n"),
        ("GET", "POST"),
        ("Version: 13", "Version: 12"),
        ("Sec-WebSocket-Key", "X-Key"),
        (", Upgrade", ""),
        ("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut client = gateway.client();
        client.send(HANDSHAKE.replacen(part, instead, 1));
        assert_eq!(client.response().status, 502, "{part}: nobody asked the origin to switch");
    }
    assert!(origin.requests().iter().all(|request| !request.fields.has("upgrade")));
}

#[test]
fn an_origin_must_accept_what_was_asked() {
    for (part, instead) in
        [("websocket", "h2c"), ("Connection", "X"), ("Sec-WebSocket-Accept", "X")]
    {
        let origin = Origin::scripted(ACCEPTED.replacen(part, instead, 1), After::Close);
        let gateway = Gateway::in_front_of(&origin);
        assert_eq!(gateway.client().send(HANDSHAKE).response().status, 502, "{part}");
    }
}

#[test]
fn an_origin_that_closes_first_closes_the_client() {
    let origin = Origin::start(|exchange| {
        exchange.send(format!("{ACCEPTED}bye"))?;
        exchange.half_close();
        exchange.wait_for_close();
        Ok(After::Close)
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    assert_eq!(client.send(HANDSHAKE).head().0, 101);
    assert_eq!(client.body(Length::UntilClose), b"bye");
    client.half_close();
    origin.wait_for("the end of its connection", |seen| seen.ended == 1);
    gateway.wait_for_metric("gateway_connections_open", 0.0);
}

#[test]
fn silence_ends_a_tunnel_and_is_counted() {
    let origin = echo(5);
    let gateway = set_up().to(&[origin.address]).set("timeouts", "tunnel = '200ms'").start();
    let mut client = gateway.client();
    assert_eq!(client.send(HANDSHAKE).head().0, 101);
    assert_eq!(client.body(Length::Exactly(5)), b"hello");
    client.expect_gone();
    assert_eq!(gateway.metric("gateway_deadlines_total{deadline=\"tunnel\"}"), 1.0);
    origin.wait_for("the end of its connection", |seen| seen.ended == 1);
}

#[test]
fn one_sides_bytes_keep_a_tunnel_open() {
    let origin = echo(100);
    let gateway = set_up().to(&[origin.address]).set("timeouts", "tunnel = '2s'").start();
    let mut client = gateway.client();
    assert_eq!(client.send(HANDSHAKE).head().0, 101);
    assert_eq!(client.body(Length::Exactly(5)), b"hello");
    // The origin says nothing for longer than the silence allowed, the client never for that long.
    let begun = std::time::Instant::now();
    for _ in 0..99 {
        client.send_alone("x");
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    assert!(begun.elapsed().as_secs() >= 2);
    client.send("x");
    assert_eq!(client.body(Length::Exactly(100)), [b'x'; 100]);
}

#[test]
fn a_tunnel_outlives_the_order_to_stop_until_it_ends() {
    let origin = echo(5);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    assert_eq!(client.send(HANDSHAKE).head().0, 101);
    assert_eq!(client.body(Length::Exactly(5)), b"hello");
    gateway.signal(Signal::TERM);
    crate::harness::until("the gateway to drain", || gateway.admin("/readyz").status == 503);
    client.send("still");
    assert_eq!(client.body(Length::Exactly(5)), b"still");
    client.half_close();
    client.expect_close();
    gateway.wait_for_success();
}

#[test]
fn a_tunnel_has_a_drain_timeout_of_its_own() {
    let origin = echo(5);
    let timeouts = "drain_timeout = '100ms'\ntunnel_drain_timeout = '24h'";
    let gateway = crate::harness::set_up().set("runtime", timeouts).to(&[origin.address]).start();
    let mut client = gateway.client();
    assert_eq!(client.send(HANDSHAKE).head().0, 101);
    assert_eq!(client.body(Length::Exactly(5)), b"hello");
    let mut other = gateway.client();
    other.send_alone("GET / HTTP/1.1\r\nHost: unfinished");
    gateway.signal(Signal::TERM);
    other.expect_gone();
    crate::harness::until("requests to be cut", || gateway.log().contains("1 tunnels open"));
    client.send("still");
    assert_eq!(client.body(Length::Exactly(5)), b"still");
    assert_eq!(gateway.metric("gateway_tunnel_bytes_total{direction=\"in\"}"), 5.0);
    assert_eq!(gateway.metric("gateway_tunnel_bytes_total{direction=\"out\"}"), 10.0);
    client.half_close();
    client.expect_close();
    let (status, log) = gateway.wait_for_end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("drain timeout: 1 connections were cut"), "{log}");
}

#[test]
fn a_tunnel_that_outlives_that_too_is_cut() {
    let origin = echo(5);
    let timeouts = "drain_timeout = '50ms'\ntunnel_drain_timeout = '100ms'";
    let gateway = crate::harness::set_up().set("runtime", timeouts).to(&[origin.address]).start();
    let mut client = gateway.client();
    assert_eq!(client.send(HANDSHAKE).head().0, 101);
    gateway.signal(Signal::TERM);
    let (status, _) = gateway.wait_for_end();
    assert_eq!(status.code(), Some(1));
}
