//! Finds the TCP header of a frame, and the fragments that were made to hide one.
//!
//! The same code reads a slice in tests and packet memory in the kernel. It is written for the
//! verifier as well: every read checks a whole header of fixed size, every loop has a bound.

use crate::bytes::Bytes;

/// What a frame is to a connection limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// TCP, its header at hand.
    Segment(Segment),
    /// The first fragment of a TCP segment, too short for the 20 bytes every TCP header has. Only
    /// something that wants its flags unseen sends this (RFC 1858 §3, RFC 7112 §5).
    TinyFragment {
        /// Who sent it.
        source: Address,
        /// The port it is for, where it holds that much.
        port: Option<u16>,
    },
    /// A fragment that would begin inside the TCP header, at its eighth byte (RFC 1858 §4). Its
    /// port lies in another packet.
    OverlappingFragment {
        /// Who sent it.
        source: Address,
    },
    /// IPv6, with more extension headers than we read, or more than the first buffer has of the packet. TCP may lie
    /// behind them, and Linux looks behind any number; who has a use for them is hard to find (RFC 9098 §3).
    HiddenHeader {
        /// Who sent it.
        source: Address,
    },
    /// Whole headers, but not the start of a TCP segment.
    Other,
    /// A header is cut short or contradicts itself, or there are more tags than we read.
    Undecodable,
}

/// The parts of a TCP header a limiter cares about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sent it.
    pub source: Address,
    /// The port it is for.
    pub port: u16,
    /// The flags, as in the header.
    pub flags: u8,
}

/// A source address, in network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

impl Address {
    /// As IPv6: an IPv4 address becomes `::ffff:a.b.c.d`.
    #[inline(always)]
    pub const fn mapped(self) -> [u8; 16] {
        match self {
            Self::V4([a, b, c, d]) => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
            Self::V6(octets) => octets,
        }
    }

    /// The same in two little-endian words.
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        let b = self.mapped();
        [
            u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        ]
    }

    /// The reverse.
    #[inline(always)]
    const fn of_words([high, low]: [u64; 2], is_ipv4: bool) -> Self {
        let (h, l) = (high.to_le_bytes(), low.to_le_bytes());
        if is_ipv4 {
            return Self::V4([l[4], l[5], l[6], l[7]]);
        }
        Self::V6([
            h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], l[0], l[1], l[2], l[3], l[4], l[5],
            l[6], l[7],
        ])
    }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// 802.1ad, the outer tag of QinQ.
const ETHERTYPE_QINQ: u16 = 0x88a8;

const NEXT_HOP_BY_HOP: u8 = 0;
pub(crate) const NEXT_TCP: u8 = 6;
const NEXT_ROUTING: u8 = 43;
const NEXT_FRAGMENT: u8 = 44;
const NEXT_DESTINATION: u8 = 60;

// Flags of a TCP header.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// VLAN tags we read past.
const TAGS_MAX: usize = 2;
/// Where an IP header begins at the latest.
pub const NETWORK_MAX: usize = 14 + 4 * TAGS_MAX;
/// IPv6 extension headers we read past: as many as RFC 8200 §4.1 has before TCP, encryption aside. Real packets
/// carry one or two.
const EXTENSIONS_MAX: usize = 5;

/// The part of a TCP header without options.
pub const TCP_BYTES: usize = 20;

/// What a first look at a frame tells.
#[derive(Clone, Copy, Debug)]
pub enum Glance {
    /// It asks for no connection to the gateway, whatever else it is.
    Elsewhere,
    /// It asks for one.
    Opens(Fields),
    /// It takes a closer look.
    Unclear,
}

