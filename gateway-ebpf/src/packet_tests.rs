//! Packets by hand. `tests/xdp` runs a larger table of them through the loaded program as well.

#[path = "../../tests/xdp/frames.rs"]
mod frames;

use super::{Address, Glance, Packet, Segment, TCP_BYTES};
use frames::*;

const V4: Address = Address::V4([192, 0, 2, 7]);
const V6: Address = Address::V6([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);

fn v4(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4([192, 0, 2, 7], options, fragment, protocol, payload)
}

fn v6(chain: &[(u8, &[u8])], last: u8, payload: &[u8]) -> Vec<u8> {
    ipv6(V6.mapped(), chain, last, payload)
}

fn v4_frame(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, packet)
}

fn v6_frame(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV6, packet)
}

fn syn_from(source: Address) -> Packet {
    Packet::Segment(Segment { source, port: 443, flags: SYN })
}

/// Decodes; what a first look says must be the same.
fn decode(frame: &[u8]) -> Packet {
    let packet = super::decode(frame);
    let fields = super::Fields::from(packet);
    let elsewhere = super::glance(frame, |_| false);
    assert!(!matches!(elsewhere, Glance::Opens(_)), "{elsewhere:?}: {frame:?}");
    let glance = super::glance(frame, |port| port == fields.port);
    let agrees = match glance {
        Glance::Elsewhere => match packet {
            Packet::Segment(_) => !fields.opens_connection(),
            packet => packet == Packet::Other,
        },
        Glance::Opens(plain) => fields.opens_connection() && plain.packet() == packet,
        Glance::Unclear => true,
    };
    assert!(agrees, "{glance:?}, but it is {packet:?}: {frame:?}");
    packet
}

#[test]
fn a_first_look_is_enough_for_plain_packets() {
    let (syn, ack) = (tcp(443, SYN), tcp(443, ACK));
    for (frame, enough, opens) in [
        (v4_frame(&v4(0, 0, TCP, &syn)), true, true),
        (v6_frame(&v6(&[], TCP, &syn)), true, true),
        (v4_frame(&v4(0, 0, TCP, &ack)), true, false),
        (v6_frame(&v6(&[], TCP, &ack)), true, false),
        (v4_frame(&v4(0, 0, UDP, &[0; 8])), true, false),
        (v6_frame(&v6(&[], UDP, &[0; 8])), true, false),
        (ethernet(&[], 0x0806, &[0; 28]), true, false),
        (v4_frame(&v4(4, 0, TCP, &syn)), false, false),
        (v4_frame(&v4(0, MORE, TCP, &syn)), false, false),
        (v6_frame(&v6(&[(ROUTING, &[0; 8])], TCP, &syn)), false, false),
        (ethernet(&[VLAN], IPV4, &v4(0, 0, TCP, &syn)), false, false),
    ] {
        let glance = super::glance(&*frame, |port| port == 443);
        assert_eq!(!matches!(glance, Glance::Unclear), enough, "{frame:?}");
        assert_eq!(matches!(glance, Glance::Opens(_)), opens, "{frame:?}");
        decode(&frame);
    }
}

#[test]
fn flags_say_what_opens_a_connection() {
    let opens = |flags| {
        let segment = Segment { source: V4, port: 1, flags };
        super::Fields::from(Packet::Segment(segment)).opens_connection()
    };
    assert!(opens(SYN));
    assert!(opens(SYN | 0xc0), "ECN set-up");
    assert!(opens(SYN | 0x01), "SYN and FIN: still a SYN to the stack");
    assert!(!opens(SYN | ACK));
    assert!(!opens(ACK));
    assert!(!opens(0));
}

#[test]
fn tags_and_options_are_read_past() {
    let syn = tcp(443, SYN);
    for options in [0, 4, 40] {
        let packet = v4(options, 0, TCP, &syn);
        for tags in [&[][..], &[VLAN], &[QINQ, VLAN], &[VLAN; 2]] {
            assert_eq!(decode(&ethernet(tags, IPV4, &packet)), syn_from(V4));
        }
        let three = ethernet(&[VLAN; 3], IPV4, &packet);
        assert_eq!(decode(&three), Packet::Undecodable);
    }
}

