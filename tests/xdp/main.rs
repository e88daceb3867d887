//! The XDP program in the kernel: fed with packets by hand, and on a veth between namespaces.
//!
//! Needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. Without it the tests say that they are
//! skipped; in CI (the variable `CI` is set) they fail.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, also outside the functions that clippy knows as tests"
)]

mod agreement;
mod attach;
mod connections;
mod frames;
mod limiter;
mod logs;
mod netns;
mod packets;
mod running;

use std::io::Write;

use gateway::xdp::{Error, Mode, Program, Settings};
use gateway_ebpf::verdict::{Action, Reason};

/// The port the gateway has in these tests.
const PORT: u16 = 8080;

/// A rate that gives nothing back while a test runs.
const NEVER: f64 = 1e-3;

fn settings(burst: u32, enforce: bool) -> Settings {
    Settings {
        interfaces: Vec::new(),
        mode: Mode::Native,
        enforce,
        required: true,
        connection_rate: NEVER,
        connection_burst: burst,
        table_bytes: 1 << 20,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        object: None,
    }
}

/// The program, loaded; `None` where that is not permitted and the test is to be skipped.
fn load(settings: &Settings) -> Option<Program> {
    match Program::load(settings, &[PORT]) {
        Ok(program) => Some(program),
        Err(error @ Error::NotPermitted { .. }) => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "in CI this must run, but {reason}");
    // Past libtest, which shows what a test prints only when it fails.
    writeln!(std::io::stderr(), "skipped: {reason}").expect("stderr");
}

fn packets(program: &Program, action: Action, reason: Reason) -> u64 {
    let counters = program.counters().expect("counters");
    let wanted = |count: &&gateway::xdp::Count| {
        count.verdict.action == action && count.verdict.reason == reason
    };
    counters.iter().find(wanted).expect("a verdict there is").packets
}
