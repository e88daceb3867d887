//! Bodies of every size through both framings arrive as they were sent.

use crate::harness::{Gateway, Length, Origin, checksum, chunked, pattern, set_up};

const SIZES: [usize; 4] = [0, 1, 16 * 1024, 10 * 1024 * 1024];

#[test]
fn responses_of_every_size_and_framing_arrive_whole() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for size in SIZES {
        let response = client.get(&format!("/bytes/{size}"));
        assert_eq!(response.length, Length::Exactly(size));
        assert!(response.body == pattern(size), "{size} bytes by length");

        let response = client.get(&format!("/bytes/{size}?chunked"));
        assert_eq!(response.length, Length::Chunked);
        assert!(response.body == pattern(size), "{size} bytes in chunks");
    }
}

#[test]
fn requests_of_every_size_and_framing_arrive_whole() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for size in SIZES {
        let body = pattern(size);
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n"));
        client.send(body);
        let response = client.response();
        assert_eq!(response.field("x-received"), checksum(body), "{size} bytes by length");
        assert!(response.body == body);

        client.send("POST /?chunked HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunked(body));
        let response = client.response();
        assert_eq!(response.field("x-received"), checksum(body), "{size} bytes in chunks");
        assert!(response.body == body);
    }
}

/// Head, body and the next request at once; the head for the origin is put where the client's was, or needs more room.
#[test]
fn what_comes_in_one_piece_is_taken_apart() {
    let origin = Origin::echo();
    let more = |count: usize| {
        format!("kind = 'headers'\nrequest.set = {{ X-More = '{}' }}", "x".repeat(count))
    };
    for count in [1, 3000] {
        let setup = set_up().upstream("main", &[origin.address]);
        let setup = setup.set("policies.more", &more(count));
        let gateway = setup.route("upstream = 'main'\npolicies = ['more']").start();
        let mut client = gateway.client();
        for size in [1, 1000, 16 * 1024, 60_000, 200_000] {
            let body = pattern(size);
            let length = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n");
            let coding = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
            let next = b"GET /bytes/7 HTTP/1.1\r\nHost: test\r\n\r\n";
            for request in
                [[length.as_bytes(), body].concat(), [coding.as_bytes(), &chunked(body)].concat()]
            {
                client.send([&request[..], next].concat());
                let response = client.response();
                assert_eq!(response.field("x-received"), checksum(body), "{size} bytes");
                assert!(response.body == body);
                assert!(client.response().body == pattern(7));
            }
        }
    }
}

#[test]
fn a_response_without_framing_ends_with_its_connection() {
    let body = pattern(100_000);
    let response = [b"HTTP/1.1 200 OK\r\n\r\n", body].concat();
    let origin = Origin::scripted(response, crate::harness::After::Close);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    assert!(client.get("/").body == body);

    let mut old = gateway.client();
    old.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n");
    let response = old.response();
    assert_eq!(response.length, Length::UntilClose);
    assert!(response.body == body);
}

#[test]
fn a_1_0_client_never_gets_chunks() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("GET /bytes/100000?chunked HTTP/1.0\r\nHost: test\r\n\r\n");
    let response = client.response();
    assert!(!response.fields.has("transfer-encoding"));
    assert!(response.body == pattern(100_000));
    client.expect_close();
}

#[test]
fn chunk_extensions_end_here() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5;name=value;flag\r\nhello\r\n0;last\r\n\r\n");
    // The origin's reader refuses extensions.
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_trailer_cannot_become_a_field() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("5\r\nhello\r\n0\r\nAuthorization: x\r\nContent-Length: 3\r\nHost: evil\r\n\r\n");
    assert_eq!(client.response().text(), "hello");
    client.expect_alive();

    let request = origin.requests().remove(0);
    assert!(!request.fields.has("authorization"));
    assert_eq!(request.field("host"), "test");
    for name in ["authorization", "content-length", "host"] {
        assert!(!request.trailers.has(name), "{:?}", request.trailers);
    }
}
