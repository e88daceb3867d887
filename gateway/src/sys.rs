//! What no safe crate offers: descriptors that another type owns, memory that threads share, and two questions to
//! the kernel.

#![expect(unsafe_code, reason = "a raw descriptor is borrowed here and nowhere else")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketType, recv, send, shutdown,
};

/// Shuts down reading, writing or both on a socket; whatever waits on it is woken.
///
/// # Errors
/// When `fd` is no connected socket any more, which callers may ignore.
pub fn shutdown_socket(fd: RawFd, how: Shutdown) -> io::Result<()> {
    // SAFETY: the borrow ends with this call. The caller's registration of `fd` ends before the
    // socket is closed, so the number still names that socket.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    shutdown(fd, how).map_err(io::Error::from)
}

/// Lets closing a socket send a reset (socket(7), SO_LINGER with no time).
pub fn reset_on_close(socket: &impl AsRawFd) {
    // If it fails the socket is broken already, and its peer knows.
    let _ = set_socket_linger(borrow(socket), Some(Duration::ZERO));
}

/// Whether a connected socket has nothing to say: no byte to read, no end of stream, no error.
pub fn is_quiet(socket: &impl AsRawFd) -> bool {
    peek(socket) == Err(Errno::AGAIN)
}

/// Whether a connected socket's peer has reset it, or both sides have closed. A peer that has only
/// closed its own side may still be waiting for an answer, and counts as there.
pub fn is_broken(fd: RawFd) -> bool {
    // SAFETY: as in `shutdown_socket`.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut polled = [PollFd::new(&fd, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&now)), Ok(1..))
}

/// Whether a connected socket has bytes to read.
pub fn has_bytes(socket: &impl AsRawFd) -> bool {
    peek(socket).is_ok_and(|count| count > 0)
}

/// Reads what a socket has, without waiting.
///
/// # Errors
/// Those of recv(2); `WouldBlock` when there is nothing yet.
pub fn receive(socket: &impl AsRawFd, room: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let ((read, _), _) = recv(borrow(socket), room, RecvFlags::DONTWAIT)?;
    Ok(read.len())
}

/// Writes what a socket has room for, without waiting.
///
/// # Errors
/// Those of send(2); `WouldBlock` when there is no room.
pub fn send_now(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    send(borrow(socket), bytes, flags).map_err(io::Error::from)
}

/// Writes what a socket has room for, without waiting. It leaves with the end of the stream, in one
/// packet if it fits, so the end must follow at once.
///
/// # Errors
/// Those of send(2); `WouldBlock` when there is no room.
pub fn send_before_end(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
    send(borrow(socket), bytes, flags).map_err(io::Error::from)
}

/// Whether a listening socket has a connection to accept.
pub fn is_readable(socket: &impl AsRawFd) -> bool {
    let socket = borrow(socket);
    let mut polled = [PollFd::new(&socket, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&now)), Ok(1..))
}

/// Words of memory that threads change at the same time, and the kernel reads where they are those of a
/// BPF array (`BPF_F_MMAPABLE`).
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to the value until it is dropped, and atomics may be shared.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// `count` words, at least one, of zeros, or of the map behind `map`.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(count: usize, map: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let bytes = count.max(1).saturating_mul(size_of::<AtomicU64>());
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no memory in use is replaced. Nothing but atomic
        // operations ever touches the words, here and in the kernel.
        let start = unsafe {
            match map {
                Some(map) => mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, map, 0)?,
                None => mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE)?,
            }
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, count: count.max(1) })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: so many words were mapped, page by page and so aligned, until `self` is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the borrow of `deref` ends before `self`, so nobody has a reference to the words.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}

/// Whether a program keeps the wall clock right (adjtimex(2)).
///
/// # Errors
/// When the kernel does not tell.
pub fn is_clock_synchronised() -> io::Result<bool> {
    // SAFETY: zeros are a value of it, by whose `modes` nothing is changed.
    let mut clock: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: it is written by this call only.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0)
}

/// Whether a driver merges packets that it receives (LRO), which no program can then see one by one.
///
/// # Errors
/// When there is no such interface, or its driver does not tell.
pub fn merges_received(interface: &str) -> io::Result<bool> {
    // linux/ethtool.h
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETH_FLAG_LRO: u32 = 1 << 15;
    let mut answer = [ETHTOOL_GFLAGS, 0];
    // SAFETY: zeros are a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte of the name stays 0.
    let room = request.ifr_name.len() - 1;
    if interface.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = answer.as_mut_ptr().cast();
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: the request names a command of two words, which is what its data have.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) } {
        0 => Ok(answer[1] & ETH_FLAG_LRO != 0),
        _ => Err(io::Error::last_os_error()),
    }
}

fn peek(socket: &impl AsRawFd) -> Result<usize, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(borrow(socket), &mut [0u8; 1], flags).map(|(count, _)| count)
}

fn borrow(socket: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: `socket` owns the descriptor, and the borrow cannot outlive the one of `socket`.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
