//! What no safe crate offers for a descriptor that another type owns.

#![expect(unsafe_code, reason = "a raw descriptor is borrowed here and nowhere else")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

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

/// Whether a connected socket has nothing to say: no byte to read, no end of stream, no error.
pub fn is_quiet(socket: &impl AsRawFd) -> bool {
    // SAFETY: `socket` owns the descriptor and is borrowed for longer than this call.
    let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let peeked = recv(fd, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(peeked, Err(rustix::io::Errno::AGAIN))
}