/// A first look at a frame, which is enough for nearly all: plain packets, without tags, options, extension headers
/// or fragments. It says what [`decode`] would, in a few instructions. `is_ours` tells the gateway's ports, and nothing
/// more is read of what is for another.
#[inline(always)]
pub fn glance(frame: &(impl Bytes + ?Sized), is_ours: impl FnOnce(u16) -> bool) -> Glance {
    const AT: usize = 14;
    let Some(ethernet) = frame.read::<AT>(0) else { return Glance::Unclear };
    match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
        ETHERTYPE_IPV4 => match frame.read::<20>(AT) {
            Some(header) if header[0] != 0x45 => Glance::Unclear,
            Some(header) if header[9] != NEXT_TCP => Glance::Elsewhere,
            // Neither an offset nor more to come.
            Some(header) if header[6] & 0x3f == 0 && header[7] == 0 => {
                let payload = u16::from_be_bytes([header[2], header[3]]).saturating_sub(20);
                glance_at_tcp(frame, AT, 20, payload, is_ours, || ipv4_source(frame, AT))
            }
            _ => Glance::Unclear,
        },
        ETHERTYPE_IPV6 => match frame.read::<40>(AT) {
            Some(header) if header[0] >> 4 != 6 || is_extension(header[6]) => Glance::Unclear,
            Some(header) if header[6] != NEXT_TCP => Glance::Elsewhere,
            Some(header) => {
                let payload = u16::from_be_bytes([header[4], header[5]]);
                glance_at_tcp(frame, AT, 40, payload, is_ours, || Some(ipv6_source(&header)))
            }
            None => Glance::Unclear,
        },
        tag if is_tag(tag) => Glance::Unclear,
        _ => Glance::Elsewhere,
    }
}

#[inline(always)]
fn glance_at_tcp(
    frame: &(impl Bytes + ?Sized),
    network: usize,
    header_bytes: usize,
    payload: u16,
    is_ours: impl FnOnce(u16) -> bool,
    source: impl FnOnce() -> Option<Address>,
) -> Glance {
    let transport = network + header_bytes;
    match frame.read::<TCP_BYTES>(transport) {
        Some(header) if usize::from(payload) >= TCP_BYTES => {
            if header[13] & (SYN | ACK) != SYN {
                return Glance::Elsewhere;
            }
            let port = u16::from_be_bytes([header[2], header[3]]);
            if !is_ours(port) {
                return Glance::Elsewhere;
            }
            let Some(source) = source() else { return Glance::Unclear };
            let fields = Fields::new(source, SEGMENT, port, header[13]);
            Glance::Opens(fields.with_headers(network, transport))
        }
        _ => Glance::Unclear,
    }
}

/// Decodes an Ethernet frame.
#[inline(always)]
pub fn decode(frame: &(impl Bytes + ?Sized)) -> Packet {
    fields(frame).packet()
}

/// A [`Packet`] in plain integers, all of which are always written: the verifier refuses to copy what
/// nobody has written, which is what most of an enum is for most of its variants.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub(crate) kind: u32,
    flags: u16,
    pub(crate) port: u16,
    is_ipv4: u32,
    /// Where the IP header begins, and the TCP header. Known of a segment only.
    network: u16,
    transport: u16,
    /// As [`Address::words`].
    source: [u64; 2],
}

// Values of `Fields::kind`.
pub(crate) const SEGMENT: u32 = 0;
pub(crate) const TINY_FRAGMENT: u32 = 1;
pub(crate) const TINY_FRAGMENT_TO_PORT: u32 = 2;
pub(crate) const OVERLAPPING_FRAGMENT: u32 = 3;
const OTHER: u32 = 4;
pub(crate) const UNDECODABLE: u32 = 5;
pub(crate) const HIDDEN_HEADER: u32 = 6;

impl From<Packet> for Fields {
    fn from(packet: Packet) -> Self {
        match packet {
            Packet::Segment(Segment { source, port, flags }) => {
                Self::new(source, SEGMENT, port, flags)
            }
            Packet::TinyFragment { source, port: None } => Self::new(source, TINY_FRAGMENT, 0, 0),
            Packet::TinyFragment { source, port: Some(port) } => {
                Self::new(source, TINY_FRAGMENT_TO_PORT, port, 0)
            }
            Packet::OverlappingFragment { source } => Self::new(source, OVERLAPPING_FRAGMENT, 0, 0),
            Packet::HiddenHeader { source } => Self::new(source, HIDDEN_HEADER, 0, 0),
            Packet::Other => Self::of(OTHER),
            Packet::Undecodable => Self::of(UNDECODABLE),
        }
    }
}

