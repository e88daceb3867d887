//! An origin server made of a closure. It remembers what it was sent.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::wire::{Broken, Fields, Length, Reader, announced, broken, is_token, wait_until_read};
use super::{PATIENCE, checksum, chunked, closed_port, pattern};

/// What an origin was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    /// Its body, once a handler has read it whole.
    pub body: Option<Vec<u8>>,
    pub trailers: Fields,
}

impl Request {
    #[track_caller]
    pub fn field(&self, name: &str) -> &str {
        self.fields.one(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.fields))
    }
}

/// What an origin has seen so far.
#[derive(Default)]
pub struct Seen {
    /// Connections accepted.
    pub connections: usize,
    /// Connections that have ended.
    pub ended: usize,
    /// Requests whose head arrived whole, in that order.
    pub requests: Vec<Request>,
    /// Heads and bodies that broke off or were not HTTP.
    pub broken: Vec<Broken>,
}

type Handler = dyn Fn(&mut Exchange) -> Result<After, Broken> + Send + Sync;
type Shared = Arc<(Mutex<Seen>, Condvar)>;

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Keep,
    Close,
    Reset,
}

pub struct Origin {
    pub address: SocketAddr,
    shared: Shared,
}

impl Origin {
    /// Runs `handler` for each request, a thread per connection, until the test's process ends.
    pub fn start(
        handler: impl Fn(&mut Exchange) -> Result<After, Broken> + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(closed_port().1, handler)
    }

    /// The same where nobody has listened so far.
    pub fn start_on(
        bound: socket2::Socket,
        handler: impl Fn(&mut Exchange) -> Result<After, Broken> + Send + Sync + 'static,
    ) -> Self {
        bound.listen(128).unwrap();
        let listener = TcpListener::from(bound);
        let address = listener.local_addr().unwrap();
        let shared = Shared::default();
        let (handler, at_accept): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&shared));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, shared) = (Arc::clone(&handler), Arc::clone(&at_accept));
                note(&shared, |seen| seen.connections += 1);
                thread::spawn(move || {
                    serve(stream.unwrap(), &*handler, &shared);
                    note(&shared, |seen| seen.ended += 1);
                });
            }
        });
        Self { address, shared }
    }

    /// Answers every request with these bytes, then does as `after` says.
    pub fn scripted(bytes: impl AsRef<[u8]>, after: After) -> Self {
        let bytes = bytes.as_ref().to_vec();
        Self::start(move |exchange| {
            exchange.body()?;
            exchange.send(&bytes)?;
            Ok(after)
        })
    }

    /// Answers every request with this text.
    pub fn saying(text: &str) -> Self {
        Self::saying_on(closed_port().1, text)
    }

    /// The same where nobody has listened so far.
    pub fn saying_on(bound: socket2::Socket, text: &str) -> Self {
        let length = text.len();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}");
        Self::start_on(bound, move |exchange| {
            exchange.body()?;
            exchange.answer(&response)
        })
    }

    /// Answers with the request's body, or for `/bytes/N` with N bytes of the pattern; chunked if
    /// the target ends in `?chunked`. `X-Received` is the checksum of what came.
    pub fn echo() -> Self {
        Self::start(|exchange| {
            let received = exchange.body()?;
            let target = exchange.request.target.clone();
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let body = match path.strip_prefix("/bytes/") {
                Some(length) => pattern(length.parse().unwrap()),
                None => &received,
            };
            let (framing, body) = match query {
                "chunked" => ("Transfer-Encoding: chunked".to_owned(), chunked(body)),
                _ => (format!("Content-Length: {}", body.len()), body.to_vec()),
            };
            let sum = checksum(&received);
            exchange.send(format!("HTTP/1.1 200 OK\r\nX-Received: {sum}\r\n{framing}\r\n\r\n"))?;
            match exchange.request.method.as_str() {
                "HEAD" => Ok(After::Keep),
                _ => exchange.answer(body),
            }
        })
    }

    /// Waits until what was seen passes `test`.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut test: impl FnMut(&Seen) -> bool) {
        let seen = self.shared.0.lock().unwrap();
        let waited = self.shared.1.wait_timeout_while(seen, PATIENCE, |seen| !test(seen));
        let late = waited.unwrap().1.timed_out();
        assert!(!late, "the origin never saw: {what}");
    }

    /// Connections accepted that have not ended.
    pub fn open_connections(&self) -> usize {
        let seen = self.shared.0.lock().unwrap();
        seen.connections - seen.ended
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.0.lock().unwrap().requests.clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }

    /// Targets of the requests so far.
    pub fn targets(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.target).collect()
    }

    /// Requests of which the body arrived whole, too.
    pub fn completed(&self) -> usize {
        self.requests().iter().filter(|request| request.body.is_some()).count()
    }

    pub fn connections(&self) -> usize {
        self.shared.0.lock().unwrap().connections
    }
}

