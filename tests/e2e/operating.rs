//! What an operator sees: health, counters, the access log.

use crate::harness::{Gate, Gateway, Origin, closed_port, set_up, unique_path};

#[test]
fn health_and_readiness() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    assert_eq!(gateway.admin("/healthz").status, 200);
    assert_eq!(gateway.admin("/readyz").status, 200);
    assert_eq!(gateway.admin("/else").status, 404);
    assert_eq!(gateway.get("/metrics").text(), "hello", "clients do not reach the admin port's");
}

#[test]
fn counters_add_up_over_workers() {
    let origin = Origin::echo();
    let gateway = set_up().to(&[origin.address]).workers(2).start();
    for _ in 0..20 {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(client.response().text(), "hello");
    }
    gateway.wait_for_metric("gateway_responses_total{code=\"200\"}", 20.0);
    gateway.wait_for_metric("gateway_connections_open", 0.0);
    assert_eq!(gateway.metric("gateway_connections_accepted_total"), 20.0);
    assert_eq!(gateway.metric("gateway_requests_in_flight"), 0.0);
    assert_eq!(gateway.metric("gateway_upstream_requests_total{upstream=\"main\"}"), 20.0);
    assert_eq!(gateway.metric("gateway_request_duration_seconds_count"), 20.0);
    assert_eq!(gateway.metric("gateway_workers"), 2.0);
}

#[test]
fn every_request_has_its_line() {
    let origin = Origin::saying("hello");
    let (dead, _held) = closed_port();
    let path = unique_path("log");
    let lines = format!("format = 'json'\npath = {path:?}");
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .upstream("dead", &[dead])
        .route("path = '/dead'\nupstream = 'dead'")
        .route("upstream = 'main'")
        .set("access_log", &lines)
        .start();
    let mut client = gateway.client();
    client.send("GET /a?\"b HTTP/1.1\r\nHost: test\r\nUser-Agent: \"quoted\"\\ \x1b\r\n\r\n");
    assert_eq!(client.response().status, 400);
    let mut client = gateway.client();
    client.send("GET /a?b HTTP/1.1\r\nHost: test\r\nUser-Agent: \"quoted\"\\\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("/dead").status, 503);
    gateway.stop();

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [400, 200, 503], "{text}");
    assert!(lines[0]["error"].is_string());
    let good = &lines[1];
    assert_eq!(good["target"], "/a?b");
    assert_eq!(good["user_agent"], "\"quoted\"\\");
    assert_eq!(good["upstream"], "main");
    assert_eq!(good["endpoint"], origin.address.to_string());
    assert_eq!(good["bytes_out"], 5);
    assert_eq!(lines[2]["error"], "no endpoint accepts connections");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn connections_above_the_limit_are_refused_and_counted() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |exchange| {
        opened.wait();
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    });
    let gateway = set_up().to(&[origin.address]).set("limits", "connections = 2").start();
    // Busy, as idle ones would make room.
    let busy = |nth: usize| {
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        origin.wait_for("its request", |seen| seen.requests.len() == nth);
        client
    };
    let mut kept: Vec<_> = (1..=2).map(busy).collect();
    gateway.client().expect_gone();
    gateway.wait_for_metric("gateway_connections_refused_total", 1.0);
    gate.open();
    kept.iter_mut().for_each(|client| assert_eq!(client.response().text(), "hello"));
    kept.pop();
    gateway.wait_for_metric("gateway_connections_open", 1.0);
    gateway.client().expect_alive();
}
