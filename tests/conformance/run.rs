//! Runs one case against one proxy and says what was wrong with the outcome.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::case::{Answer, Case, Connection};
use crate::origin::{Origin, PROBE, PROBE_BODY, Record, find};
use crate::sockets::wait_until_read;

/// How the bytes of a request are spread over reads of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    Whole,
    Single,
    CutAt(usize),
}

/// What the client got.
#[derive(Debug, Default)]
pub struct Outcome {
    pub statuses: Vec<Option<u16>>,
    pub raw: Vec<u8>,
    pub body: Vec<u8>,
    pub cut: bool,
    pub connection: Option<Connection>,
    /// What kept it from going on.
    pub broken: Option<String>,
}

/// A connection, its deadline, and what has been read and not used.
struct Client {
    stream: TcpStream,
    until: Instant,
    raw: Vec<u8>,
    at: usize,
}

enum End {
    Closed,
    Silent,
}

/// Runs a case; the problems with it, none if it went as it has to.
pub fn run(
    case: &Case,
    proxy: SocketAddr,
    origin: &Origin,
    pieces: Pieces,
    strict: bool,
    patience: Duration,
) -> (Outcome, Vec<String>) {
    origin.prepare(case);
    let outcome = act(case, proxy, pieces, patience);
    // Whatever the proxy still had to tell the origin came before this.
    settle(proxy, patience);
    origin.settle(Instant::now() + patience);
    let record = origin.record();
    let problems = judge(case, &outcome, &record, strict);
    (outcome, problems)
}

fn act(case: &Case, proxy: SocketAddr, pieces: Pieces, patience: Duration) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok(stream) = TcpStream::connect_timeout(&proxy, patience) else {
        outcome.broken = Some("no connection".to_owned());
        return outcome;
    };
    stream.set_nodelay(true).unwrap();
    // A reset at the end leaves no TIME_WAIT behind.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    let mut client = Client { stream, until: Instant::now() + patience, raw: Vec::new(), at: 0 };
    client.send(&case.request, pieces);
    if case.half_close {
        let _ = client.stream.shutdown(Shutdown::Write);
    }
    let is_head = case.request.starts_with(b"HEAD ");
    for _ in &case.answers {
        match client.answer(is_head, &mut outcome) {
            Ok(()) => {}
            Err(End::Closed) => {
                outcome.statuses.push(None);
                outcome.connection = Some(Connection::Closes);
                break;
            }
            Err(End::Silent) => {
                outcome.broken = Some("no answer in time".to_owned());
                break;
            }
        }
    }
    if outcome.broken.is_none() && outcome.connection.is_none() && case.connection.is_some() {
        client.look_at_connection(case, &mut outcome);
    }
    outcome.raw = client.raw;
    outcome
}

impl Client {
    fn send(&mut self, bytes: &[u8], pieces: Pieces) {
        let parts: Vec<&[u8]> = match pieces {
            Pieces::Whole => vec![bytes],
            Pieces::Single => bytes.chunks(1).collect(),
            Pieces::CutAt(at) => vec![&bytes[..at], &bytes[at..]],
        };
        let last = parts.len() - 1;
        for (index, part) in parts.into_iter().enumerate() {
            // It may have answered and closed already.
            if self.stream.write_all(part).is_err() {
                return;
            }
            if index < last {
                wait_until_read(&self.stream, self.until);
            }
        }
    }

