//! Every status the gateway answers with by itself, where it belongs, and what becomes of the
//! connection.

use crate::harness::{After, Gate, Gateway, Origin, Setup, closed_port, set_up};

/// A gateway in front of an origin that is never asked.
fn unused() -> Setup {
    set_up().to(&[closed_port().0])
}

#[test]
fn no_route_is_404_and_the_connection_survives() {
    let origin = Origin::saying("hello");
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .route("host = 'a.example'\npath = '/here'\nupstream = 'main'")
        .start();
    let mut client = gateway.client();
    for (host, path) in [("b.example", "/here"), ("a.example", "/there")] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (404, "404 Not Found\n"));
        assert!(!response.says_close());
    }
    client.send("HEAD /there HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 404);
    client.send("GET /here HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_head_that_does_not_come_is_408() {
    let gateway = unused().set("timeouts", "head = '100ms'").start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(client.response().status, 408);
    client.expect_close();
    assert_eq!(gateway.metric("gateway_deadlines_total{deadline=\"head\"}"), 1.0);
}

#[test]
fn a_head_that_drips_is_408_all_the_same() {
    let gateway = unused().set("timeouts", "head = '150ms'").start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\n");
    // Each byte comes within the time; all of them together do not.
    while client.try_send("A").is_ok() && gateway.metric("gateway_requests_rejected_total") == 0.0 {
    }
    assert_eq!(client.response().status, 408);
}

#[test]
fn a_body_that_stalls_is_408() {
    let origin = Origin::echo();
    let gateway = set_up().to(&[origin.address]).set("timeouts", "body = '100ms'").start();
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf");
    let response = client.response();
    assert_eq!(response.status, 408);
    assert!(response.says_close());
    client.expect_close();
    assert_eq!(origin.completed(), 0);
}

#[test]
fn a_body_over_the_limit_is_413_and_the_answer_arrives() {
    let origin = Origin::echo();
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .set("limits", "body_bytes = '1KiB'")
        .route("path = '/large/*'\nbody_bytes = '2KiB'\nupstream = 'main'")
        .route("upstream = 'main'")
        .start();
    let body = "x".repeat(1025);
    let by_length = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut client = gateway.client();
    client.send(by_length("/", 1024)).send(&body[..1024]);
    assert_eq!(client.response().status, 200);
    client.send(by_length("/large/", 1025)).send(&body);
    assert_eq!(client.response().status, 200);
    client.send(by_length("/", 1025)).send(&body);
    assert_eq!(client.response().status, 413);
    client.half_close().expect_close();

    // The client only reads once it has sent everything, which is more than the buffers hold.
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send_alone("3ff\r\n").send(&body[..1023]).send("\r\n");
    client.send("2\r\nxx\r\n0\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 413);
    assert!(response.says_close());
    client.half_close().expect_close();
    assert_eq!(origin.completed(), 2);
}

#[test]
fn a_large_upload_that_is_refused_still_reads_its_413() {
    let gateway = unused().start();
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 20000000\r\n\r\n");
    let _ = client.try_send(vec![b'x'; 20_000_000]);
    assert_eq!(client.response().status, 413);
}

#[test]
fn heads_over_the_limit_are_414_or_431() {
    let gateway = unused().set("limits", "head_bytes = '2KiB'\nfields = 10").start();
    let long = "a".repeat(3000);
    let many = "A: b\r\n".repeat(10);
    for (head, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: test\r\nA: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: test\r\n{many}\r\n"), 431),
    ] {
        let mut client = gateway.client();
        client.send(head);
        let response = client.response();
        assert_eq!(response.status, status);
        assert!(response.says_close());
        client.half_close().expect_close();
    }
}

#[test]
fn an_origin_that_breaks_off_is_502_and_the_connection_survives() {
    for after in [After::Close, After::Reset] {
        for bytes in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
            let origin = Origin::scripted(bytes, after);
            let gateway = Gateway::in_front_of(&origin);
            let mut client = gateway.client();
            assert_eq!(client.get("/").status, 502, "{bytes:?} {after:?}");
            assert_eq!(client.get("/").status, 502, "{bytes:?} {after:?}");
            client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
            assert_eq!(client.response().status, 502, "{bytes:?} {after:?}");
        }
    }
}

#[test]
fn a_head_too_large_from_an_origin_is_502() {
    let response = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(20_000));
    let origin = Origin::scripted(response, After::Close);
    assert_eq!(Gateway::in_front_of(&origin).get("/").status, 502);
}

#[test]
fn nobody_who_accepts_is_503_and_the_connection_survives() {
    let (address, _held) = closed_port();
    let gateway = set_up().to(&[address]).start();
    let mut client = gateway.client();
    let response = client.get("/");
    assert_eq!(response.status, 503);
    assert!(response.fields.has("retry-after"));
    assert_eq!(client.get("/").status, 503);
    let failures = "gateway_upstream_connect_failures_total{upstream=\"main\"}";
    assert_eq!(gateway.metric(failures), 2.0);
}

#[test]
fn an_origin_that_does_not_answer_is_504_and_the_connection_survives() {
    let gate = Gate::default();
    let hung = gate.clone();
    let origin = Origin::start(move |exchange| {
        exchange.body()?;
        if exchange.request.target == "/hang" {
            hung.wait();
        }
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let gateway = set_up().to(&[origin.address]).set("timeouts", "response = '100ms'").start();
    let mut client = gateway.client();
    assert_eq!(client.get("/hang").status, 504);
    client.send("POST /hang HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n");
    client.send_alone("he").send("llo");
    assert_eq!(client.response().status, 504);
    assert_eq!(client.get("/").status, 200);
    gate.open();
}

#[test]
fn an_origin_that_does_not_accept_is_504() {
    // With a full queue the kernel answers no further SYN, so connecting hangs.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let filler: Vec<_> = (0..4)
        .map_while(|_| {
            std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300))
                .ok()
        })
        .collect();
    let gateway = set_up().to(&[address]).set("timeouts", "connect = '100ms'").start();
    assert_eq!(gateway.get("/").status, 504);
    assert_eq!(gateway.metric("gateway_deadlines_total{deadline=\"connect\"}"), 1.0);
    drop(filler);
}
