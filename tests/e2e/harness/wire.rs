//! HTTP/1.1 read strictly, for both ends of a test. Written apart from the gateway's own parser,
//! so that the two do not share a mistake; what a recipient may repair is an error here.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Instant;

use super::{PATIENCE, sockets};

/// Why a message could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The peer closed before the first byte of a message.
    Closed,
    /// The peer closed inside a message, of which these body bytes had arrived.
    Cut(Vec<u8>),
    /// The peer reset the connection.
    Reset,
    /// Nothing came for as long as a test is willing to wait.
    Silent,
    /// This is not HTTP/1.1.
    Grammar(String),
}

/// Fields of a head or trailer section, in order, with octets above 0x7f as the same char.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The value of the only field of that name.
    #[track_caller]
    pub fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "more than one {name}: {self:?}");
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|(_, value)| value.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Exactly(usize),
    Chunked,
    UntilClose,
}

/// A start line and fields.
pub struct Head {
    pub line: String,
    pub fields: Fields,
}

/// A stream and what was read from it but belongs to the next message.
pub struct Reader {
    pub stream: TcpStream,
    unread: Vec<u8>,
    at: usize,
    /// Every byte ever read.
    pub total: usize,
}

impl Reader {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new(), at: 0, total: 0 }
    }

    /// Reads a start line and its fields.
    pub fn head(&mut self) -> Result<Head, Broken> {
        let line = match self.line() {
            Err(Broken::Cut(_)) if self.at == self.unread.len() => return Err(Broken::Closed),
            other => other?,
        };
        Ok(Head { line, fields: self.fields()? })
    }

    fn fields(&mut self) -> Result<Fields, Broken> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Fields(fields));
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| grammar("field without a colon", &line))?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(grammar("field name", &line));
            }
            if value.bytes().any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f) {
                return Err(grammar("control character in a field", &line));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// Reads a body of that length; with chunked framing, also its trailers.
    pub fn body(&mut self, length: Length) -> Result<(Vec<u8>, Fields), Broken> {
        let mut body = Vec::new();
        let outcome = match length {
            Length::Exactly(bytes) => self.take(bytes, &mut body).map(|()| Fields::default()),
            Length::Chunked => self.chunks(&mut body),
            Length::UntilClose => self.rest(&mut body).map(|()| Fields::default()),
        };
        match outcome {
            Ok(trailers) => Ok((body, trailers)),
            Err(Broken::Cut(_)) => Err(Broken::Cut(body)),
            Err(other) => Err(other),
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<Fields, Broken> {
        loop {
            let line = self.line()?;
            let digits = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !digits || line.len() > 15 {
                return Err(grammar("chunk size", &line));
            }
            let size = usize::from_str_radix(&line, 16).unwrap();
            if size == 0 {
                return self.fields();
            }
            self.take(size, body)?;
            if !self.line()?.is_empty() {
                return Err(grammar("end of chunk", &line));
            }
        }
    }

    /// Moves exactly `bytes` bytes into `body`.
    fn take(&mut self, mut bytes: usize, body: &mut Vec<u8>) -> Result<(), Broken> {
        while bytes > 0 {
            if self.at == self.unread.len() {
                self.fill()?;
            }
            let part = bytes.min(self.unread.len() - self.at);
            body.extend_from_slice(&self.unread[self.at..self.at + part]);
            self.at += part;
            bytes -= part;
        }
        Ok(())
    }

    fn rest(&mut self, body: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            body.extend_from_slice(&self.unread[self.at..]);
            self.at = self.unread.len();
            match self.fill() {
                Ok(()) => {}
                Err(Broken::Cut(_)) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
    }

    /// A line without its CRLF. A CR or LF by itself is an error.
    fn line(&mut self) -> Result<String, Broken> {
        loop {
            let unread = &self.unread[self.at..];
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: String = unread[..end].iter().map(|byte| char::from(*byte)).collect();
                self.at += end + 1;
                return match line.strip_suffix('\r') {
                    Some(line) if !line.contains('\r') => Ok(line.to_owned()),
                    _ => Err(grammar("line end", &line)),
                };
            }
            self.fill()?;
        }
    }

    /// Reads more; the peer's end is [`Broken::Cut`], to be named better by the caller.
    pub fn fill(&mut self) -> Result<(), Broken> {
        if self.at == self.unread.len() {
            self.unread.clear();
            self.at = 0;
        }
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Broken::Cut(Vec::new())),
            Ok(read) => {
                self.total += read;
                self.unread.extend_from_slice(&buffer[..read]);
                Ok(())
            }
            Err(error) => Err(broken(error.kind())),
        }
    }
}

/// What a failed read or write means for a test.
pub fn broken(kind: ErrorKind) -> Broken {
    match kind {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::Silent,
        _ => Broken::Reset,
    }
}

pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn grammar(what: &str, line: &str) -> Broken {
    Broken::Grammar(format!("{what}: {line:?}"))
}

/// The framing that fields announce; none at all is `None`.
pub fn announced(fields: &Fields) -> Result<Option<Length>, Broken> {
    let lengths = fields.all("content-length");
    let codings = fields.all("transfer-encoding");
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(None),
        ([], ["chunked"]) => Ok(Some(Length::Chunked)),
        ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => length
            .parse()
            .map(|length| Some(Length::Exactly(length)))
            .map_err(|_| grammar("content-length", length)),
        _ => Err(Broken::Grammar(format!("framing: {fields:?}"))),
    }
}

/// Waits until the other end has read every byte sent on `stream`, so that what is sent next is a read of its own.
pub fn wait_until_read(stream: &TcpStream) {
    let is_read = sockets::wait_until_read(stream, Instant::now() + PATIENCE);
    assert!(is_read, "still waiting for the other end to read what was sent");
}