#[test]
fn up_to_five_extension_headers_are_read_past_and_more_hide_a_header() {
    let syn = tcp(443, SYN);
    let long = [0; 64];
    let chain: [(u8, &[u8]); 6] = [
        (HOP_BY_HOP, &[0; 8]),
        (DESTINATION, &long),
        (ROUTING, &[0; 24]),
        (FRAGMENT, &[0; 8]),
        (DESTINATION, &[0; 8]),
        (DESTINATION, &[0; 8]),
    ];
    for length in 0..=5 {
        let frame = v6_frame(&v6(&chain[..length], TCP, &syn));
        assert_eq!(decode(&frame), syn_from(V6), "{length} extension headers");
    }
    let hidden = Packet::HiddenHeader { source: V6 };
    assert_eq!(decode(&v6_frame(&v6(&chain, TCP, &syn))), hidden);
    assert_eq!(decode(&v6_frame(&v6(&chain, UDP, &[0; 8]))), hidden, "nobody looks");
    assert_eq!(decode(&v6_frame(&v6(&chain[..2], 58, &[0; 8]))), Packet::Other);
}

#[test]
fn a_jumbogram_ends_with_its_frame() {
    let without_length = |chain: &[(u8, &[u8])]| {
        let mut packet = v6(chain, TCP, &tcp(443, SYN));
        packet[4..6].copy_from_slice(&[0, 0]);
        decode(&v6_frame(&packet))
    };
    assert_eq!(without_length(&[(HOP_BY_HOP, &[0; 8])]), syn_from(V6));
    assert_eq!(without_length(&[]), Packet::Undecodable);
    assert_eq!(without_length(&[(DESTINATION, &[0; 8])]), Packet::Undecodable);
}

#[test]
fn other_protocols_are_other() {
    assert_eq!(decode(&v4_frame(&v4(0, 0, UDP, &[0; 8]))), Packet::Other);
    assert_eq!(decode(&v4_frame(&v4(0, 0, ICMP, &[0; 8]))), Packet::Other);
    assert_eq!(decode(&v6_frame(&v6(&[], UDP, &[0; 8]))), Packet::Other);
    assert_eq!(decode(&ethernet(&[], 0x0806, &[0; 28])), Packet::Other);
    assert_eq!(decode(&ethernet(&[], 0xffff, &[])), Packet::Other);
}

#[test]
fn contradictions_are_undecodable() {
    let syn = tcp(443, SYN);
    let mut short_header = v4(0, 0, TCP, &syn);
    short_header[0] = 0x44;
    assert_eq!(decode(&v4_frame(&short_header)), Packet::Undecodable);
    let mut version = v4(0, 0, TCP, &syn);
    version[0] = 0x65;
    assert_eq!(decode(&v4_frame(&version)), Packet::Undecodable);
    let mut version = v6(&[], TCP, &syn);
    version[0] = 0x40;
    assert_eq!(decode(&v6_frame(&version)), Packet::Undecodable);
}

#[test]
fn whole_first_fragments_are_segments_and_later_ones_other() {
    let syn = tcp(443, SYN);
    assert_eq!(decode(&v4_frame(&v4(0, MORE, TCP, &syn))), syn_from(V4));
    assert_eq!(decode(&v4_frame(&v4(0, 0x4000, TCP, &syn))), syn_from(V4), "don't fragment");
    assert_eq!(decode(&v4_frame(&v4(0, MORE | 3, TCP, &syn))), Packet::Other);
    assert_eq!(decode(&v4_frame(&v4(0, 185, TCP, &syn))), Packet::Other);

    let fragment = |offset, more, next| {
        decode(&v6_frame(&v6(&[(FRAGMENT, &fragment_header(offset, more))], next, &syn)))
    };
    assert_eq!(fragment(0, false, TCP), syn_from(V6), "an atomic fragment");
    assert_eq!(fragment(0, true, TCP), syn_from(V6), "a first fragment");
    assert_eq!(fragment(3, true, TCP), Packet::Other);
    assert_eq!(fragment(1, false, UDP), Packet::Other, "UDP is not ours to judge");
}

