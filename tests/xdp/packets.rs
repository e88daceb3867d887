//! The table of packets that the host library and the loaded program must agree on.

use crate::PORT;
use crate::frames::*;

/// A frame with a name for the message of a failing test.
pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
}

const V4: [u8; 4] = [192, 0, 2, 7];
const V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];

pub fn syn_from_ipv4(source: [u8; 4]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(source, 0, 0, TCP, &tcp(PORT, SYN)))
}

pub fn syn_from_ipv6(source: [u8; 16]) -> Vec<u8> {
    ethernet(&[], IPV6, &ipv6(source, &[], TCP, &tcp(PORT, SYN)))
}

pub fn all() -> Vec<Case> {
    [ethernet_frames(), tcp_segments(), ipv4_packets(), ipv6_packets(), fragments()].concat()
}

fn case(name: &'static str, frame: Vec<u8>) -> Case {
    Case { name, frame }
}

impl Clone for Case {
    fn clone(&self) -> Self {
        case(self.name, self.frame.clone())
    }
}

fn v4(option_bytes: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(V4, option_bytes, fragment, protocol, payload))
}

fn v6(chain: &[(u8, &[u8])], last: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV6, &ipv6(V6, chain, last, payload))
}

fn ethernet_frames() -> Vec<Case> {
    let syn4 = ipv4(V4, 0, 0, TCP, &tcp(PORT, SYN));
    let syn6 = ipv6(V6, &[], TCP, &tcp(PORT, SYN));
    vec![
        case("ARP", ethernet(&[], 0x0806, &[0; 28])),
        case("LLDP", ethernet(&[], 0x88cc, &[0; 46])),
        case("garbage for an ethertype", ethernet(&[], 0xfefe, &[0xfe; 50])),
        case("an 802.3 length for an ethertype", ethernet(&[], 46, &[0; 46])),
        case("IPv4 under the ethertype of IPv6", ethernet(&[], IPV6, &syn4)),
        case("IPv6 under the ethertype of IPv4", ethernet(&[], IPV4, &syn6)),
        case("VLAN, IPv4", ethernet(&[VLAN], IPV4, &syn4)),
        case("VLAN, IPv6", ethernet(&[VLAN], IPV6, &syn6)),
        case("802.1ad tag alone", ethernet(&[QINQ], IPV4, &syn4)),
        case("QinQ, IPv4", ethernet(&[QINQ, VLAN], IPV4, &syn4)),
        case("QinQ, IPv6", ethernet(&[QINQ, VLAN], IPV6, &syn6)),
        case("two VLAN tags", ethernet(&[VLAN, VLAN], IPV4, &syn4)),
        case("three tags, IPv4", ethernet(&[QINQ, VLAN, VLAN], IPV4, &syn4)),
        case("three tags, IPv6", ethernet(&[QINQ, QINQ, VLAN], IPV6, &syn6)),
        case("VLAN, ARP", ethernet(&[VLAN], 0x0806, &[0; 28])),
    ]
}

fn tcp_segments() -> Vec<Case> {
    let flags = |name, flags| case(name, v4(0, 0, TCP, &tcp(PORT, flags)));
    vec![
        flags("SYN", SYN),
        flags("SYN with ECN", SYN | 0xc0),
        flags("SYN and FIN", SYN | 0x01),
        flags("SYN-ACK", SYN | ACK),
        flags("ACK", ACK),
        flags("PSH-ACK", 0x08 | ACK),
        flags("FIN-ACK", 0x01 | ACK),
        flags("FIN", 0x01),
        flags("RST", 0x04),
        flags("RST-ACK", 0x04 | ACK),
        flags("no flags", 0),
        flags("all flags", 0xff),
        case("SYN with data", v4(0, 0, TCP, &[&tcp(PORT, SYN)[..], &[7; 100]].concat())),
        case("SYN to another port", v4(0, 0, TCP, &tcp(22, SYN))),
        case("SYN to port 0", v4(0, 0, TCP, &tcp(0, SYN))),
        case("SYN to port 65535", v4(0, 0, TCP, &tcp(u16::MAX, SYN))),
        case("SYN over IPv6", v6(&[], TCP, &tcp(PORT, SYN))),
        case("SYN-ACK over IPv6", v6(&[], TCP, &tcp(PORT, SYN | ACK))),
        case("SYN over IPv6 to another port", v6(&[], TCP, &tcp(22, SYN))),
        case("a header too short for TCP", v4(0, 0, TCP, &tcp(PORT, SYN)[..19])),
    ]
}

