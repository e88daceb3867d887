//! One answer made of several.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use crate::harness::{After, Gate, Gateway, Origin, Setup, closed_port, set_up};

/// Answers each path with what is written for it, and others with 404.
fn service(answers: &[(&str, &str)]) -> Origin {
    let answers: BTreeMap<String, String> =
        answers.iter().map(|(path, body)| ((*path).to_owned(), (*body).to_owned())).collect();
    Origin::start(move |exchange| {
        exchange.body()?;
        let (status, body) = match answers.get(&exchange.request.target) {
            Some(body) => ("200 OK", body.as_str()),
            None => ("404 Not Found", "{}"),
        };
        let length = body.len();
        exchange.answer(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"))
    })
}

const ORDER: &str =
    r#"{"id": 7, "price": 1.10, "customer": {"id": "a b/../c?d"}, "items": ["x", "y"]}"#;

fn to(origin: &Origin, compose: &str) -> Setup {
    let setup = set_up().upstream("main", &[origin.address]);
    setup.route(&format!("path = '~/(?<name>.*)'\n{compose}"))
}

#[track_caller]
fn json(gateway: &Gateway, path: &str) -> Value {
    let answer = gateway.get(path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.field("content-type"), "application/json");
    serde_json::from_str(&answer.text()).unwrap()
}

#[test]
fn parts_become_members_and_what_is_optional_may_be_missing() {
    let origin = service(&[("/order/7", ORDER), ("/stock", "[1, 2]")]);
    let gateway = to(
        &origin,
        "compose.parts.order = { upstream = 'main', path = '/order/{path:name}' }\n\
         compose.parts.stock = { upstream = 'main', path = '/stock' }\n\
         compose.parts.hours = { upstream = 'main', path = '/hours', optional = true }",
    )
    .set("access_log", "format = 'json'")
    .start();
    let order: Value = serde_json::from_str(ORDER).unwrap();
    assert_eq!(json(&gateway, "/7"), json!({ "order": order, "stock": [1, 2], "hours": null }));
    // Numbers stay as they were written.
    let mut client = gateway.client();
    assert!(client.get("/7").text().contains("\"price\":1.10"));
    client.send("HEAD /7 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response_to("HEAD").text(), "");
    // The order's own status, as nothing can be said without it.
    assert_eq!(client.get("/8").status, 404);
    client.send("POST /7 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    let refused = client.response();
    assert_eq!((refused.status, refused.field("allow")), (405, "GET, HEAD"));
    let log = gateway.stop();
    let told = "\"error\":\"upstream answered with another status than 2xx\"";
    assert!(
        log.lines().any(|line| line.contains("\"status\":200") && line.contains(told)),
        "{log}"
    );
}

#[test]
fn values_of_one_answer_ask_for_another() {
    let origin = service(&[
        ("/order", ORDER),
        ("/items/y?of=a%20b%2F..%2Fc%3Fd", r#"{"name": "why"}"#),
        ("/name/why", "\"because\""),
    ]);
    let gateway = to(
        &origin,
        "compose.parts.order = { upstream = 'main', path = '/order' }\n\
         compose.parts.item = { upstream = 'main', \
             path = '/items/{part:order.items.1}?of={part:order.customer.id}' }\n\
         compose.parts.reason = { upstream = 'main', path = '/name/{part:item.name}' }\n\
         compose.merge = { item = '{part:item}', text = '{part:item.name}: {part:reason}', \
             first = '{part:order.items.0}', none = '{part:order.none}', id = ['{path:name}', 1, true] }",
    )
    .start();
    let expected = json!({
        "item": { "name": "why" },
        "text": "why: because",
        "first": "x",
        "none": null,
        "id": ["7", 1, true],
    });
    assert_eq!(json(&gateway, "/7"), expected);
}

#[test]
fn an_origins_value_cannot_lead_elsewhere() {
    let hostile = r#"{"dots": "..", "slash": "a/b", "empty": "", "null": null, "list": [1],
                      "crlf": "a\r\nx: y", "query": "a?b#c"}"#;
    let origin =
        service(&[("/order", hostile), ("/x/a%0D%0Ax%3A%20y", "1"), ("/x/a%3Fb%23c", "2")]);
    let part = |value: &str| {
        let gateway = to(
            &origin,
            &format!(
                "compose.parts.order = {{ upstream = 'main', path = '/order' }}\n\
                 compose.parts.x = {{ upstream = 'main', path = '/x/{{part:order.{value}}}' }}\n\
                 compose.merge.x = '{{part:x}}'"
            ),
        )
        .start();
        gateway.get("/").status
    };
    for value in ["dots", "slash", "empty", "null", "list", "missing"] {
        assert_eq!(part(value), 502, "{value}");
    }
    assert!(origin.requests().iter().all(|request| request.target == "/order"));
    // What a path cannot have is encoded, and so is what would end it.
    assert_eq!(part("query"), 200);
    assert!(matches!(part("crlf"), 200 | 502));
    assert!(origin.requests().iter().all(|request| request.fields.one("x").is_none()));
}

#[test]
fn a_part_that_is_needed_and_fails_has_its_status() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |exchange| {
        let body = match exchange.request.target.as_str() {
            "/text" => "not JSON",
            "/large" => "[1, 2, 3, 4, 5, 6, 7, 8, 9]",
            "/slow" => {
                opened.wait();
                "1"
            }
            "/broken" => {
                return exchange
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1")
                    .map(|()| After::Close);
            }
            "/error" => return exchange.answer("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
            "/denied" => return exchange.answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"),
            _ => "\"fine\"",
        };
        let length = body.len();
        exchange.answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"))
    });
    let (dead, _held) = closed_port();
    let parts = |upstream: &str, optional: bool| {
        format!(
            "compose.parts.fine = {{ upstream = 'main', path = '/fine' }}\n\
             compose.parts.part = {{ upstream = '{upstream}', path = '/{{path:name}}', \
                 timeout = '300ms', bytes_max = '20B', optional = {optional} }}\n"
        )
    };
    let setup = to(&origin, &parts("main", false)).upstream("dead", &[dead]);
    let setup =
        setup.route(&format!("path = '~/(?<name>dead)'\npriority = 1\n{}", parts("dead", false)));
    let gateway = setup.start();
    let mut client = gateway.client();
    for (path, status) in [
        ("/text", 502),
        ("/large", 502),
        ("/broken", 502),
        ("/error", 502),
        ("/denied", 403),
        ("/slow", 504),
        ("/dead", 503),
        ("/other", 200),
    ] {
        assert_eq!(client.get(path).status, status, "{path}");
    }
    let gateway = to(&origin, &parts("main", true)).start();
    for path in ["/text", "/large", "/broken", "/error", "/denied", "/slow"] {
        assert_eq!(json(&gateway, path), json!({ "fine": "fine", "part": null }), "{path}");
    }
    gate.open();
}

#[test]
fn parts_are_asked_at_once() {
    let all = Arc::new(Barrier::new(8));
    // None answers before all have been asked.
    let origin = Origin::start(move |exchange| {
        all.wait();
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
    });
    let parts: String = (0..8)
        .map(|n| format!("compose.parts.p{n} = {{ upstream = 'main', path = '/{n}' }}\n"))
        .collect();
    let gateway = to(&origin, &parts).start();
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    // Their connections are kept.
    assert_eq!(gateway.metric("gateway_upstream_connections_total"), 8.0);
}

#[test]
fn what_is_about_one_answer_is_not_asked_of_several() {
    let origin = service(&[("/part", "1")]);
    let gateway = to(&origin, "compose.parts.one = { upstream = 'main', path = '/part' }").start();
    let mut client = gateway.client();
    client.send(
        "GET /x?y HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer t\r\nAccept: text/html\r\n\
         Accept-Encoding: gzip\r\nIf-None-Match: \"a\"\r\nRange: bytes=0-1\r\n\
         Accept-Language: de\r\n\r\n",
    );
    let answer = client.response();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("cache-control"), "no-store");
    let asked = origin.request();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/part"));
    assert_eq!(asked.field("authorization"), "Bearer t");
    assert_eq!(asked.field("accept-language"), "de");
    assert_eq!(asked.field("accept"), "application/json");
    assert_eq!(asked.field("accept-encoding"), "identity");
    assert!(asked.fields.one("if-none-match").is_none() && asked.fields.one("range").is_none());
}

#[test]
fn a_client_that_leaves_ends_what_is_asked_for_it() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |_| {
        opened.wait();
        Ok(After::Close)
    });
    let gateway =
        to(&origin, "compose.parts.one = { upstream = 'main', path = '/', timeout = '1h' }")
            .start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    origin.wait_for("the part", |seen| seen.requests.len() == 1);
    socket2::SockRef::from(&*client.stream()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    gateway.wait_for_metric("gateway_requests_in_flight", 0.0);
    gate.open();
}

