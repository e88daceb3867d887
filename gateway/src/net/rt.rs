//! The runtime of one worker: monoio on io_uring, or on epoll where io_uring is not allowed.

use std::fmt;
use std::future::Future;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use io_uring::{IoUring, Probe, opcode};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// Submission queue entries. monoio panics when the queue is full, so this is far above what one
/// turn of the loop submits.
const ENTRIES: u32 = 4096;

/// How a worker learns that a socket is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Linux 5.11 or newer, where nothing forbids it: container runtimes often do.
    IoUring,
    /// Anywhere; costs more CPU per request.
    Epoll,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Whether a worker could run on io_uring, by making the ring that one would.
///
/// # Errors
/// Why not.
pub fn probe_io_uring() -> io::Result<()> {
    let ring = on_best_ring(|builder| builder.build(ENTRIES))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
        opcode::Connect::CODE,
        opcode::PollAdd::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
    ];
    let known = needed.iter().all(|code| probe.is_supported(*code));
    // Waiting with a timeout (Linux 5.11): monoio's timers stand on it.
    match known && ring.params().is_feature_ext_arg() {
        true => Ok(()),
        false => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Makes something of the best ring this kernel can set up.
fn on_best_ring<T>(make: impl Fn(io_uring::Builder) -> io::Result<T>) -> io::Result<T> {
    let mut plain = IoUring::builder();
    plain.setup_cqsize(4 * ENTRIES);
    let mut best = plain.clone();
    // One thread submits and nobody interrupts it: 13 % less CPU per request than the defaults.
    // Linux 6.0 knows both flags; an older kernel refuses them.
    best.setup_single_issuer().setup_coop_taskrun();
    make(best).or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput => make(plain),
        _ => Err(error),
    })
}

/// Runs `main` to its end on this thread, which becomes a worker.
///
/// # Errors
/// When the driver cannot be set up.
pub fn run<F: Future>(driver: Driver, main: F) -> io::Result<F::Output> {
    match driver {
        Driver::IoUring => {
            let mut runtime = on_best_ring(|ring| {
                RuntimeBuilder::<IoUringDriver>::new()
                    .with_entries(ENTRIES)
                    .uring_builder(ring)
                    .enable_timer()
                    .build()
            })?;
            Ok(runtime.block_on(main))
        }
        Driver::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            Ok(runtime.block_on(main))
        }
    }
}

/// Starts a task. A panic in it ends that task alone: monoio would let it end the worker.
pub fn spawn<F: Future<Output = ()> + 'static>(task: F, on_panic: impl FnOnce() + 'static) {
    // Not an async block, which has room for what it is given besides what it makes of it.
    monoio::spawn(AssertUnwindSafe(task).catch_unwind().map(|ended| {
        if ended.is_err() {
            on_panic();
        }
    }));
}

/// Waits; precise to a millisecond, never early.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Drops `future` when it takes longer than `duration`: only for what may be dropped, which a read,
/// a write and an accept may not.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    monoio::time::timeout(duration, future).await.ok()
}

/// Waits for bytes that another thread sends: how a worker is woken.
#[derive(Debug)]
pub struct Bell {
    socket: UnixStream,
    waiter: monoio::net::UnixStream,
}

impl Bell {
    /// Takes the worker's end of a socket pair.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { waiter: monoio::net::UnixStream::from_std(socket.try_clone()?)?, socket })
    }

    /// One for a single wait, and what ends that wait when it is dropped, on whatever thread.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (socket, other) = UnixStream::pair()?;
        Ok((Self::new(socket)?, other))
    }

    /// Waits until something was sent, and takes it; false when the other end is gone. May be
    /// dropped.
    pub async fn rung(&self) -> bool {
        loop {
            let waited = self.waiter.readable(false).await;
            match (&self.socket).read(&mut [0; 64]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && waited.is_ok() => {}
                taken => return taken.is_ok_and(|count| count > 0),
            }
        }
    }
}
