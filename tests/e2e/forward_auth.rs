//! A service of one's own says who may come in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::harness::{After, Gate, Gateway, Origin, closed_port, set_up, until};

/// Lets in who shows a session, and says whose it is.
fn service() -> Origin {
    Origin::start(|exchange| {
        let cookie = exchange.request.fields.one("cookie").unwrap_or_default().to_owned();
        match cookie.strip_prefix("session=") {
            Some(name) => exchange.answer(format!(
                "HTTP/1.1 200 OK\r\nX-User: {name}\r\nX-Else: 1\r\nContent-Length: 2\r\n\r\nok"
            )),
            None => exchange.answer(
                "HTTP/1.1 302 Found\r\nLocation: https://login.example/?back\r\n\
                 Set-Cookie: state=1; Path=/\r\nContent-Type: text/html\r\nX-Else: 1\r\n\
                 Content-Length: 8\r\n\r\n<a>in</a",
            ),
        }
    })
}

const POLICY: &str = "kind = 'forward_auth'\nupstream = 'auth'\npath = '/verify?a=b'\n\
                      copy = ['x-user', 'x-groups']\nidentity = 'x-user'";

fn gateway(auth: &Origin, app: &Origin, more: &str) -> Gateway {
    set_up()
        .upstream("app", &[app.address])
        .upstream("auth", &[auth.address])
        .route("upstream = 'app'\npolicies = ['session']")
        .set("policies.session", POLICY)
        .set_more("policies.session", more)
        .set("access_log", "format = 'json'")
        .start()
}

