//! The halves of a connection when TLS lies between them and the socket. What the peer sent is held
//! in memory only while somebody reads, what is sent only while somebody writes.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};

use super::buffer::{BUFFER_BYTES, Buffer, Buffers, HEADROOM};
use super::deadline::Deadline;
use super::pace::Pace;
use super::stream::{Reader, Socket, Stream, Writer};
use crate::sys;
use crate::tls::session::Taken;
use crate::tls::{Acceptor, ClientCertificate, Failure, Session};

/// Bytes encrypted before they are sent: what a buffer of a body can hold, with a head before it.
const PART_BYTES: usize = HEADROOM + BUFFER_BYTES;

/// How long an alert may take that says why there is no connection.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// What both halves share.
#[derive(Debug)]
pub(super) struct Secure {
    session: RefCell<Session>,
    /// Records that the socket had no room for: they go first.
    left: RefCell<BytesMut>,
    /// Whether the writer is about to send records, so that nobody may send others.
    writing: Cell<bool>,
    buffers: Rc<Buffers>,
}

impl Secure {
    fn new(session: Session, buffers: &Rc<Buffers>) -> Self {
        Self {
            session: RefCell::new(session),
            left: RefCell::default(),
            writing: Cell::new(false),
            buffers: Rc::clone(buffers),
        }
    }

    /// Whether there is something to read without waiting for the socket.
    pub fn has_received(&self) -> bool {
        self.session.borrow_mut().has_received()
    }

    fn collect(&self, out: &mut BytesMut) {
        out.extend_from_slice(&std::mem::take(&mut *self.left.borrow_mut()));
        self.session.borrow_mut().collect(out);
    }

    /// Puts what it says in the place of what has been received; returns how many bytes. An end or a failure is
    /// found again by the next read.
    pub fn open(&self, buffer: &mut Buffer, socket: &Socket) -> usize {
        let mut opened = self.buffers.take();
        let room = opened.spare();
        let taken = self.session.borrow_mut().receive(buffer.filled(), &mut opened.bytes, room);
        self.buffers.give(std::mem::replace(buffer, opened));
        self.flush(socket);
        bytes(taken)
    }

    /// Sends what the session has to say by itself: alerts, new keys, tickets.
    fn flush(&self, socket: &Socket) {
        if self.writing.get() {
            return;
        }
        let mut left = self.left.borrow_mut();
        self.session.borrow_mut().collect(&mut left);
        if left.is_empty() {
            return;
        }
        // What the socket has no room for leaves before what is written next.
        let sent = sys::send_now(socket.get(), &left).unwrap_or(0);
        left.advance(sent);
        if left.is_empty() {
            *left = BytesMut::new();
        }
    }

    /// Says that no more will be sent.
    pub fn close(&self, socket: &Socket) {
        self.session.borrow_mut().close();
        self.flush(socket);
    }
}

/// What is known of a connection once the peers have agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Whether the client was known from before.
    pub resumed: bool,
    /// Who the client is, if it was asked and has shown a certificate.
    pub client: Option<Box<ClientCertificate>>,
}

impl Stream {
    /// Sends what TLS has to say by itself and what waited for the first answer to go along. Whoever
    /// holds back small packets until what it sent is acknowledged waits for that.
    pub fn flush_secure(&self) {
        let socket = self.reader.socket();
        if let Some(secure) = socket.secure() {
            secure.flush(socket);
        }
    }

    /// Whether what passes is encrypted.
    pub fn is_secure(&self) -> bool {
        self.reader.socket().secure().is_some()
    }

    /// Agrees with a client on TLS. `received` is what it has sent so far. A client that speaks plain
    /// HTTP can still be answered in it.
    ///
    /// # Errors
    /// Why there is no agreement; the client has been told, if it speaks TLS.
    pub async fn accept_tls(
        &mut self,
        acceptor: &Acceptor,
        received: &[u8],
        buffers: &Rc<Buffers>,
        until: Deadline,
    ) -> Result<Agreed, Failure> {
        let session = acceptor.session().map_err(|_| Failure::Other)?;
        let secure = Secure::new(session, buffers);
        if !received.is_empty() {
            self.shake_hands(&secure, received, until).await?;
        }
        let mut first = received.is_empty();
        while secure.session.borrow().is_handshaking() {
            let buffer = self.more_of_handshake(buffers, until).await?;
            // A method; TLS begins with a byte below.
            let is_http =
                std::mem::take(&mut first) && matches!(buffer.filled(), [b'A'..=b'Z', ..]);
            let result = match is_http {
                true => Err(Failure::PlainHttp),
                false => self.shake_hands(&secure, buffer.filled(), until).await,
            };
            buffers.give(buffer);
            result?;
        }
        let resumed = secure.session.borrow().is_resumed();
        let client = acceptor.client(&secure.session.borrow());
        if client.is_err() {
            secure.close(self.reader.socket());
        }
        let agreed = Agreed { resumed, client: client? };
        self.reader.socket().set_secure(secure);
        Ok(agreed)
    }

