//! What must be known to make a SYN cookie without looking for sockets, which costs more than the cookie: that the
//! client has no connection here yet, and that the listener will take it.
//!
//! A SYN for a connection that exists, or has ended less than a minute ago (TIME_WAIT), is the kernel's to answer.
//! Userspace marks every source it accepts a connection of, and those that have one already, in [`WORDS`] of bits.
//! Two sources may share a bit: then a socket is looked for in vain.
//!
//! A listener takes cookies only if it has heard of one of late, which `bpf_tcp_gen_syncookie` tells it. So the
//! program asks it for one of its own every second, and remembers that it has got one.

/// Words of bits about sources: 64 KiB.
pub const WORDS: u32 = 1 << 13;

/// Listeners remembered at once.
pub const LISTENERS: u32 = 1 << 8;

/// A listener is asked anew when this part of the time in ns changes, which is every second: a listener forgets
/// after two minutes (`TCP_SYNCOOKIE_VALID`).
const SECOND_SHIFT: u32 = 30;

/// Odd, with its bits well mixed: the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where the bit of a source is: the number of its word, and the bit in it.
#[inline(always)]
pub const fn bit([high, low]: [u64; 2]) -> (u32, u64) {
    let hash = mix(high, low);
    let number = hash >> (64 - (WORDS * u64::BITS).ilog2());
    (number as u32 / u64::BITS, 1 << (number % u64::BITS as u64))
}

/// Where a listener at this address, as [`crate::packet::Address::words`], and port is remembered, and what stands
/// there if it has made a cookie in the second that `now` is in.
#[inline(always)]
pub const fn listener([high, low]: [u64; 2], port: u16, now: u64) -> (u32, u64) {
    let hash = mix(high ^ port as u64, low);
    ((hash >> (64 - LISTENERS.ilog2())) as u32, hash ^ (now >> SECOND_SHIFT))
}

/// Nobody gains by finding two that are the same: a socket is looked for, or a cookie refused.
#[inline(always)]
const fn mix(high: u64, low: u64) -> u64 {
    let hash = (high.wrapping_mul(MULTIPLIER) ^ low).wrapping_mul(MULTIPLIER);
    (hash ^ (hash >> 32)).wrapping_mul(MULTIPLIER)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::packet::Address;

    #[test]
    fn neighbours_have_bits_of_their_own() {
        let v4 = |a, b| Address::V4([10, 0, a, b]).words();
        let v6 = |a, b| {
            let mut octets = [0; 16];
            (octets[0], octets[6], octets[7]) = (0x20, a, b);
            Address::V6(octets).words()
        };
        for of in [v4, v6] as [fn(u8, u8) -> [u64; 2]; 2] {
            let all = (0..=255).flat_map(|a| (0..=15).map(move |b| bit(of(a, b))));
            let distinct: HashSet<_> = all
                .inspect(|(word, bit)| assert!(*word < WORDS && bit.is_power_of_two()))
                .collect();
            assert!(distinct.len() > 4096 - 100, "{} of 4096", distinct.len());
        }
    }

    #[test]
    fn a_listener_is_remembered_for_a_second() {
        let address = Address::V4([192, 0, 2, 1]).words();
        let (place, word) = listener(address, 443, 5 << SECOND_SHIFT);
        assert!(place < LISTENERS);
        assert_eq!(listener(address, 443, (6 << SECOND_SHIFT) - 1), (place, word));
        assert_ne!(listener(address, 443, 6 << SECOND_SHIFT).1, word);
        assert_ne!(listener(address, 80, 5 << SECOND_SHIFT).1, word);
        assert_ne!(listener(Address::V4([192, 0, 2, 2]).words(), 443, 5 << SECOND_SHIFT).1, word);
    }
}
