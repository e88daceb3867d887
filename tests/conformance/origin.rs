//! The origin of a case: answers what it is told to and keeps every byte it was sent.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::case::{After, Case};

/// Asked for after a case, to see that both connections are still in step.
pub const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n";
pub const PROBE_BODY: &str = "this is the probe";

/// recv(2).
const MSG_PEEK: i32 = 0x02;
const MSG_DONTWAIT: i32 = 0x40;

pub struct Origin {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    response: Option<Vec<u8>>,
    early: bool,
    after: Option<After>,
    record: Record,
    /// Connections accepted so far.
    accepted: usize,
    /// Those that are open, and whether each waits for something to read.
    open: Vec<Open>,
}

struct Open {
    number: usize,
    socket: TcpStream,
    waits: bool,
}

/// What arrived during one case, the probe left out.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub bytes: Vec<u8>,
    /// Chunked bodies once more, decoded.
    pub bodies: Vec<u8>,
    pub heads: usize,
    pub complete: usize,
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, state) = (stream.unwrap(), Arc::clone(&shared));
                let number = enter(&state, &stream);
                thread::spawn(move || {
                    drop(serve(&mut stream, number, &state));
                    state.lock().unwrap().open.retain(|open| open.number != number);
                });
            }
        });
        Self { address, state }
    }

    pub fn prepare(&self, case: &Case) {
        let mut state = self.state.lock().unwrap();
        state.response.clone_from(&case.response);
        (state.early, state.after) = (case.early, Some(case.after));
        state.record = Record::default();
    }

    /// Returns once all that has been sent here has been read: what a busy machine leaves lying would
    /// count as the next case's.
    pub fn settle(&self, until: Instant) {
        // Connections are accepted in the order they were made.
        let Ok(last) = TcpStream::connect(self.address) else { return };
        let own = last.local_addr().ok();
        let is_accepted =
            |state: &State| state.open.iter().any(|open| open.socket.peer_addr().ok() == own);
        let is_quiet =
            |open: &Open| open.waits && peek(&open.socket) == Some(ErrorKind::WouldBlock);
        while Instant::now() < until {
            let state = self.state.lock().unwrap();
            if is_accepted(&state) && state.open.iter().all(is_quiet) {
                return;
            }
            drop(state);
            thread::yield_now();
        }
    }

    pub fn record(&self) -> Record {
        self.state.lock().unwrap().record.clone()
    }
}

/// Takes a connection down.
fn enter(state: &Mutex<State>, stream: &TcpStream) -> usize {
    let mut state = state.lock().unwrap();
    let number = state.accepted;
    state.accepted += 1;
    let socket = stream.try_clone().unwrap();
    state.open.push(Open { number, socket, waits: false });
    number
}

/// Why there is nothing to read; `None` if there is, be it the end.
fn peek(socket: &TcpStream) -> Option<ErrorKind> {
    let mut byte = [MaybeUninit::uninit()];
    let flags = MSG_PEEK | MSG_DONTWAIT;
    SockRef::from(socket).recv_with_flags(&mut byte, flags).err().map(|error| error.kind())
}

fn serve(stream: &mut TcpStream, number: usize, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    loop {
        let head_len = loop {
            if let Some(at) = find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
            if !fill(stream, number, state, &mut bytes)? {
                let mut state = state.lock().unwrap();
                state.record.bytes.extend_from_slice(&bytes);
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..head_len]).to_lowercase();
        let probe = head.contains(" /probe ");
        let (response, early, after) = {
            let mut state = state.lock().unwrap();
            if !probe {
                state.record.heads += 1;
            }
            (state.response.clone(), state.early, state.after.unwrap_or(After::Keep))
        };
        if probe {
            bytes.drain(..head_len);
            let length = PROBE_BODY.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{PROBE_BODY}")?;
            continue;
        }
        let response = response.unwrap_or_else(|| {
            let body = if head.starts_with("head ") { "" } else { "hello" };
            format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}").into_bytes()
        });
        let continues = head.contains("\nexpect:") && response.starts_with(b"HTTP/1.1 100");
        if early || continues {
            note(state, &mut bytes, head_len);
            let (first, rest) = match find(&response, b"\r\n\r\n").filter(|_| continues) {
                Some(end) => response.split_at(end + 4),
                None => (&response[..], &[][..]),
            };
            stream.write_all(first)?;
            body(stream, number, &head, &mut bytes, state)?;
            stream.write_all(rest)?;
        } else {
            note(state, &mut bytes, head_len);
            body(stream, number, &head, &mut bytes, state)?;
            stream.write_all(&response)?;
        }
        match after {
            After::Keep => {}
            After::Close => return Ok(()),
            After::Reset => {
                return SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// Moves what has been dealt with into the record.
fn note(state: &Mutex<State>, bytes: &mut Vec<u8>, count: usize) {
    state.lock().unwrap().record.bytes.extend(bytes.drain(..count));
}

/// Reads a body as its head frames it. What breaks the framing is taken down like everything else.
fn body(
    stream: &mut TcpStream,
    number: usize,
    head: &str,
    bytes: &mut Vec<u8>,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let field = |name: &str| {
        let line = head.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let chunked = field("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let wanted = if chunked {
        loop {
            if bytes.starts_with(b"0\r\n\r\n") {
                break 5;
            }
            if let Some(at) = find(bytes, b"\r\n0\r\n")
                && let Some(end) = find(&bytes[at..], b"\r\n\r\n")
            {
                break at + end + 4;
            }
            if !fill(stream, number, state, bytes)? {
                let all = bytes.len();
                note(state, bytes, all);
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    } else {
        let length = field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        while bytes.len() < length {
            if !fill(stream, number, state, bytes)? {
                let all = bytes.len();
                note(state, bytes, all);
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        length
    };
    if chunked {
        state.lock().unwrap().record.bodies.extend(decoded(&bytes[..wanted]));
    }
    note(state, bytes, wanted);
    state.lock().unwrap().record.complete += 1;
    Ok(())
}

/// The data of chunks, as far as they can be made out.
fn decoded(mut coded: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = find(coded, b"\r\n") {
        let size = String::from_utf8_lossy(&coded[..end]).into_owned();
        let Ok(size @ 1..) = usize::from_str_radix(&size, 16) else { break };
        let Some(data) = coded.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(data);
        coded = coded.get(end + 4 + size..).unwrap_or_default();
    }
    body
}

fn fill(
    stream: &mut TcpStream,
    number: usize,
    state: &Mutex<State>,
    bytes: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    let waits = |waits| {
        let mut state = state.lock().unwrap();
        let own = state.open.iter_mut().find(|open| open.number == number);
        own.unwrap().waits = waits;
    };
    waits(true);
    let read = stream.read(&mut buffer);
    waits(false);
    let count = read?;
    bytes.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}

pub fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
