//! The client side of a measurement: one thread, many connections.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;

use crate::message::{Follower, Whole};
use crate::poll::{Interest, Poll};
use crate::wire::{Tls, Wire};

/// No answer for this long ends a run.
const PATIENCE: Duration = Duration::from_secs(10);

/// How requests follow one another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection sends its next request when the answer has come.
    Closed,
    /// Each request has a connection of its own, which the server closes.
    Fresh,
    /// So many requests a second, whatever the answers do. A request that finds no connection free
    /// waits, and its latency counts from when it was due: no coordinated omission.
    Open(f64),
}

/// What to send, where, and what must come back.
#[derive(Clone, Debug)]
pub struct Job {
    pub address: SocketAddr,
    pub request: Vec<u8>,
    pub body_bytes: usize,
    pub connections: usize,
    pub pace: Pace,
    pub tls: Option<Tls>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub requests: u64,
    pub duration: Duration,
    /// In nanoseconds.
    pub latencies: Histogram<u64>,
    /// Those that were not answered as they must be, with an example.
    pub errors: u64,
    pub error: Option<String>,
}

impl Outcome {
    fn new() -> Result<Self> {
        Ok(Self {
            requests: 0,
            duration: Duration::ZERO,
            latencies: Histogram::new(3)?,
            errors: 0,
            error: None,
        })
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.error.get_or_insert_with(|| format!("{error:#}"));
    }
}

struct Connection {
    wire: Wire,
    follower: Follower,
    /// When the request was due, and how much of it has been sent.
    begun: Option<(Instant, usize)>,
    /// What came, where the server's end is still to come.
    answer: Option<Whole>,
    waits_to_write: bool,
}

/// Connections kept between runs, so that a warm-up warms what is measured.
pub struct Load {
    job: Job,
    poll: Poll,
    connections: Vec<Connection>,
    /// Those without a request.
    free: Vec<usize>,
    room: Vec<u8>,
}

impl Load {
    pub fn new(job: Job) -> Result<Self> {
        let mut load = Self {
            poll: Poll::new()?,
            connections: Vec::new(),
            free: (0..job.connections).rev().collect(),
            room: vec![0; 256 << 10],
            job,
        };
        for token in 0..load.job.connections {
            let connection = load.connect(token)?;
            load.connections.push(connection);
        }
        Ok(load)
    }

    fn connect(&self, token: usize) -> Result<Connection> {
        let stream = TcpStream::connect(self.job.address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.poll.add(&stream, token, Interest::Read)?;
        let wire = Wire::new(stream, self.job.tls.as_ref(), token)?;
        let follower = Follower::default();
        Ok(Connection { wire, follower, begun: None, answer: None, waits_to_write: false })
    }

    /// Sends requests for `duration`, then waits for what is under way.
    pub fn run(&mut self, duration: Duration) -> Result<Outcome> {
        let mut outcome = Outcome::new()?;
        let start = Instant::now();
        let end = start + duration;
        let interval = match self.job.pace {
            Pace::Open(rate) => Some(Duration::from_secs_f64(1.0 / rate)),
            Pace::Closed | Pace::Fresh => None,
        };
        let mut due = start;
        let mut waiting = VecDeque::new();
        let mut ready = Vec::new();
        let mut last_answer = start;
        loop {
            let now = Instant::now();
            match interval {
                Some(interval) => {
                    while due <= now && due < end {
                        waiting.push_back(due);
                        due += interval;
                    }
                    while !self.free.is_empty()
                        && let Some(due) = waiting.pop_front()
                    {
                        self.begin(due, &mut outcome)?;
                    }
                }
                None if now < end => {
                    while !self.free.is_empty() {
                        self.begin(Instant::now(), &mut outcome)?;
                    }
                }
                None => {}
            }
            if now >= end && waiting.is_empty() && self.free.len() == self.job.connections {
                break;
            }
            let answered = outcome.requests + outcome.errors;
            let timeout = match interval {
                Some(_) if due < end => due.saturating_duration_since(Instant::now()),
                _ => Duration::from_millis(100),
            };
            self.poll.wait(&mut ready, Some(timeout))?;
            for &token in &ready {
                self.advance(token, &mut outcome)?;
            }
            if outcome.requests + outcome.errors > answered {
                last_answer = Instant::now();
            } else if last_answer.elapsed() > PATIENCE {
                bail!("no answer for {PATIENCE:?}");
            }
        }
        outcome.duration = start.elapsed();
        Ok(outcome)
    }

    /// Sends one request on each connection, a few at a time, and waits for the answers.
    pub fn once(&mut self) -> Result<Outcome> {
        const AT_A_TIME: usize = 64;
        let mut outcome = Outcome::new()?;
        let start = Instant::now();
        let tokens = std::mem::take(&mut self.free);
        let mut ready = Vec::new();
        for few in tokens.chunks(AT_A_TIME) {
            self.free.clear();
            for token in few {
                self.begin_on(*token, Instant::now(), &mut outcome)?;
            }
            while self.free.len() < few.len() {
                self.poll.wait(&mut ready, Some(PATIENCE))?;
                ensure!(!ready.is_empty(), "no answer for {PATIENCE:?}");
                for &token in &ready {
                    self.advance(token, &mut outcome)?;
                }
            }
        }
        self.free = tokens;
        outcome.duration = start.elapsed();
        Ok(outcome)
    }

    /// Begins a request on a free connection.
    fn begin(&mut self, due: Instant, outcome: &mut Outcome) -> Result<()> {
        match self.free.pop() {
            Some(token) => self.begin_on(token, due, outcome),
            None => Ok(()),
        }
    }

    fn begin_on(&mut self, token: usize, due: Instant, outcome: &mut Outcome) -> Result<()> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        connection.begun = Some((due, 0));
        if let Err(error) = connection.send(&self.job.request) {
            return self.replace(token, outcome, &error);
        }
        self.watch(token)
    }

