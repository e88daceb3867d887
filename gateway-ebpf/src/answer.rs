//! Turns a SYN into its answer, in its own frame: a reset, or a SYN-ACK with a cookie.
//!
//! Whatever TCP options the SYN had are left out of the answer; a tag of a VLAN stays. A SYN-ACK is as long as the SYN
//! if that has no options, or as many as nearly all clients send: then the frame needs no resizing. Without options the
//! largest segment is what it is by default (RFC 9293 §3.7.1).

use crate::bytes::{Bytes, Frame};
use crate::packet::{Fields, NEXT_TCP, TCP_BYTES};

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nobody listens (RFC 9293 §3.10.7.1).
    Reset,
    /// A SYN-ACK whose sequence number says all that is to be known of the connection.
    Cookie {
        /// The cookie.
        sequence: u32,
        /// The largest segment that may be sent; it is all that a cookie can keep of a SYN's options.
        mss: u16,
    },
}

/// Of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Of an IPv6 header without extensions.
pub const IPV6_BYTES: usize = 40;
/// With all the options that fit.
const TCP_BYTES_MAX: usize = 60;

/// Ethernet's smallest frame, its checksum included. What is shorter is padded to that when it is sent, and what
/// padding a frame came with may stay.
const FRAME_MIN: usize = 64;

const SYN: u16 = 0x02;
const RST: u16 = 0x04;
const ACK: u16 = 0x10;

/// What the client may send before it hears of the kernel's own window: some twenty segments, which is
/// below what that will be.
const WINDOW: u16 = 29_200;
const HOPS: u8 = 64;

/// What the kernel makes a cookie of lies in so many words: both addresses and both ports, as
/// `struct bpf_sock_tuple` has them, then the IP header without options, then all of the TCP header.
pub const SYN_WORDS: usize = TUPLE_WORDS + IPV6_BYTES / 4 + TCP_BYTES_MAX / 4;
/// Where the IP header begins in [`SYN_WORDS`].
pub const SYN_IP: usize = TUPLE_WORDS;
/// Where the TCP header begins in [`SYN_WORDS`].
pub const SYN_TCP: usize = TUPLE_WORDS + IPV6_BYTES / 4;

const TUPLE_WORDS: usize = 9;

/// How many bytes of each of its parts count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// Of the addresses and ports: 12 for IPv4, else 36.
    pub tuple_bytes: u64,
    /// Of the IP header.
    pub ip_bytes: u64,
    /// Of the TCP header.
    pub tcp_bytes: u64,
}

impl Syn {
    /// Reads it out of the frame in which `packet` has found it, giving each word and its place to `put`;
    /// `None` if not all of it is there. In the place of TCP options that it has not is 0: the verifier wants
    /// all written that could count.
    #[inline(always)]
    pub fn read(frame: &impl Bytes, packet: &Fields, put: impl FnMut(usize, u32)) -> Option<Self> {
        match (packet.network(), packet.is_ipv4()) {
            _ if !is_plain(packet) => None,
            (14, true) => Self::read_at::<14, IPV4_BYTES, 12>(frame, put),
            (18, true) => Self::read_at::<18, IPV4_BYTES, 12>(frame, put),
            (14, false) => Self::read_at::<14, IPV6_BYTES, 8>(frame, put),
            (18, false) => Self::read_at::<18, IPV6_BYTES, 8>(frame, put),
            _ => None,
        }
    }

