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

mod addresses;
mod agreement;
mod answers;
mod attach;
mod bans;
mod connections;
mod cookies;
mod doctor;
mod exact;
mod flood;
mod frames;
mod full;
mod interface;
mod kept;
mod limiter;
mod lists;
mod logs;
mod netns;
mod packets;
mod reload;
mod replace;
mod running;
mod served;
mod sources;
mod told;
mod top;
mod traffic;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gateway::admission::lists::live;
use gateway::admission::{self, Class, Entry, Treatment, unix_now};
use gateway::xdp::{self, Error, Mode, Program, Xdp};
use gateway_ebpf::verdict::{Action, Reason};

/// The port the gateway has in these tests.
const PORT: u16 = 8080;
/// At all addresses, with its class.
const LISTENERS: [(SocketAddr, u8); 1] =
    [(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT), 0)];
/// How many connections there may be.
const CONNECTIONS: usize = 1024;

/// A rate that gives nothing back while a test runs.
const NEVER: f64 = 1e-3;

/// What a program is loaded with.
#[derive(Clone)]
struct Setup {
    xdp: xdp::Settings,
    sources: admission::Settings,
}

impl Setup {
    /// On this interface, in this mode.
    fn on(mut self, interface: &str, mode: Mode) -> Self {
        self.xdp.interfaces = vec![interface.to_owned()];
        self.xdp.mode = mode;
        self
    }

    fn class(&mut self) -> &mut Class {
        &mut self.sources.classes[0]
    }

    /// Puts a network on a list.
    fn list(mut self, line: &str, treatment: Treatment) -> Self {
        self.sources.list.push(Entry::parse(line, treatment, "the test").expect("an entry"));
        self
    }

    fn attach(&self) -> Result<Xdp, Error> {
        Xdp::attach(&self.xdp, &self.sources, &LISTENERS, CONNECTIONS)
    }
}

/// No list, any number of open connections, and a rate that gives nothing back while a test runs.
fn settings(burst: u32, enforce: bool) -> Setup {
    let class = Class {
        connection_rate: NEVER,
        connection_burst: burst,
        connections_max: 0,
        enforce_rate: enforce,
        enforce_connections: enforce,
        ..Class::default()
    };
    Setup {
        xdp: xdp::Settings {
            interfaces: Vec::new(),
            mode: Mode::Native,
            required: true,
            table_bytes: 1 << 20,
            keep: None,
            log_rate: 0,
            object: None,
        },
        sources: admission::Settings {
            classes: vec![class],
            enforce_deny: enforce,
            ..admission::Settings::default()
        },
    }
}

/// The program, loaded; `None` where that is not permitted and the test is to be skipped.
fn load(setup: &Setup) -> Option<Program> {
    match Program::load(&setup.xdp, &setup.sources, &LISTENERS, CONNECTIONS) {
        Ok(program) => {
            program.set_list(&live(&setup.sources.list, unix_now())).expect("the list");
            Some(program)
        }
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