    fn watch(&mut self, token: usize) -> Result<()> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        let blocked = connection.wire.wants_write(connection.is_sending(&self.job.request));
        if blocked != connection.waits_to_write {
            connection.waits_to_write = blocked;
            let interest = if blocked { Interest::Write } else { Interest::Read };
            self.poll.change(&connection.wire, token, interest)?;
        }
        Ok(())
    }

    fn advance(&mut self, token: usize, outcome: &mut Outcome) -> Result<()> {
        let fresh = self.job.pace == Pace::Fresh;
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        if connection.waits_to_write || connection.is_sending(&self.job.request) {
            if let Err(error) = connection.send(&self.job.request) {
                return self.replace(token, outcome, &error);
            }
            return self.watch(token);
        }
        match connection.receive(&mut self.room, fresh) {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => {
                if let Some((begun, _)) = connection.begun.take() {
                    let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    outcome.latencies.record(nanos)?;
                }
                outcome.requests += 1;
                let wrong = self.job.tls.as_ref().and_then(|tls| tls.complaint(&connection.wire));
                if answer != (Whole { status: 200, body_bytes: self.job.body_bytes }) {
                    outcome.requests -= 1;
                    outcome.fail(&anyhow::anyhow!("answered {answer:?}"));
                } else if let Some(complaint) = wrong {
                    outcome.requests -= 1;
                    outcome.fail(&anyhow::anyhow!(complaint));
                }
                if fresh {
                    let connection = self.connect(token)?;
                    if let Some(place) = self.connections.get_mut(token) {
                        *place = connection;
                    }
                }
                self.free.push(token);
                Ok(())
            }
            Err(error) => self.replace(token, outcome, &error),
        }
    }

    /// Puts a new connection in place of one that failed.
    fn replace(
        &mut self,
        token: usize,
        outcome: &mut Outcome,
        error: &anyhow::Error,
    ) -> Result<()> {
        outcome.fail(error);
        let connection = self.connect(token)?;
        if let Some(place) = self.connections.get_mut(token) {
            *place = connection;
        }
        self.free.push(token);
        Ok(())
    }
}

impl Connection {
    fn is_sending(&self, request: &[u8]) -> bool {
        self.begun.is_some_and(|(_, sent)| sent < request.len())
    }

    fn send(&mut self, request: &[u8]) -> Result<()> {
        let Some((_, sent)) = &mut self.begun else { return Ok(()) };
        while let Some(rest @ [_, ..]) = request.get(*sent..) {
            match self.wire.write(rest) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        match self.wire.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// An answer that has come whole; with `to_end`, only once the server has closed behind it.
    fn receive(&mut self, room: &mut [u8], to_end: bool) -> Result<Option<Whole>> {
        loop {
            match self.wire.read(room) {
                Ok(0) if self.answer.is_some() => return Ok(self.answer.take()),
                // TLS without its own end: some do that.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof && self.answer.is_some() => {
                    return Ok(self.answer.take());
                }
                Ok(0) => bail!("the server closed"),
                Ok(count) => {
                    self.answer = self.follower.take(room.get(..count).unwrap_or_default())?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if !to_end && self.answer.is_some() {
                return Ok(self.answer.take());
            }
        }
    }
}
