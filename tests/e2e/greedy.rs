//! Clients that are slow, leave early, or hold more than their share.

use crate::harness::{After, Gate, Gateway, Origin, set_up, until};

#[test]
fn a_body_that_drips_is_cut_though_no_gap_is_long() {
    let origin = Origin::echo();
    let gateway = set_up()
        .set("timeouts", "body = '500ms'")
        .set("limits", "body_rate = '100B/s'")
        .to(&[origin.address])
        .start();
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n");
    until("the gateway to end it", || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        client.try_send("x").is_err()
            || gateway.metric("gateway_offences_total{offence=\"slow_body\"}") == 1.0
    });
    assert_eq!(client.response().status, 408);
    assert!(gateway.metric("gateway_deadlines_total{deadline=\"request_body\"}") == 1.0);
}

#[test]
fn a_client_that_resets_frees_its_origin() {
    for (request, rest) in [
        ("GET / HTTP/1.1\r\nHost: test\r\n\r\n", ""),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n", "hello"),
    ] {
        let gone = Gate::default();
        let told = gone.clone();
        let origin = Origin::start(move |exchange| {
            exchange.body()?;
            exchange.wait_for_close();
            told.open();
            Ok(After::Close)
        });
        let gateway = Gateway::in_front_of(&origin);
        let mut client = gateway.client();
        client.send_alone(request).send(rest);
        origin.wait_for("the request", |seen| seen.requests.iter().any(|r| r.body.is_some()));
        let socket = socket2::SockRef::from(&*client.stream());
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        gone.wait();
        gateway.wait_for_metric("gateway_connections_open", 0.0);
        let failures = gateway.metric("gateway_upstream_failures_total");
        assert_eq!(failures, 0.0, "not the origin's doing");
    }
}

#[test]
fn idle_connections_make_room_oldest_first() {
    let origin = Origin::saying("hello");
    let gateway = set_up().set("limits", "connections = 4").to(&[origin.address]).start();
    let mut clients: Vec<_> = (0..12)
        .map(|_| {
            let mut client = gateway.client();
            client.expect_alive();
            // Ages are told apart by the millisecond.
            std::thread::sleep(std::time::Duration::from_millis(3));
            client
        })
        .collect();
    assert_eq!(gateway.metric("gateway_connections_refused_total"), 0.0);
    assert_eq!(gateway.metric("gateway_connections_reaped_total"), 9.0);
    let late = clients.split_off(9);
    clients.iter_mut().for_each(|client| client.expect_close());
    for mut client in late {
        client.expect_alive();
    }
}
