//! Load generators, which count what goes wrong.

use super::text_of;
use crate::harness::{Gateway, Origin};

#[test]
fn ab() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let url = format!("http://{}/", gateway.address());
    for keep_alive in [&["-k"][..], &[]] {
        // Options stand before the address.
        let arguments = [keep_alive, &["-q", "-n", "2000", "-c", "20", &url]].concat();
        let Some(text) = text_of("ab", &arguments) else { return };
        let count = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(2)?.parse::<usize>().ok()
        };
        assert_eq!(count("Complete requests:"), Some(2000), "{text}");
        assert_eq!(count("Failed requests:"), Some(0), "{text}");
        assert!(!text.contains("Non-2xx"), "{text}");
    }
}

#[test]
fn wrk() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    for target in ["/bytes/100", "/bytes/20000?chunked"] {
        let url = format!("http://{}{target}", gateway.address());
        let Some(text) = text_of("wrk", &["-t1", "-c16", "-d1s", &url]) else { return };
        assert!(text.contains(" requests in "), "{text}");
        assert!(!text.contains(" 0 requests in "), "{text}");
        assert!(!text.contains("Socket errors"), "{text}");
        assert!(!text.contains("Non-2xx"), "{text}");
    }
    gateway.wait_for_metric("gateway_connections_open", 0.0);
}
