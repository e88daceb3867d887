//! What stands behind every proxy: a thread that answers from memory and costs as little as it can.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

use crate::message;
use crate::poll::{Interest, Poll};
use crate::wire::{Tls, Wire};

/// What `GET /` says.
pub const SMALL: &[u8] = b"hello, world\n";

/// The body of a target's answer; a POST is answered with [`SMALL`], too.
pub fn body(target: &str) -> Vec<u8> {
    match target {
        "/64k" => pattern(64 << 10),
        "/1m" => pattern(1 << 20),
        _ => SMALL.to_vec(),
    }
}

/// Bytes no two neighbours of which are the same.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// Starts an origin on a port of its own; it ends with the process.
pub fn start() -> Result<SocketAddr> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    thread::Builder::new().name("origin".to_owned()).spawn(move || {
        if let Err(error) = serve(&listener) {
            eprintln!("bench: the origin died: {error:#}");
            std::process::exit(1);
        }
    })?;
    Ok(address)
}

struct Connection {
    stream: TcpStream,
    /// What has come of a request.
    request: Vec<u8>,
    /// Bytes of its body still to come.
    body: Option<usize>,
    /// Which answer is being sent, and how much of it has been.
    sending: Option<(&'static str, usize)>,
    /// Whether the end comes behind it.
    closes: bool,
}

const LISTENER: usize = usize::MAX;
const TARGETS: [&str; 3] = ["/", "/64k", "/1m"];

fn serve(listener: &TcpListener) -> Result<()> {
    let answers: HashMap<&str, Vec<u8>> =
        TARGETS.iter().map(|target| (*target, answer(&body(target)))).collect();
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, Interest::Read)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut ready = Vec::new();
    let mut room = vec![0; 64 << 10];
    loop {
        poll.wait(&mut ready, None)?;
        for &token in &ready {
            if token == LISTENER {
                let Ok((stream, _)) = listener.accept() else { continue };
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let token = free.pop().unwrap_or(connections.len());
                poll.add(&stream, token, Interest::Read)?;
                let new = Some(Connection::new(stream));
                match connections.get_mut(token) {
                    Some(place) => *place = new,
                    None => connections.push(new),
                }
                continue;
            }
            let Some(place) = connections.get_mut(token) else { continue };
            let Some(connection) = place else { continue };
            let was_blocked = connection.sending.is_some();
            if connection.advance(&answers, &mut room).is_err() {
                *place = None;
                free.push(token);
                continue;
            }
            let is_blocked = connection.sending.is_some();
            if was_blocked != is_blocked {
                let interest = if is_blocked { Interest::Write } else { Interest::Read };
                poll.change(&connection.stream, token, interest)?;
            }
        }
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    answer.extend_from_slice(body);
    answer
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, request: Vec::new(), body: None, sending: None, closes: false }
    }

    /// Goes on as far as it can; an error ends the connection.
    fn advance(&mut self, answers: &HashMap<&str, Vec<u8>>, room: &mut [u8]) -> io::Result<()> {
        if self.sending.is_none() {
            let count = match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                result => result?,
            };
            self.sending = self.take(room.get(..count).unwrap_or_default());
        }
        let Some((target, sent)) = &mut self.sending else { return Ok(()) };
        let answer = answers.get(*target).map_or(&[][..], Vec::as_slice);
        while let Some(rest @ [_, ..]) = answer.get(*sent..) {
            match self.stream.write(rest) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.sending = None;
        if self.closes { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Takes bytes of a request; what to answer once it is whole. Nobody pipelines here.
    fn take(&mut self, bytes: &[u8]) -> Option<(&'static str, usize)> {
        let left = match self.body {
            Some(left) => left.saturating_sub(bytes.len()),
            None => {
                self.request.extend_from_slice(bytes);
                let end = message::head_end(&self.request)?;
                let head = self.request.get(..end)?;
                self.closes = message::closes(head);
                let length = message::content_length(head).unwrap_or(0);
                (end + length).saturating_sub(self.request.len())
            }
        };
        self.body = Some(left);
        if left > 0 {
            return None;
        }
        let wanted = message::target(&self.request).unwrap_or_default();
        let target = TARGETS.into_iter().find(|target| *target == wanted).unwrap_or("/");
        self.request.clear();
        self.body = None;
        Some((target, 0))
    }
}

/// Asks an address for a target and returns the body, for the check before anything is measured.
pub fn fetch(address: SocketAddr, tls: Option<&Tls>, request: &[u8]) -> Result<(u16, Vec<u8>)> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let mut wire = Wire::new(stream, tls, 0)?;
    wire.write_all(request)?;
    wire.flush()?;
    message::read_response(&mut wire).context("no answer to the check")
}
