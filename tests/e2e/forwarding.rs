//! What the gateway adds to, takes from and leaves alone in the messages it passes on.

use crate::harness::{After, Gateway, Origin, Response, set_up};

/// Sends these fields with a GET and returns what the origin got.
fn forwarded(fields: &str) -> crate::harness::Request {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send(format!(
        "GET /a/b%20?q=/../%2f;// HTTP/1.1\r\nHost: Shop.Example:80\r\n{fields}\r\n"
    ));
    assert_eq!(client.response().status, 200);
    origin.request()
}

/// Answers with these fields and returns what the client got.
fn answered(fields: &str) -> crate::harness::Response {
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
    let origin = Origin::scripted(response, After::Keep);
    Gateway::in_front_of(&origin).get("/")
}

#[test]
fn host_and_target_arrive_as_they_were() {
    let request = forwarded("");
    assert_eq!(request.target, "/a/b%20?q=/../%2f;//");
    assert_eq!(request.field("host").to_lowercase(), "shop.example:80");
}

#[test]
fn the_origin_learns_who_asked() {
    let request = forwarded("");
    assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), "http");
    assert_eq!(request.field("x-forwarded-host").to_lowercase(), "shop.example:80");
    let forwarded = "for=127.0.0.1;host=\"Shop.Example:80\";proto=http";
    assert_eq!(request.field("forwarded"), forwarded);
    assert!(request.field("via").starts_with("1.1 "));
}

#[test]
fn a_client_is_not_believed_about_who_it_is() {
    let request = forwarded(
        "X-Forwarded-For: 10.0.0.1\r\nX-FORWARDED-FOR: 10.0.0.2\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: bank\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 10.0.0.3\r\n\
         Forwarded: for=10.0.0.4;proto=https\r\n",
    );
    assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), "http");
    assert_eq!(request.field("x-forwarded-host").to_lowercase(), "shop.example:80");
    assert!(request.field("forwarded").starts_with("for=127.0.0.1;"));
    assert!(!request.fields.has("x-forwarded-port") && !request.fields.has("x-real-ip"));
}

#[test]
fn via_comes_after_those_there() {
    let request = forwarded("Via: 1.0 first\r\nVia: 1.1 second\r\n");
    let all = request.fields.all("via").join(", ");
    let names: Vec<&str> = all.split(", ").collect();
    assert_eq!(names[..2], ["1.0 first", "1.1 second"]);
    assert_eq!(names.len(), 3, "{all}");
}

#[test]
fn what_was_meant_for_us_stays_here() {
    let request = forwarded(
        "Connection: X-One, x-two\r\nconnection: keep-alive , X-Three\r\nX-One: 1\r\nX-TWO: 2\r\n\
         x-three: 3\r\nX-Four: 4\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
         Upgrade: h2c\r\n",
    );
    for gone in ["x-one", "x-two", "x-three", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!request.fields.has(gone), "{gone}: {:?}", request.fields);
    }
    assert!(!request.fields.all("te").iter().any(|value| value.contains("gzip")));
    assert_eq!(request.field("x-four"), "4");
}

#[test]
fn a_client_cannot_take_away_what_is_needed() {
    let request = forwarded(
        "Connection: Host, X-Forwarded-For, Via, Authorization, Cookie\r\nAuthorization: a\r\n\
         Cookie: c\r\n",
    );
    assert_eq!(request.field("host").to_lowercase(), "shop.example:80");
    assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
    assert!(request.fields.has("via"));
    assert_eq!(request.field("authorization"), "a");
}

#[test]
fn a_named_length_still_frames_the_body() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: Content-Length\r\nContent-Length: 5\r\n\r\n\
         hello",
    );
    let response = client.response();
    assert!(response.status == 400 || response.text() == "hello", "{response:?}");
}

#[test]
fn fields_keep_their_order_and_octets() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send(b"GET / HTTP/1.1\r\nHost: test\r\nX-A: 1\r\nX-B:\t\xe9 \r\nX-A: 2\r\nX-C:\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let request = origin.request();
    assert_eq!(request.fields.all("x-a"), ["1", "2"]);
    assert_eq!(request.field("x-b"), "\u{e9}");
    assert_eq!(request.field("x-c"), "");
}