/// Decodes an Ethernet frame into its fields.
#[inline(always)]
pub fn fields(frame: &(impl Bytes + ?Sized)) -> Fields {
    ethernet(frame).unwrap_or_else(|| Fields::of(UNDECODABLE))
}

impl Fields {
    #[inline(always)]
    const fn of(kind: u32) -> Self {
        Self { kind, flags: 0, port: 0, is_ipv4: 0, network: 0, transport: 0, source: [0; 2] }
    }

    #[inline(always)]
    const fn new(source: Address, kind: u32, port: u16, flags: u8) -> Self {
        let is_ipv4 = matches!(source, Address::V4(_)) as u32;
        let source = source.words();
        Self { kind, flags: flags as u16, port, is_ipv4, network: 0, transport: 0, source }
    }

    /// The same with the places of its headers. What lies beyond 64 KiB is in no frame.
    #[inline(always)]
    const fn with_headers(self, network: usize, transport: usize) -> Self {
        Self { network: network as u16, transport: transport as u16, ..self }
    }

    /// Where a segment's IP header begins.
    #[inline(always)]
    pub const fn network(&self) -> usize {
        self.network as usize
    }

    /// Where a segment's TCP header begins.
    #[inline(always)]
    pub const fn transport(&self) -> usize {
        self.transport as usize
    }

    /// The port a segment is for.
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is a packet of IPv4.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        self.is_ipv4 != 0
    }

    /// Who sent it, where that is known.
    #[inline(always)]
    pub const fn source(&self) -> Address {
        Address::of_words(self.source, self.is_ipv4 != 0)
    }

    /// The same as [`Address::words`], which it is kept as: taking them apart and putting them together again costs
    /// more than to look at them.
    #[inline(always)]
    pub const fn source_words(&self) -> [u64; 2] {
        self.source
    }

    /// The address a segment is for, as [`Address::words`], out of the frame in which this has been found.
    #[inline(always)]
    pub fn destination(&self, frame: &(impl Bytes + ?Sized)) -> Option<[u64; 2]> {
        let network = self.network();
        // Always, but the verifier does not know.
        if network > NETWORK_MAX {
            return None;
        }
        let address = if self.is_ipv4() {
            Address::V4(frame.read(network + 16)?)
        } else {
            Address::V6(frame.read(network + 24)?)
        };
        Some(address.words())
    }

    /// Whether it asks for a connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens_connection(&self) -> bool {
        self.kind == SEGMENT && self.flags as u8 & (SYN | ACK) == SYN
    }

    /// What they mean.
    pub const fn packet(&self) -> Packet {
        let source = self.source();
        match self.kind {
            SEGMENT => {
                Packet::Segment(Segment { source, port: self.port, flags: self.flags as u8 })
            }
            TINY_FRAGMENT => Packet::TinyFragment { source, port: None },
            TINY_FRAGMENT_TO_PORT => Packet::TinyFragment { source, port: Some(self.port) },
            OVERLAPPING_FRAGMENT => Packet::OverlappingFragment { source },
            HIDDEN_HEADER => Packet::HiddenHeader { source },
            OTHER => Packet::Other,
            _ => Packet::Undecodable,
        }
    }
}

#[inline(always)]
fn ethernet(frame: &(impl Bytes + ?Sized)) -> Option<Fields> {
    let header: [u8; 14] = frame.read(0)?;
    let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
    let mut at = header.len();
    for _ in 0..TAGS_MAX {
        if !is_tag(ethertype) {
            break;
        }
        let tag: [u8; 4] = frame.read(at)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        at += tag.len();
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, at),
        ETHERTYPE_IPV6 => ipv6(frame, at),
        more_tags if is_tag(more_tags) => None,
        _ => Some(Fields::of(OTHER)),
    }
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}