#[test]
fn a_mirror_is_never_noticed() {
    let origin = Origin::echo();
    let shadow = Origin::saying("nobody reads this");
    let gate = Gate::default();
    let opened = gate.clone();
    let hanging = Origin::start(move |_| {
        opened.wait();
        Ok(After::Close)
    });
    let garbage = Origin::scripted("this is no HTTP\r\n\r\n", After::Close);
    let (dead, _held) = closed_port();
    for address in [shadow.address, hanging.address, garbage.address, dead] {
        let gateway = set_up()
            .upstream("main", &[origin.address])
            .upstream("shadow", &[address])
            .route("upstream = 'main'\nmirror = { upstream = 'shadow' }")
            .start();
        let mut client = gateway.client();
        for _ in 0..20 {
            assert_eq!(client.get("/bytes/10").status, 200);
            client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello");
            assert_eq!(client.response().text(), "hello");
        }
        let copies = |kind: &str| {
            gateway.metric(&format!("gateway_upstream_{kind}_total{{upstream=\"shadow\"}}"))
        };
        assert_eq!(copies("mirrors") + copies("mirrors_skipped"), 40.0);
    }
    shadow.wait_for("all copies", |seen| seen.requests.len() == 40);
    let posted = shadow.requests().into_iter().filter(|request| request.method == "POST");
    assert!(posted.map(|request| request.body.unwrap()).all(|body| body == b"hello"));
    gate.open();
}

#[test]
fn a_mirror_has_its_share() {
    let (origin, shadow) = (Origin::saying("main"), Origin::saying("shadow"));
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .upstream("shadow", &[shadow.address])
        .route("upstream = 'main'\nmirror = { upstream = 'shadow', share = '25%' }")
        .start();
    let mut client = gateway.client();
    (0..1000).for_each(|_| assert_eq!(client.get("/").text(), "main"));
    let copies = gateway.metric("gateway_upstream_mirrors_total{upstream=\"shadow\"}");
    // Five standard deviations.
    assert!((180.0..320.0).contains(&copies), "{copies}");
}
