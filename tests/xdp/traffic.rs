//! SYNs by the packet, of any source, and who gets past the program with them.

#![expect(clippy::disallowed_types, reason = "the thread that sends tells the test how far it is")]

use std::cell::Cell;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use crate::PORT;
use crate::connections::PATIENCE;
use crate::netns::{GATEWAY_V4, Namespace};

/// One of the many that are nobody's here.
pub fn invented(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0b00_0000 + number).into()
}

/// Sends SYNs that nobody follows up.
pub struct Syns(Socket);

impl Syns {
    pub fn from(inside: &Namespace) -> Self {
        // IPPROTO_RAW: with a header of our own.
        let protocol = Some(Protocol::from(255));
        Self(inside.run(|| Socket::new(Domain::IPV4, Type::RAW, protocol).expect("a raw socket")))
    }

    pub fn send(&self, source: IpAddr, to: SocketAddr) {
        self.0.send_to(&syn(source, to), &to.into()).expect("send");
    }

    /// Sends so many to [`PORT`].
    pub fn send_many(&self, source: IpAddr, count: usize) {
        (0..count).for_each(|_| self.send(source, SocketAddr::new(GATEWAY_V4, PORT)));
    }
}

/// A SYN as an IP packet; the kernel fills in the IP checksum. TCP's is wrong, so the gateway's kernel
/// takes what gets past the program no further than to [`Passed`].
fn syn(source: IpAddr, to: SocketAddr) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(gateway)) = (source, to.ip()) else {
        panic!("{source} and {to} are not both IPv4")
    };
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    packet.extend(source.octets());
    packet.extend(gateway.octets());
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

/// How many packets of the clients the gateway's end of the veth has had no room for, as when the machine is
/// busy: nobody has decided them.
pub fn lost(clients: &Namespace) -> u64 {
    let devices = clients.run(|| fs::read_to_string("/proc/thread-self/net/dev").expect("devices"));
    let cl0 = devices.lines().find_map(|line| line.trim().strip_prefix("cl0:")).expect("cl0");
    // Of what is sent, behind eight numbers of what is received: bytes, packets, errs, drop.
    cl0.split_whitespace().nth(8 + 3).expect("a column").parse().expect("a number")
}

/// The SYNs of one source that get as far as the gateway's kernel.
pub struct Passed {
    socket: Socket,
    count: Cell<usize>,
}

impl Passed {
    pub fn of(source: IpAddr, inside: &Namespace) -> Self {
        let socket = inside.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP));
            let socket = socket.expect("a raw socket");
            socket.connect(&SocketAddr::new(source, 0).into()).expect("one source");
            socket.set_nonblocking(true).expect("a nonblocking socket");
            socket
        });
        Self { socket, count: Cell::new(0) }
    }

    /// So far. Those that have just been sent may still be on their way.
    pub fn count(&self) -> usize {
        let mut packet = [0; 128];
        loop {
            match (&self.socket).read(&mut packet) {
                // Behind an IP header of 20 bytes: SYN without ACK.
                Ok(33..) if packet[33] & 0x12 == 0x02 => self.count.set(self.count.get() + 1),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.count.get(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A thread that sends until it is ended.
pub struct Load {
    state: Arc<State>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    rounds: AtomicU64,
    is_over: AtomicBool,
}

impl Load {
    /// Calls `round` again and again with the number of the round.
    pub fn start(inside: &Namespace, mut round: impl FnMut(&Syns, u32) + Send + 'static) -> Self {
        let (syns, state) = (Syns::from(inside), Arc::<State>::default());
        let own = Arc::clone(&state);
        let thread = thread::spawn(move || {
            for number in 0.. {
                if own.is_over.load(Relaxed) {
                    break;
                }
                round(&syns, number);
                own.rounds.fetch_add(1, Relaxed);
            }
        });
        Self { state, thread }
    }

    /// Waits until so many more rounds are over.
    pub fn await_more(&self, rounds: u64) {
        let (begun, deadline) = (self.state.rounds.load(Relaxed), Instant::now() + PATIENCE);
        while self.state.rounds.load(Relaxed) < begun + rounds {
            assert!(Instant::now() < deadline && !self.thread.is_finished(), "nothing is sent");
            thread::yield_now();
        }
    }

    /// Ends it; how many rounds there were.
    pub fn end(self) -> u64 {
        self.state.is_over.store(true, Relaxed);
        self.thread.join().expect("the sender");
        self.state.rounds.load(Relaxed)
    }
}
