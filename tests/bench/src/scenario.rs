//! What is measured, and one measurement of it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustls::HandshakeKind;

use crate::load::{Job, Load, Outcome, Pace};
use crate::origin;
use crate::peer::{Named, Rig};
use crate::process::{cpu, memory};
use crate::wire::Tls;

/// Requests a second at part load, unless that is more than half of what the slowest can do.
pub const PART_LOAD: f64 = 20_000.0;

/// One row of measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// What `--scenario` calls it.
    pub name: &'static str,
    /// What it is, for a reader of the table.
    pub about: &'static str,
    target: &'static str,
    upload: usize,
    connections: usize,
    shape: Shape,
    tls: Option<Handshakes>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Closed,
    Fresh,
    PartLoad,
    Idle,
}

/// Which handshakes there are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Handshakes {
    Once,
    Full,
    Resumed,
}

const fn scenario(name: &'static str, about: &'static str, shape: Shape) -> Scenario {
    Scenario { name, about, target: "/", upload: 0, connections: 64, shape, tls: None }
}

const fn secure(scenario: Scenario, tls: Handshakes) -> Scenario {
    Scenario { tls: Some(tls), ..scenario }
}

const IDLE: Scenario = scenario("idle", "idle connections, each after one request", Shape::Idle);

/// All of them, in the order of the tables.
pub const ALL: [Scenario; 12] = [
    scenario("keep-alive", "GET, 13 bytes, 64 connections kept open", Shape::Closed),
    scenario("new-connection", "GET, 13 bytes, a connection for each request", Shape::Fresh),
    Scenario { target: "/64k", ..scenario("64k", "GET, 64 KiB, kept open", Shape::Closed) },
    Scenario {
        target: "/1m",
        connections: 16,
        ..scenario("1m", "GET, 1 MiB, 16 connections kept open", Shape::Closed)
    },
    Scenario { upload: 16 << 10, ..scenario("post-16k", "POST, 16 KiB, kept open", Shape::Closed) },
    secure(
        scenario("tls-keep-alive", "GET, 13 bytes, TLS 1.3, kept open", Shape::Closed),
        Handshakes::Once,
    ),
    Scenario {
        target: "/64k",
        ..secure(scenario("tls-64k", "GET, 64 KiB, TLS 1.3", Shape::Closed), Handshakes::Once)
    },
    secure(
        scenario("tls-handshake", "GET, 13 bytes, a full handshake for each", Shape::Fresh),
        Handshakes::Full,
    ),
    secure(
        scenario("tls-resumed", "GET, 13 bytes, a resumed handshake for each", Shape::Fresh),
        Handshakes::Resumed,
    ),
    scenario("part-load", "GET, 13 bytes, at a fixed rate", Shape::PartLoad),
    Scenario { connections: 10_000, ..IDLE },
    Scenario {
        name: "tls-idle",
        about: "idle TLS connections, each after one request",
        connections: 10_000,
        ..secure(IDLE, Handshakes::Once)
    },
];

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub warm_up: Duration,
    pub measure: Duration,
}

/// What one measurement of one proxy gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub requests_per_second: f64,
    /// Processor time for each request, in microseconds; none without a proxy.
    pub cpu: Option<(f64, f64)>,
    /// Which share of its core the proxy was busy.
    pub busy: f64,
    /// Median, 99th and 99.9th percentile, in microseconds.
    pub latency: [f64; 3],
    /// Memory for each idle connection, in bytes.
    pub idle_bytes: Option<f64>,
    pub errors: u64,
    pub error: Option<String>,
}

impl Scenario {
    /// Whether it is about memory.
    pub fn is_idle(&self) -> bool {
        self.shape == Shape::Idle
    }

    /// Whether it says nothing without a proxy.
    pub fn needs_proxy(&self) -> bool {
        self.is_idle() || self.tls.is_some()
    }

    /// How much of it there is, where that depends on the machine.
    pub fn remark(&self, rate: f64, rig: &Rig) -> Option<String> {
        match self.shape {
            Shape::Closed | Shape::Fresh => None,
            Shape::PartLoad => Some(format!("{rate:.0} requests/s")),
            Shape::Idle => Some(format!("{} of them", self.held(rig))),
        }
    }

