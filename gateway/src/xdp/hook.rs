//! Who holds an interface's XDP hook. aya attaches but does not tell, so this asks rtnetlink.

use std::io;

use aya::programs::{ProgramError, loaded_programs};
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::Hook;
use super::netlink::{Attributes, body, request, u32_at_start};

/// A program on an interface's XDP hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Its id, by which `bpftool prog` shows it.
    pub program: u32,
    /// Where it runs, unless in several places or on the card.
    pub hook: Option<Hook>,
}

impl Occupant {
    /// The program in words.
    pub fn describe(&self) -> String {
        let id = self.program;
        let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
        match info.as_ref().and_then(|info| info.name_as_str()) {
            Some(name) => format!("program \"{name}\" (id {id})"),
            None => format!("the program with id {id}"),
        }
    }
}

/// The program on the XDP hook of `interface`, if there is one.
///
/// # Errors
/// When there is no such interface, or rtnetlink does not answer.
pub fn occupant(interface: &str) -> io::Result<Option<Occupant>> {
    // No protocol: NETLINK_ROUTE is 0.
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let index = name_to_index(&socket, interface)?;
    send(&socket, &link_request(index), SendFlags::empty())?;
    let mut reply = vec![0; REPLY_BYTES_MAX];
    let (length, _) = recv(&socket, reply.as_mut_slice(), RecvFlags::empty())?;
    let reply = reply.get(..length).unwrap_or_default();
    parse_reply(reply)
}

/// The index of an interface.
pub(super) fn index_of(interface: &str) -> Result<u32, ProgramError> {
    let unknown = || ProgramError::UnknownInterface { name: interface.to_owned() };
    // The kernel would read no further, and aya panic.
    if interface.contains('\0') {
        return Err(unknown());
    }
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(|error| ProgramError::IOError(error.into()))?;
    name_to_index(&socket, interface).map_err(|_| unknown())
}

/// The name of the interface with an index, if there is one.
pub(super) fn name_of(index: u32) -> Option<String> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).ok()?;
    index_to_name(&socket, index).ok()
}

/// The indices of interfaces, of those that there are.
pub(super) fn indices_of(interfaces: &[String]) -> Vec<u32> {
    interfaces.iter().filter_map(|interface| index_of(interface).ok()).collect()
}

/// The index of the loopback, in every namespace (`LOOPBACK_IFINDEX`).
pub(super) const LOOPBACK: u32 = 1;

/// One interface's description; the kernel's own buffer for it is a page or two.
const REPLY_BYTES_MAX: usize = 1 << 16;

// linux/rtnetlink.h, linux/if_link.h
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const LINK_HEADER_BYTES: usize = 16;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
/// The program's id, by mode: any, driver, stack, card.
const IFLA_XDP_PROGRAM_IDS: std::ops::RangeInclusive<u16> = 4..=7;
const XDP_ATTACHED_NATIVE: u8 = 1;
const XDP_ATTACHED_GENERIC: u8 = 2;

fn link_request(index: u32) -> Vec<u8> {
    let mut header = [0; LINK_HEADER_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    request(RTM_GETLINK, &header)
}

fn parse_reply(reply: &[u8]) -> io::Result<Option<Occupant>> {
    let body = body(reply, RTM_NEWLINK)?;
    let attributes = body.get(LINK_HEADER_BYTES..).unwrap_or_default();
    let Some((_, xdp)) = Attributes(attributes).find(|(kind, _)| *kind == IFLA_XDP) else {
        return Ok(None);
    };
    let program = Attributes(xdp)
        .filter(|(kind, _)| IFLA_XDP_PROGRAM_IDS.contains(kind))
        .find_map(|(_, value)| u32_at_start(value).filter(|id| *id != 0));
    let attached = Attributes(xdp).find(|(kind, _)| *kind == IFLA_XDP_ATTACHED);
    let hook = match attached.and_then(|(_, value)| value.first()) {
        Some(&XDP_ATTACHED_NATIVE) => Some(Hook::Native),
        Some(&XDP_ATTACHED_GENERIC) => Some(Hook::Generic),
        _ => None,
    };
    Ok(program.map(|program| Occupant { program, hook }))
}

#[cfg(test)]
mod tests {
    use super::super::netlink::{MESSAGE_HEADER_BYTES, NLMSG_ERROR, attribute};
    use super::*;

    fn reply(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE_HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn link(attributes: &[Vec<u8>]) -> Vec<u8> {
        reply(RTM_NEWLINK, &[vec![0; LINK_HEADER_BYTES], attributes.concat()].concat())
    }

    #[test]
    fn a_program_is_found_by_id_and_mode() {
        let name = attribute(3, b"eth0\0");
        let none = attribute(IFLA_XDP, &attribute(IFLA_XDP_ATTACHED, &[0]));
        assert_eq!(parse_reply(&link(std::slice::from_ref(&name))).unwrap(), None);
        assert_eq!(parse_reply(&link(&[name.clone(), none])).unwrap(), None);

        let native =
            [attribute(IFLA_XDP_ATTACHED, &[1]), attribute(4, &77u32.to_ne_bytes())].concat();
        let found = parse_reply(&link(&[name, attribute(IFLA_XDP, &native)])).unwrap();
        assert_eq!(found, Some(Occupant { program: 77, hook: Some(Hook::Native) }));
    }

    #[test]
    fn an_error_reply_is_an_error() {
        let no_such_device = reply(NLMSG_ERROR, &(-19i32).to_ne_bytes());
        assert_eq!(parse_reply(&no_such_device).unwrap_err().raw_os_error(), Some(19));
    }

    #[test]
    fn no_reply_panics() {
        let whole = link(&[attribute(IFLA_XDP, &attribute(4, &7u32.to_ne_bytes()))]);
        for length in 0..whole.len() {
            let _ = parse_reply(&whole[..length]);
        }
        assert!(parse_reply(&link(&[vec![0, 0, 0, 0], vec![0xff; 7]])).is_ok());
    }

    #[test]
    fn an_unknown_interface_is_an_error() {
        assert!(occupant("no-such-if0").is_err());
        assert!(index_of("lo").is_ok() && index_of("lo\0").is_err());
    }
}
