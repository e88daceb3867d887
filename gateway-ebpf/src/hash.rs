//! Who a source is, and where its state lies: SipHash-1-3 over the address, cut to the prefix that makes
//! a source, and the class of limits it is held to.
//!
//! The hash is keyed with random bytes at load, so that nobody can look for addresses which share a
//! set with a victim. 1-3 rounds are what Rust's own hash maps use against the same attack.

use crate::abi::{Class, Constants};
use crate::packet::{Address, Fields};

/// Where a source's state lies in the tables: the lower bits say in which line, the upper ones tell it
/// from the line's other sources. They would overlap only in tables above 2^44 lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// Index into the table of [`crate::bucket`], of a source in this class.
    #[inline(always)]
    pub const fn line(self, class: &Class) -> u32 {
        class.first_line | self.0 as u32 & class.line_mask
    }

    /// Index into the table of [`crate::open`].
    #[inline(always)]
    pub const fn open_line(self, constants: &Constants) -> u32 {
        (self.0 & constants.open_mask) as u32
    }

    /// What tells the line's sources apart, in its upper bits.
    #[inline(always)]
    pub const fn tag(self) -> u64 {
        self.0
    }
}

/// The source that `address` belongs to: as IPv6, in two little-endian words, cut to its prefix.
#[inline(always)]
pub fn source(address: Address, constants: &Constants) -> [u64; 2] {
    cut(address.words(), matches!(address, Address::V4(_)), constants)
}

/// The source of a packet.
#[inline(always)]
pub fn source_of(packet: &Fields, constants: &Constants) -> [u64; 2] {
    cut(packet.source_words(), packet.is_ipv4(), constants)
}

#[inline(always)]
fn cut([high, low]: [u64; 2], is_ipv4: bool, constants: &Constants) -> [u64; 2] {
    let mask = if is_ipv4 { constants.ipv4_mask } else { constants.ipv6_mask };
    [high & mask[0], low & mask[1]]
}

/// The place of a source in a class; in another class its state is another.
#[inline(always)]
pub fn place(source: [u64; 2], class: u8, constants: &Constants) -> Place {
    Place(siphash13(constants.hash_key, source, class))
}

/// The first `bits` of 128, in the shape of [`Constants::ipv6_mask`]; for IPv4 add 96.
pub const fn prefix_mask(bits: u32) -> [u64; 2] {
    let mask = match 128u32.saturating_sub(bits) {
        128 => 0,
        host_bits => u128::MAX << host_bits,
    };
    // Addresses are read as little-endian words, their first byte being the lowest.
    [((mask >> 64) as u64).swap_bytes(), (mask as u64).swap_bytes()]
}

/// SipHash-1-3 of a message of 17 bytes: two little-endian words and the last byte.
#[inline(always)]
fn siphash13(key: [u64; 2], message: [u64; 2], last: u8) -> u64 {
    const LENGTH: u64 = 17 << 56;
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    compress(&mut v, message[0]);
    compress(&mut v, message[1]);
    compress(&mut v, LENGTH | last as u64);
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};
    use std::net::Ipv6Addr;

    use super::*;

    fn constants(ipv4_prefix: u32, ipv6_prefix: u32) -> Constants {
        Constants {
            hash_key: [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908],
            ipv4_mask: prefix_mask(96 + ipv4_prefix),
            ipv6_mask: prefix_mask(ipv6_prefix),
            interfaces: 1,
            jiffy_ns: 1,
            raw_cookies: 0,
            open_mask: (1 << 10) - 1,
        }
    }

    fn v6(text: &str) -> Address {
        Address::V6(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    fn place_of(address: Address, constants: &Constants) -> Place {
        place(source(address, constants), 0, constants)
    }

    #[test]
    fn the_standard_library_agrees() {
        // `DefaultHasher::new` is SipHash-1-3 with a key of zeros.
        for seed in 0u64..1000 {
            let message = [
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                seed.wrapping_mul(0xd134_2543_de82_ef95),
            ];
            let class = seed as u8;
            let mut standard = DefaultHasher::new();
            let bytes = message.iter().flat_map(|word| word.to_le_bytes()).chain([class]);
            standard.write(&bytes.collect::<Vec<_>>());
            assert_eq!(siphash13([0, 0], message, class), standard.finish());
        }
    }

    #[test]
    fn masks_cover_the_first_bits_in_network_order() {
        assert_eq!(prefix_mask(0), [0, 0]);
        assert_eq!(prefix_mask(64), [u64::MAX, 0]);
        assert_eq!(prefix_mask(128), [u64::MAX, u64::MAX]);
        assert_eq!(prefix_mask(56)[0].to_le_bytes(), [255, 255, 255, 255, 255, 255, 255, 0]);
        assert_eq!(prefix_mask(60)[0].to_le_bytes(), [255, 255, 255, 255, 255, 255, 255, 0xf0]);
        assert_eq!(prefix_mask(96 + 20)[1].to_le_bytes(), [255, 255, 255, 255, 255, 255, 0xf0, 0]);
    }

    #[test]
    fn a_source_is_its_prefix() {
        let c = constants(32, 64);
        assert_eq!(place_of(v6("2001:db8::1"), &c), place_of(v6("2001:db8::2"), &c));
        assert_ne!(place_of(v6("2001:db8::1"), &c), place_of(v6("2001:db8:0:1::1"), &c));
        let v4 = |last| Address::V4([10, 0, 0, last]);
        assert_ne!(place_of(v4(1), &c), place_of(v4(2), &c));

        let c = constants(24, 56);
        assert_eq!(place_of(v6("2001:db8::1"), &c), place_of(v6("2001:db8:0:1::1"), &c));
        assert_eq!(place_of(v4(1), &c), place_of(v4(2), &c));
        assert_ne!(place_of(v4(1), &c), place_of(Address::V4([10, 0, 1, 1]), &c));
    }

    #[test]
    fn classes_are_counted_apart() {
        let c = constants(32, 64);
        let source = source(Address::V4([10, 0, 0, 1]), &c);
        assert_ne!(place(source, 0, &c), place(source, 1, &c));
    }

    #[test]
    fn neighbours_spread_over_the_table() {
        let c = constants(32, 64);
        let limits = crate::bucket::Limits::new(1, 1);
        let (first_line, line_mask) = (1 << 16, (1 << 16) - 1);
        let class = Class { limits, connections_max: 0, flags: 0, first_line, line_mask };
        let mut lines: Vec<u32> = (0..=255)
            .map(|last| place_of(Address::V4([192, 0, 2, last]), &c).line(&class))
            .inspect(|line| assert!((1 << 16..1 << 17).contains(line)))
            .collect();
        lines.sort_unstable();
        lines.dedup();
        assert!(lines.len() > 250, "{} lines for 256 neighbours", lines.len());
    }
}
