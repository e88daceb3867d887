//! Packets by hand. `tests/xdp` runs a larger table of them through the loaded program as well.

use super::*;

const V4: Address = Address::V4([192, 0, 2, 7]);
const V6: Address = Address::V6([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
const SYN: u8 = 0x02;

fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn tcp_header(port: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0; TCP_BYTES];
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

/// `fragment` is the raw field: flags and offset.
fn v4(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20 + options];
    packet[0] = 0x40 | ((20 + options) / 4) as u8;
    packet[2..4].copy_from_slice(&((20 + options + payload.len()) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&[192, 0, 2, 7]);
    packet.extend(payload);
    packet
}

/// `chain`: kind and content of each extension header, whose first two bytes are filled in here.
fn v6(chain: &[(u8, &[u8])], last: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (position, (kind, content)) in chain.iter().enumerate() {
        let next = chain.get(position + 1).map_or(last, |(next, _)| *next);
        let units = if *kind == NEXT_FRAGMENT { 0 } else { (content.len() / 8 - 1) as u8 };
        body.extend([next, units]);
        body.extend(&content[2..]);
    }
    body.extend(payload);
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
    packet[6] = chain.first().map_or(last, |(kind, _)| *kind);
    packet[8..24].copy_from_slice(&V6.mapped());
    packet.extend(body);
    packet
}

fn v4_frame(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], ETHERTYPE_IPV4, packet)
}

fn v6_frame(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], ETHERTYPE_IPV6, packet)
}

fn syn_from(source: Address) -> Packet {
    Packet::Segment(Segment { source, port: 443, flags: SYN })
}

fn decode(frame: &[u8]) -> Packet {
    super::decode(frame)
}

#[test]
fn flags_say_what_opens_a_connection() {
    let opens = |flags| Segment { source: V4, port: 1, flags }.opens_connection();
    assert!(opens(SYN));
    assert!(opens(SYN | 0xc0), "ECN set-up");
    assert!(opens(SYN | 0x01), "SYN and FIN: still a SYN to the stack");
    assert!(!opens(SYN | 0x10));
    assert!(!opens(0x10));
    assert!(!opens(0));
}

#[test]
fn tags_and_options_are_read_past() {
    let syn = tcp_header(443, SYN);
    for options in [0, 4, 40] {
        let packet = v4(options, 0, NEXT_TCP, &syn);
        for tags in
            [&[][..], &[ETHERTYPE_VLAN], &[ETHERTYPE_QINQ, ETHERTYPE_VLAN], &[ETHERTYPE_VLAN; 2]]
        {
            assert_eq!(decode(&ethernet(tags, ETHERTYPE_IPV4, &packet)), syn_from(V4));
        }
        let three = ethernet(&[ETHERTYPE_VLAN; 3], ETHERTYPE_IPV4, &packet);
        assert_eq!(decode(&three), Packet::Undecodable);
    }
}

#[test]
fn up_to_four_extension_headers_are_read_past() {
    let syn = tcp_header(443, SYN);
    let long = [0; 64];
    let chain: [(u8, &[u8]); 5] = [
        (NEXT_HOP_BY_HOP, &[0; 8]),
        (NEXT_DESTINATION, &long),
        (NEXT_ROUTING, &[0; 24]),
        (NEXT_FRAGMENT, &[0; 8]),
        (NEXT_DESTINATION, &[0; 8]),
    ];
    for length in 0..=4 {
        let frame = v6_frame(&v6(&chain[..length], NEXT_TCP, &syn));
        assert_eq!(decode(&frame), syn_from(V6), "{length} extension headers");
    }
    assert_eq!(decode(&v6_frame(&v6(&chain, NEXT_TCP, &syn))), Packet::Undecodable);
    assert_eq!(decode(&v6_frame(&v6(&chain[..2], 58, &[0; 8]))), Packet::Other);
}

#[test]
fn other_protocols_are_other() {
    assert_eq!(decode(&v4_frame(&v4(0, 0, 17, &[0; 8]))), Packet::Other);
    assert_eq!(decode(&v4_frame(&v4(0, 0, 1, &[0; 8]))), Packet::Other);
    assert_eq!(decode(&v6_frame(&v6(&[], 17, &[0; 8]))), Packet::Other);
    assert_eq!(decode(&ethernet(&[], 0x0806, &[0; 28])), Packet::Other);
    assert_eq!(decode(&ethernet(&[], 0xffff, &[])), Packet::Other);
}

#[test]
fn contradictions_are_undecodable() {
    let syn = tcp_header(443, SYN);
    let mut short_header = v4(0, 0, NEXT_TCP, &syn);
    short_header[0] = 0x44;
    assert_eq!(decode(&v4_frame(&short_header)), Packet::Undecodable);
    let mut version = v4(0, 0, NEXT_TCP, &syn);
    version[0] = 0x65;
    assert_eq!(decode(&v4_frame(&version)), Packet::Undecodable);
    let mut version = v6(&[], NEXT_TCP, &syn);
    version[0] = 0x40;
    assert_eq!(decode(&v6_frame(&version)), Packet::Undecodable);
}

