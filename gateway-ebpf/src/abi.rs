//! What the program and userspace must agree on: names, layouts, and the order of the counters.

#![cfg_attr(feature = "user", expect(unsafe_code, reason = "aya's `Pod` is an unsafe trait"))]

use crate::bucket::{Limits, WAYS};

/// The entry point for drivers that hand over packets spread over several buffers (Linux 5.18).
pub const PROGRAM_FRAGS: &str = "gateway_frags";
/// The entry point for drivers and kernels that do not.
pub const PROGRAM: &str = "gateway";

/// Map: TCP port → 1 when it is one of the gateway's. An array of 65,536 `u8`.
pub const PORTS: &str = "PORTS";
/// Map: the one [`Settings`], changeable while the program runs.
pub const SETTINGS: &str = "SETTINGS";
/// Map: an array of [`Line`], a power of two long; its length is set before loading.
pub const LIMITS: &str = "LIMITS";
/// Map: packets by [`crate::verdict::Verdict::slot`], one `u64` per CPU.
pub const COUNTERS: &str = "COUNTERS";
/// Read-only data: the one [`Constants`], set before loading.
pub const CONSTANTS: &str = "CONSTANTS";

/// One cache line of the limiter's table: the sources that share a set.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Line(pub [u64; WAYS]);

/// What may change while the program runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How fast one source may open connections.
    pub limits: Limits,
    /// Not 0: drop. 0: only count what would be dropped.
    pub enforce: u64,
}

/// What is fixed when the program is loaded; the verifier sees plain constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constants {
    /// Random, so that nobody can aim at another source's set.
    pub hash_key: [u64; 2],
    /// The bits of `::ffff:a.b.c.d` that make an IPv4 source, see [`crate::hash::prefix_mask`].
    pub ipv4_mask: [u64; 2],
    /// The bits of an IPv6 address that make a source.
    pub ipv6_mask: [u64; 2],
    /// Lines of [`LIMITS`] less one.
    pub line_mask: u64,
}

// No hidden padding: both sides copy these types byte by byte.
const _: () = {
    assert!(size_of::<Line>() == 64 && size_of::<Line>() == WAYS * size_of::<u64>());
    assert!(size_of::<Settings>() == 3 * size_of::<u64>());
    assert!(size_of::<Constants>() == 7 * size_of::<u64>());
};

#[cfg(feature = "user")]
mod pod {
    use super::{Constants, Line, Settings};

    // SAFETY: repr(C), `Copy`, only integers, and the assertions above leave no room for padding.
    unsafe impl aya::Pod for Line {}
    // SAFETY: as above; `Limits` is repr(C) and two `u64` itself.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Constants {}
}
