//! What the program and userspace must agree on: names, layouts, and the order of the counters.

#![cfg_attr(feature = "user", expect(unsafe_code, reason = "aya's `Pod` is an unsafe trait"))]

use crate::bucket::{Limits, WAYS};
use crate::flood::Flood;

/// The entry point for drivers that hand over packets spread over several buffers (Linux 5.18).
pub const PROGRAM_FRAGS: &str = "gateway_frags";
/// The entry point for drivers and kernels that do not.
pub const PROGRAM: &str = "gateway";

/// Map: TCP port → 0, or the [`crate::verdict::Listener`] there. An array of 65,536 `u8`.
pub const PORTS: &str = "PORTS";
/// Map: where the gateway listens, for ports at which it does not at all addresses: the two words of an address, as
/// [`crate::packet::Address::words`], and a port → nothing.
pub const LOCALS: &str = "LOCALS";
/// Map: an array of [`Class`], [`CLASSES_MAX`] long, changeable while the program runs.
pub const CLASSES: &str = "CLASSES";
/// Map: IPv4 network → [`Entry`], for two generations of the list. A trie with [`Key4`].
pub const LIST4: &str = "LIST4";
/// Map: the same for IPv6, with [`Key6`].
pub const LIST6: &str = "LIST6";
/// Map: source → [`Ban`]. A hash map with the words of [`crate::hash::source`] for keys, which only
/// userspace adds to, so that no flood of packets can push a ban out.
pub const BANS: &str = "BANS";
/// Map: an array of [`Line`], a power of two long, that userspace counts open connections in. See
/// [`crate::open`].
pub const OPEN: &str = "OPEN";
/// Map: an array of [`crate::known::WORDS`] words, in which userspace marks sources.
pub const KNOWN: &str = "KNOWN";
/// Map: an array of [`crate::known::LISTENERS`] words, the program's own.
pub const ASKED: &str = "ASKED";
/// Map: the one [`Settings`], changeable while the program runs.
pub const SETTINGS: &str = "SETTINGS";
/// Map: an array of [`Line`], a power of two long; its length is set before loading. The first word of each line holds
/// nothing: the program writes it so that the line comes.
pub const LIMITS: &str = "LIMITS";
/// Map: packets by the interface's place and [`crate::verdict::Verdict::slot`], one `u64` per CPU.
pub const COUNTERS: &str = "COUNTERS";
/// Map: source → [`Offender`], the least recently seen of which give way.
pub const OFFENDERS: &str = "OFFENDERS";
/// Map: a ring buffer of [`Event`].
pub const EVENTS: &str = "EVENTS";
/// Map: the one [`Sample`] of each CPU.
pub const SAMPLES: &str = "SAMPLES";
/// Map: the one [`Flood`] of each CPU.
pub const FLOODS: &str = "FLOODS";
/// Read-only data: the one [`Constants`], set before loading.
pub const CONSTANTS: &str = "CONSTANTS";

/// What the maps that outlive a process look like. Whoever changes what is in them and not how large it
/// is adds one to the first number.
pub const LAYOUT: u32 = digest([
    3,
    size_of::<Settings>(),
    size_of::<Line>(),
    size_of::<Key4>(),
    size_of::<Key6>(),
    size_of::<Entry>(),
    size_of::<Ban>(),
    LIST_MAX as usize,
    BANS_MAX as usize,
]);

/// FNV-1a over numbers.
const fn digest<const N: usize>(numbers: [usize; N]) -> u32 {
    let mut digest: u32 = 0x811c_9dc5;
    let mut rest: &[usize] = &numbers;
    while let [number, behind @ ..] = rest {
        digest = (digest ^ *number as u32).wrapping_mul(0x0100_0193);
        rest = behind;
    }
    digest
}

/// How many addresses with ports; where there are more, it is as if the gateway listened at all addresses.
pub const LOCALS_MAX: u32 = 1024;
/// How many classes of limits there may be.
pub const CLASSES_MAX: u32 = 64;
/// Networks in one generation of a list; the tries hold two, see [`Settings::generation`].
pub const LIST_MAX: u32 = 100_000 + LIST_IMPLIED_MAX;
/// How many of them nobody has written into a list: what is allowed always, trusted proxies, and
/// networks that are banned.
pub const LIST_IMPLIED_MAX: u32 = 4096;
/// Sources banned at once.
pub const BANS_MAX: u32 = 1 << 16;
/// Sources of which is known what they have been refused.
pub const OFFENDERS_MAX: u32 = 1 << 14;
/// Bytes of [`EVENTS`]: more than a second's worth on 16 CPUs.
pub const EVENTS_BYTES: u32 = 1 << 17;
/// Places of interfaces in [`COUNTERS`].
pub const INTERFACES_MAX: u32 = 64;
/// Places that each CPU remembers of sources which it has refused.
pub const REFUSED_MAX: u32 = 64;
/// How long a CPU waits between two samples, in ns.
pub const SAMPLE_NS: u64 = 10_000_000;

/// One cache line of [`LIMITS`] or [`OPEN`]: the sources that share a set.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Line(pub [u64; WAYS]);

/// What may change while the program runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `ENFORCE_…` and `HAS_…`.
    pub flags: u64,
    /// Which generation of the list counts, 0 or 1. The other one is written meanwhile, so that one
    /// store swaps the whole list.
    pub generation: u64,
    /// [`Constants::hash_key`], for the next process that finds the maps.
    pub hash_key: [u64; 2],
    /// New sources a second on one CPU above which there is a flood, see [`crate::flood`].
    pub flood: u64,
    /// How often [`LOCALS`] has changed.
    pub locals: u64,
}

