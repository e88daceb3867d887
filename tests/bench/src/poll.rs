//! epoll, level-triggered, with a token for each socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events taken at once.
const BATCH: usize = 256;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the end.
    Read,
    /// The same, or room to write.
    Write,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// Waits on many sockets. Closing a socket takes it out.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub fn new() -> Result<Self> {
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: vec![nothing; BATCH] })
    }

    pub fn add(&self, socket: &impl AsFd, token: usize, interest: Interest) -> Result<()> {
        let data = EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, socket, data, interest.flags())?)
    }

    pub fn change(&self, socket: &impl AsFd, token: usize, interest: Interest) -> Result<()> {
        let data = EventData::new_u64(token as u64);
        Ok(epoll::modify(&self.epoll, socket, data, interest.flags())?)
    }

    /// Waits for at most `timeout` and puts the tokens of what is ready into `ready`.
    pub fn wait(&mut self, ready: &mut Vec<usize>, timeout: Option<Duration>) -> Result<()> {
        ready.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let count = match epoll::wait(&self.epoll, self.events.as_mut_slice(), timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => 0,
            result => result?,
        };
        ready.extend(self.events.iter().take(count).map(|event| event.data.u64() as usize));
        Ok(())
    }
}
