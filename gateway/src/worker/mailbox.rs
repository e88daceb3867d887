//! The one seam between control and a worker: commands in, events out.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

/// What a worker tells control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It accepts connections on every listener.
    Listening {
        /// Which worker.
        worker: usize,
    },
    /// It was told to drain and its last connection has ended; its thread is gone.
    Drained {
        /// Which worker.
        worker: usize,
    },
    /// It cannot go on; its thread is gone.
    Died {
        /// Which worker.
        worker: usize,
        /// Why, as one line.
        reason: String,
    },
}

/// Control's end: commands to one worker. Each is one byte, so that sending never blocks.
#[derive(Debug)]
pub struct Handle {
    wake: UnixStream,
}

impl Handle {
    /// The two ends of a new mailbox.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (wake, inbox) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        Ok((Self { wake }, inbox))
    }

    /// Stop accepting, let requests in flight end, close idle connections, then end the thread.
    pub fn drain(&self) {
        // A full or closed pipe means the worker has been told, or is gone: both will be seen as
        // events.
        let _ = (&self.wake).write(&[0]);
    }
}