#[test]
fn tiny_first_fragments_are_seen_through_padding() {
    let ack = tcp(443, ACK);
    for bytes in 4..TCP_BYTES {
        let mut frame = v4_frame(&v4(0, MORE, TCP, &ack[..bytes]));
        let tiny = Packet::TinyFragment { source: V4, port: Some(443) };
        assert_eq!(decode(&frame), tiny, "{bytes} bytes of TCP");
        // Padding that continues the header with harmless flags does not count.
        frame.extend(&ack[bytes..]);
        assert_eq!(decode(&frame), tiny, "{bytes} bytes of TCP, padded");
    }
    for bytes in 0..4 {
        let frame = v4_frame(&v4(0, MORE, TCP, &ack[..bytes]));
        assert_eq!(decode(&frame), Packet::TinyFragment { source: V4, port: None });
    }
    let whole_but_short = v4_frame(&v4(0, 0, TCP, &ack[..8]));
    assert_eq!(decode(&whole_but_short), Packet::Undecodable, "not a fragment: the stack drops it");

    let first: &[u8] = &fragment_header(0, true);
    let v6_tiny = v6_frame(&v6(&[(FRAGMENT, first)], TCP, &ack[..8]));
    assert_eq!(decode(&v6_tiny), Packet::TinyFragment { source: V6, port: Some(443) });
    let cut_chain = v6_frame(&v6(&[(FRAGMENT, first)], DESTINATION, &[]));
    assert_eq!(decode(&cut_chain), Packet::TinyFragment { source: V6, port: None });
}

#[test]
fn fragments_inside_the_tcp_header_are_overlapping() {
    let rest = [0; 32];
    let expected = Packet::OverlappingFragment { source: V4 };
    assert_eq!(decode(&v4_frame(&v4(0, 1, TCP, &rest))), expected);
    assert_eq!(decode(&v4_frame(&v4(0, MORE | 1, TCP, &rest))), expected);
    assert_eq!(decode(&v4_frame(&v4(0, 1, UDP, &rest))), Packet::Other);
    let frame = v6_frame(&v6(&[(FRAGMENT, &fragment_header(1, false))], TCP, &rest));
    assert_eq!(decode(&frame), Packet::OverlappingFragment { source: V6 });
}

#[test]
fn a_frame_cut_anywhere_is_no_segment_until_its_header_is_whole() {
    let syn = tcp(443, SYN);
    let chain: [(u8, &[u8]); 2] = [(HOP_BY_HOP, &[0; 16]), (FRAGMENT, &[0; 8])];
    let tags = [QINQ, VLAN];
    for (frame, source) in [
        (ethernet(&tags, IPV4, &v4(12, 0, TCP, &syn)), V4),
        (ethernet(&tags, IPV6, &v6(&chain, TCP, &syn)), V6),
    ] {
        // Where there are extension headers, the rest may be in another buffer.
        let chain_at = 14 + tags.len() * 4 + 40;
        for length in 0..frame.len() {
            let expected = match source {
                Address::V6(_) if length >= chain_at => Packet::HiddenHeader { source },
                _ => Packet::Undecodable,
            };
            assert_eq!(decode(&frame[..length]), expected, "{length} bytes");
        }
        assert_eq!(decode(&frame), syn_from(source));
    }
}

#[test]
fn no_bytes_at_all_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let syn = tcp(443, SYN);
    let frames = [
        v4_frame(&v4(8, 0, TCP, &syn)),
        v6_frame(&v6(&[(0, &[0; 8])], TCP, &syn)),
        v4_frame(&v4(0, 0, TCP, &syn)),
        v6_frame(&v6(&[], TCP, &syn)),
    ];
    for _ in 0..200_000 {
        let mut frame = frames[random() as usize % frames.len()].clone();
        for _ in 0..=random() % 4 {
            let at = random() as usize % frame.len();
            frame[at] = random() as u8;
        }
        frame.truncate(random() as usize % (frame.len() + 1));
        let _ = decode(&frame);
    }
}
