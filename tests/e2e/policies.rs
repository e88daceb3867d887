//! What listeners and routes ask of requests, and add to answers.

use crate::harness::{After, Gateway, Origin, Response, closed_port, set_up};

fn ask(gateway: &Gateway, head: &str) -> Response {
    gateway.client().send(format!("{head}\r\n\r\n")).response()
}

#[test]
fn plain_http_is_sent_to_https() {
    let origin = Origin::saying("hello");
    let gateway = set_up().to(&[origin.address]).listener("redirect = 'https'").start();
    for (head, location) in [
        ("GET /a/b?c=d%20e HTTP/1.1\r\nHost: Example.com", "https://Example.com/a/b?c=d%20e"),
        ("GET / HTTP/1.1\r\nHost: example.com:8080", "https://example.com/"),
        ("GET //evil.example/ HTTP/1.1\r\nHost: a", "https://a//evil.example/"),
        ("GET http://b/x HTTP/1.1\r\nHost: a", "https://b/x"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80", "https://[::1]/"),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "https://a"),
        ("DELETE /x HTTP/1.1\r\nHost: a", "https://a/x"),
    ] {
        let response = ask(&gateway, head);
        assert_eq!((response.status, response.field("location")), (308, location));
    }
    assert_eq!(ask(&gateway, "GET / HTTP/1.0").status, 400);
    // Its body is read away, and the next request is another.
    let mut client = gateway.client();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response_to("POST").status, 308);
    assert!(origin.requests().is_empty());
}

#[test]
fn who_came_by_https_to_the_proxy_in_front_is_not_sent_anywhere() {
    let origin = Origin::saying("hello");
    let listener = "redirect = 'https:8443'\ntrusted_proxies = ['127.0.0.1']\npolicies = ['hsts']";
    let gateway = set_up().to(&[origin.address]).listener(listener).start();
    let from = |proto: &str| {
        let head = "GET /x HTTP/1.1\r\nHost: inner\r\nX-Forwarded-For: 192.0.2.1";
        ask(
            &gateway,
            &format!("{head}\r\nX-Forwarded-Host: a.example\r\nX-Forwarded-Proto: {proto}"),
        )
    };
    let redirected = from("http");
    assert_eq!(redirected.status, 308);
    assert_eq!(redirected.field("location"), "https://a.example:8443/x");
    assert_eq!(redirected.fields.one("strict-transport-security"), None);
    let served = from("https");
    assert_eq!(served.text(), "hello");
    assert_eq!(served.field("strict-transport-security"), "max-age=31536000");
}

#[test]
fn a_field_is_set_in_place_of_the_origins() {
    let said =
        "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::scripted(said, After::Keep);
    let (nobody, _reserved) = closed_port();
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .upstream("gone", &[nobody])
        .route("upstream = 'main'\npolicies = ['long']")
        .route("path = '/gone'\nupstream = 'gone'\npolicies = ['long']")
        .set(
            "policies.long",
            "kind = 'hsts'\nmax_age = '730d'\ninclude_subdomains = true\npreload = true",
        )
        .listener("trusted_proxies = ['127.0.0.1']")
        .start();
    let https = "HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https";
    let response = ask(&gateway, &format!("GET / {https}"));
    assert_eq!(
        response.fields.all("strict-transport-security"),
        ["max-age=63072000; includeSubDomains; preload"]
    );
    // Also where the gateway answers by itself, once the route is known.
    let response = ask(&gateway, &format!("GET /gone {https}"));
    assert_eq!(response.status, 503);
    assert_eq!(response.fields.all("strict-transport-security").len(), 1);
    // And never over plain HTTP.
    let plain = gateway.get("/");
    assert_eq!(plain.fields.one("strict-transport-security"), None);
}
