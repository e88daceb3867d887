//! A connection: two halves that work at the same time, each with its deadline.

#![expect(
    unsafe_code,
    reason = "monoio's owned halves say goodbye when dropped and lend no socket"
)]

use std::cell::{Cell, OnceCell, UnsafeCell};
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use monoio::buf::{Slice, SliceMut};
use monoio::io::{AsyncReadRent as _, AsyncWriteRent as _, CancelableAsyncReadRent as _};
use monoio::net::TcpStream;
use rustix::net::Shutdown;

use super::buffer::Buffer;
use super::deadline::{Alarm, Deadline, Deadlines, Direction, Timer, WATCH_INTERVAL, Watch};
use super::pace::Pace;
use super::rt;
use super::secure::Secure;
use crate::sys;

/// A connection to a client or to an endpoint.
///
/// The halves are public so that an upload and its response can each borrow what they need. A
/// future of theirs that is dropped leaves the connection unusable: close it.
#[derive(Debug)]
pub struct Stream {
    /// What the peer sends.
    pub reader: Reader,
    /// What is sent to the peer.
    pub writer: Writer,
}

impl Stream {
    /// Takes an accepted connection.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub fn accepted(socket: std::net::TcpStream, deadlines: &Rc<Deadlines>) -> io::Result<Self> {
        if monoio::utils::is_legacy() {
            socket.set_nonblocking(true)?;
        }
        Ok(Self::new(TcpStream::from_std(socket)?, deadlines))
    }

    /// Connects to an endpoint.
    ///
    /// # Errors
    /// Those of connect(2), and `TimedOut` when it takes longer than `timeout`.
    pub async fn connect(
        address: SocketAddr,
        timeout: Duration,
        deadlines: &Rc<Deadlines>,
    ) -> io::Result<Self> {
        let socket = rt::timeout(timeout, TcpStream::connect_addr(address))
            .await
            .ok_or(io::ErrorKind::TimedOut)??;
        socket.set_nodelay(true)?;
        Ok(Self::new(socket, deadlines))
    }

    fn new(socket: TcpStream, deadlines: &Rc<Deadlines>) -> Self {
        let fd = socket.as_raw_fd();
        let timer = |direction| Timer::new(Rc::clone(deadlines), fd, direction);
        let socket = Socket::new(socket);
        Self {
            reader: Reader { timer: timer(Direction::Read), socket: socket.clone(), ready: false },
            writer: Writer { timer: timer(Direction::Write), socket, sent: 0, last: false },
        }
    }

    /// The address the peer connected to.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.reader.socket.get().local_addr()
    }

    /// Lets the close of this connection be a reset.
    pub fn reset_on_close(&self) {
        sys::reset_on_close(self.reader.socket.get());
    }

    /// Lets this connection live on when the worker ends all others.
    pub fn spare(&self) {
        spare(&self.reader, &self.writer);
    }

    /// Whether nothing has come in: an idle connection that is not quiet is closing or broken.
    pub fn is_quiet(&self) -> bool {
        sys::is_quiet(self.reader.socket.get())
    }
}

/// Looks after a connection nobody reads from. Of no use once it is closed.
#[derive(Debug)]
pub struct Watcher {
    alarm: Alarm,
    fd: RawFd,
}

impl Watcher {
    /// Sets the deadline of a read that is under way.
    pub fn arm(&self, until: Deadline) {
        self.alarm.arm(until);
    }

    /// As long as the returned value lives, the connection is looked at now and then: when its peer
    /// has reset it, `other` is shut down, so that whoever waits there stops waiting.
    pub fn watch(&self, other: &Self) -> Watch {
        self.alarm.watch(other.fd)
    }

    /// Waits until the peer has reset the connection, or the worker has ended it. May be dropped.
    pub async fn broken(&self) {
        while !self.is_broken() {
            rt::sleep(WATCH_INTERVAL).await;
        }
    }

    /// Whether the peer has reset the connection.
    pub fn is_broken(&self) -> bool {
        sys::is_broken(self.fd)
    }
}

/// Lets a connection live on when the worker ends all others.
pub fn spare(reader: &Reader, writer: &Writer) {
    reader.timer.spare();
    writer.timer.spare();
}

/// The half that reads.
#[derive(Debug)]
pub struct Reader {
    // Before the socket, so that it is dropped first: see `Timer`.
    timer: Timer,
    socket: Socket,
    /// Whether a wait has ended and nothing was read since.
    ready: bool,
}

impl Reader {
    /// The deadline of this half, for those who set it from outside a read.
    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// A way to look after this half while it is borrowed or nobody reads from it.
    pub fn watcher(&self) -> Watcher {
        Watcher { alarm: self.timer.alarm(), fd: self.socket.get().as_raw_fd() }
    }

    /// Waits for the first byte of a request, holding no buffer. Ends early when the worker drains,
    /// but not without what has come already.
    ///
    /// # Errors
    /// `TimedOut` when the deadline passes first.
    pub async fn idle(&mut self, until: Deadline) -> io::Result<()> {
        if self.socket.has_received() {
            return Ok(());
        }
        self.timer.arm_idle(until);
        self.socket.begin();
        let result = self.socket.get().readable(false).await;
        self.socket.end();
        if self.timer.expired() && !self.has_bytes() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.timer.disarm();
        self.ready = result.is_ok();
        result
    }

