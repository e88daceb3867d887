//! Asks the kernel about one socket, be it another process's: sock_diag(7).

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const IPPROTO_TCP: u8 = 6;

/// Bytes of a message's head, and of a request and its head.
const HEAD: usize = 16;
const REQUEST: usize = HEAD + 56;
/// Where an answer has the bytes not read and not acknowledged.
const QUEUES: std::ops::Range<usize> = HEAD + 56..HEAD + 64;

/// Waits until the other end has read what was sent, or is gone, so that what is sent next is a read of its own;
/// false when it has not by then.
pub fn wait_until_read(stream: &TcpStream, until: Instant) -> bool {
    let (Ok(SocketAddr::V4(ours)), Ok(SocketAddr::V4(theirs))) =
        (stream.local_addr(), stream.peer_addr())
    else {
        return true;
    };
    let kind = Some(Protocol::from(NETLINK_SOCK_DIAG));
    let mut kernel = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, kind).unwrap();
    while Instant::now() < until {
        let unacknowledged = queues(&mut kernel, ours, theirs).is_some_and(|(_, sent)| sent > 0);
        let unread = queues(&mut kernel, theirs, ours).is_some_and(|(received, _)| received > 0);
        if !unacknowledged && !unread {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// What waits on the socket at `local` to be read, and to be acknowledged; `None` if there is none.
fn queues(kernel: &mut Socket, local: SocketAddrV4, remote: SocketAddrV4) -> Option<(u32, u32)> {
    let mut request = [0; REQUEST];
    request[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[HEAD..HEAD + 2].copy_from_slice(&[AF_INET, IPPROTO_TCP]);
    // Every state.
    request[HEAD + 4..HEAD + 8].fill(0xff);
    let id = &mut request[HEAD + 8..];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    id[4..8].copy_from_slice(&local.ip().octets());
    id[20..24].copy_from_slice(&remote.ip().octets());
    // No cookie: whichever socket it is.
    id[40..48].fill(0xff);
    kernel.write_all(&request).unwrap();
    let mut answer = [0; 1024];
    let count = kernel.read(&mut answer).unwrap();
    let is_socket = answer[4..6] == SOCK_DIAG_BY_FAMILY.to_ne_bytes();
    let queues = answer[..count].get(QUEUES).filter(|_| is_socket)?;
    let number = |at: usize| u32::from_ne_bytes(queues[at..at + 4].try_into().unwrap());
    Some((number(0), number(4)))
}
