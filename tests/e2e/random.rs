//! Whatever bytes come from either side, the gateway goes on serving and nothing panics. When a
//! `Gateway` is dropped it checks that no panic was counted.

use std::sync::Mutex;

use crate::harness::{After, Gateway, Origin, Random, set_up};

const ROUNDS: usize = 2000;

const REQUESTS: [&str; 4] = [
    "GET / HTTP/1.1\r\nHost: test\r\nAccept: */*\r\n\r\n",
    "POST /a?b HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: t\r\n\r\n",
    "GET http://test/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

const RESPONSES: [&str; 4] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nhello",
];

/// One of `good` with some bytes changed, removed, doubled or put in; or noise.
fn mutated(random: &mut Random, good: &[&str]) -> Vec<u8> {
    if random.below(20) == 0 {
        let length = random.below(200);
        return random.bytes(length);
    }
    const LIKELY: &[u8] = b"\r\n :;,\0\t0159aAfF/%\x80\xff\"";
    let mut bytes = random.pick(good).as_bytes().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = *random.pick(LIKELY),
            1 => bytes.insert(at, *random.pick(LIKELY)),
            2 => drop(bytes.remove(at)),
            _ => {
                let piece = bytes[at..].to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
    }
    bytes
}

#[test]
fn from_clients() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let mut random = Random::from_env();
    for _ in 0..ROUNDS {
        let mut client = gateway.client();
        let bytes = mutated(&mut random, &REQUESTS);
        let cut = random.below(bytes.len() + 1);
        let _ = client.try_send(&bytes[..cut]);
        let _ = client.try_send(&bytes[cut..]);
        if random.below(2) == 0 {
            let _ = client.stream().shutdown(std::net::Shutdown::Write);
            while client.try_response().is_ok() {}
        }
    }
    gateway.client().expect_alive();
}

#[test]
fn from_origins() {
    let random = Mutex::new(Random::from_env());
    let origin = Origin::start(move |exchange| {
        if exchange.request.target == "/alive" {
            return exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        let bytes = mutated(&mut random.lock().unwrap(), &RESPONSES);
        exchange.send(bytes)?;
        Ok(After::Close)
    });
    let gateway = set_up().to(&[origin.address]).start();
    for _ in 0..ROUNDS / 4 {
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let _ = client.try_response();
    }
    gateway.client().expect_alive();
}