    /// Reads what comes within [`WARM`](super::deadline::WARM) into a buffer that is empty, which saves a wait. When
    /// nothing does, or the deadline passes, or the stream ends, nothing is read, and the next wait finds out.
    pub async fn read_soon(&mut self, buffer: &mut Buffer, until: Deadline) -> usize {
        if self.socket.has_received() {
            return 0;
        }
        let Some((handle, warm)) = self.timer.warm() else { return 0 };
        let room = buffer.spare();
        self.timer.arm_idle(until);
        let bytes = mem::take(&mut buffer.bytes);
        let from = bytes.len();
        let slice = SliceMut::new(bytes, from, from + room);
        self.socket.begin();
        let (result, slice) = self.socket.get_mut().cancelable_read(slice, handle).await;
        self.socket.end();
        drop(warm);
        buffer.bytes = slice.into_inner();
        self.timer.disarm();
        match self.socket.secure() {
            Some(secure) if !buffer.is_empty() => secure.open(buffer, &self.socket),
            _ => result.unwrap_or(0),
        }
    }

    /// Whether there are bytes to read.
    pub fn has_bytes(&self) -> bool {
        self.socket.has_received() || sys::has_bytes(self.socket.get())
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Waits until there is something to read, holding no buffer.
    ///
    /// # Errors
    /// `TimedOut` when the deadline passes first.
    pub async fn ready(&mut self, until: Deadline) -> io::Result<()> {
        if self.socket.has_received() {
            return Ok(());
        }
        self.timer.arm(until);
        self.socket.begin();
        let result = self.socket.get().readable(false).await;
        self.socket.end();
        if self.timer.expired() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        result
    }

    /// Waits until there is something to read, for as long as it takes. May be dropped, other than what
    /// else waits here.
    pub async fn readable(&self) {
        if !self.socket.has_received() {
            // What goes wrong is found again by the read that follows.
            self.socket.begin();
            let _ = self.socket.get().readable(false).await;
            self.socket.end();
        }
    }

    /// Reads what there is, at most `max` bytes, behind what `buffer` holds, which has room for
    /// some; 0 at the stream's end.
    ///
    /// # Errors
    /// `TimedOut` when the deadline passes first; those of recv(2).
    pub async fn read(
        &mut self,
        buffer: &mut Buffer,
        max: usize,
        until: Deadline,
    ) -> io::Result<usize> {
        match self.socket.secure() {
            // Boxed, so that connections without TLS have no room for it.
            Some(_) => Box::pin(self.read_secure(buffer, max, until)).await,
            None => self.receive(buffer, max, until).await,
        }
    }

    /// Reads from the socket.
    pub(super) async fn receive(
        &mut self,
        buffer: &mut Buffer,
        max: usize,
        until: Deadline,
    ) -> io::Result<usize> {
        if mem::take(&mut self.ready) && self.timer.is_calm() {
            let count = self.receive_now(buffer, max);
            if count > 0 {
                return Ok(count);
            }
        }
        let room = buffer.spare().min(max);
        self.timer.arm(until);
        let bytes = mem::take(&mut buffer.bytes);
        let from = bytes.len();
        let to = from + room;
        self.socket.begin();
        let (result, slice) = self.socket.get_mut().read(SliceMut::new(bytes, from, to)).await;
        self.socket.end();
        buffer.bytes = slice.into_inner();
        match result {
            Ok(count) if count > 0 => {
                self.timer.disarm();
                Ok(count)
            }
            _ if self.timer.expired() => Err(io::ErrorKind::TimedOut.into()),
            end => end,
        }
    }

    /// Reads what has come already, if anything, at most `max` bytes.
    pub fn read_now(&mut self, buffer: &mut Buffer, max: usize) -> usize {
        match self.socket.secure() {
            Some(secure) => self.read_secure_now(secure, buffer, max),
            None => self.receive_now(buffer, max),
        }
    }

    /// Reads from the socket what has come already.
    pub(super) fn receive_now(&self, buffer: &mut Buffer, max: usize) -> usize {
        let room = buffer.spare().min(max);
        let spare = buffer.bytes.spare_capacity_mut().get_mut(..room).unwrap_or_default();
        // An end or an error is found again by the next read.
        let count = sys::receive(self.socket.get(), spare).unwrap_or(0);
        // SAFETY: the kernel has written that many bytes there.
        unsafe { buffer.bytes.set_len(buffer.bytes.len() + count) };
        count
    }
}

/// The half that writes.
#[derive(Debug)]
pub struct Writer {
    timer: Timer,
    socket: Socket,
    sent: u64,
    /// Whether what is written next ends the connection.
    last: bool,
}

impl Writer {
    /// Writes all that `buffer` holds and leaves it there; `gap` is how long each step may take.
    ///
    /// # Errors
    /// `TimedOut` when the peer takes nothing for `gap`; those of send(2).
    pub async fn write_all(&mut self, buffer: &mut Buffer, gap: Duration) -> io::Result<()> {
        self.write_paced(buffer, &mut Pace::new(gap, 0)).await
    }

