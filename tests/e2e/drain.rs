//! Stopping: what is under way ends well, nothing new begins.

use rustix::process::Signal;

use crate::harness::{Gate, Gateway, Length, Origin, set_up, until};

/// Sends half of a body, and the rest once the gate opens.
fn slow_origin(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
        gate.wait();
        exchange.answer("after")
    })
}

#[test]
fn a_download_ends_well_and_new_connections_are_refused() {
    for signal in [Signal::TERM, Signal::INT] {
        let gate = Gate::default();
        let origin = slow_origin(&gate);
        let gateway = set_up().to(&[origin.address]).workers(2).start();
        let mut idle = gateway.client();
        idle.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n").send("");
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.head().0, 200);

        assert_eq!(gateway.admin("/readyz").status, 200);
        gateway.signal(signal);
        until("new connections to be refused", || {
            std::net::TcpStream::connect(gateway.address()).is_err()
        });
        assert_eq!(gateway.admin("/readyz").status, 503);
        assert_eq!(gateway.admin("/healthz").status, 200);

        gate.open();
        assert_eq!(client.body(Length::Exactly(10)), b"firstafter");
        client.expect_close();
        drop(idle);
        gateway.wait_for_success();
    }
}

#[test]
fn idle_connections_are_closed_at_once() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut clients: Vec<_> = (0..10).map(|_| gateway.client()).collect();
    let mut lively: Vec<_> = (0..5).map(|_| gateway.client()).collect();
    // Some have asked once, some again and again.
    for client in clients.iter_mut().chain(&mut lively) {
        assert_eq!(client.get("/").text(), "hello");
    }
    for _ in 0..10 {
        for client in &mut lively {
            assert_eq!(client.get("/").text(), "hello");
        }
    }
    gateway.signal(Signal::TERM);
    clients.iter_mut().chain(&mut lively).for_each(crate::harness::Client::expect_close);
    gateway.wait_for_success();
}

#[test]
fn a_request_that_has_arrived_is_answered() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut clients: Vec<_> = (0..10).map(|_| gateway.client()).collect();
    clients.iter_mut().for_each(|client| client.expect_alive());
    // While it is stopped, the requests and the order to end arrive; it then sees them together.
    gateway.signal(Signal::STOP);
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    gateway.signal(Signal::TERM);
    gateway.signal(Signal::CONT);
    for client in &mut clients {
        assert_eq!(client.response().text(), "hello");
        client.expect_close();
    }
    gateway.wait_for_success();
}

#[test]
fn the_last_answer_says_that_it_is() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let origin = Origin::start(move |exchange| {
        waiting.wait();
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    origin.wait_for("the request", |seen| seen.requests.len() == 1);
    gateway.signal(Signal::TERM);
    until("the gateway to drain", || gateway.admin("/readyz").status == 503);
    until("new connections to be refused", || {
        std::net::TcpStream::connect(gateway.address()).is_err()
    });
    gate.open();
    assert!(client.response().says_close());
    client.expect_close();
    gateway.wait_for_success();
}

#[test]
fn what_takes_too_long_is_cut_and_said() {
    let gate = Gate::default();
    let origin = slow_origin(&gate);
    let gateway = set_up().to(&[origin.address]).set("runtime", "drain_timeout = '100ms'").start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    origin.wait_for("the request", |seen| seen.requests.len() == 1);
    gateway.signal(Signal::TERM);
    assert!(client.try_response().is_err(), "half of it cannot be a response");
    let (status, log) = gateway.wait_for_end();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("drain timeout: 1 connection"), "{log}");
    gate.open();
}
