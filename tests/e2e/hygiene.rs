//! What two servers could read differently is refused, unless a route says otherwise.

use crate::harness::{Origin, set_up};

const AMBIGUOUS: [(&str, &str); 12] = [
    ("dot_segments", "/a/../b"),
    ("dot_segments", "/a/."),
    ("dot_segments", "/.."),
    ("empty_segments", "//a"),
    ("empty_segments", "/a//b"),
    ("encoded_slashes", "/a%2fb"),
    ("encoded_slashes", "/a%5Cb"),
    ("encoded_dots", "/a%2eb"),
    ("encoded_controls", "/a%00"),
    ("encoded_controls", "/a%0d%0ab"),
    ("semicolons", "/a;b"),
    ("semicolons", "/a/;/b"),
];

#[test]
fn an_ambiguous_path_is_refused() {
    let origin = Origin::saying("hello");
    let gateway = set_up().to(&[origin.address]).start();
    for (_, path) in AMBIGUOUS {
        let response = gateway.get(path);
        assert_eq!(response.status, 400, "{path}");
        assert!(response.says_close(), "{path}");
    }
    assert_eq!(gateway.get("/a?b=//../;%2f%00").status, 200, "a query may have all of it");
    assert_eq!(origin.targets(), ["/a?b=//../;%2f%00"]);
}

#[test]
fn a_route_may_take_what_its_origin_understands() {
    let origin = Origin::saying("hello");
    let mut setup = set_up().upstream("main", &[origin.address]).route("upstream = 'main'");
    for kind in ["dot_segments", "empty_segments", "encoded_slashes", "encoded_dots"]
        .into_iter()
        .chain(["encoded_controls", "semicolons"])
    {
        let host = kind.replace('_', "-");
        let lines = format!("host = '{host}'\nupstream = 'main'\nallow_in_path = ['{kind}']");
        setup = setup.route(&lines);
    }
    let gateway = setup.start();
    for (kind, path) in AMBIGUOUS {
        for (host, status) in [(kind.replace('_', "-"), 200), ("other".to_owned(), 400)] {
            let mut client = gateway.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(client.response().status, status, "{path} for {host}");
        }
    }
    let paths: Vec<_> = AMBIGUOUS.iter().map(|(_, path)| *path).collect();
    assert_eq!(origin.targets(), paths, "byte for byte");
}

#[test]
fn a_name_with_an_underscore_needs_leave() {
    let origin = Origin::saying("hello");
    for (lines, status) in [("", 400), ("underscores_in_names = true", 200)] {
        let gateway = set_up().set("http", lines).to(&[origin.address]).start();
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX_User: root\r\n\r\n");
        assert_eq!(client.response().status, status);
    }
    assert_eq!(origin.request().field("x_user"), "root");
}

#[test]
fn what_is_removed_is_removed_with_underscores_too() {
    let origin = Origin::saying("hello");
    let gateway = set_up()
        .set("http", "underscores_in_names = true")
        .to(&[origin.address])
        .listener("policies = ['fields']\ntrusted_proxies = ['127.0.0.1']")
        .set("policies.fields", "kind = 'headers'")
        .set_more("policies.fields", "request = { remove = ['X-Debug'], set = { X-User = 'a' } }")
        .start();
    gateway
        .client()
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nX_User: root\r\nx_debug: 1\r\nX_Client-Cert_Subject: x\r\n\
             X_Forwarded_For: 192.0.2.9\r\nX_Real_IP: 192.0.2.9\r\nX_Forwarded_Port: 1\r\n\
             Content_Length: 3\r\nX_Other: 1\r\n\r\n",
        )
        .response();
    let served = origin.request();
    let names = served.fields.0.iter().map(|(name, _)| name.as_str());
    let left: Vec<_> = names.filter(|name| name.contains('_')).collect();
    assert_eq!(left, ["Content_Length", "X_Other"]);
    assert_eq!(served.field("x-user"), "a");
    assert_eq!(served.field("x-forwarded-for"), "127.0.0.1");
}
