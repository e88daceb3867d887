//! The PROXY protocol, versions 1 and 2: what a load balancer sends ahead of a connection's own
//! bytes to say whose they are. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_PREFIX_BYTES: usize = 16;
/// The longest line of version 1, its end included.
const V1_BYTES_MAX: usize = 107;
/// Addresses and the extensions behind them; the protocol promises no sender more in one segment.
const V2_BYTES_MAX: usize = 536;

/// Bytes to have room for.
pub const HEADER_BYTES_MAX: usize = V2_PREFIX_BYTES + V2_BYTES_MAX;

/// Which version to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The beginning of a header; more bytes are needed.
    Partial,
    /// No header.
    None,
    /// A header of so many bytes.
    Whole {
        /// Its length.
        len: usize,
        /// Who connected, and to what; `None` where the sender speaks for itself.
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
    /// It begins like a header and is none.
    Broken,
}

/// Looks at what a connection begins with.
pub fn parse(bytes: &[u8]) -> Header {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(byte, other)| byte == other);
    if begins(&SIGNATURE) {
        return parse_v2(bytes).unwrap_or(Header::Broken);
    }
    if begins(b"PROXY ") {
        return parse_v1(bytes).unwrap_or(Header::Broken);
    }
    Header::None
}

/// `None` when it is broken.
fn parse_v1(bytes: &[u8]) -> Option<Header> {
    let start = bytes.get(..bytes.len().min(V1_BYTES_MAX))?;
    let Some(end) = memchr::memchr(b'\n', start) else {
        return (bytes.len() < V1_BYTES_MAX).then_some(Header::Partial);
    };
    let line = str::from_utf8(start.get(..end)?).ok()?.strip_suffix('\r')?;
    let len = end + 1;
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    // What follows UNKNOWN is to be ignored.
    if family == "UNKNOWN" {
        return Some(Header::Whole { len, addresses: None });
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let addresses =
        (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
    words.next().is_none().then_some(Header::Whole { len, addresses: Some(addresses) })
}

/// Decimal, without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// `None` when it is broken.
fn parse_v2(bytes: &[u8]) -> Option<Header> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<V2_PREFIX_BYTES>() else {
        return Some(Header::Partial);
    };
    let [.., command, family, high, low] = *prefix;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX || !matches!(command, 0x20 | 0x21) {
        return None;
    }
    let addresses = match (command, family) {
        // LOCAL: the sender's own connection, a health check for instance.
        (0x20, _) | (_, 0) => None,
        // TCP over IPv4 and over IPv6.
        (_, 0x11) if length >= 12 => Some(4),
        (_, 0x21) if length >= 36 => Some(16),
        _ => return None,
    };
    let Some(rest) = rest.get(..length) else { return Some(Header::Partial) };
    let addresses = match addresses {
        None => None,
        Some(size) => {
            let (source, rest) = rest.split_at_checked(size)?;
            let (destination, rest) = rest.split_at_checked(size)?;
            let ports = rest.first_chunk::<4>()?;
            let source_port = u16::from_be_bytes([ports[0], ports[1]]);
            let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
            Some((
                SocketAddr::new(ip(source)?, source_port),
                SocketAddr::new(ip(destination)?, destination_port),
            ))
        }
    };
    Some(Header::Whole { len: V2_PREFIX_BYTES + length, addresses })
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(Ipv4Addr::from).map(IpAddr::V4);
    let v6 = || <[u8; 16]>::try_from(octets).map(Ipv6Addr::from).map(IpAddr::V6);
    v4().or_else(|_| v6()).ok()
}

/// The header that says that `source` connected to `destination`. Where their families differ, both
/// become IPv6 addresses.
pub fn encode(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V6(to)) => (from.to_ipv6_mapped().into(), to.into()),
        (IpAddr::V6(from), IpAddr::V4(to)) => (from.into(), to.to_ipv6_mapped().into()),
        same => same,
    };
    let mut header = Vec::with_capacity(V1_BYTES_MAX);
    match version {
        Version::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let ports = (source.port(), destination.port());
            // Writing to a Vec does not fail.
            let _ = write!(header, "PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1);
        }
        Version::V2 => {
            let (family, length) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            header.extend_from_slice(&SIGNATURE);
            header.extend_from_slice(&[0x21, family, 0, length]);
            for ip in [from, to] {
                match ip {
                    IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
                }
            }
            header.extend_from_slice(&source.port().to_be_bytes());
            header.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> [(SocketAddr, SocketAddr); 2] {
        [
            ("192.0.2.1:5000".parse().unwrap(), "198.51.100.1:443".parse().unwrap()),
            ("[2001:db8::1]:5000".parse().unwrap(), "[2001:db8::2]:443".parse().unwrap()),
        ]
    }

    #[test]
    fn what_is_written_is_read_however_it_arrives() {
        for version in [Version::V1, Version::V2] {
            for addresses in pairs() {
                let mut bytes = encode(version, addresses.0, addresses.1);
                let len = bytes.len();
                bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
                for cut in 1..len {
                    assert_eq!(parse(&bytes[..cut]), Header::Partial, "{version:?} {cut}");
                }
                assert_eq!(parse(&bytes), Header::Whole { len, addresses: Some(addresses) });
            }
        }
    }

    #[test]
    fn mixed_families_become_ipv6() {
        let [(v4, _), (_, v6)] = pairs();
        assert_eq!(
            encode(Version::V1, v4, v6),
            b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 5000 443\r\n"
        );
    }

    #[test]
    fn who_speaks_for_itself_names_nobody() {
        let local = [&SIGNATURE[..], &[0x20, 0, 0, 3, 1, 2, 3]].concat();
        assert_eq!(parse(&local), Header::Whole { len: 19, addresses: None });
        let unspecified = [&SIGNATURE[..], &[0x21, 0, 0, 0]].concat();
        assert_eq!(parse(&unspecified), Header::Whole { len: 16, addresses: None });
        let unknown = b"PROXY UNKNOWN whatever\r\n";
        assert_eq!(parse(unknown), Header::Whole { len: unknown.len(), addresses: None });
    }

    #[test]
    fn what_is_no_header_is_none_and_what_is_broken_says_so() {
        for none in [&b"GET / HTTP/1.1\r\n"[..], b"PROXX", b"PUT", b"\r\nGET", b"\r\n\r\nG"] {
            assert_eq!(parse(none), Header::None);
        }
        let broken_v2 = |tail: &[u8]| [&SIGNATURE[..], tail].concat();
        let mut broken = vec![
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            [b"PROXY UNKNOWN ".to_vec(), vec![b'a'; 120]].concat(),
        ];
        broken.extend([
            broken_v2(&[0x11, 0x11, 0, 12]),
            broken_v2(&[0x22, 0x11, 0, 12]),
            broken_v2(&[0x21, 0x12, 0, 12]),
            broken_v2(&[0x21, 0x11, 0, 11]),
            broken_v2(&[0x21, 0x21, 0, 12]),
            broken_v2(&[0x21, 0x11, 0xff, 0xff]),
        ]);
        for bytes in broken {
            assert_eq!(parse(&bytes), Header::Broken, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
