//! What listeners and routes ask of requests, and add to answers.

use std::fs;

use crate::harness::{After, Gateway, Origin, Response, closed_port, set_up, unique_path, until};

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

#[test]
fn fields_change_on_their_way_and_nothing_splits_them() {
    let said = "HTTP/1.1 200 OK\r\nServer: old\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d; HttpOnly\r\n\
                Content-Length: 0\r\n\r\n";
    let origin = Origin::scripted(said, After::Keep);
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['fields', 'cookies', 'security_headers']")
        .set(
            "policies.fields",
            "kind = 'headers'\nrequest.set = { X-Q = '{query:q}', X-Who = '{client}' }\n\
             response.remove = ['Server']",
        )
        .start();
    let asked = "GET /?q=a%0d%0aX-Evil:1 HTTP/1.1\r\nHost: a\r\nX-Who: me\r\nX-Q: me";
    let response = ask(&gateway, asked);
    let request = origin.request();
    assert_eq!(request.fields.all("x-q"), ["a  X-Evil:1"]);
    assert_eq!(request.fields.all("x-who"), ["127.0.0.1"]);
    assert_eq!(request.fields.one("x-evil"), None);
    assert_eq!(response.fields.one("server"), None);
    let cookies = ["a=b; SameSite=Lax; HttpOnly", "c=d; HttpOnly; SameSite=Lax"];
    assert_eq!(response.fields.all("set-cookie"), cookies);
    assert_eq!(response.field("x-content-type-options"), "nosniff");
}

#[test]
fn a_preflight_never_reaches_the_origin() {
    let said = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\n\
                Content-Length: 0\r\n\r\n";
    let origin = Origin::scripted(said, After::Keep);
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['pages']")
        .set("policies.pages", "kind = 'cors'\norigins = ['https://a.example']")
        .start();
    let preflight = "OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\
                     Access-Control-Request-Method: POST";
    let response = ask(&gateway, preflight);
    assert_eq!(
        (response.status, response.field("access-control-allow-methods")),
        (204, "GET, HEAD, POST")
    );
    assert!(origin.requests().is_empty());
    let get =
        |origin: &str| ask(&gateway, &format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}"));
    let own = get("https://a.example");
    assert_eq!(own.fields.all("access-control-allow-origin"), ["https://a.example"]);
    assert_eq!(own.fields.all("vary"), ["Accept", "Origin"]);
    let other = get("https://b.example");
    assert_eq!((other.status, other.fields.one("access-control-allow-origin")), (200, None));
    assert_eq!(other.fields.all("vary"), ["Accept", "Origin"]);
}

#[test]
fn what_is_not_let_in_gets_its_status() {
    let origin = Origin::echo();
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['patches', 'json']")
        .set("policies.json", "kind = 'access'\nmethods = ['GET', 'POST']\nbody_bytes = '4B'")
        .set_more("policies.json", "content_types = ['text/plain']")
        .set("policies.patches", "kind = 'rules'")
        .set_more(
            "policies.patches",
            "rules = [{ name = 'hole', path = '/hole' }, { name = 'seen', query = 'x', observe = true }]",
        )
        .set("access_log", "format = 'json'")
        .start();
    let post = |kind: &str, body: &str| {
        ask(&gateway, &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{body}"))
            .status
    };
    let refused = ask(&gateway, "PUT / HTTP/1.1\r\nHost: a");
    assert_eq!((refused.status, refused.field("allow")), (405, "GET, POST"));
    assert_eq!(post("image/png", "Content-Length: 1"), 415);
    assert_eq!(post("text/plain", "Content-Length: 5"), 413);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 413);
    assert_eq!(gateway.get("/%68ole").status, 403);
    assert_eq!(gateway.get("/?a=x").status, 200);
    let counted = |rule: &str, verdict: &str| {
        let labels = format!("policy=\"patches:{rule}\",verdict=\"{verdict}\"");
        gateway.metric(&format!("gateway_policy_requests_total{{{labels}}}"))
    };
    assert_eq!((counted("hole", "refused"), counted("seen", "observed")), (1.0, 1.0));
    let log = gateway.stop();
    assert!(log.contains("rule patches:hole"));
    let observed: Vec<_> = log.lines().filter(|line| line.contains("\"observed\":")).collect();
    let [line] = observed[..] else { panic!("{log}") };
    assert!(line.contains("\"target\":\"/?a=x\"") && line.contains(":\"patches:seen\"}"), "{line}");
}

#[test]
fn a_list_of_networks_counts_when_it_changes_and_as_long_as_it_says() {
    let origin = Origin::saying("hello");
    let path = unique_path("networks");
    let put = |lines: &str| fs::write(&path, lines).unwrap();
    put("203.0.113.0/24 ; nobody here\n127.0.0.0/8 until=2020-01-01 # over\n");
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['let_in']")
        .set("policies.let_in", &format!("kind = 'access'\ndeny_files = [{path:?}]"))
        .workers(2)
        .start();
    assert_eq!(gateway.get("/").status, 200);
    put("127.0.0.0/8 until=2999-12-31T23:59:59Z\n");
    gateway.wait_for_metric("gateway_file_reloads_total{result=\"applied\"}", 1.0);
    until("every worker to know", || (0..8).all(|_| gateway.get("/").status == 403));
    put("127.0.0.0/8 later\n");
    gateway.wait_for_metric("gateway_file_reloads_total{result=\"refused\"}", 1.0);
    until("it to be said", || gateway.log().contains("still as it was: policies.let_in: "));
    assert_eq!(gateway.get("/").status, 403);
    fs::remove_file(path).unwrap();
}
