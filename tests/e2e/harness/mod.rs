//! What the tests are written with: a [`Gateway`] process, a [`Client`] that sends raw bytes, and
//! an [`Origin`] that answers with a closure.

mod bytes;
mod client;
mod dns;
mod gateway;
mod origin;
#[path = "../../conformance/sockets.rs"]
mod sockets;
mod wire;

pub use bytes::{Random, checksum, chunked, pattern};
pub use client::{Client, Response};
pub use dns::{Dns, Zone};
pub use gateway::{Gateway, Setup, binary, bound, closed_port, set_up, unique_path};
pub use origin::{After, Exchange, Origin, Request};
pub use wire::{Broken, Length};

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long anything may take before the test that waits for it fails. No test passes by waiting
/// this long, so it is generous: a loaded machine must not turn a test red.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Something one thread waits for and another makes happen.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn wait(&self) {
        let shut = self.0.0.lock().unwrap();
        let (open, _) = self.0.1.wait_timeout_while(shut, PATIENCE, |open| !*open).unwrap();
        assert!(*open, "nobody opened the gate");
    }
}

/// Asks again until the answer is yes. For what gives no notice of its own, such as a counter.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "still waiting for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
