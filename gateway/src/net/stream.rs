//! A connection: two halves that work at the same time, each with its deadline.

#![expect(
    unsafe_code,
    reason = "monoio's owned halves say goodbye when dropped and lend no socket"
)]

use std::cell::UnsafeCell;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use monoio::buf::{Slice, SliceMut};
use monoio::io::{AsyncReadRent as _, AsyncWriteRent as _};
use monoio::net::TcpStream;
use rustix::net::Shutdown;

use super::buffer::Buffer;
use super::deadline::{Alarm, Deadline, Deadlines, Direction, Timer, Watch};
use super::pace::Pace;
use super::rt;
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
        let socket = Socket(Rc::new(UnsafeCell::new(socket)));
        Self {
            reader: Reader { timer: timer(Direction::Read), socket: socket.clone() },
            writer: Writer { timer: timer(Direction::Write), socket, sent: 0 },
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
    /// As long as the returned value lives, the connection is looked at now and then: when its peer
    /// has reset it, `other` is shut down, so that whoever waits there stops waiting.
    pub fn watch(&self, other: &Self) -> Watch {
        self.alarm.watch(other.fd)
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
        self.timer.arm_idle(until);
        let result = self.socket.get().readable(false).await;
        if self.timer.expired() && !sys::has_bytes(self.socket.get()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.timer.disarm();
        result
    }

    /// Waits until there is something to read, holding no buffer.
    ///
    /// # Errors
    /// `TimedOut` when the deadline passes first.
    pub async fn ready(&mut self, until: Deadline) -> io::Result<()> {
        self.timer.arm(until);
        let result = self.socket.get().readable(false).await;
        if self.timer.expired() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        result
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
        self.timer.arm(until);
        let room = buffer.spare().min(max);
        let bytes = mem::take(&mut buffer.bytes);
        let from = bytes.len();
        let to = from + room;
        let (result, slice) = self.socket.get_mut().read(SliceMut::new(bytes, from, to)).await;
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
}

/// The half that writes.
#[derive(Debug)]
pub struct Writer {
    timer: Timer,
    socket: Socket,
    sent: u64,
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
        let mut bytes = mem::take(&mut buffer.bytes);
        let mut from = buffer.start;
        let mut result = Ok(());
        while from < bytes.len() {
            let begun = Instant::now();
            self.timer.arm(self.timer.after(pace.allowance()));
            let to = bytes.len();
            let (written, slice) = self.socket.get_mut().write(Slice::new(bytes, from, to)).await;
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

    /// Bytes written since the connection began.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Tells the peer that no more will come; reading goes on.
    pub fn finish(&mut self) {
        // A peer that is gone already needs no telling.
        let _ = sys::shutdown_socket(self.socket.get().as_raw_fd(), Shutdown::Write);
    }
}

/// What both halves hold. Dropping one does nothing; dropping both closes.
#[derive(Clone, Debug)]
struct Socket(Rc<UnsafeCell<TcpStream>>);

impl Socket {
    fn get(&self) -> &TcpStream {
        // SAFETY: see `get_mut`.
        unsafe { &*self.0.get() }
    }

    #[expect(clippy::mut_from_ref, reason = "reading and writing go on at the same time")]
    fn get_mut(&self) -> &mut TcpStream {
        // SAFETY: as in monoio's own halves. All of it stays on one thread. An operation clones the
        // descriptor before it waits for the first time and does not touch the stream afterwards,
        // so no two references are ever used at once.
        unsafe { &mut *self.0.get() }
    }
}
