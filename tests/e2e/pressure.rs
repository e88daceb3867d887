//! A peer that does not read holds a bounded buffer and stops nobody else.

use crate::harness::{Broken, Gate, Gateway, Length, Origin, set_up};

const LARGE: usize = 64 * 1024 * 1024;
/// What the gateway may grow by while one side does not read: buffers, not bodies.
const GROWTH_MAX: usize = 8 * 1024 * 1024;

#[test]
fn a_client_that_does_not_read_stops_its_origin_only() {
    let origin = Origin::start(|exchange| {
        if exchange.request.target != "/large" {
            return exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))?;
        for _ in 0..LARGE / 65_536 {
            exchange.send([b'x'; 65_536])?;
        }
        exchange.answer("")
    });
    let gateway = Gateway::in_front_of(&origin);
    gateway.client().expect_alive();
    let before = gateway.resident_bytes();
    let mut clients: Vec<_> = (0..8).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
        client.head();
    }
    for _ in 0..100 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grew by {grown} bytes");
    for client in &mut clients {
        assert_eq!(client.body(Length::Exactly(LARGE)).len(), LARGE);
    }
}

#[test]
fn an_origin_that_does_not_read_stops_its_client_only() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |exchange| {
        if exchange.request.method == "POST" {
            opened.wait();
        }
        let length = exchange.body()?.len().to_string();
        let size = length.len();
        exchange.answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{length}"))
    });
    let gateway = set_up().to(&[origin.address]).set("limits", "body_bytes = '1GiB'").start();
    gateway.client().expect_alive();
    let before = gateway.resident_bytes();
    let mut client = gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n"));
    let mut writer = client.stream().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::Write::write_all(&mut writer, &vec![b'x'; LARGE]).unwrap());
        origin.wait_for("the upload", |seen| seen.requests.iter().any(|r| r.method == "POST"));
        for _ in 0..100 {
            assert_eq!(gateway.get("/").text(), "0");
        }
        let grown = gateway.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "grew by {grown} bytes");
        gate.open();
    });
    assert_eq!(client.response().text(), LARGE.to_string());
}

#[test]
fn a_client_that_never_reads_is_given_up() {
    let origin = Origin::start(|exchange| {
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))?;
        loop {
            exchange.send([b'x'; 65_536])?;
        }
    });
    let gateway = set_up().to(&[origin.address]).set("timeouts", "body = '200ms'").start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    gateway.wait_for_metric("gateway_deadlines_total{deadline=\"response_write\"}", 1.0);
    gateway.wait_for_metric("gateway_connections_open", 0.0);
    origin.wait_for("the end of its connection", |seen| seen.ended == 1);
    // A reset: the kernel holds nothing for it any more.
    let broken = client.try_response().unwrap_err();
    assert!(matches!(broken, Broken::Reset), "not reset");
}

#[test]
fn a_client_that_leaves_ends_its_exchange() {
    let origin = Origin::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            exchange.send("5\r\nhello\r\n")?;
        }
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    client.head();
    drop(client);
    origin.wait_for("the end of its connection", |seen| seen.ended == 1);
    gateway.wait_for_metric("gateway_connections_open", 0.0);
}
