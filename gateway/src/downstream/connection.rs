//! One client connection, from accept to close: idle, a head, an exchange, and again.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::prologue::{self, Peer};
use super::{Current, Shared, record, serve};
use crate::exchange::{Error, Resources};
use crate::http::framing::{self, Framing};
use crate::http::head::RequestHead;
use crate::http::parse::{self, Scan};
use crate::net::deadline::WARM;
use crate::net::{Buffer, Deadline, Stream};
use crate::telemetry::metrics;
use crate::tls::Failure;

/// How long what a client still sends is read and thrown away after its last answer, so that the
/// answer is not lost in a reset (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It may serve another.
    Keep,
    /// It is closed.
    Close,
    /// It is closed once the client has had time to read the answer.
    Linger,
    /// It is reset, so that a response cut short does not look whole.
    Reset,
}

/// One client connection.
pub(super) struct Connection {
    pub stream: Stream,
    /// What was read and not yet used. Has no memory while the connection is idle.
    pub buffer: Buffer,
    pub peer: Box<Peer>,
    /// The number of the listener it came in by.
    pub listener: usize,
    /// Requests begun.
    pub requests: u32,
    /// Whether the last wait for a request was short.
    lively: bool,
}

/// A connection that has been accepted.
pub fn run(
    current: Rc<Current>,
    stream: Stream,
    socket: SocketAddr,
    listener: usize,
) -> impl Future<Output = ()> {
    let peer = Box::new(Peer::new(socket));
    let buffer = Buffer::default();
    let mut connection = Connection { stream, buffer, peer, listener, requests: 0, lively: false };
    // A block uses what it captures where it lies; an async function has room for what it is given
    // besides what it makes of it.
    async move { serve_until_it_ends(&current, &mut connection).await }
}

/// Serves a connection until it ends.
async fn serve_until_it_ends(current: &Current, connection: &mut Connection) {
    let shared = current.get();
    connection.stream.reader.timer().belongs_to(connection.peer.source.ip());
    if shared.has_prologue(connection.listener) {
        // Boxed, like whatever a connection needs but for a moment.
        if let Err(error) = Box::pin(connection.begin(&shared)).await {
            return Box::pin(connection.turn_away(&shared, error)).await;
        }
        // Whom a PROXY header names.
        connection.stream.reader.timer().belongs_to(connection.peer.source.ip());
    }
    connection.read_ahead(&shared.resources);
    drop(shared);
    while connection.wait(current).await {
        // Boxed, so that an idle connection has no room for what only an exchange needs.
        let next = Box::pin(connection.requests(current)).await;
        match next {
            Next::Keep => {}
            Next::Reset => {
                connection.stream.reset_on_close();
                break;
            }
            Next::Close | Next::Linger => {
                connection.stream.writer.finish();
                // To close with bytes unread would be a reset.
                if next == Next::Linger || connection.stream.reader.has_bytes() {
                    // Boxed, as few connections end like this.
                    Box::pin(connection.linger(&current.get())).await;
                }
                break;
            }
        }
    }
    current.get().resources.buffers.give(std::mem::take(&mut connection.buffer));
}

impl Connection {
    /// Finds out who is there.
    async fn begin(&mut self, shared: &Shared) -> Result<(), Error> {
        let Self { stream, buffer, peer, listener, .. } = self;
        if let Some(listener) = shared.listener(*listener) {
            prologue::read(shared, &listener.trust, stream, buffer, peer).await?;
            if let Some(acceptor) = &listener.acceptor {
                peer.certificate = prologue::agree(shared, acceptor, stream, buffer).await?;
            }
        }
        if shared.announces && peer.destination.is_none() {
            peer.destination = stream.local_address().ok();
        }
        Ok(())
    }

    /// Ends a connection that cannot be served, with an answer where one would be understood.
    async fn turn_away(&mut self, shared: &Rc<Shared>, error: Error) {
        // As little worth a line as a connection without TLS on which nothing comes.
        if error == Error::Handshake(Failure::Closed) {
            return;
        }
        match error.status() {
            None => record::refusal(shared, self, error),
            Some(_) => {
                serve::refuse(shared, self, error).await;
            }
        }
        self.stream.writer.finish();
        // To close with bytes unread would be a reset, which an answer or an alert may be lost in.
        if self.stream.reader.has_bytes() || error.status().is_some() {
            self.linger(shared).await;
        }
    }

    /// Takes what was sent while the connection waited to be accepted, which saves waiting for it.
    fn read_ahead(&mut self, resources: &Resources) {
        if !self.buffer.is_empty() {
            return;
        }
        let mut buffer = resources.buffers.take();
        let count = self.stream.reader.read_now(&mut buffer, usize::MAX);
        if count == 0 {
            self.stream.flush_secure();
            return resources.buffers.give(buffer);
        }
        resources.metrics.downstream_bytes_in.add(count as u64);
        self.buffer = buffer;
    }