/// Flag of [`Settings`]: drop what is on a deny list, do not only count it.
pub const ENFORCE_DENY: u64 = 1;
/// Flag of [`Settings`]: drop what hides a TCP header to get past the limits.
pub const ENFORCE_HIDING: u64 = 2;
/// Flag of [`Settings`]: the list has networks that packets may come from.
pub const HAS_LIST: u64 = 4;
/// Flag of [`Settings`]: somebody may be banned.
pub const HAS_BANS: u64 = 8;
/// Flag of [`Settings`]: answer by SYN cookies while there is a flood, do not only count it.
pub const ENFORCE_COOKIES: u64 = 16;
/// Flag of [`Settings`]: somebody reads [`EVENTS`].
pub const HAS_READER: u64 = 32;
/// Flag of [`Settings`]: whoever has a connection here is marked in [`KNOWN`].
pub const HAS_KNOWN: u64 = 64;

/// The limits of one class of sources. The first is that of all who belong to no other.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// How fast one source may open connections.
    pub limits: Limits,
    /// How many it may have open; 0 for no limit.
    pub connections_max: u32,
    /// `ENFORCE_…` of this struct.
    pub flags: u32,
    /// The first of its lines in [`LIMITS`], and how many they are less one, a power of two. Classes of different
    /// rates have different ones: where debts are compared, one of a slow rate weighs more than any of a fast one.
    pub first_line: u32,
    /// See above.
    pub line_mask: u32,
}

/// Flag of [`Class`]: drop what is above [`Class::limits`].
pub const ENFORCE_RATE: u32 = 1;
/// Flag of [`Class`]: drop what is above [`Class::connections_max`].
pub const ENFORCE_CONNECTIONS: u32 = 2;
/// Flag of [`Class`]: what would be dropped is reset.
pub const RESET: u32 = 4;

/// A network of IPv4 in a trie. `generation` counts as 32 bits of its prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key4 {
    /// [`Settings::generation`], in the first byte.
    pub generation: [u8; 4],
    /// In network order.
    pub address: [u8; 4],
}

/// A network of IPv6 in a trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key6 {
    /// [`Settings::generation`], in the first byte.
    pub generation: [u8; 4],
    /// In network order.
    pub address: [u8; 16],
}

/// What is said of a network.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it ends to count, by the kernel's monotonic clock, in ns.
    pub until: u64,
    /// Packets it has decided; the kernel adds to it.
    pub hits: u64,
    /// [`crate::verdict::Treatment::code`].
    pub treatment: u64,
}

/// A banned source.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// When it ends, by the kernel's monotonic clock, in ns.
    pub until: u64,
    /// Connections it has cost; the kernel adds to it.
    pub hits: u64,
    /// Userspace's: how many bans came before this one.
    pub level: u32,
    /// Userspace's: what for.
    pub reason: u32,
}

/// What a source has been refused. Where there is much of it, it is a sample: now and then one packet
/// stands for all that have come since the last one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Packets that went no further.
    pub refused: u64,
    /// Packets that would not have, if all that is observed were enforced.
    pub observed: u64,
    /// When the last of them came, by the kernel's monotonic clock, in ns.
    pub last: u64,
}

/// A packet that went no further, or would not have.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who sent it: the address as IPv6, in two little-endian words.
    pub source: [u64; 2],
    /// How many such packets it stands for.
    pub packets: u64,
    /// The index of the interface it came in by.
    pub interface: u32,
    /// [`crate::verdict::Verdict::slot`].
    pub slot: u32,
    /// The port it was for.
    pub port: u32,
    /// Nothing.
    pub unused: u32,
}

/// What one CPU remembers between two samples.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When the last was taken, by the kernel's timer interrupt, in ns.
    pub last: u64,
    /// Packets since.
    pub packets: u64,
    /// Samples that the ring buffer had no room for.
    pub lost: u64,
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
    /// Lines of [`OPEN`] less one.
    pub open_mask: u64,
    /// An interface's index, divided by this, leaves its place in [`COUNTERS`] as the rest.
    pub interfaces: u64,
    /// Nanoseconds from one of the kernel's timer interrupts to the next.
    pub jiffy_ns: u64,
    /// Whether the kernel makes cookies without a socket (Linux 6.0); else 0.
    pub raw_cookies: u64,
}

// No hidden padding: both sides copy these types byte by byte.
const _: () = {
    assert!(size_of::<Line>() == 64 && size_of::<Line>() == WAYS * size_of::<u64>());
    assert!(size_of::<Settings>() == 6 * size_of::<u64>());
    assert!(size_of::<Flood>() == 4 * size_of::<u64>());
    assert!(size_of::<Offender>() == 3 * size_of::<u64>());
    assert!(size_of::<Event>() == 5 * size_of::<u64>());
    assert!(size_of::<Sample>() == 3 * size_of::<u64>());
    assert!(size_of::<Class>() == size_of::<Limits>() + 4 * size_of::<u32>());
    assert!(size_of::<Key4>() == 8 && size_of::<Key6>() == 20);
    assert!(size_of::<Entry>() == 3 * size_of::<u64>());
    assert!(size_of::<Ban>() == 2 * size_of::<u64>() + 2 * size_of::<u32>());
    assert!(size_of::<Constants>() == 80);
};

#[cfg(feature = "user")]
mod pod {
    use super::{
        Ban, Class, Constants, Entry, Event, Flood, Key4, Key6, Line, Offender, Sample, Settings,
    };

    // SAFETY: repr(C), `Copy`, only integers, and the assertions above leave no room for padding.
    unsafe impl aya::Pod for Line {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above; `Limits` is repr(C) and two `u64` itself.
    unsafe impl aya::Pod for Class {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Key4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Key6 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Entry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Ban {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Offender {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Sample {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Flood {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Constants {}
}