/// One request at an origin, and its connection.
pub struct Exchange<'a> {
    pub request: Request,
    /// How many requests came before it on this connection.
    pub nth: usize,
    reader: &'a mut Reader,
    shared: &'a Shared,
    /// Position in [`Seen::requests`].
    index: usize,
}

impl Exchange<'_> {
    /// Reads the body to its end; at once if it has been read.
    pub fn body(&mut self) -> Result<Vec<u8>, Broken> {
        if let Some(body) = &self.request.body {
            return Ok(body.clone());
        }
        let length = announced(&self.request.fields)?.unwrap_or(Length::Exactly(0));
        let (body, trailers) = self.reader.body(length)?;
        self.request.body = Some(body.clone());
        self.request.trailers = trailers;
        let (index, request) = (self.index, &self.request);
        note(self.shared, |seen| seen.requests[index] = request.clone());
        Ok(body)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Broken> {
        let sent = self.reader.stream.write_all(bytes.as_ref());
        sent.map_err(|error| broken(error.kind()))
    }

    /// Sends, and returns once the gateway has read it.
    pub fn send_alone(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Broken> {
        self.send(bytes)?;
        wait_until_read(&self.reader.stream);
        Ok(())
    }

    /// Reads exactly so many bytes, whatever they are.
    pub fn receive(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        self.reader.body(Length::Exactly(length)).map(|(bytes, _)| bytes)
    }

    /// Sends no more, still reads.
    pub fn half_close(&mut self) {
        self.reader.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The end of an answer on a connection that stays.
    pub fn answer(&mut self, bytes: impl AsRef<[u8]>) -> Result<After, Broken> {
        self.send(bytes)?;
        Ok(After::Keep)
    }

    /// Waits for the gateway to close, reading whatever still comes.
    pub fn wait_for_close(&mut self) {
        while self.reader.fill().is_ok() {}
    }
}

fn serve(stream: TcpStream, handler: &Handler, shared: &Shared) {
    stream.set_nodelay(true).unwrap();
    let mut reader = Reader::new(stream);
    for nth in 0.. {
        match exchange(nth, &mut reader, handler, shared) {
            Ok(After::Keep) => {}
            Ok(After::Close) => return,
            // With lingering set to nothing a close sends RST.
            Ok(After::Reset) => {
                let socket = socket2::SockRef::from(&reader.stream);
                return socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            }
            Err(Broken::Closed) => return,
            Err(broken) => return note(shared, |seen| seen.broken.push(broken)),
        }
    }
}

fn exchange(
    nth: usize,
    reader: &mut Reader,
    handler: &Handler,
    shared: &Shared,
) -> Result<After, Broken> {
    let head = reader.head()?;
    let request = Request { fields: head.fields, ..request_line(&head.line)? };
    let index = note(shared, |seen| {
        seen.requests.push(request.clone());
        seen.requests.len() - 1
    });
    let mut exchange = Exchange { request, nth, reader, shared, index };
    let after = handler(&mut exchange)?;
    if after == After::Keep {
        exchange.body()?;
    }
    Ok(after)
}

fn request_line(line: &str) -> Result<Request, Broken> {
    let parts: Vec<&str> = line.split(' ').collect();
    match parts.as_slice() {
        [method, target, "HTTP/1.1"] if method.bytes().all(is_token) && !target.is_empty() => {
            Ok(Request {
                method: (*method).to_owned(),
                target: (*target).to_owned(),
                version: "HTTP/1.1".to_owned(),
                ..Request::default()
            })
        }
        _ => Err(Broken::Grammar(format!("request line: {line:?}"))),
    }
}

fn note<T>(shared: &Shared, change: impl FnOnce(&mut Seen) -> T) -> T {
    let result = change(&mut shared.0.lock().unwrap());
    shared.1.notify_all();
    result
}