#[test]
fn who_is_let_in_is_told_to_the_origin() {
    let (auth, app) = (service(), Origin::echo());
    let gateway = gateway(&auth, &app, "");
    let mut client = gateway.client();
    client.send(
        "POST /orders?x=y HTTP/1.1\r\nHost: a.example\r\nCookie: session=alice\r\n\
         X-User: root\r\nx-USER: root\r\nX-Groups: admins\r\nIf-None-Match: \"a\"\r\n\
         Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    );
    let response = client.response_to("POST");
    assert_eq!((response.status, &*response.text()), (200, "hello"));

    let asked = &auth.requests()[0];
    assert_eq!((&*asked.method, &*asked.target), ("GET", "/verify?a=b"));
    for (name, value) in [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-uri", "/orders?x=y"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("cookie", "session=alice"),
    ] {
        assert_eq!(asked.field(name), value);
    }
    for name in ["x-user", "x-groups", "content-length", "content-type", "if-none-match"] {
        assert_eq!(asked.fields.one(name), None, "{name}");
    }
    let served = &app.requests()[0];
    assert_eq!(served.fields.all("x-user"), ["alice"]);
    assert!(served.fields.all("x-groups").is_empty() && served.fields.all("x-else").is_empty());

    // Both connections serve the next one, too.
    client.send("GET /bytes/3 HTTP/1.1\r\nHost: a\r\nCookie: session=bob\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(app.requests()[1].fields.all("x-user"), ["bob"]);
    until("both to be logged", || gateway.log().matches("\"identity\":\"bob\"").count() == 1);
}

#[test]
fn who_is_not_let_in_is_sent_to_the_login() {
    let (auth, app) = (service(), Origin::echo());
    let gateway = gateway(&auth, &app, "");
    let mut client = gateway.client();
    for _ in 0..2 {
        let response = client.get("/orders");
        assert_eq!((response.status, &*response.text()), (302, "<a>in</a"));
        assert_eq!(response.field("location"), "https://login.example/?back");
        assert_eq!(response.field("set-cookie"), "state=1; Path=/");
        assert_eq!(response.field("content-type"), "text/html");
        assert_eq!(response.fields.one("x-else"), None);
    }
    // A body that nobody wants costs the connection, and no request more.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response_to("POST").status, 302);
    let mut client = gateway.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_to("HEAD").status, 302);
    assert!(app.requests().is_empty());
}

#[test]
fn nobody_comes_in_when_nobody_answers() {
    let app = Origin::saying("hello");
    let answer = |bytes: &'static str| Origin::scripted(bytes, After::Close);
    let silent = Origin::start(|exchange| {
        let _ = exchange.body()?;
        std::thread::park();
        Ok(After::Close)
    });
    for (auth, why) in [
        (answer("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "status"),
        (answer(""), "response"),
        (silent, "time"),
    ] {
        let refusing = gateway(&auth, &app, "timeout = '100ms'");
        let response = refusing.get("/");
        assert_eq!((response.status, response.field("retry-after")), (503, "5"), "{why}");
        until("a line", || refusing.log().contains("\"status\":503"));
        assert!(refusing.log().contains("\"error\":\"session: "), "{}", refusing.log());
        let letting = gateway(&auth, &app, "timeout = '100ms'\nunanswered = 'pass'");
        assert_eq!(letting.get("/").text(), "hello", "{why}");
    }
    let (nobody, _reserved) = closed_port();
    let gateway = set_up()
        .upstream("app", &[app.address])
        .upstream("auth", &[nobody])
        .route("upstream = 'app'\npolicies = ['session']")
        .set("policies.session", POLICY)
        .start();
    assert_eq!(gateway.get("/").status, 503);
}

#[test]
fn a_status_counts_whatever_becomes_of_the_rest() {
    let app = Origin::saying("hello");
    let cut = |head: &str| Origin::scripted(format!("HTTP/1.1 {head}\r\n\r\n<a>"), After::Close);
    let stalled = Origin::start(|exchange| {
        exchange
            .send("HTTP/1.1 401 No\r\nWWW-Authenticate: Own\r\nContent-Length: 9\r\n\r\n<a>")?;
        std::thread::park();
        Ok(After::Close)
    });
    for unanswered in ["pass", "refuse"] {
        let lines = format!("timeout = '500ms'\nbody_bytes = '1KiB'\nunanswered = '{unanswered}'");
        for (auth, status) in [
            (&cut("302 Found\r\nLocation: /login\r\nContent-Length: 100"), 302),
            (&cut("403 No\r\nContent-Type: a/b\r\nContent-Length: 100000"), 403),
            (&cut("403 No\r\nTransfer-Encoding: chunked"), 403),
            (&cut("204 No Content"), 200),
            (&cut("200 OK\r\nContent-Length: 100000"), 200),
            (&stalled, 401),
            // It may have been a no.
            (&cut(&format!("302 Found\r\nLocation: /{}", "a".repeat(20_000))), 503),
            (&cut("nonsense"), 503),
        ] {
            let response = gateway(auth, &app, &lines).get("/");
            assert_eq!(response.status, status, "{unanswered}");
            match status {
                302 => assert_eq!(response.field("location"), "/login"),
                401 => assert_eq!(response.field("www-authenticate"), "Own"),
                200 => assert_eq!(response.text(), "hello"),
                _ => assert!(!response.text().contains("<a>")),
            }
        }
    }
}

#[test]
fn what_cannot_be_asked_about_is_refused_as_what_it_is() {
    let (auth, app) = (service(), Origin::saying("hello"));
    for unanswered in ["pass", "refuse"] {
        let gateway = gateway(&auth, &app, &format!("unanswered = '{unanswered}'"));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nCookie: session=a\r\n\r\n");
        assert_eq!(client.response().status, 417, "{unanswered}");
    }
    assert!(app.requests().is_empty());
}

/// Of "alice-and-nobody-else".
const KEYS: &str =
    "keys = { carol = '00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984' }";

#[test]
fn it_is_asked_about_what_earlier_policies_have_left() {
    let app = Origin::echo();
    let auth = Origin::scripted("HTTP/1.1 204 Yes\r\n\r\n", After::Keep);
    let gateway = set_up()
        .upstream("app", &[app.address])
        .upstream("auth", &[auth.address])
        .route("upstream = 'app'\npolicies = ['keys', 'session']")
        .set("policies.session", "kind = 'forward_auth'\nupstream = 'auth'\nidentity = 'x-who'")
        .set("policies.keys", "kind = 'api_key'\nidentity_field = 'x-user'")
        .set_more("policies.keys", "from = ['query:key', 'cookie:key', 'header:x-key']")
        .set_more("policies.keys", KEYS)
        .start();
    for (target, shown) in [
        ("/bytes/1?key=alice-and-nobody-else&a=b", "Cookie: c=d"),
        ("/bytes/1?a=b", "Cookie: key=alice-and-nobody-else; c=d"),
        ("/bytes/1?a=b", "X-Key: alice-and-nobody-else\r\nCookie: c=d"),
    ] {
        let mut client = gateway.client();
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nX-User: root\r\nX-Who: root\r\n\
             Accept-Encoding: gzip\r\n{shown}\r\n\r\n"
        ));
        assert_eq!(client.response().status, 200);
        let (asked, served) = (auth.requests().pop().unwrap(), app.requests().pop().unwrap());
        for request in [&asked, &served] {
            assert_eq!(request.fields.all("x-user"), ["carol"]);
            assert_eq!(request.field("cookie"), "c=d");
            assert_eq!((request.fields.one("x-key"), request.fields.one("x-who")), (None, None));
        }
        assert_eq!(asked.field("x-forwarded-uri"), "/bytes/1?a=b");
        // Its answer may be the client's, and that is told nothing of a coding.
        assert_eq!(asked.fields.all("accept-encoding"), ["identity"]);
        assert_eq!(served.fields.all("accept-encoding"), ["gzip"]);
    }
}

#[test]
fn an_answer_counts_for_a_while() {
    let (auth, app) = (service(), Origin::echo());
    let cache = "cache = { key = ['bearer', 'cookie:session'], ttl = '1h' }";
    let gateway = gateway(&auth, &app, cache);
    let get = |target: &str, cookie: &str| {
        let mut client = gateway.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
        client.response().status
    };
    for _ in 0..3 {
        assert_eq!(get("/bytes/1", "session=alice"), 200);
    }
    assert_eq!(auth.requests().len(), 1);
    let told = app.requests();
    assert!(told.iter().all(|request| request.fields.all("x-user") == ["alice"]));
    assert_eq!(get("/bytes/1", "session=bob"), 200);
    assert_eq!(get("/bytes/2", "session=bob"), 200);
    assert_eq!((get("/bytes/1", "none=1"), get("/bytes/1", "none=1")), (302, 302));
    assert_eq!(auth.requests().len(), 5);
}

#[test]
fn a_client_that_leaves_takes_its_question_along() {
    let (gate, asked) = (Gate::default(), Arc::<AtomicUsize>::default());
    let (opened, count) = (gate.clone(), Arc::clone(&asked));
    let auth = Origin::start(move |exchange| {
        if count.fetch_add(1, SeqCst) == 0 {
            opened.wait();
        }
        exchange.answer("HTTP/1.1 200 OK\r\nX-User: a\r\nContent-Length: 0\r\n\r\n")
    });
    let app = Origin::saying("hello");
    let gateway = gateway(&auth, &app, "timeout = '30s'");
    let mut client = gateway.client();
    client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
    auth.wait_for("the question", |seen| seen.requests.len() == 1);
    socket2::SockRef::from(&*client.stream()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    until("it to be noticed", || gateway.log().contains("\"/left\""));
    gate.open();
    // The connection that was left in the middle is not used again.
    assert_eq!(gateway.get("/next").text(), "hello");
    assert_eq!(app.requests().len(), 1);
    assert_eq!(auth.requests().len(), 2);
}

#[test]
fn it_is_one_of_several_ways_in() {
    let (auth, app) = (service(), Origin::echo());
    let gateway = set_up()
        .upstream("app", &[app.address])
        .upstream("auth", &[auth.address])
        .route("upstream = 'app'\npolicies = ['known']")
        .set("policies.session", POLICY)
        .set("policies.keys", "kind = 'api_key'\nidentity_field = 'x-user'")
        .set_more("policies.keys", KEYS)
        .set_more("policies.keys", "from = ['header:x-api-key', 'cookie:session']")
        .set("policies.known", "kind = 'any'\nof = ['keys', 'session']")
        .start();
    let get = |field: &str| {
        let mut client = gateway.client();
        client.send(format!("GET /bytes/1 HTTP/1.1\r\nHost: a\r\nX-User: root\r\n{field}\r\n\r\n"));
        client.response()
    };
    assert_eq!(get("X-Api-Key: alice-and-nobody-else").status, 200);
    assert_eq!(get("Cookie: session=bob").status, 200);
    let users: Vec<_> =
        app.requests().iter().map(|request| request.field("x-user").to_owned()).collect();
    assert_eq!(users, ["carol", "bob"]);
    // What both look for the service sees, and the origin does not.
    assert_eq!(auth.request().field("cookie"), "session=bob");
    assert!(app.requests().iter().all(|request| request.fields.one("cookie").is_none()));
    let refused = get("X-Nothing: 1");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.fields.all("www-authenticate").len(), 2);
}