    fn held(&self, rig: &Rig) -> usize {
        self.connections.min(rig.connections_max.saturating_sub(200))
    }

    /// Whether requests come at a fixed rate.
    pub fn is_part_load(&self) -> bool {
        self.shape == Shape::PartLoad
    }

    fn job(&self, address: SocketAddr, rate: f64) -> Result<Job> {
        let pace = match self.shape {
            Shape::Closed | Shape::Idle => Pace::Closed,
            Shape::Fresh => Pace::Fresh,
            Shape::PartLoad => Pace::Open(rate),
        };
        let method = if self.upload > 0 { "POST" } else { "GET" };
        let mut request = format!("{method} {} HTTP/1.1\r\nHost: bench.example\r\n", self.target);
        request += "User-Agent: bench\r\nAccept: */*\r\n";
        if pace == Pace::Fresh {
            request += "Connection: close\r\n";
        }
        if self.upload > 0 {
            request += &format!("Content-Length: {}\r\n", self.upload);
        }
        let mut request = format!("{request}\r\n").into_bytes();
        request.extend(origin::pattern(self.upload));
        let body_bytes = origin::body(self.target).len();
        let tls = self.tls.map(|handshakes| {
            Tls::new(match handshakes {
                Handshakes::Once => None,
                Handshakes::Full => Some(HandshakeKind::Full),
                Handshakes::Resumed => Some(HandshakeKind::Resumed),
            })
        });
        let tls = tls.transpose()?;
        Ok(Job { address, request, body_bytes, connections: self.connections, pace, tls })
    }

    /// Starts the proxy, checks an answer to the byte, warms up, measures and ends it.
    pub fn measure(&self, proxy: &Named, rig: &Rig, rate: f64, times: Times) -> Result<Sample> {
        let running = proxy.start(rig, self.tls.is_some())?;
        let job = Job { connections: self.held(rig), ..self.job(running.address, rate)? };
        let (status, body) = origin::fetch(running.address, job.tls.as_ref(), &job.request)?;
        ensure!(status == 200, "{} answers {status}", proxy.name);
        ensure!(body == origin::body(self.target), "{} changes the body", proxy.name);
        if self.shape == Shape::Idle {
            return self.hold(job, running.pid());
        }
        let mut load = Load::new(job)?;
        load.run(times.warm_up)?;
        let before = running.pid().map(cpu).transpose()?;
        let outcome = load.run(times.measure)?;
        let after = running.pid().map(cpu).transpose()?;
        let used = after.zip(before).map(|(after, before)| after - before);
        let mut sample = Sample::of(&outcome);
        let requests = outcome.requests.max(1) as f64;
        sample.cpu = used.map(|used| (used.user / requests, used.system / requests));
        let wall = outcome.duration.as_secs_f64() * 1e6;
        sample.busy = used.map_or(0.0, |used| used.total() / wall);
        Ok(sample)
    }

    /// Memory of connections that have served one request and wait for the next.
    fn hold(&self, job: Job, pid: Option<u32>) -> Result<Sample> {
        let Some(pid) = pid else { return Ok(Sample::default()) };
        let before = memory(pid)?;
        let connections = job.connections;
        let mut load = Load::new(job)?;
        let outcome = load.once()?;
        // Nothing tells when a proxy has put everything away.
        thread::sleep(Duration::from_millis(500));
        let grown = memory(pid)?.saturating_sub(before);
        let mut sample = Sample::of(&outcome);
        sample.idle_bytes = Some(grown as f64 / connections as f64);
        Ok(sample)
    }
}

impl Sample {
    fn of(outcome: &Outcome) -> Self {
        let percentile = |quantile| outcome.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            requests_per_second: outcome.requests as f64 / outcome.duration.as_secs_f64(),
            latency: [percentile(0.5), percentile(0.99), percentile(0.999)],
            errors: outcome.errors,
            error: outcome.error.clone(),
            ..Self::default()
        }
    }

    /// What is compared: processor time for each request, or memory for each connection.
    pub fn cost(&self) -> Option<f64> {
        self.idle_bytes.or_else(|| self.cpu.map(|(user, system)| user + system))
    }
}