#[inline(always)]
fn ipv4(frame: &(impl Bytes + ?Sized), at: usize) -> Option<Fields> {
    let header: [u8; 20] = frame.read(at)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_bytes < header.len() {
        return None;
    }
    if header[9] != NEXT_TCP {
        return Some(Fields::of(OTHER));
    }
    let source = ipv4_source(frame, at)?;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    match fragment & 0x1fff {
        0 => {}
        1 => return Some(Fields::new(source, OVERLAPPING_FRAGMENT, 0, 0)),
        _ => return Some(Fields::of(OTHER)),
    }
    let more_fragments = fragment & 0x2000 != 0;
    let end = at + usize::from(u16::from_be_bytes([header[2], header[3]]));
    tcp(frame, at, at + header_bytes, end, source, more_fragments)
}

#[inline(always)]
fn ipv6(frame: &(impl Bytes + ?Sized), at: usize) -> Option<Fields> {
    let header: [u8; 40] = frame.read(at)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let source = ipv6_source(&header);
    let network = at;
    let mut next = header[6];
    let mut at = at + header.len();
    let end = match u16::from_be_bytes([header[4], header[5]]) {
        // A jumbogram (RFC 2675), which must be longer than we will ever see; but Linux takes a
        // small packet for as long as its frame when it comes with any hop-by-hop options.
        0 if next == NEXT_HOP_BY_HOP => usize::MAX,
        payload_bytes => at + usize::from(payload_bytes),
    };
    let mut more_fragments = false;
    let hidden = Fields::new(source, HIDDEN_HEADER, 0, 0);
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(next) {
            break;
        }
        if at + 8 > end {
            // A first fragment must hold the whole chain of headers (RFC 7112 §5).
            return more_fragments.then_some(Fields::new(source, TINY_FRAGMENT, 0, 0));
        }
        let Some(extension) = frame.read::<8>(at) else {
            return Some(hidden);
        };
        if next == NEXT_FRAGMENT {
            let fragment = u16::from_be_bytes([extension[2], extension[3]]);
            match fragment >> 3 {
                0 => more_fragments |= fragment & 1 != 0,
                1 if extension[0] == NEXT_TCP => {
                    return Some(Fields::new(source, OVERLAPPING_FRAGMENT, 0, 0));
                }
                _ => return Some(Fields::of(OTHER)),
            }
            at += extension.len();
        } else {
            at += extension.len() + usize::from(extension[1]) * 8;
        }
        next = extension[0];
    }
    match next {
        NEXT_TCP => tcp(frame, network, at, end, source, more_fragments)
            .or_else(|| is_extension(header[6]).then_some(hidden)),
        one_too_many if is_extension(one_too_many) => Some(hidden),
        _ => Some(Fields::of(OTHER)),
    }
}

#[inline(always)]
fn ipv4_source(frame: &(impl Bytes + ?Sized), at: usize) -> Option<Address> {
    let [source] = frame.words(at + 12)?;
    Some(Address::V4(source.to_ne_bytes()))
}

#[inline(always)]
const fn ipv6_source(header: &[u8; 40]) -> Address {
    Address::V6([
        header[8], header[9], header[10], header[11], header[12], header[13], header[14],
        header[15], header[16], header[17], header[18], header[19], header[20], header[21],
        header[22], header[23],
    ])
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, NEXT_HOP_BY_HOP | NEXT_ROUTING | NEXT_FRAGMENT | NEXT_DESTINATION)
}

/// The TCP header at `at`, of a packet whose IP header begins at `network`. `end` is where IP says the packet ends: what
/// the frame has beyond it is padding, which a sender fills as it likes.
#[inline(always)]
fn tcp(
    frame: &(impl Bytes + ?Sized),
    network: usize,
    at: usize,
    end: usize,
    source: Address,
    more_fragments: bool,
) -> Option<Fields> {
    if at + TCP_BYTES > end {
        if !more_fragments {
            return None;
        }
        if at + 4 > end {
            return Some(Fields::new(source, TINY_FRAGMENT, 0, 0));
        }
        let ports: [u8; 4] = frame.read(at)?;
        let port = u16::from_be_bytes([ports[2], ports[3]]);
        return Some(Fields::new(source, TINY_FRAGMENT_TO_PORT, port, 0));
    }
    let header: [u8; TCP_BYTES] = frame.read(at)?;
    let port = u16::from_be_bytes([header[2], header[3]]);
    Some(Fields::new(source, SEGMENT, port, header[13]).with_headers(network, at))
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
