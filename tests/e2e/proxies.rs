//! Proxies in front and behind: who is believed about a client, and what is told.

use crate::harness::{After, Client, Gateway, Origin, set_up};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x13\x88\x01\xbb";

fn trusting(origin: &Origin, lines: &str) -> Gateway {
    let listener = format!("trusted_proxies = ['127.0.0.0/8', '10.0.0.0/8']\n{lines}");
    set_up().listener(&listener).to(&[origin.address]).start()
}

fn get(gateway: &Gateway, fields: &str) -> Client {
    let mut client = gateway.client();
    client.send(format!("{GET}{fields}\r\n"));
    assert_eq!(client.response().status, 200);
    client
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = Origin::saying("hello");
    let gateway = trusting(&origin, "");
    get(
        &gateway,
        "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.0.0.2\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 443\r\nForwarded: for=6.6.6.6\r\n",
    );
    let request = origin.request();
    assert_eq!(request.field("x-forwarded-for"), "192.0.2.7, 10.0.0.2, 127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), "https");
    assert_eq!(request.field("x-forwarded-host"), "shop.test");
    assert_eq!(request.field("x-forwarded-port"), "443");
    assert_eq!(
        request.field("forwarded"),
        "for=192.0.2.7;host=\"shop.test\";proto=https, for=10.0.0.2, for=127.0.0.1"
    );
    assert_eq!(request.field("host"), "a.test");
}

#[test]
fn a_proxy_that_writes_forwarded_is_read_there() {
    let origin = Origin::saying("hello");
    let gateway = trusting(&origin, "forwarded_field = 'forwarded'");
    get(
        &gateway,
        "X-Forwarded-For: 6.6.6.6\r\n\
         Forwarded: for=5.5.5.5, for=\"[2001:db8::7]:99\";proto=https;host=shop.test\r\n",
    );
    let request = origin.request();
    assert_eq!(request.field("x-forwarded-for"), "2001:db8::7, 127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), "https");
}

#[test]
fn the_log_names_the_client_and_the_request() {
    let origin = Origin::saying("hello");
    let gateway = set_up()
        .listener("trusted_proxies = ['127.0.0.1']")
        .set("access_log", "format = 'json'")
        .to(&[origin.address])
        .start();
    get(&gateway, "X-Forwarded-For: 192.0.2.7\r\nX-Request-ID: mine-1\r\n");
    assert_eq!(origin.request().field("x-request-id"), "mine-1");
    let log = gateway.stop();
    assert!(log.contains(r#""client":"192.0.2.7","method""#), "{log}");
    assert!(log.contains(r#""request_id":"mine-1""#), "{log}");
}

#[test]
fn a_request_without_a_good_id_gets_one() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    for fields in ["", "X-Request-Id: a b\r\n", "X-Request-Id: a\r\nX-Request-Id: b\r\n"] {
        get(&gateway, fields);
    }
    let mut ids: Vec<String> =
        origin.requests().iter().map(|request| request.field("x-request-id").to_owned()).collect();
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_proxy_header_names_the_client() {
    let origin = Origin::saying("hello");
    for mode in ["optional", "required"] {
        let gateway = trusting(&origin, &format!("proxy_protocol = '{mode}'"));
        for header in [&b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n"[..], V2] {
            let mut client = gateway.client();
            client.send([header, GET.as_bytes(), b"\r\n"].concat());
            assert_eq!(client.response().status, 200);
            client.expect_alive();
        }
    }
    for request in origin.requests() {
        assert_eq!(request.field("x-forwarded-for"), "192.0.2.7");
    }
    assert_eq!(origin.requests().len(), 8);
}

#[test]
fn a_proxy_header_may_arrive_in_any_pieces() {
    let origin = Origin::saying("hello");
    let gateway = trusting(&origin, "proxy_protocol = 'required'");
    let bytes = [V2, GET.as_bytes(), b"\r\n"].concat();
    for cut in 1..V2.len() + 2 {
        let mut client = gateway.client();
        client.send_alone(&bytes[..cut]).send(&bytes[cut..]);
        assert_eq!(client.response().status, 200, "cut at {cut}");
    }
}

#[test]
fn a_proxy_header_that_is_missing_broken_or_unwanted_ends_the_connection() {
    let origin = Origin::saying("hello");
    let gateway = trusting(&origin, "proxy_protocol = 'required'");
    for bytes in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PROXY TCP4 x y 1 2\r\n"] {
        gateway.client().send(bytes).expect_gone();
    }
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send(format!("PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n{GET}\r\n"));
    assert_eq!(client.response().status, 400);
    let elsewhere = "trusted_proxies = ['192.0.2.1']\nproxy_protocol";
    let gateway =
        set_up().listener(&format!("{elsewhere} = 'required'")).to(&[origin.address]).start();
    gateway.client().expect_gone();
    let gateway =
        set_up().listener(&format!("{elsewhere} = 'optional'")).to(&[origin.address]).start();
    gateway.client().expect_alive();
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn an_origin_is_told_whose_connection_it_is() {
    for (version, start) in [("v1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]), ("v2", &V2[..13])] {
        let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = origin.local_addr().unwrap();
        let gateway = set_up()
            .upstream("main", &[address])
            .upstream_line(&format!("proxy_protocol = '{version}'"))
            .route("upstream = 'main'")
            .start();
        let mut client = gateway.client();
        let port = client.stream().local_addr().unwrap().port();
        for _ in 0..2 {
            client.send(format!("{GET}\r\n"));
            let (mut stream, _) = origin.accept().unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"\r\n\r\n") || got.len() < 40 {
                let mut buffer = [0; 4096];
                let count = std::io::Read::read(&mut stream, &mut buffer).unwrap();
                assert!(count > 0, "the gateway closed");
                got.extend_from_slice(&buffer[..count]);
            }
            assert!(got.starts_with(start), "{}", String::from_utf8_lossy(&got));
            let has = |part: &[u8]| got.windows(part.len()).any(|window| window == part);
            assert!(has(&port.to_be_bytes()) || has(port.to_string().as_bytes()));
            assert!(has(b"GET / HTTP/1.1\r\n"));
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            std::io::Write::write_all(&mut stream, answer).unwrap();
            assert_eq!(client.response().status, 200);
        }
    }
}

#[test]
fn options_counts_its_hops() {
    let origin = Origin::scripted("HTTP/1.1 204 No Content\r\n\r\n", After::Keep);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for (hops, status) in [("0", 200), ("1", 204), ("300", 204)] {
        client.send(format!("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\n\r\n"));
        assert_eq!(client.response().status, status);
    }
    let seen: Vec<String> =
        origin.requests().iter().map(|request| request.field("max-forwards").to_owned()).collect();
    assert_eq!(seen, ["0", "299"]);
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
}
