//! Handshakes that are none, or never end.

use std::io::Read;

use super::{Files, secured};
use crate::harness::{Origin, until};

const FAILURES: &str = "gateway_tls_handshake_failures_total";

/// What comes back, to the end.
fn answer_to(gateway: &crate::harness::Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut client = gateway.client();
    client.send(bytes);
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = client.stream().read_to_end(&mut answer);
    answer
}

#[test]
fn what_is_no_tls_is_told_so() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    // An SSLv2 hello, an SSLv3 one, a record larger than any, and one of no known kind.
    let sslv2: &[u8] = b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80";
    let sslv3 = [&b"\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00"[..], &[7; 34]].concat();
    let oversized = [&b"\x16\x03\x01\xff\xff"[..], &[0; 70_000]].concat();
    for (broken, bytes) in [sslv2, &sslv3, &oversized, b"\x7f\x45\x4c\x46hello"].iter().enumerate()
    {
        let answer = answer_to(&gateway, bytes);
        // An alert (RFC 8446 §6), or the end.
        assert!(answer.is_empty() || answer.starts_with(b"\x15\x03"), "{broken}: {answer:?}");
    }
    let counted = || gateway.metric(FAILURES);
    until("all of them to be counted", || counted() == 4.0);
    assert_eq!(gateway.metric("gateway_tls_handshakes_open"), 0.0);
    assert!(gateway.metric("gateway_offences_total{offence=\"handshake\"}") >= 1.0);
}

#[test]
fn plain_http_is_answered_in_its_own_words() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    let answer = answer_to(&gateway, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    assert_eq!(origin.connections(), 0);
}

#[test]
fn silence_ends_at_the_deadline() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let setup = secured(&origin, &[files.server(&["localhost"])]);
    let gateway = setup.set("timeouts", "handshake = '50ms'").start();
    for said in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        assert_eq!(answer_to(&gateway, said), b"");
    }
    let timeouts = format!("{FAILURES}{{reason=\"timeout\"}}");
    until("all of them to be counted", || gateway.metric(&timeouts) == 3.0);
    assert_eq!(gateway.metric("gateway_offences_total{offence=\"handshake\"}"), 3.0);
    assert!(gateway.log().contains("handshake") || gateway.stop().contains("handshake"));
}

#[test]
fn too_many_at_once_are_turned_away() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let setup = secured(&origin, &[files.server(&["localhost"])]);
    let gateway = setup.set("limits", "handshakes = 1").start();
    let mut first = gateway.client();
    first.send(b"\x16\x03\x01");
    gateway.wait_for_metric("gateway_tls_handshakes_open", 1.0);
    assert_eq!(answer_to(&gateway, b"\x16\x03\x01"), b"");
    gateway.wait_for_metric(&format!("{FAILURES}{{reason=\"busy\"}}"), 1.0);
    drop(first);
    gateway.wait_for_metric(&format!("{FAILURES}{{reason=\"closed\"}}"), 1.0);
}