    /// Agrees with an endpoint on TLS.
    ///
    /// # Errors
    /// `TimedOut` when it takes longer than until then, and otherwise why there is no agreement.
    pub async fn connect_tls(
        &mut self,
        session: Session,
        buffers: &Rc<Buffers>,
        until: Deadline,
    ) -> io::Result<()> {
        let secure = Secure::new(session, buffers);
        // It begins with what the client says.
        let mut result = self.shake_hands(&secure, b"", until).await;
        while result.is_ok() && secure.session.borrow().is_handshaking() {
            result = match self.more_of_handshake(buffers, until).await {
                Ok(buffer) => {
                    let result = self.shake_hands(&secure, buffer.filled(), until).await;
                    buffers.give(buffer);
                    result
                }
                Err(failure) => Err(failure),
            };
        }
        match result {
            Ok(()) => {
                self.reader.socket().set_secure(secure);
                Ok(())
            }
            Err(Failure::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(failure) => {
                let session = secure.session.borrow();
                let reason = session.error().unwrap_or(failure.message_of_server());
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
        }
    }

    /// What the peer sends next. Nothing is held in memory while it thinks.
    async fn more_of_handshake(
        &mut self,
        buffers: &Buffers,
        until: Deadline,
    ) -> Result<Buffer, Failure> {
        let mut buffer = buffers.take();
        if self.reader.receive_now(&mut buffer, usize::MAX) > 0 {
            return Ok(buffer);
        }
        buffers.give(buffer);
        self.reader.ready(until).await.map_err(|error| Failure::of_io(&error))?;
        buffer = buffers.take();
        match self.reader.receive(&mut buffer, usize::MAX, until).await {
            Ok(1..) => Ok(buffer),
            Ok(0) => Err(Failure::Closed),
            Err(error) => Err(Failure::of_io(&error)),
        }
    }

    /// Takes what the peer said and sends what there is to say to it.
    async fn shake_hands(
        &mut self,
        secure: &Secure,
        received: &[u8],
        until: Deadline,
    ) -> Result<(), Failure> {
        let result = secure.session.borrow_mut().shake_hands(received);
        let may_delay = {
            let session = secure.session.borrow();
            !session.is_handshaking() && session.may_delay()
        };
        if result.is_ok() && may_delay {
            return Ok(());
        }
        let gap = if result.is_err() { ALERT_TIMEOUT } else { until.left() };
        let mut out = secure.buffers.take();
        secure.collect(&mut out.bytes);
        let sent = match out.is_empty() {
            true => Ok(()),
            false => self.writer.send(&mut out, &mut Pace::new(gap, 0), false).await,
        };
        secure.buffers.give(out);
        result?;
        sent.map_err(|error| Failure::of_io(&error))
    }
}

impl Reader {
    /// As [`read`](Self::read). An end that the peer has not announced is `UnexpectedEof`.
    pub(super) async fn read_secure(
        &mut self,
        buffer: &mut Buffer,
        max: usize,
        until: Deadline,
    ) -> io::Result<usize> {
        let socket = self.socket().clone();
        let Some(secure) = socket.secure() else { return Ok(0) };
        let room = buffer.spare().min(max);
        let mut taken = secure.session.borrow_mut().take(&mut buffer.bytes, room);
        loop {
            secure.flush(&socket);
            match taken {
                Ok(Taken::Bytes(count)) => return Ok(count),
                Ok(Taken::End) => return Ok(0),
                Ok(Taken::Nothing) => {}
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
            let mut received = secure.buffers.take();
            let result = self.receive(&mut received, usize::MAX, until).await;
            if let Ok(1..) = result {
                let mut session = secure.session.borrow_mut();
                taken = session.receive(received.filled(), &mut buffer.bytes, room);
            }
            secure.buffers.give(received);
            if result? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// As [`read_now`](Self::read_now).
    pub(super) fn read_secure_now(
        &self,
        secure: &Secure,
        buffer: &mut Buffer,
        max: usize,
    ) -> usize {
        let room = buffer.spare().min(max);
        let mut session = secure.session.borrow_mut();
        let taken = session.take(&mut buffer.bytes, room);
        if taken != Ok(Taken::Nothing) {
            return bytes(taken);
        }
        let mut received = secure.buffers.take();
        if self.receive_now(&mut received, usize::MAX) == 0 {
            secure.buffers.give(received);
            return 0;
        }
        // A failure is found again by the next read.
        let taken = session.receive(received.filled(), &mut buffer.bytes, room);
        secure.buffers.give(received);
        bytes(taken)
    }
}

fn bytes(taken: Result<Taken, Failure>) -> usize {
    match taken {
        Ok(Taken::Bytes(count)) => count,
        _ => 0,
    }
}

impl Writer {
    /// As [`write_paced`](Self::write_paced).
    pub(super) async fn write_secure(
        &mut self,
        buffer: &Buffer,
        pace: &mut Pace,
        last: bool,
    ) -> io::Result<()> {
        let socket = self.socket().clone();
        let Some(secure) = socket.secure() else { return Ok(()) };
        let mut out = secure.buffers.take();
        secure.writing.set(true);
        let result = self.write_parts(secure, buffer.filled(), &mut out, pace, last).await;
        secure.writing.set(false);
        secure.buffers.give(out);
        secure.flush(&socket);
        result
    }

    async fn write_parts(
        &mut self,
        secure: &Secure,
        mut plaintext: &[u8],
        out: &mut Buffer,
        pace: &mut Pace,
        last: bool,
    ) -> io::Result<()> {
        while !plaintext.is_empty() {
            let middle = plaintext.len().min(PART_BYTES);
            let (part, behind) = plaintext.split_at_checked(middle).unwrap_or_default();
            plaintext = behind;
            let ends = last && plaintext.is_empty();
            {
                let mut session = secure.session.borrow_mut();
                session.write(part)?;
                if ends {
                    session.close();
                }
            }
            out.clear();
            secure.collect(&mut out.bytes);
            self.send(out, pace, ends).await?;
        }
        Ok(())
    }
}
