//! Where a source's state lies: SipHash-1-3 over the address, cut to the prefix that makes a source.
//!
//! The hash is keyed with random bytes at load, so that nobody can look for addresses which share a
//! set with a victim. 1-3 rounds are what Rust's own hash maps use against the same attack.

use crate::abi::Constants;
use crate::packet::Address;

/// Which line of the table a source has, and the tag that tells it from the line's other sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into the table.
    pub line: u32,
    /// For [`crate::bucket::admit`], which uses its upper bits. They overlap with the line's bits
    /// only in tables above 2^44 lines.
    pub tag: u64,
}

/// The place of `address` in a table laid out by `constants`.
#[inline(always)]
pub fn place(address: Address, constants: &Constants) -> Place {
    let mask = match address {
        Address::V4(_) => constants.ipv4_mask,
        Address::V6(_) => constants.ipv6_mask,
    };
    let [high, low] = words(address);
    let hash = siphash13(constants.hash_key, [high & mask[0], low & mask[1]]);
    Place { line: (hash & constants.line_mask) as u32, tag: hash }
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

#[inline(always)]
fn words(address: Address) -> [u64; 2] {
    let b = address.mapped();
    [
        u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
    ]
}

/// SipHash-1-3 of a message of 16 bytes, given as two little-endian words.
#[inline(always)]
fn siphash13(key: [u64; 2], message: [u64; 2]) -> u64 {
    const LENGTH: u64 = 16 << 56;
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    compress(&mut v, message[0]);
    compress(&mut v, message[1]);
    compress(&mut v, LENGTH);
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
            line_mask: (1 << 17) - 1,
        }
    }

    fn v6(text: &str) -> Address {
        Address::V6(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn the_published_vector_holds() {
        // Key 00..0f, message 00..0f: row 16 of the reference's vectors for SipHash-1-3.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let expected = u64::from_le_bytes([0x66, 0x8b, 0x90, 0x7d, 0x1a, 0xdd, 0x4f, 0xcc]);
        assert_eq!(siphash13(key, key), expected);
    }

    #[test]
    fn the_standard_library_agrees() {
        // `DefaultHasher::new` is SipHash-1-3 with a key of zeros.
        for seed in 0u64..1000 {
            let message = [
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                seed.wrapping_mul(0xd134_2543_de82_ef95),
            ];
            let mut standard = DefaultHasher::new();
            let bytes: Vec<u8> = message.iter().flat_map(|word| word.to_le_bytes()).collect();
            standard.write(&bytes);
            assert_eq!(siphash13([0, 0], message), standard.finish());
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
        assert_eq!(place(v6("2001:db8::1"), &c), place(v6("2001:db8::2"), &c));
        assert_ne!(place(v6("2001:db8::1"), &c), place(v6("2001:db8:0:1::1"), &c));
        assert_ne!(place(Address::V4([10, 0, 0, 1]), &c), place(Address::V4([10, 0, 0, 2]), &c));

        let c = constants(24, 56);
        assert_eq!(place(v6("2001:db8::1"), &c), place(v6("2001:db8:0:1::1"), &c));
        assert_eq!(place(Address::V4([10, 0, 0, 1]), &c), place(Address::V4([10, 0, 0, 2]), &c));
        assert_ne!(place(Address::V4([10, 0, 0, 1]), &c), place(Address::V4([10, 0, 1, 1]), &c));
    }

    #[test]
    fn neighbours_spread_over_the_table() {
        let c = constants(32, 64);
        let mut lines: Vec<u32> = (0..=255)
            .map(|last| place(Address::V4([192, 0, 2, last]), &c).line)
            .inspect(|line| assert!(u64::from(*line) <= c.line_mask))
            .collect();
        lines.sort_unstable();
        lines.dedup();
        assert!(lines.len() > 250, "{} lines for 256 neighbours", lines.len());
    }
}