fn ipv4_packets() -> Vec<Case> {
    let syn = tcp(PORT, SYN);
    let changed = |name, at: usize, byte| {
        let mut frame = v4(0, 0, TCP, &syn);
        frame[14 + at] = byte;
        case(name, frame)
    };
    let mut shorter_than_its_header = v4(0, 0, TCP, &syn);
    shorter_than_its_header[16..18].copy_from_slice(&10u16.to_be_bytes());
    let mut longer_than_the_frame = v4(0, 0, TCP, &syn);
    longer_than_the_frame[16..18].copy_from_slice(&u16::MAX.to_be_bytes());
    vec![
        case("UDP", v4(0, 0, UDP, &tcp(PORT, SYN))),
        case("ICMP", v4(0, 0, ICMP, &[8; 64])),
        case("four bytes of options", v4(4, 0, TCP, &syn)),
        case("forty bytes of options", v4(40, 0, TCP, &syn)),
        changed("a header of four words", 0, 0x44),
        changed("a header of no words", 0, 0x40),
        changed("version 5", 0, 0x55),
        case("a total length within the header", shorter_than_its_header),
        case("a total length beyond the frame", longer_than_the_frame),
        case("padding", [v4(0, 0, TCP, &syn), vec![0; 6]].concat()),
    ]
}

fn ipv6_packets() -> Vec<Case> {
    let syn = tcp(PORT, SYN);
    let atomic = fragment_header(0, false);
    let long = [0; 2048];
    let chain: [(u8, &[u8]); 6] = [
        (HOP_BY_HOP, &[0; 8]),
        (DESTINATION, &[0; 32]),
        (ROUTING, &[0; 24]),
        (FRAGMENT, &atomic),
        (DESTINATION, &[0; 8]),
        (DESTINATION, &[0; 8]),
    ];
    let with = |name, count| case(name, v6(&chain[..count], TCP, &syn));
    let longest: [(u8, &[u8]); 1] = [(DESTINATION, &long)];
    let mut no_length = v6(&[], TCP, &syn);
    no_length[18..20].copy_from_slice(&[0, 0]);
    let mut jumbogram = v6(&chain[..1], TCP, &syn);
    jumbogram[18..20].copy_from_slice(&[0, 0]);
    let mut version = v6(&[], TCP, &syn);
    version[14] = 0x40;
    vec![
        with("one extension header", 1),
        with("two extension headers", 2),
        with("three extension headers", 3),
        with("four extension headers", 4),
        with("five extension headers", 5),
        with("six extension headers", 6),
        case("the longest extension header", v6(&longest, TCP, &syn)),
        case("UDP over IPv6", v6(&[], UDP, &[0; 8])),
        case("ICMPv6 after options", v6(&chain[..1], 58, &[0; 8])),
        case("no next header", v6(&[], 59, &[])),
        case("ESP", v6(&[], 50, &[0; 32])),
        case("a chain cut by the payload length", v6(&chain[..1], DESTINATION, &[])),
        case("a payload length of 0", no_length),
        case("a payload length of 0 and hop-by-hop options", jumbogram),
        case("IPv6 with version 4", version),
    ]
}

fn fragments() -> Vec<Case> {
    let syn = tcp(PORT, SYN);
    let ack = tcp(PORT, ACK);
    let v6_part = |offset, more, next, payload: &[u8]| {
        v6(&[(FRAGMENT, &fragment_header(offset, more))], next, payload)
    };
    vec![
        case("don't fragment", v4(0, 0x4000, TCP, &syn)),
        case("first fragment with a SYN", v4(0, MORE, TCP, &syn)),
        case("first fragment with an ACK", v4(0, MORE, TCP, &ack)),
        case("tiny first fragment", v4(0, MORE, TCP, &ack[..8])),
        case("tiny first fragment, padded", [v4(0, MORE, TCP, &ack[..8]), vec![0x10; 18]].concat()),
        case("tiny first fragment, flags included", v4(0, MORE, TCP, &syn[..16])),
        case("tiny first fragment without ports", v4(0, MORE, TCP, &[])),
        case("tiny first fragment to another port", v4(0, MORE, TCP, &tcp(22, SYN)[..8])),
        case("fragment at byte 8", v4(0, MORE | 1, TCP, &[0x02; 24])),
        case("last fragment at byte 8", v4(0, 1, TCP, &[0x02; 24])),
        case("fragment at byte 16", v4(0, MORE | 2, TCP, &[0x02; 24])),
        case("fragment at byte 1480", v4(0, MORE | 185, TCP, &[0x02; 24])),
        case("fragment of UDP at byte 8", v4(0, MORE | 1, UDP, &[0; 24])),
        case("tiny first fragment of UDP", v4(0, MORE, UDP, &[0; 8])),
        case("IPv6: first fragment with a SYN", v6_part(0, true, TCP, &syn)),
        case("IPv6: tiny first fragment", v6_part(0, true, TCP, &ack[..8])),
        case("IPv6: tiny first fragment to another port", v6_part(0, true, TCP, &tcp(22, 0)[..8])),
        case("IPv6: first fragment without its chain", v6_part(0, true, DESTINATION, &[])),
        case("IPv6: fragment at byte 8", v6_part(1, true, TCP, &[0x02; 24])),
        case("IPv6: fragment of UDP at byte 8", v6_part(1, true, UDP, &[0x02; 24])),
        case("IPv6: fragment at byte 1448", v6_part(181, false, TCP, &[0x02; 24])),
    ]
}