#[test]
fn whole_first_fragments_are_segments_and_later_ones_other() {
    const MORE: u16 = 0x2000;
    let syn = tcp_header(443, SYN);
    assert_eq!(decode(&v4_frame(&v4(0, MORE, NEXT_TCP, &syn))), syn_from(V4));
    assert_eq!(decode(&v4_frame(&v4(0, 0x4000, NEXT_TCP, &syn))), syn_from(V4), "don't fragment");
    assert_eq!(decode(&v4_frame(&v4(0, MORE | 3, NEXT_TCP, &syn))), Packet::Other);
    assert_eq!(decode(&v4_frame(&v4(0, 185, NEXT_TCP, &syn))), Packet::Other);

    let fragment = |field: u16, next, payload: &[u8]| {
        let [high, low] = field.to_be_bytes();
        decode(&v6_frame(&v6(&[(NEXT_FRAGMENT, &[0, 0, high, low, 0, 0, 0, 1])], next, payload)))
    };
    assert_eq!(fragment(0, NEXT_TCP, &syn), syn_from(V6), "an atomic fragment");
    assert_eq!(fragment(1, NEXT_TCP, &syn), syn_from(V6), "a first fragment");
    assert_eq!(fragment(3 << 3 | 1, NEXT_TCP, &syn), Packet::Other);
    assert_eq!(fragment(1 << 3, 17, &syn), Packet::Other, "UDP is not ours to judge");
}

#[test]
fn tiny_first_fragments_are_seen_through_padding() {
    const MORE: u16 = 0x2000;
    let ack = tcp_header(443, 0x10);
    for bytes in 4..TCP_BYTES {
        let mut frame = v4_frame(&v4(0, MORE, NEXT_TCP, &ack[..bytes]));
        let tiny = Packet::TinyFragment { source: V4, port: Some(443) };
        assert_eq!(decode(&frame), tiny, "{bytes} bytes of TCP");
        // Padding that continues the header with harmless flags does not count.
        frame.extend(&ack[bytes..]);
        assert_eq!(decode(&frame), tiny, "{bytes} bytes of TCP, padded");
    }
    for bytes in 0..4 {
        let frame = v4_frame(&v4(0, MORE, NEXT_TCP, &ack[..bytes]));
        assert_eq!(decode(&frame), Packet::TinyFragment { source: V4, port: None });
    }
    let whole_but_short = v4_frame(&v4(0, 0, NEXT_TCP, &ack[..8]));
    assert_eq!(decode(&whole_but_short), Packet::Undecodable, "not a fragment: the stack drops it");

    let first: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 1];
    let v6_tiny = v6_frame(&v6(&[(NEXT_FRAGMENT, first)], NEXT_TCP, &ack[..8]));
    assert_eq!(decode(&v6_tiny), Packet::TinyFragment { source: V6, port: Some(443) });
    let cut_chain = v6_frame(&v6(&[(NEXT_FRAGMENT, first)], NEXT_DESTINATION, &[]));
    assert_eq!(decode(&cut_chain), Packet::TinyFragment { source: V6, port: None });
}

#[test]
fn fragments_inside_the_tcp_header_are_overlapping() {
    let rest = [0; 32];
    let expected = Packet::OverlappingFragment { source: V4 };
    assert_eq!(decode(&v4_frame(&v4(0, 1, NEXT_TCP, &rest))), expected);
    assert_eq!(decode(&v4_frame(&v4(0, 0x2001, NEXT_TCP, &rest))), expected);
    assert_eq!(decode(&v4_frame(&v4(0, 1, 17, &rest))), Packet::Other);
    let frame = v6_frame(&v6(&[(NEXT_FRAGMENT, &[0, 0, 0, 8, 0, 0, 0, 1])], NEXT_TCP, &rest));
    assert_eq!(decode(&frame), Packet::OverlappingFragment { source: V6 });
}

#[test]
fn a_frame_cut_anywhere_is_undecodable_until_its_header_is_whole() {
    let syn = tcp_header(443, SYN);
    let chain: [(u8, &[u8]); 2] = [(NEXT_HOP_BY_HOP, &[0; 16]), (NEXT_FRAGMENT, &[0; 8])];
    let tags = [ETHERTYPE_QINQ, ETHERTYPE_VLAN];
    for (frame, source) in [
        (ethernet(&tags, ETHERTYPE_IPV4, &v4(12, 0, NEXT_TCP, &syn)), V4),
        (ethernet(&tags, ETHERTYPE_IPV6, &v6(&chain, NEXT_TCP, &syn)), V6),
    ] {
        for length in 0..frame.len() {
            assert_eq!(decode(&frame[..length]), Packet::Undecodable, "{length} bytes");
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
    let syn = tcp_header(443, SYN);
    let frames =
        [v4_frame(&v4(8, 0, NEXT_TCP, &syn)), v6_frame(&v6(&[(0, &[0; 8])], NEXT_TCP, &syn))];
    for _ in 0..200_000 {
        let mut frame = frames[random() as usize % 2].clone();
        for _ in 0..=random() % 4 {
            let at = random() as usize % frame.len();
            frame[at] = random() as u8;
        }
        frame.truncate(random() as usize % (frame.len() + 1));
        let _ = decode(&frame);
    }
}
