//! Client connections: kept, pipelined, half-closed, many at once, and closed when it is said.

use std::thread;
use std::time::Duration;

use crate::harness::{After, Gateway, Length, Origin, checksum, pattern, set_up};

/// Says what it has been asked for.
fn origin_that_repeats() -> Origin {
    Origin::start(|exchange| {
        let target = exchange.request.target.clone();
        let length = target.len();
        exchange.answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}"))
    })
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let origin = origin_that_repeats();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();

    let requests: Vec<String> =
        (0..1000).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.send(requests.concat());
    for n in 0..1000 {
        assert_eq!(client.response().text(), format!("/{n}"));
    }
    assert_eq!(origin.requests().len(), 1000);
}

#[test]
fn pipelined_requests_with_bodies_keep_apart() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    let post = "POST / HTTP/1.1\r\nHost: test\r\n";
    client.send(format!(
        "{post}Content-Length: 3\r\n\r\none\
         {post}Transfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
         GET / HTTP/1.1\r\nHost: test\r\n\r\n\
         {post}Content-Length: 5\r\n\r\nthree"
    ));
    for body in ["one", "two", "", "three"] {
        assert_eq!(client.response().text(), body);
    }
}

#[test]
fn two_hundred_keep_alive_clients_are_served_at_once() {
    let origin = Origin::echo();
    let gateway = set_up().to(&[origin.address]).workers(available_workers(2)).start();
    let mut clients: Vec<_> = (0..200).map(|_| gateway.client()).collect();
    gateway.wait_for_metric("gateway_connections_open", 200.0);
    for round in 0..5 {
        let body = pattern(1000 * round + 1);
        let head =
            format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        thread::scope(|scope| {
            for clients in clients.chunks_mut(25) {
                scope.spawn(|| {
                    clients.iter_mut().for_each(|client| {
                        client.send(&head).send(body);
                    });
                    for client in clients {
                        assert_eq!(client.response().field("x-received"), checksum(body));
                    }
                });
            }
        });
    }
    // A response is counted once it has been sent, which the client may notice first.
    gateway.wait_for_metric("gateway_responses_total{code=\"200\"}", 1000.0);
    assert_eq!(gateway.metric("gateway_connections_accepted_total"), 200.0);
}

/// As many as asked for, or what this machine has.
fn available_workers(wanted: usize) -> usize {
    thread::available_parallelism().map_or(1, |cpus| cpus.get().min(wanted))
}

/// A connection that is asked again and again keeps its buffer for a while between two requests. Many here
/// come just when it is taken away.
#[test]
fn requests_are_answered_whatever_the_pause_before_them() {
    let origin = origin_that_repeats();
    let gateway = Gateway::in_front_of(&origin);
    thread::scope(|scope| {
        for thread in 0..16 {
            let mut client = gateway.client();
            scope.spawn(move || {
                for round in 0..12 {
                    for request in 0..3 {
                        let target = format!("/{thread}/{round}/{request}");
                        assert_eq!(client.get(&target).text(), target);
                    }
                    // 44 to 56 ms.
                    thread::sleep(Duration::from_micros(44_000 + (thread * 12 + round) * 63));
                }
            });
        }
    });
    assert_eq!(gateway.metric("gateway_connections_accepted_total"), 16.0);
}

#[test]
fn upstream_connections_are_kept() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    for _ in 0..20 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn keep_alive_is_as_the_version_and_the_client_say() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: close\r\n", false),
    ];
    for (version, field, kept) in cases {
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/{version}\r\nHost: test\r\n{field}\r\n"));
        let response = client.response();
        assert_eq!(response.text(), "hello", "HTTP/{version} {field}");
        if kept {
            assert!(!response.says_close(), "HTTP/{version} {field}");
            if version == "1.0" {
                assert_eq!(response.field("connection").to_lowercase(), "keep-alive");
            }
            client.expect_alive();
        } else {
            assert!(version == "1.0" || response.says_close(), "HTTP/{version} {field}");
            client.expect_close();
        }
    }
}

#[test]
fn nothing_is_answered_after_a_close() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: test\r\n\r\n",
    );
    assert_eq!(client.response().text(), "hello");
    client.expect_close();
    assert_eq!(origin.targets(), ["/1"]);
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answer() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").half_close();
    assert_eq!(client.response().text(), "hello");
    client.expect_close();
}

#[test]
fn an_incomplete_request_reaches_no_origin_whole() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let incomplete = [
        "GET / HTTP/1.1\r\nHost: te",
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for bytes in incomplete {
        let mut client = gateway.client();
        client.send(bytes).half_close();
        match client.try_response() {
            Ok(response) => assert!([400, 408].contains(&response.status), "{response:?}"),
            Err(broken) => assert_eq!(broken, crate::harness::Broken::Closed, "{bytes:?}"),
        }
    }
    gateway.client().expect_alive();
    assert_eq!(origin.completed(), 1, "only the whole one: {:?}", origin.requests());
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.expect_alive();
}

#[test]
fn responses_without_a_body_leave_the_connection_in_step() {
    let origin = Origin::start(|exchange| {
        exchange.answer(match exchange.request.target.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "/hello" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        })
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for (method, target, status) in [
        ("HEAD", "/", 200),
        ("HEAD", "/chunked", 200),
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/304", 304),
    ] {
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let response = client.response_to(method);
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(client.get("/hello").text(), "hello", "after {method} {target}");
    }
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").field("content-length"), "5");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_connection_ends_after_its_number_of_requests() {
    let origin = Origin::saying("hello");
    let gateway =
        set_up().to(&[origin.address]).set("limits", "requests_per_connection = 3").start();
    let mut client = gateway.client();
    assert!(!client.get("/").says_close());
    assert!(!client.get("/").says_close());
    assert!(client.get("/").says_close());
    client.expect_close();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let origin = Origin::saying("hello");
    let gateway = set_up().to(&[origin.address]).set("timeouts", "keep_alive = '100ms'").start();
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "hello");
    client.expect_close();
}

#[test]
fn every_listener_serves() {
    let origin = Origin::saying("hello");
    let gateway = set_up().to(&[origin.address]).listeners(3).start();
    assert_eq!(gateway.addresses.len(), 3);
    for address in &gateway.addresses {
        assert_eq!(crate::harness::Client::connect(*address).get("/").text(), "hello");
    }
}

#[test]
fn a_closing_origin_does_not_close_the_client() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let origin = Origin::scripted(response, After::Close);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.length, Length::Exactly(5));
        assert!(!response.says_close());
    }
    assert_eq!(origin.connections(), 3);
}