    fn fill(&mut self) -> Result<(), End> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(End::Silent);
        }
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(End::Closed),
            Ok(count) => {
                self.raw.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(End::Silent),
            Err(_) => Err(End::Closed),
        }
    }

    fn until(&mut self, part: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            if let Some(end) = find(&self.raw[self.at..], part) {
                let from = self.at;
                self.at += end + part.len();
                return Ok(self.raw[from..self.at].to_vec());
            }
            self.fill()?;
        }
    }

    /// Reads one final answer, and the interim ones before it.
    fn answer(&mut self, is_head: bool, outcome: &mut Outcome) -> Result<(), End> {
        loop {
            let head = self.until(b"\r\n\r\n")?;
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let status: u16 = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            outcome.statuses.push(Some(status));
            outcome.cut = false;
            let before = self.at;
            let read = match is_head || matches!(status, 101 | 204 | 304) {
                true => Ok(Vec::new()),
                false => self.body(&head),
            };
            match read {
                Ok(body) => outcome.body = body,
                Err(End::Closed) => {
                    outcome.body = self.raw[before..].to_vec();
                    outcome.cut = true;
                    outcome.connection = Some(Connection::Closes);
                }
                Err(End::Silent) => return Err(End::Silent),
            }
            return Ok(());
        }
    }

    fn body(&mut self, head: &str) -> Result<Vec<u8>, End> {
        let field = |name: &str| {
            let line = head.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        if field("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let line = self.until(b"\r\n")?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let digits = line.split(';').next().unwrap_or_default().trim();
                let Ok(size) = usize::from_str_radix(digits, 16) else { return Err(End::Closed) };
                if size == 0 {
                    while self.until(b"\r\n")? != b"\r\n" {}
                    return Ok(body);
                }
                body.extend(self.take(size)?);
                self.take(2)?;
            }
        }
        match field("content-length") {
            Some(length) => self.take(length.parse().unwrap_or(0)),
            None => loop {
                match self.fill() {
                    Ok(()) => {}
                    Err(End::Closed) => {
                        let from = std::mem::replace(&mut self.at, self.raw.len());
                        return Ok(self.raw[from..].to_vec());
                    }
                    Err(End::Silent) => return Err(End::Silent),
                }
            },
        }
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.raw.len() - self.at < count {
            self.fill()?;
        }
        let from = self.at;
        self.at += count;
        Ok(self.raw[from..self.at].to_vec())
    }

    /// Whether the connection serves another request, or ends, without a byte nobody asked for.
    fn look_at_connection(&mut self, case: &Case, outcome: &mut Outcome) {
        if case.connection == Some(Connection::Stays) {
            let _ = self.stream.write_all(PROBE);
            let mut probe = Outcome::default();
            let own = self.raw.len();
            let answered = self.answer(false, &mut probe).is_ok();
            let right = answered && probe.body == PROBE_BODY.as_bytes();
            outcome.connection = Some(if right { Connection::Stays } else { Connection::Closes });
            if right {
                self.raw.truncate(own);
            }
            if answered && !right {
                outcome.broken = Some("the next request got another's answer".to_owned());
            }
            return;
        }
        match self.fill() {
            Err(End::Closed) if self.raw.len() == self.at => {
                outcome.connection = Some(Connection::Closes);
            }
            Ok(()) | Err(End::Closed) => {
                outcome.broken = Some("bytes behind the last answer".to_owned());
            }
            Err(End::Silent) => outcome.connection = Some(Connection::Stays),
        }
    }
}

fn settle(proxy: SocketAddr, patience: Duration) {
    let Ok(stream) = TcpStream::connect_timeout(&proxy, patience) else { return };
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    let mut client = Client { stream, until: Instant::now() + patience, raw: Vec::new(), at: 0 };
    let _ = client.stream.write_all(PROBE);
    let _ = client.answer(false, &mut Outcome::default());
}

fn judge(case: &Case, outcome: &Outcome, record: &Record, strict: bool) -> Vec<String> {
    let mut problems: Vec<String> = outcome.broken.iter().cloned().collect();
    let expected = if strict { &case.ours } else { &case.answers };
    let fits = |(allowed, status): (&Vec<Answer>, &Option<u16>)| {
        allowed.iter().any(|answer| answer.allows(*status))
    };
    if expected.len() != outcome.statuses.len() || !expected.iter().zip(&outcome.statuses).all(fits)
    {
        problems.push(format!("answers {:?}, not {expected:?}", outcome.statuses));
    }
    if case.connection.is_some()
        && outcome.broken.is_none()
        && case.connection != outcome.connection
    {
        problems.push(format!("the connection {:?}", outcome.connection));
    }
    if case.body.as_ref().is_some_and(|body| *body != outcome.body) {
        problems.push(format!("the body is {:?}", String::from_utf8_lossy(&outcome.body)));
    }
    if case.cut && !outcome.cut && outcome.statuses.last() == Some(&Some(200)) {
        problems.push("the body looks whole".to_owned());
    }
    let origin = [&record.bytes[..], &record.bodies].concat();
    for (side, seen, bytes) in
        [("origin", &case.origin, &origin), ("client", &case.client, &outcome.raw)]
    {
        let has =
            |part: &[u8]| find(&bytes.to_ascii_lowercase(), &part.to_ascii_lowercase()).is_some();
        let shown = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        for part in seen.has.iter().filter(|part| !has(part)) {
            problems.push(format!("the {side} did not get {:?}", shown(part)));
        }
        for part in seen.lacks.iter().filter(|part| has(part)) {
            problems.push(format!("the {side} got {:?}", shown(part)));
        }
        if seen.nothing && !bytes.is_empty() {
            problems.push(format!("the {side} got something"));
        }
    }
    if case.origin.requests.is_some_and(|requests| requests != record.heads) {
        problems.push(format!("the origin got {} requests", record.heads));
    }
    if case.origin.complete.is_some_and(|complete| complete != (record.complete > 0)) {
        problems.push(format!("the origin got {} whole requests", record.complete));
    }
    if !problems.is_empty() {
        problems.push(format!("client got:   {:?}", String::from_utf8_lossy(&outcome.raw)));
        problems.push(format!("origin got:   {:?}", String::from_utf8_lossy(&record.bytes)));
    }
    problems
}
