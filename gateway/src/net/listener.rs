//! A listening socket of one worker.

use std::io;
use std::net::{SocketAddr, TcpListener};

use monoio::net::TcpListener as Waiter;

use crate::sys;

/// One member of a listener's SO_REUSEPORT group.
///
/// It waits by polling and accepts by plain system calls: a dropped wait loses nothing, where a
/// dropped io_uring accept would lose the connection, and one wake-up takes all that queued.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    waiter: Waiter,
}

impl Listener {
    /// Takes a bound, non-blocking socket.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(socket: TcpListener) -> io::Result<Self> {
        Ok(Self { waiter: Waiter::from_std(socket.try_clone()?)?, socket })
    }

    /// Waits until a connection has been made or the wait is dropped.
    ///
    /// # Errors
    /// When the socket can be waited on no longer.
    pub async fn ready(&self) -> io::Result<()> {
        self.waiter.readable(false).await
    }

    /// Whether a connection waits: to find out by accepting would make and throw away a socket.
    pub fn is_ready(&self) -> bool {
        sys::is_readable(&self.socket)
    }

    /// A connection that is already made; `None` when there is no more.
    ///
    /// # Errors
    /// Those of accept(2), such as a process out of descriptors.
    pub fn accept(&self) -> io::Result<Option<(std::net::TcpStream, SocketAddr)>> {
        match self.socket.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // The client gave up while it waited in the queue (accept(2), "Error handling").
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
            Err(error) => Err(error),
        }
    }
}