#[test]
fn a_whole_url_is_sent_on_as_a_path() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("GET http://shop.example/a?b HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.send("GET http://shop.example HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.targets(), ["/a?b", "/"]);
    assert_eq!(origin.requests()[0].field("host"), "shop.example");
}

#[test]
fn a_response_keeps_what_is_the_clients() {
    let response = answered("Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: toy\r\nX-Empty:\r\n");
    assert_eq!(response.fields.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.field("server"), "toy");
    assert_eq!(response.field("x-empty"), "");
    assert!(response.fields.has("date"), "added when the origin sent none");
}

#[test]
fn a_response_loses_what_was_meant_for_us() {
    let response = answered(
        "Connection: X-One\r\nX-One: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\n\
         Upgrade: h2c\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    );
    for gone in ["x-one", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!response.fields.has(gone), "{gone}: {:?}", response.fields);
    }
    assert_eq!(response.field("date"), "Sun, 06 Nov 1994 08:49:37 GMT");
}

#[test]
fn interim_responses_are_relayed_in_order() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nServer: x\r\n\r\n\
                   HTTP/1.1 102 Processing\r\n\r\n";
    let origin = Origin::scripted(
        format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        After::Keep,
    );
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    let response = client.get("/");
    assert_eq!(response.text(), "hello");
    let seen: Vec<u16> = response.interim.iter().map(|(status, _)| *status).collect();
    assert_eq!(seen, [103, 102]);
    let hints = |response: &Response| {
        let hints = &response.interim[0].1;
        ["link", "server", "x-a"].map(|name| hints.one(name).map(str::to_owned))
    };
    assert_eq!(hints(&response), [Some("</a>".to_owned()), Some("x".to_owned()), None]);

    let removing = set_up()
        .to(&[origin.address])
        .listener("policies = ['fields']")
        .set("policies.fields", "kind = 'headers'")
        .set_more("policies.fields", "response = { remove = ['Server'], add = { X-A = 'b' } }")
        .start();
    let response = removing.get("/");
    assert_eq!(response.field("x-a"), "b");
    assert_eq!(hints(&response), [Some("</a>".to_owned()), None, None]);

    let mut old = gateway.client();
    old.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n");
    assert_eq!(old.response().interim, [], "HTTP/1.0 knows none");
}

#[test]
fn a_client_that_expects_100_gets_it_from_the_origin() {
    let origin = Origin::start(|exchange| {
        exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = exchange.body()?;
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()))?;
        exchange.answer(body)
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client
        .send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.interim(), 100);
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_final_answer_instead_of_100_makes_no_request_of_the_body() {
    let origin = Origin::start(|exchange| {
        if exchange.request.method == "POST" {
            exchange.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(After::Close);
        }
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    let body = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";
    let length = body.len();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(client.response().status, 401);
    let _ = client.try_send(body);
    client.half_close().expect_gone();
    gateway.client().expect_alive();
    assert_eq!(origin.targets(), ["/", "/alive"]);
}

#[test]
fn routes_choose_by_host_and_path() {
    let [api, v1, web] = ["api", "v1", "web"].map(Origin::saying);
    let gateway = set_up()
        .upstream("api", &[api.address])
        .upstream("v1", &[v1.address])
        .upstream("web", &[web.address])
        .route("host = 'api.example'\npath = '/v1/*'\nupstream = 'v1'")
        .route("host = 'api.example'\nupstream = 'api'")
        .route("host = '*.web.example'\npath = '/page'\nupstream = 'web'")
        .start();
    let mut client = gateway.client();
    let cases = [
        ("api.example", "/", Some("api")),
        ("API.Example:8080", "/v1/x?y", Some("v1")),
        ("api.example", "/v1", Some("v1")),
        ("api.example", "/v10", Some("api")),
        ("a.web.example", "/page", Some("web")),
        ("a.web.example", "/page?x=1", Some("web")),
        ("a.web.example", "/page/2", None),
        ("web.example", "/page", None),
        ("other.example", "/", None),
    ];
    for (host, target, expected) in cases {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.response();
        match expected {
            Some(text) => assert_eq!(response.text(), text, "{host}{target}"),
            None => assert_eq!(response.status, 404, "{host}{target}"),
        }
    }
}