    /// Waits for the next request, giving the buffer away meanwhile. False when there is none.
    async fn wait(&mut self, current: &Current) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let until = self.until_idle_ends(&current.get().resources);
        let begun = Deadline::now();
        let waited = self.stream.reader.idle(until).await;
        self.lively = begun.elapsed() < WARM;
        let resources = &current.get().resources;
        let is_told_to_go = resources.draining.get() || self.stream.reader.timer().is_doomed();
        if waited.is_err() && !is_told_to_go {
            resources.metrics.deadline(metrics::Deadline::KeepAlive);
        }
        self.buffer = resources.buffers.take();
        waited.is_ok()
    }

    /// Gives the buffer away; the end of the wait that follows.
    fn until_idle_ends(&mut self, resources: &Resources) -> Deadline {
        resources.buffers.give(std::mem::take(&mut self.buffer));
        if resources.draining.get() {
            Deadline::PASSED
        } else {
            Deadline::after(resources.timeouts.keep_alive)
        }
    }

    /// Serves requests, as long as each is there when it is its turn, or soon will be.
    async fn requests(&mut self, current: &Current) -> Next {
        loop {
            let shared = current.get();
            let next = self.request(&shared).await;
            let resources = &shared.resources;
            resources.metrics.downstream_bytes_out.add(self.stream.writer.take_sent());
            if next != Next::Keep || resources.draining.get() {
                return next;
            }
            if self.buffer.is_empty() && !self.read_soon(resources).await {
                return Next::Keep;
            }
        }
    }

    /// Whether the next request has begun to come soon, on a connection whose last one did.
    async fn read_soon(&mut self, resources: &Resources) -> bool {
        if !self.lively {
            return false;
        }
        let until = Deadline::after(resources.timeouts.keep_alive);
        let reader = &mut self.stream.reader;
        let count = reader.read_soon(&mut self.buffer, until).await;
        resources.metrics.downstream_bytes_in.add(count as u64);
        self.lively = count > 0;
        self.lively
    }

    /// Reads one request and answers it.
    async fn request(&mut self, shared: &Rc<Shared>) -> Next {
        let mut head = shared.resources.request_heads.take();
        let next = match self.read_head(shared, &mut head).await {
            Ok(Some(framing)) => {
                self.requests += 1;
                serve::serve(shared, self, &head, framing).await
            }
            Ok(None) => Next::Close,
            Err(error) => serve::refuse(shared, self, error).await,
        };
        shared.resources.request_heads.give(head);
        next
    }

    /// Reads until a head is complete. `None` when the client closed instead of beginning one.
    async fn read_head(
        &mut self,
        shared: &Shared,
        head: &mut RequestHead,
    ) -> Result<Option<Framing>, Error> {
        let resources = &shared.resources;
        let limits = resources.head_limits();
        let until = Deadline::after(resources.timeouts.head);
        let mut scan = Scan::default();
        loop {
            if scan.is_at_start() {
                self.buffer.consume(parse::empty_lines(self.buffer.filled()));
            }
            let bytes = self.buffer.filled();
            if parse::request(bytes, &mut scan, limits, head).map_err(Error::Rejected)? {
                return framing::request(head, bytes).map(Some).map_err(Error::Rejected);
            }
            self.buffer.compact();
            match self.stream.reader.read(&mut self.buffer, usize::MAX, until).await {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(count) if count > 0 => resources.metrics.downstream_bytes_in.add(count as u64),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    resources.metrics.deadline(metrics::Deadline::Head);
                    return Err(Error::HeadTimeout);
                }
                _ => return Err(Error::ClientGone),
            }
        }
    }

    /// Reads what the client still sends, so that it can read the answer just sent.
    async fn linger(&mut self, shared: &Shared) {
        let until = Deadline::after(LINGER);
        let mut buffer = shared.resources.buffers.take();
        while let Ok(1..) = self.stream.reader.read(&mut buffer, usize::MAX, until).await {
            buffer.clear();
        }
        shared.resources.buffers.give(buffer);
    }

    /// Takes what has come of a body behind its head. The head is copied, which is shorter.
    pub(super) fn take_body(&mut self, head_len: usize, resources: &Resources) -> Buffer {
        if self.buffer.len() == head_len {
            return Buffer::default();
        }
        let mut head = resources.buffers.take();
        head.append(self.buffer.filled().get(..head_len).unwrap_or_default());
        let mut body = std::mem::replace(&mut self.buffer, head);
        body.consume(head_len);
        body
    }

    /// Drops the head of a request that has been answered, and puts those bytes of the next one that
    /// came with its body behind what is left.
    pub(super) fn advance(&mut self, head_len: usize, surplus: &BytesMut) {
        self.buffer.consume(head_len);
        self.buffer.append(surplus);
    }
}
