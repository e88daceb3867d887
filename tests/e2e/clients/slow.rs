//! slowhttptest's attacks: each holds connections open for as little work as it can, while
//! somebody else wants to be served.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::text_of;
use crate::harness::{Gateway, Origin, set_up};

const CONNECTIONS: &str = "50";
/// Longer than any deadline below, so that it is the gateway who ends the connections.
const SECONDS: &str = "10";

#[test]
fn heads() {
    attack("head = '1s'", &["-H", "-i", "1"], "/", "head").ended_early();
}

#[test]
fn bodies_with_long_gaps() {
    attack("body = '1s'", &["-B", "-i", "3"], "/", "request_body").ended_early();
}

#[test]
fn bodies_with_short_gaps() {
    attack("body = '2s'", &["-B", "-i", "1", "-x", "8"], "/", "request_body").ended_early();
}

/// A window and reads so small that nothing moves between two of them.
const READS: [&str; 11] = ["-X", "-i", "1", "-n", "5", "-w", "512", "-y", "1024", "-z", "5"];

#[test]
fn reads() {
    // It does not notice that its connections are reset, but the gateway has none any more.
    attack("body = '1s'", &READS, "/bytes/10000000", "response_write");
}

/// What slowhttptest printed, unless it is not there.
struct Report(Option<String>);

impl Report {
    /// Every connection was closed before the attack's time was up.
    #[track_caller]
    fn ended_early(self) {
        let Some(text) = self.0 else { return };
        assert!(text.contains("No open connections left"), "{text}");
    }
}

/// Lets it attack `target`, sees that another client is served all the time, and that this
/// deadline ended every one of its connections.
#[track_caller]
fn attack(timeouts: &str, mode: &[&str], target: &str, deadline: &str) -> Report {
    let origin = Origin::echo();
    let gateway = set_up().to(&[origin.address]).set("timeouts", timeouts).start();
    let url = format!("http://{}{target}", gateway.address());
    let often = ["-c", CONNECTIONS, "-r", CONNECTIONS, "-l", SECONDS, "-u", &url];
    let over = AtomicBool::new(false);
    let text = thread::scope(|scope| {
        let served = scope.spawn(|| serve_until(&over, &gateway));
        let text = text_of("slowhttptest", &[mode, &often].concat());
        over.store(true, Ordering::Relaxed);
        served.join().unwrap();
        text
    });
    if let Some(text) = &text {
        let series = format!("gateway_deadlines_total{{deadline=\"{deadline}\"}}");
        assert_eq!(gateway.metric(&series).to_string(), CONNECTIONS, "{text}");
        gateway.wait_for_metric("gateway_connections_open", 0.0);
        gateway.client().expect_alive();
    }
    Report(text)
}

/// One connection kept and one for each request.
fn serve_until(over: &AtomicBool, gateway: &Gateway) {
    let mut client = gateway.client();
    while !over.load(Ordering::Relaxed) {
        assert_eq!(client.get("/bytes/1000").body.len(), 1000);
        assert_eq!(gateway.get("/bytes/1000").body.len(), 1000);
        thread::sleep(Duration::from_millis(20));
    }
}
