//! The one seam between control and a worker: commands in, events out.

#![expect(clippy::disallowed_types, reason = "this is where two threads meet")]

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Entrance, Generation};
use crate::admission::Tallies;
use crate::telemetry::metrics::Offence;

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

/// A client broke a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The client's address, which behind a proxy is not where the packets come from.
    pub client: IpAddr,
    /// Which rule.
    pub offence: Offence,
    /// Whether packets come from there.
    pub direct: bool,
}

/// Control's end: commands to one worker. Each is one byte on a socket of its own, so that sending
/// never blocks.
pub struct Handle {
    drain: UnixStream,
    cut: UnixStream,
    banned: UnixStream,
    reload: UnixStream,
    next: Arc<Mutex<Option<Next>>>,
    look: UnixStream,
    asked: Arc<Mutex<Option<Look>>>,
}

/// What a worker is to do from now on. One value behind one lock: a socket that came apart from the
/// generation it belongs to would be closed as nobody's.
#[derive(Debug)]
pub struct Next {
    /// What to serve by.
    pub generation: Generation,
    /// Where to accept from, too, and from what an earlier one had that was replaced before it was taken.
    pub entrances: Vec<Entrance>,
}

/// Somebody looks at what sources do.
pub struct Look {
    /// Whether to go on counting.
    pub goes_on: bool,
    /// Called on the worker's thread with what has been done since the last look; must not block.
    pub answer: Box<dyn FnOnce(Tallies) + Send>,
}

/// The worker's end.
pub struct Inbox {
    /// Has something to read once the worker is to drain.
    pub drain: UnixStream,
    /// Has something to read once it is to end all but tunnels.
    pub cut: UnixStream,
    /// Has something to read whenever somebody has been banned.
    pub banned: UnixStream,
    /// Has something to read whenever there is another configuration.
    pub reload: UnixStream,
    /// The newest of those, until it is taken.
    pub next: Arc<Mutex<Option<Next>>>,
    /// Has something to read whenever somebody looks at what sources do.
    pub look: UnixStream,
    /// The newest who does, until it is taken.
    pub asked: Arc<Mutex<Option<Look>>>,
}

impl Handle {
    /// The two ends of a new mailbox.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<(Self, Inbox)> {
        let (drain, drained) = UnixStream::pair()?;
        let (cut, was_cut) = UnixStream::pair()?;
        let (banned, was_banned) = UnixStream::pair()?;
        let (reload, reloaded) = UnixStream::pair()?;
        let (look, looked) = UnixStream::pair()?;
        for end in [&drain, &cut, &banned, &reload, &look] {
            end.set_nonblocking(true)?;
        }
        let next = Arc::<Mutex<Option<Next>>>::default();
        let asked = Arc::<Mutex<Option<Look>>>::default();
        let inbox = Inbox {
            drain: drained,
            cut: was_cut,
            banned: was_banned,
            reload: reloaded,
            next: Arc::clone(&next),
            look: looked,
            asked: Arc::clone(&asked),
        };
        Ok((Self { drain, cut, banned, reload, next, look, asked }, inbox))
    }

    /// Stop accepting, let requests in flight end, close idle connections, then end the thread.
    pub fn drain(&self) {
        // A full or closed pipe means the worker has been told, or is gone: both will be seen as
        // events.
        let _ = (&self.drain).write(&[0]);
    }

    /// Serve by this configuration from now on, and accept from these sockets, too; no longer from those of
    /// listeners it does not have.
    pub fn reload(&self, generation: Generation, entrances: impl IntoIterator<Item = Entrance>) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = next.take().map_or_else(Vec::new, |untaken| untaken.entrances);
        all.extend(entrances);
        *next = Some(Next { generation, entrances: all });
        drop(next);
        let _ = (&self.reload).write(&[0]);
    }

    /// Tell what sources have done since the last look. One who has not been answered yet never will be.
    pub fn look(&self, look: Look) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
        let _ = (&self.look).write(&[0]);
    }

    /// End what banned sources have open.
    pub fn end_banned(&self) {
        let _ = (&self.banned).write(&[0]);
    }

    /// End every connection that is not a tunnel.
    pub fn cut(&self) {
        let _ = (&self.cut).write(&[0]);
    }
}
