//! Many connections opened at once, without waiting for any.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use crate::netns::Namespace;

/// Only to end a test that fails; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Connections on their way or established. Those whose SYN was dropped keep trying, as clients do.
pub struct Connections(Vec<Socket>);

impl Connections {
    /// Opens `count` connections from `source`.
    pub fn open(from: &Namespace, source: IpAddr, target: SocketAddr, count: usize) -> Self {
        let open = || {
            let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            match socket.connect(&target.into()) {
                Err(error) if error.raw_os_error() != Some(115) => Err(error),
                _ => Ok(socket),
            }
        };
        let sockets = from.run(|| (0..count).map(|_| open()).collect::<std::io::Result<_>>());
        Self(sockets.expect("open connections"))
    }

    /// Waits until at least `count` are established.
    pub fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.established() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {count} connections", self.established());
            let mut pending: Vec<_> = self
                .0
                .iter()
                .filter(|socket| !is_established(socket))
                .map(|socket| PollFd::new(socket, PollFlags::OUT))
                .collect();
            let timeout = Timespec::try_from(left).expect("a few seconds");
            poll(&mut pending, Some(&timeout)).expect("poll");
        }
    }

    pub fn established(&self) -> usize {
        self.0.iter().filter(|socket| is_established(socket)).count()
    }
}

fn is_established(socket: &Socket) -> bool {
    if let Some(error) = socket.take_error().expect("SO_ERROR") {
        panic!("a connection failed: {error}");
    }
    socket.peer_addr().is_ok()
}
