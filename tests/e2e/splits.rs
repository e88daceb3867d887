//! However the bytes are spread over reads, the result is the same.

use crate::harness::{After, Gateway, Origin};

const REQUEST: &str = "POST /a?b HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nX-Y: z\r\n\r\n\
                       5;e=\"v\"\r\nhello\r\n1\r\n!\r\n0\r\nT: t\r\n\r\n";
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_request_cut_anywhere() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    let bytes = format!("{REQUEST}{NEXT}");
    for cut in 1..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        client.send_alone(first).send(second);
        assert_eq!(client.response().text(), "hello!", "cut at {cut}");
        assert_eq!(client.response().text(), "", "cut at {cut}");
    }
    let mut requests = origin.requests();
    for request in &mut requests {
        request.fields.0.retain(|(name, _)| name != "x-request-id");
    }
    assert_eq!(requests.len(), 2 * (bytes.len() - 1));
    assert!(requests.chunks(2).all(|pair| pair == &requests[..2]), "all alike");
}

#[test]
fn a_request_byte_by_byte() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for byte in REQUEST.bytes() {
        client.send_alone([byte]);
    }
    assert_eq!(client.response().text(), "hello!");
    client.expect_alive();
}

#[test]
fn a_response_byte_by_byte() {
    const RESPONSE: &str = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n\
        5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let origin = Origin::start(|exchange| {
        for byte in RESPONSE.bytes() {
            exchange.send_alone([byte])?;
        }
        Ok(After::Keep)
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.text(), "hello world");
        assert_eq!(response.field("x"), "y");
        assert_eq!(response.interim.len(), 1);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_response_cut_anywhere() {
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX: y\r\n\r\nhello world";
    let origin = Origin::start(|exchange| {
        let cut: usize = exchange.request.target[1..].parse().unwrap();
        let (first, second) = RESPONSE.split_at(cut);
        exchange.send_alone(first)?;
        exchange.answer(second)
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for cut in 1..RESPONSE.len() {
        assert_eq!(client.get(&format!("/{cut}")).text(), "hello world", "cut at {cut}");
    }
    assert_eq!(origin.connections(), 1);
}
