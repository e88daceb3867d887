//! What an interface's driver can do with programs, as the kernel tells it (Linux 6.3, netlink's family `netdev`).

use std::io;

use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::hook::index_of;
use super::netlink::{Attributes, attribute, body, request, u16_at_start};

// linux/genetlink.h, linux/netdev.h
const GENL_ID_CTRL: u16 = 16;
const GENL_HEADER_BYTES: usize = 4;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1 << 0;
const NETDEV_XDP_ACT_RX_SG: u64 = 1 << 5;

/// An interface's description is short.
const REPLY_BYTES_MAX: usize = 1 << 14;

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Run programs itself, in native mode.
    pub native: bool,
    /// Also on packets that are spread over several buffers, as large ones are.
    pub frags: bool,
}

/// What the driver of `interface` can do; `None` where the kernel does not tell.
///
/// # Errors
/// When there is no such interface, or netlink does not answer.
pub fn features(interface: &str) -> io::Result<Option<Features>> {
    let index = index_of(interface).map_err(io::Error::other)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(GENERIC))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let ask = |kind: u16, command: u8, attribute: &[u8]| -> io::Result<Vec<u8>> {
        let message = [&[command, 1, 0, 0], attribute].concat();
        send(&socket, &request(kind, &message), SendFlags::empty())?;
        let mut reply = vec![0; REPLY_BYTES_MAX];
        let (length, _) = recv(&socket, reply.as_mut_slice(), RecvFlags::empty())?;
        reply.truncate(length);
        Ok(reply)
    };
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let family = match parse_family(&ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        family => family?,
    };
    let index = attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes());
    parse_features(&ask(family, NETDEV_CMD_DEV_GET, &index)?, family).map(Some)
}

fn parse_family(reply: &[u8]) -> io::Result<u16> {
    let attributes = body(reply, GENL_ID_CTRL)?.get(GENL_HEADER_BYTES..).unwrap_or_default();
    let family = Attributes(attributes).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
    family.and_then(|(_, value)| u16_at_start(value)).ok_or(io::ErrorKind::InvalidData.into())
}

fn parse_features(reply: &[u8], family: u16) -> io::Result<Features> {
    let attributes = body(reply, family)?.get(GENL_HEADER_BYTES..).unwrap_or_default();
    let features = Attributes(attributes).find(|(kind, _)| *kind == NETDEV_A_DEV_XDP_FEATURES);
    let bits = features
        .and_then(|(_, value)| value.first_chunk())
        .map_or(0, |bits| u64::from_ne_bytes(*bits));
    Ok(Features {
        native: bits & NETDEV_XDP_ACT_BASIC != 0,
        frags: bits & NETDEV_XDP_ACT_RX_SG != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_bits() {
        for (bits, native, frags) in [(0_u64, false, false), (1, true, false), (0x23, true, true)] {
            let told = [
                vec![0; GENL_HEADER_BYTES],
                attribute(NETDEV_A_DEV_XDP_FEATURES, &bits.to_ne_bytes()),
            ];
            let reply = request(30, &told.concat());
            assert_eq!(parse_features(&reply, 30).unwrap(), Features { native, frags });
        }
        let family =
            [vec![0; GENL_HEADER_BYTES], attribute(CTRL_ATTR_FAMILY_ID, &30_u16.to_ne_bytes())];
        let reply = request(GENL_ID_CTRL, &family.concat());
        assert_eq!(parse_family(&reply).unwrap(), 30);
        for length in 0..reply.len() {
            let _ = parse_family(&reply[..length]);
        }
    }

    #[test]
    fn the_loopback_interface_has_none() {
        // Where the kernel tells: since 6.3.
        if let Some(features) = features("lo").unwrap() {
            assert_eq!(features, Features { native: false, frags: false });
        }
        assert!(super::features("no-such-if0").is_err());
    }
}
