//! A gateway in its namespace: the binary, or only its kernel half inside this process.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gateway::xdp::{Mode, Xdp, occupant};

use crate::connections::PATIENCE;
use crate::netns::{GATEWAY_V4, GATEWAY_V6, INTERFACE, Namespace};
use crate::{PORT, Setup, settings};

pub const BURST: u32 = 10;
/// One connection a second: slow beside a test that opens thirty at once, and a whole number.
const RATE: f64 = 1.0;
const ADMIN: &str = "127.0.0.1:9901";

/// The two ways to run.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// [`Xdp`] in this process.
    Library,
    /// `gateway run` in another: the path of the binary.
    Binary(&'static str),
}

impl Kind {
    pub fn all() -> Vec<Self> {
        let mut kinds = vec![Self::Library];
        kinds.extend(option_env!("CARGO_BIN_EXE_gateway").map(Self::Binary));
        kinds
    }

    /// Starts a gateway that listens on [`PORT`] and limits each source to [`BURST`] at once.
    pub fn start(self, inside: &Namespace, enforce: bool) -> Running<'_> {
        wait_until_clean(inside, INTERFACE);
        let state = match self {
            Self::Library => library(inside, enforce),
            Self::Binary(path) => binary(path, inside, enforce),
        };
        Running { inside, state }
    }
}

pub struct Running<'a> {
    inside: &'a Namespace,
    state: State,
}

enum State {
    Library { xdp: Box<Xdp>, _listeners: [TcpListener; 2] },
    Binary { process: Process },
}

/// Waits until no program is left on an interface. That is so at once when a process ends; but what
/// this process held may for a moment also be held by a child that another test is starting, between
/// its fork and its exec.
pub fn wait_until_clean(inside: &Namespace, interface: &str) {
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = inside.run(|| occupant(interface).expect("rtnetlink")) {
        assert!(Instant::now() < deadline, "{left:?} is left on {interface}");
        thread::yield_now();
    }
}

fn addresses() -> [SocketAddr; 2] {
    [SocketAddr::new(GATEWAY_V4, PORT), SocketAddr::new(GATEWAY_V6, PORT)]
}

pub fn settings_here(enforce: bool) -> Setup {
    let mut setup = settings(BURST, enforce).on(INTERFACE, Mode::Native);
    setup.class().connection_rate = RATE;
    setup
}

fn library(inside: &Namespace, enforce: bool) -> State {
    inside.run(|| State::Library {
        xdp: Box::new(settings_here(enforce).attach().expect("attach")),
        _listeners: addresses().map(|address| TcpListener::bind(address).expect("listen")),
    })
}

fn binary(path: &str, inside: &Namespace, enforce: bool) -> State {
    let mut command = inside.command(path);
    command.arg("run");
    for address in addresses() {
        command.arg("--listen").arg(address.to_string());
    }
    // Nothing is ever sent upstream.
    command.args(["--upstream", "127.0.0.1:9", "--admin", ADMIN, "--access-log", "off"]);
    command.args(["--xdp-interface", INTERFACE, "--xdp-mode", "native"]);
    command.args(["--conn-rate", &RATE.to_string(), "--conn-burst", &BURST.to_string()]);
    if enforce {
        command.arg("--xdp-enforce");
    }
    let process = Process(command.stdout(Stdio::null()).spawn().expect("start the gateway"));
    let mut running = Running { inside, state: State::Binary { process } };
    running.wait_until_ready();
    let Running { state, .. } = running;
    state
}

impl Running<'_> {
    /// Packets by the labels `verdict` and `reason`.
    pub fn counters(&self) -> HashMap<(String, String), u64> {
        match &self.state {
            State::Library { xdp, .. } => {
                let counters = xdp.counters().expect("counters");
                let labels = |count: &gateway::xdp::Count| {
                    let verdict = count.verdict;
                    (verdict.action.label().to_owned(), verdict.reason.label().to_owned())
                };
                let counts = counters.iter().flat_map(|(_, counts)| counts);
                counts.map(|count| (labels(count), count.packets)).collect()
            }
            State::Binary { .. } => parse_metrics(&self.get("/metrics").expect("/metrics")),
        }
    }

    pub fn packets(&self, verdict: &str, reason: &str) -> u64 {
        let labels = (verdict.to_owned(), reason.to_owned());
        *self.counters().get(&labels).unwrap_or_else(|| panic!("no counter {labels:?}"))
    }

    /// Ends it as an operator does.
    pub fn stop(self) {
        match self.state {
            State::Library { xdp, .. } => xdp.detach(),
            State::Binary { mut process } => {
                let process = &mut process.0;
                let pid = rustix::process::Pid::from_child(process);
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
                assert!(process.wait().expect("wait").success());
            }
        }
    }

    fn wait_until_ready(&mut self) {
        while !self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            let State::Binary { process } = &mut self.state else {
                return;
            };
            if let Some(status) = process.0.try_wait().expect("wait") {
                panic!("the gateway ended: {status}");
            }
            // There is no event to await before its socket is there.
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        self.inside.run(|| {
            let mut stream = TcpStream::connect(ADMIN)?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }
}

fn parse_metrics(text: &str) -> HashMap<(String, String), u64> {
    let label = |labels: &str, name: &str| {
        let (_, rest) = labels.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    text.lines()
        .filter_map(|line| {
            let (labels, value) =
                line.strip_prefix("gateway_xdp_packets_total{")?.split_once("} ")?;
            let key = (label(labels, "verdict")?, label(labels, "reason")?);
            Some((key, value.trim().parse().ok()?))
        })
        .collect()
}

/// A process that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process of its own that holds the program attached.
pub struct Holder(Process);

const HOLD: &str = "XDP_TEST_HOLD";

impl Holder {
    pub fn start(inside: &Namespace) -> Self {
        let mut process = inside
            .command(std::env::current_exe().expect("our own path"))
            .args(["--exact", "running::hold", "--ignored", "--nocapture"])
            .env(HOLD, INTERFACE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start ourselves");
        let output = process.stdout.as_mut().expect("stdout");
        let attached = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("attached"));
        assert!(attached, "the holder ended before it was attached");
        Self(Process(process))
    }

    /// Ends it without giving it a chance to tidy up.
    pub fn kill(self) {
        drop(self.0);
    }
}

/// Not a test: what [`Holder`] starts.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn hold() {
    if std::env::var_os(HOLD).is_some() {
        let _xdp = settings_here(true).attach().expect("attach");
        println!("attached");
        let _ = std::io::stdin().read(&mut [0]);
    }
}
