//! What no safe crate offers for a descriptor that another type owns.

#![expect(unsafe_code, reason = "a raw descriptor is borrowed here and nowhere else")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

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

fn peek(socket: &impl AsRawFd) -> Result<usize, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(borrow(socket), &mut [0u8; 1], flags).map(|(count, _)| count)
}

fn borrow(socket: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: `socket` owns the descriptor, and the borrow cannot outlive the one of `socket`.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
