//! Ethernet frames by hand. The decoder's own tests use them, too.

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const VLAN: u16 = 0x8100;
pub const QINQ: u16 = 0x88a8;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION: u8 = 60;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// "More fragments" in the field of an IPv4 header.
pub const MORE: u16 = 0x2000;

pub fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A TCP header without options.
pub fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

/// `fragment` is the header's field: flags and offset in units of eight bytes.
pub fn ipv4(
    source: [u8; 4],
    option_bytes: usize,
    fragment: u16,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; 20 + option_bytes];
    packet[0] = 0x40 | ((20 + option_bytes) / 4) as u8;
    packet[2..4].copy_from_slice(&((20 + option_bytes + payload.len()) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source);
    packet.extend(payload);
    packet
}

/// `chain`: kind and bytes of each extension header, whose first two are filled in here.
pub fn ipv6(source: [u8; 16], chain: &[(u8, &[u8])], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (position, (kind, content)) in chain.iter().enumerate() {
        let next = chain.get(position + 1).map_or(last, |(next, _)| *next);
        let units = if *kind == FRAGMENT { 0 } else { (content.len() / 8 - 1) as u8 };
        body.extend([next, units]);
        body.extend(&content[2..]);
    }
    body.extend(payload);
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
    packet[6] = chain.first().map_or(last, |(kind, _)| *kind);
    packet[8..24].copy_from_slice(&source);
    packet.extend(body);
    packet
}

/// The fragment header of IPv6: offset in units of eight bytes, and whether more follow.
pub fn fragment_header(offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    [0, 0, high, low, 0, 0, 0, 1]
}
