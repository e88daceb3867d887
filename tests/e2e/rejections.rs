//! Requests in which two parsers could disagree. Each is answered and the connection closed; the
//! origin sees nothing of it, and nothing of what stands behind it.

use crate::harness::{Gateway, Origin};

/// A line of fields, or a body, and what makes it wrong.
const FIELDS: [(&str, u16); 33] = [
    ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
    ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
    ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
    ("Content-Length: 5, 6\r\n", 400),
    ("Content-Length: +5\r\n", 400),
    ("Content-Length: -5\r\n", 400),
    ("Content-Length: 0x5\r\n", 400),
    ("Content-Length: 5a\r\n", 400),
    ("Content-Length: \r\n", 400),
    ("Content-Length: 99999999999999999999\r\n", 400),
    ("Transfer-Encoding: chunked, identity\r\n", 400),
    ("Transfer-Encoding: identity\r\n", 400),
    ("Transfer-Encoding: chunked, chunked\r\n", 400),
    ("Transfer-Encoding: \r\n", 400),
    ("Transfer-Encoding: xchunked\r\n", 400),
    ("Transfer-Encoding: chunked;a=b\r\n", 400),
    ("Transfer-Encoding: gzip, chunked\r\n", 501),
    ("Transfer-Encoding : chunked\r\n", 400),
    ("Transfer-Encoding\t: chunked\r\n", 400),
    ("Transfer-Encoding:\x0bchunked\r\n", 400),
    ("X: a\r\n folded: b\r\n", 400),
    ("X: a\r\n\tb\r\n", 400),
    ("X: a\0b\r\n", 400),
    ("X: a\rb\r\n", 400),
    ("X: a\n", 400),
    ("X: a\nTransfer-Encoding: chunked\r\n", 400),
    ("X\0: a\r\n", 400),
    (": a\r\n", 400),
    ("no colon\r\n", 400),
    ("Host: other\r\n", 400),
    ("Expect: something\r\n", 417),
    ("X: \x7f\r\n", 400),
];

const CHUNKS: [&str; 19] = [
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhell\r\n0\r\n\r\n",
    "5\r\nhellooo\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "5_\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    ";a\r\nhello\r\n0\r\n\r\n",
    "5;\r\nhello\r\n0\r\n\r\n",
    "5;a\0\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0\r\nA : b\r\n\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
];

const LINES: [(&str, u16); 17] = [
    ("GET /  HTTP/1.1", 400),
    ("GET  / HTTP/1.1", 400),
    (" GET / HTTP/1.1", 400),
    ("GET\t/ HTTP/1.1", 400),
    ("GET / HTTP/1.1 ", 400),
    ("GET /a b HTTP/1.1", 400),
    ("GET /\x01 HTTP/1.1", 400),
    ("GET /\x7f HTTP/1.1", 400),
    ("GET /%zz HTTP/1.1", 400),
    ("GET /a#b HTTP/1.1", 400),
    ("GET a HTTP/1.1", 400),
    ("GET * HTTP/1.1", 400),
    ("GET /", 400),
    ("GET / http/1.1", 400),
    ("GET / HTTP/1", 400),
    ("GET / HTTP/2.0", 505),
    ("G(T / HTTP/1.1", 400),
];

/// Sends `request` with another one behind it, and checks that neither got through.
#[track_caller]
fn refused(gateway: &Gateway, request: &str, status: u16) {
    let mut client = gateway.client();
    // The gateway may have answered and closed before the last byte.
    let _ = client.try_send(format!("{request}GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"));
    let response = client.response();
    assert_eq!(response.status, status, "{request:?}");
    assert!(response.says_close(), "{request:?}");
    client.half_close().expect_close();
}

#[test]
fn ambiguous_fields() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    for (fields, status) in FIELDS {
        refused(&gateway, &format!("POST / HTTP/1.1\r\nHost: test\r\n{fields}\r\n"), status);
    }
    refused(&gateway, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    refused(&gateway, "GET / HTTP/1.1\r\n\r\n", 400);
    refused(&gateway, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
    refused(&gateway, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400);
    refused(&gateway, "GET / HTTP/1.1\r\nHost: \r\n\r\n", 400);
    assert_eq!(origin.requests(), []);
}

#[test]
fn malformed_request_lines() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    for (line, status) in LINES {
        refused(&gateway, &format!("{line}\r\nHost: test\r\n\r\n"), status);
    }
    refused(&gateway, "CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n", 501);
    refused(&gateway, "TRACE / HTTP/1.1\r\nHost: test\r\n\r\n", 501);
    assert_eq!(origin.requests(), []);
}

#[test]
fn broken_chunks_in_one_piece() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    for chunks in CHUNKS {
        let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        refused(&gateway, &format!("{head}{chunks}"), 400);
    }
    assert_eq!(origin.requests(), []);
}

#[test]
fn broken_chunks_behind_good_ones() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    for chunks in CHUNKS {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send_alone("3\r\none\r\n");
        let _ = client.try_send(format!("{chunks}GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.response().status, 400, "{chunks:?}");
        client.half_close().expect_close();
    }
    assert_eq!(origin.completed(), 0, "no body may arrive whole: {:?}", origin.requests());
}

#[test]
fn answers_of_an_origin_are_held_to_the_same_grammar() {
    let bad = [
        "garbage\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    for answer in bad {
        let origin = Origin::scripted(answer, crate::harness::After::Close);
        let gateway = Gateway::in_front_of(&origin);
        let mut client = gateway.client();
        let response = client.get("/");
        assert_eq!(response.status, 502, "{answer:?}");
        assert!(!response.says_close(), "the client has done nothing wrong");
        assert_eq!(client.get("/").status, 502);
    }
}

#[test]
fn bytes_behind_an_answer_are_nobodys_answer() {
    let two = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst\
               HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";
    let origin = Origin::scripted(two, crate::harness::After::Keep);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "first");
    }
    assert_eq!(origin.connections(), 5, "none of them may be used again");
}