    /// `NETWORK` is where the IP header of so many `IP` bytes begins, and `ADDRESSES` where the addresses are
    /// in it, at its end.
    #[inline(always)]
    fn read_at<const NETWORK: usize, const IP: usize, const ADDRESSES: usize>(
        frame: &impl Bytes,
        mut put: impl FnMut(usize, u32),
    ) -> Option<Self> {
        let transport = NETWORK + IP;
        let [first, ..] = frame.read::<4>(transport + 12)?;
        let count = (first >> 4) as usize;
        let mut word = 0;
        while word < TCP_BYTES_MAX / 4 {
            let is_there = word < TCP_BYTES / 4 || word < count;
            let [value] = if is_there { frame.words(transport + 4 * word)? } else { [0] };
            put(SYN_TCP + word, value);
            word += 1;
        }
        let mut word = 0;
        while word < IP / 4 {
            let [value] = frame.words(NETWORK + 4 * word)?;
            put(SYN_IP + word, value);
            if word >= ADDRESSES / 4 {
                put(word - ADDRESSES / 4, value);
            }
            word += 1;
        }
        let addresses = (IP - ADDRESSES) / 4;
        let [ports] = frame.words(transport)?;
        put(addresses, ports);
        let (tuple_bytes, ip_bytes) = (4 * (addresses as u64 + 1), IP as u64);
        let syn = Self { tuple_bytes, ip_bytes, tcp_bytes: 4 * count as u64 };
        (count >= TCP_BYTES / 4).then_some(syn)
    }
}

/// Whether a SYN has neither IP options nor extension headers, which is so of all but very few.
#[inline(always)]
pub fn is_plain(packet: &Fields) -> bool {
    let ip = if packet.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES };
    packet.transport() == packet.network() + ip
}

/// Answers the SYN that `packet` has found. `false` where that cannot be: of a frame with two tags, or a
/// packet with IP options or extension headers, or that cannot be made as long; then it is as it was.
///
/// Four bytes at a time, in whatever order the machine has them: to a sum in ones' complement it is all the
/// same (RFC 1071 §2), and the kernel's stack is small. All offsets are constants, as the verifier
/// follows no others through this much.
#[inline(always)]
pub fn answer(frame: &mut impl Frame, packet: &Fields, answer: Answer) -> bool {
    let is_written = match (packet.network(), packet.is_ipv4()) {
        _ if !is_plain(packet) => None,
        (14, true) => write::<14, IPV4_BYTES>(frame, answer),
        (18, true) => write::<18, IPV4_BYTES>(frame, answer),
        (14, false) => write::<14, IPV6_BYTES>(frame, answer),
        (18, false) => write::<18, IPV6_BYTES>(frame, answer),
        _ => None,
    };
    is_written.is_some()
}

impl Answer {
    /// Words of its header, one of three numbers, as all else that depends on them is to be constant. Those of the SYN's
    /// are in its fourth word.
    #[inline(always)]
    fn words(self, fourth: u32) -> usize {
        let [first, ..] = fourth.to_ne_bytes();
        match (self, first >> 4) {
            (Self::Reset, _) | (_, 5) => 5,
            (_, 10) => 10,
            _ => 6,
        }
    }
}

/// `NETWORK` is where the IP header of so many `IP` bytes begins.
#[inline(always)]
fn write<const NETWORK: usize, const IP: usize>(
    frame: &mut impl Frame,
    answer: Answer,
) -> Option<()> {
    let syn @ [.., fourth] = frame.words::<4>(NETWORK + IP)?;
    match answer.words(fourth) {
        5 => write_words::<NETWORK, IP, 5>(frame, answer, syn),
        10 => write_words::<NETWORK, IP, 10>(frame, answer, syn),
        _ => write_words::<NETWORK, IP, 6>(frame, answer, syn),
    }
}

/// An answer whose TCP header has so many `WORDS`, to a SYN whose header begins with these.
#[inline(always)]
fn write_words<const NETWORK: usize, const IP: usize, const WORDS: usize>(
    frame: &mut impl Frame,
    answer: Answer,
    syn: [u32; 4],
) -> Option<()> {
    let length = NETWORK + IP + 4 * WORDS;
    let is_as_long = (length..=FRAME_MIN.max(length)).contains(&frame.length());
    if !is_as_long && !frame.resize(length) {
        return None;
    }
    let addresses = match IP {
        IPV4_BYTES => write_ipv4::<NETWORK, WORDS>(frame)?,
        _ => write_ipv6::<NETWORK, WORDS>(frame)?,
    };
    write_segment::<WORDS>(frame, NETWORK + IP, answer, syn, addresses)?;
    turn_back(frame)
}