    /// Writes all that `buffer` holds and leaves it there.
    ///
    /// # Errors
    /// `TimedOut` when the peer is slower than `pace` allows; those of send(2).
    pub async fn write_paced(&mut self, buffer: &mut Buffer, pace: &mut Pace) -> io::Result<()> {
        let last = self.last;
        match self.socket.secure() {
            // Boxed, so that connections without TLS have no room for it.
            Some(_) => Box::pin(self.write_secure(buffer, pace, last)).await,
            None => self.send(buffer, pace, last).await,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Writes to the socket. What is `last` leaves with the end, which must follow.
    pub(super) async fn send(
        &mut self,
        buffer: &mut Buffer,
        pace: &mut Pace,
        last: bool,
    ) -> io::Result<()> {
        let mut from = buffer.start;
        if last || self.timer.is_calm() {
            let socket = self.socket.get();
            let send = if last { sys::send_before_end } else { sys::send_now };
            match send(socket, buffer.filled()) {
                Ok(count) => {
                    self.sent += count as u64;
                    pace.record(Duration::ZERO, count);
                    from += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let mut bytes = mem::take(&mut buffer.bytes);
        let mut result = Ok(());
        while from < bytes.len() {
            let begun = Deadline::now();
            self.timer.arm(Deadline::after(pace.allowance()));
            let to = bytes.len();
            self.socket.begin();
            let (written, slice) = self.socket.get_mut().write(Slice::new(bytes, from, to)).await;
            self.socket.end();
            bytes = slice.into_inner();
            match written {
                Ok(count) if count > 0 => {
                    from += count;
                    pace.record(begun.elapsed(), count);
                    self.sent += count as u64;
                }
                _ if self.timer.expired() => result = Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => result = Err(io::ErrorKind::WriteZero.into()),
                Err(error) => result = Err(error),
            }
            if result.is_err() {
                break;
            }
        }
        self.timer.disarm();
        buffer.bytes = bytes;
        result
    }

    /// Promises that the connection is closed, or [finished](Self::finish), right after the next
    /// write, which then leaves together with the end.
    pub fn last(&mut self) {
        self.last = true;
    }

    /// Bytes written since this was last asked.
    pub fn take_sent(&mut self) -> u64 {
        mem::take(&mut self.sent)
    }

    /// Tells the peer that no more will come; reading goes on.
    pub fn finish(&mut self) {
        if let Some(secure) = self.socket.secure() {
            secure.close(&self.socket);
        }
        // A peer that is gone already needs no telling.
        let _ = sys::shutdown_socket(self.socket.get().as_raw_fd(), Shutdown::Write);
    }
}

/// What both halves hold. Dropping one does nothing; dropping both closes.
#[derive(Clone, Debug)]
pub(super) struct Socket(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: UnsafeCell<ManuallyDrop<TcpStream>>,
    /// What lies between the socket and its users, if anything does.
    secure: OnceCell<Box<Secure>>,
    /// Operations given to the runtime of which it is not known that they have ended.
    in_flight: Cell<u32>,
}

impl Socket {
    fn new(stream: TcpStream) -> Self {
        let stream = UnsafeCell::new(ManuallyDrop::new(stream));
        Self(Rc::new(Shared { stream, secure: OnceCell::new(), in_flight: Cell::new(0) }))
    }

    /// The TLS of this connection.
    pub fn secure(&self) -> Option<&Secure> {
        self.0.secure.get().map(Box::as_ref)
    }

    /// From now on everything passes through it.
    pub fn set_secure(&self, secure: Secure) {
        // Once agreed it stays agreed: nobody calls this twice.
        let _ = self.0.secure.set(Box::new(secure));
    }

    /// Whether there is something to read that the socket knows nothing of.
    fn has_received(&self) -> bool {
        self.secure().is_some_and(Secure::has_received)
    }

    pub fn get(&self) -> &TcpStream {
        // SAFETY: see `get_mut`.
        unsafe { &*self.0.stream.get() }
    }

    #[expect(clippy::mut_from_ref, reason = "reading and writing go on at the same time")]
    fn get_mut(&self) -> &mut TcpStream {
        // SAFETY: as in monoio's own halves. All of it stays on one thread. An operation clones the
        // descriptor before it waits for the first time and does not touch the stream afterwards,
        // so no two references are ever used at once.
        unsafe { &mut *self.0.stream.get() }
    }

    /// Before an operation is given to the runtime. One that is dropped before its [end](Self::end)
    /// counts as in flight for good.
    fn begin(&self) {
        self.0.in_flight.set(self.0.in_flight.get() + 1);
    }

    fn end(&self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and nobody is left to use it.
        let stream = unsafe { ManuallyDrop::take(self.stream.get_mut()) };
        if self.in_flight.get() == 0 {
            // monoio would close by two operations of the ring, the second of which cancels the
            // first; a socket nothing waits for can as well be closed at once.
            // SAFETY: the descriptor is the stream's own, which has given it up.
            drop(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
        }
    }
}
