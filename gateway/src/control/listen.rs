//! Listening sockets: a SO_REUSEPORT group for each listener, one member for each worker.
//!
//! SO_REUSEPORT alone lets any process of the same user join the group, so a gateway started
//! twice would silently take half the connections. Here the first member binds and listens without
//! the option, which the kernel allows only while nobody else listens there, and sets it
//! afterwards, which opens the port to the other members. There is no moment at which two gateways
//! can both succeed, and no lock that could be left behind.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::Error;
use crate::config::Listener;

/// Connections the kernel completes before a worker accepts them. It takes net.core.somaxconn
/// instead where that is less.
const BACKLOG: i32 = 4096;

/// One listener's sockets.
#[derive(Debug)]
pub(super) struct Group {
    /// Where they listen, with the real port where 0 was asked for.
    pub address: SocketAddr,
    /// As many as there are workers.
    pub sockets: Vec<TcpListener>,
}

/// Binds every listener, or none.
pub(super) fn bind_all(listeners: &[Listener], members: usize) -> Result<Vec<Group>, Error> {
    listeners
        .iter()
        .map(|listener| {
            let address = listener.address;
            bind(address, members).map_err(|source| Error::Listen { address, source })
        })
        .collect()
}

/// Whether a listener could be had now.
///
/// # Errors
/// Why not.
pub fn can_listen(address: SocketAddr) -> Result<(), Error> {
    bind(address, 1).map(drop).map_err(|source| Error::Listen { address, source })
}

/// Binds a listener's sockets, so many.
pub(super) fn bind(address: SocketAddr, members: usize) -> io::Result<Group> {
    let first = new_socket(address)?;
    listen(&first, address)?;
    first.set_reuse_port(true)?;
    let first = TcpListener::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < members {
        let socket = new_socket(address)?;
        socket.set_reuse_port(true)?;
        listen(&socket, address)?;
        sockets.push(socket.into());
    }
    Ok(Group { address, sockets })
}

/// socket2 sets CLOEXEC. SO_REUSEADDR is for the old connections a restarted gateway finds in
/// TIME_WAIT; it does not let two sockets listen.
fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it, which saves each a system call. Without it the end of a
    // response waits for the client's delayed acknowledgement.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // So that [::]:80 and 0.0.0.0:80 are two listeners, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn listen(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Trust;
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    fn local() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn accepted(socket: &TcpListener) -> usize {
        socket.incoming().take_while(Result::is_ok).count()
    }

    #[test]
    fn all_members_share_one_port_and_its_connections() {
        let group = bind(local(), 3).unwrap();
        assert_ne!(group.address.port(), 0);
        let clients: Vec<_> =
            (0..120).map(|_| TcpStream::connect(group.address).unwrap()).collect();

        let shares: Vec<usize> = group.sockets.iter().map(accepted).collect();

        assert_eq!(shares.iter().sum::<usize>(), clients.len());
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    }

    #[test]
    fn a_second_gateway_is_refused_and_the_first_keeps_every_connection() {
        let first = bind(local(), 2).unwrap();
        let error = bind(first.address, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_program_that_shares_ports_itself_is_noticed() {
        let other = new_socket(local()).unwrap();
        other.set_reuse_port(true).unwrap();
        listen(&other, local()).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(bind(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_wildcard_does_not_slip_past_a_listener_on_one_address() {
        let first = bind(local(), 1).unwrap();
        let wildcard = SocketAddr::from(([0, 0, 0, 0], first.address.port()));
        assert_eq!(bind(wildcard, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn of_many_that_race_for_a_port_at_most_one_wins() {
        for _ in 0..20 {
            let address = bind(local(), 1).unwrap().address;
            let wins: usize = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..4).map(|_| scope.spawn(|| bind(address, 2))).collect();
                let groups: Vec<_> =
                    racers.into_iter().map(|racer| racer.join().unwrap()).collect();
                groups.iter().filter(|group| group.is_ok()).count()
            });
            assert!(wins <= 1, "{wins} groups on one port");
        }
    }

    #[test]
    fn a_restart_finds_the_port_free_while_old_connections_live() {
        let first = bind(local(), 2).unwrap();
        let address = first.address;
        let _client = TcpStream::connect(address).unwrap();
        let _accepted = first.sockets.iter().find_map(|socket| socket.accept().ok()).unwrap();
        drop(first);
        assert!(bind(address, 2).is_ok());
    }

    #[test]
    fn both_families_have_their_own_listener() {
        let v4 = bind("0.0.0.0:0".parse().unwrap(), 2).unwrap();
        let v6 = SocketAddr::from(([0u16; 8], v4.address.port()));
        let v6 = bind(v6, 2).unwrap();
        let option = rustix::net::sockopt::ipv6_v6only(&v6.sockets[1]).unwrap();
        assert!(option);
    }

    #[test]
    fn sockets_do_not_block_and_do_not_reach_children() {
        for socket in bind(local(), 2).unwrap().sockets {
            let status = rustix::fs::fcntl_getfl(socket.as_fd()).unwrap();
            assert!(status.contains(rustix::fs::OFlags::NONBLOCK));
            let descriptor = rustix::io::fcntl_getfd(socket.as_fd()).unwrap();
            assert!(descriptor.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn an_error_names_the_listener() {
        let taken = bind(local(), 1).unwrap();
        let listener = Listener {
            address: taken.address,
            tls: None,
            trust: Trust::default(),
            policies: Vec::new(),
            redirect: None,
            class: 0,
        };
        assert_eq!(
            bind_all(&[listener], 1).unwrap_err().to_string(),
            format!("listen {}: address already in use (another program holds it)", taken.address)
        );
    }
}