/// The IP header, of a packet with so many words of TCP; the sum of its addresses.
#[inline(always)]
fn write_ipv4<const NETWORK: usize, const WORDS: usize>(frame: &mut impl Frame) -> Option<u32> {
    let [source, destination] = frame.words(NETWORK + 12)?;
    let [high, low] = ((IPV4_BYTES + 4 * WORDS) as u16).to_be_bytes();
    let first = u32::from_ne_bytes([0x45, 0, high, low]);
    let second = u32::from_ne_bytes([0, 0, 0x40, 0]);
    let third = u32::from_ne_bytes([HOPS, NEXT_TCP, 0, 0]);
    let addresses = halves(source) + halves(destination);
    let sum = halves(first) + halves(second) + halves(third) + addresses;
    let [high, low] = (!fold(sum)).to_ne_bytes();
    let third = u32::from_ne_bytes([HOPS, NEXT_TCP, high, low]);
    frame.write(NETWORK, [first, second, third, destination, source])?;
    Some(addresses)
}

/// The same.
#[inline(always)]
fn write_ipv6<const NETWORK: usize, const WORDS: usize>(frame: &mut impl Frame) -> Option<u32> {
    let [high, low] = (4 * WORDS as u16).to_be_bytes();
    let [a, b, c, d, e, f, g, h] = frame.words(NETWORK + 8)?;
    let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
    let second = u32::from_ne_bytes([high, low, NEXT_TCP, HOPS]);
    frame.write(NETWORK, [first, second, e, f, g, h, a, b, c, d])?;
    let source = halves(a) + halves(b) + halves(c) + halves(d);
    Some(source + halves(e) + halves(f) + halves(g) + halves(h))
}

/// The answer's header at `at`, of so many words; `addresses` is the sum of both.
#[inline(always)]
fn write_segment<const WORDS: usize>(
    frame: &mut impl Frame,
    at: usize,
    answer: Answer,
    [ports, sequence, ..]: [u32; 4],
    addresses: u32,
) -> Option<()> {
    let (own, flags, window) = match answer {
        Answer::Reset => (0, RST | ACK, 0),
        Answer::Cookie { sequence, .. } => (sequence, SYN | ACK, WINDOW),
    };
    let [a, b, c, d] = ports.to_ne_bytes();
    let ports = u32::from_ne_bytes([c, d, a, b]);
    let own = own.to_be();
    let acknowledged = u32::from_be(sequence).wrapping_add(1).to_be();
    let rest = ((WORDS as u32) << 28 | (flags as u32) << 16 | window as u32).to_be();
    let option = match answer {
        Answer::Cookie { mss, .. } if WORDS > 5 => {
            let [high, low] = mss.to_be_bytes();
            u32::from_ne_bytes([2, 4, high, low])
        }
        _ => 0,
    };
    // RFC 9293 §3.1, RFC 8200 §8.1: the addresses, the protocol and the length are in it.
    let [high, low] = (4 * WORDS as u16).to_be_bytes();
    let pseudo = halves(u32::from_ne_bytes([0, NEXT_TCP, high, low])) + addresses;
    let header = halves(ports) + halves(own) + halves(acknowledged) + halves(rest);
    let [high, low] = (!fold(pseudo + header + halves(option))).to_ne_bytes();
    let checksum = u32::from_ne_bytes([high, low, 0, 0]);
    // Zeros end the list of options.
    let words = [ports, own, acknowledged, rest, checksum, option, 0, 0, 0, 0];
    frame.write::<WORDS>(at, *words.first_chunk()?)
}

/// Back to where it came from.
#[inline(always)]
fn turn_back(frame: &mut impl Frame) -> Option<()> {
    let [first, second, third] = frame.words(0)?.map(u32::to_ne_bytes);
    let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) = (first, second, third);
    let words = [[g, h, i, j], [k, l, a, b], [c, d, e, f]];
    frame.write(0, words.map(u32::from_ne_bytes))
}

/// The sum of the two words in it.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// Two rounds are enough for as few words as there are.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    halves(halves(sum)) as u16
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
