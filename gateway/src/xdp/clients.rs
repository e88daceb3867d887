//! Who has connections here, as the kernel lists them in /proc (proc_pid_net(5)): also those that nobody has accepted
//! yet, and those in TIME_WAIT.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of this thread, as its network is not always that of all others.
const LISTS: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// Calls `found` for each connection to one of these ports, with the client's address.
///
/// # Errors
/// When the kernel does not tell.
pub fn each_client(ports: &BTreeSet<u16>, mut found: impl FnMut(IpAddr)) -> io::Result<()> {
    for list in LISTS {
        let file = match File::open(list) {
            // A machine without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound && list != LISTS[0] => continue,
            file => file?,
        };
        for line in BufReader::new(file).lines() {
            if let Some(client) = client(&line?, ports) {
                found(client);
            }
        }
    }
    Ok(())
}

/// A line begins with a number, the local and the remote end; the addresses of listening sockets' remote ends are 0.
fn client(line: &str, ports: &BTreeSet<u16>) -> Option<IpAddr> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let (_, port) = end(columns.next()?)?;
    let (client, _) = end(columns.next()?)?;
    (ports.contains(&port) && !client.is_unspecified()).then_some(client)
}

/// An address in words, as the machine has them, and a port.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].map(u32::to_ne_bytes);
            let octets: [u8; 16] = words.as_flattened().try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_is_connected_is_listed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let local = listener.local_addr().unwrap();
            let clients = |port| {
                let mut clients = Vec::new();
                each_client(&BTreeSet::from([port]), |client| clients.push(client)).unwrap();
                clients
            };
            assert_eq!(clients(local.port()), [0; 0].map(|_: u8| local.ip()));
            let _waiting = TcpStream::connect(local).unwrap();
            assert_eq!(clients(local.port()), [local.ip()]);
        }
    }

    #[test]
    fn whatever_a_line_says() {
        let ports = BTreeSet::from([80]);
        let mapped =
            " 1: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000200007F:D431 01";
        assert_eq!(client(mapped, &ports), Some("127.0.0.2".parse().unwrap()));
        for line in ["", "sl local_address rem_address", " 1: 0100007F:0050", " 1: x:0050 é:1 01"]
        {
            assert_eq!(client(line, &ports), None, "{line}");
        }
    }
}
