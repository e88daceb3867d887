//! What is known of sources for the whole machine: connections open at once, and bans. Shared by all
//! workers, and in part with the kernel program, which reads the connections.

#![expect(clippy::disallowed_types, reason = "all workers count in one table")]

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gateway_ebpf::abi::Constants;
use gateway_ebpf::bucket::{self, WAYS};
use gateway_ebpf::packet::Address;
use gateway_ebpf::{hash, open};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{ClockId, Timespec, clock_getres};

use super::banned::Banned;
use super::{Known, Settings, unix_now};
use crate::sys::SharedWords;

/// Fewer lines than this save nothing, and more are more than the maps' share of memory.
const LINES: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 15;

/// Who a packet counts as: an address cut to its prefix, in the words of [`hash::source`].
pub type Source = [u64; 2];

/// The first address of a source.
pub fn address_of([high, low]: Source) -> IpAddr {
    let octets: u128 = u128::from(low) << 64 | u128::from(high);
    IpAddr::from(octets.to_le_bytes()).to_canonical()
}

/// The tables of all workers together. They outlive configurations.
#[derive(Debug)]
pub struct Counts {
    constants: Constants,
    open: SharedWords,
    known: Option<Known>,
    banned: Banned,
    /// Connections for which the table had no room.
    uncounted: AtomicU64,
}

/// An address as packets have it.
pub fn packet_address(address: IpAddr) -> Address {
    match address.to_canonical() {
        IpAddr::V4(address) => Address::V4(address.octets()),
        IpAddr::V6(address) => Address::V6(address.octets()),
    }
}

impl Counts {
    /// Tables for some `connections` at once, in memory of their own.
    ///
    /// # Errors
    /// When the machine has no memory or no random numbers.
    pub fn new(settings: &Settings, connections: usize) -> io::Result<Self> {
        Self::over(constants(settings, connections)?, None, None)
    }

    /// The tables that a kernel program with `constants` reads, in its map `open`, and in its map `known` if it reads
    /// that, too.
    ///
    /// # Errors
    /// When a map cannot be mapped into memory.
    pub fn over(
        constants: Constants,
        open: Option<BorrowedFd<'_>>,
        known: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let words = (constants.open_mask as usize + 1) * WAYS;
        Ok(Self {
            constants,
            open: SharedWords::new(words, open)?,
            known: known.map(Known::over).transpose()?,
            banned: Banned::default(),
            uncounted: AtomicU64::new(0),
        })
    }

    /// Who has had a connection, if anybody wants to know.
    pub fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Who `address` counts as.
    pub fn source(&self, address: IpAddr) -> Source {
        hash::source(packet_address(address), &self.constants)
    }

    /// Counts a connection; how many the source then has open in its class. `None` when the table has
    /// no room for the source.
    pub(super) fn enter(counts: &Arc<Self>, source: Source, class: u8) -> Option<(Seat, u32)> {
        let place = hash::place(source, class, &counts.constants);
        let line = place.open_line(&counts.constants) as usize;
        let Some(entered) = open::enter(&counts.line(line), place.tag()) else {
            counts.uncounted.fetch_add(1, Relaxed);
            return None;
        };
        let seat = Seat { counts: Arc::clone(counts), line, way: entered.way };
        Some((seat, entered.open))
    }

    fn line(&self, line: usize) -> Line<'_> {
        let start = line * WAYS;
        Line(self.open.get(start..start + WAYS).unwrap_or_default())
    }

    /// Connections so far that the table had no room for.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Relaxed)
    }

    /// Whether anybody is banned.
    pub fn has_bans(&self) -> bool {
        self.banned.is_used()
    }

    /// Whether a source is banned now.
    pub fn is_banned(&self, source: Source) -> bool {
        self.has_bans() && self.banned.contains(self.hash(source), unix_now())
    }

    /// Bans a source until a Unix time; one that has passed ends a ban. Only for control's thread.
    pub fn ban(&self, source: Source, until: u64) {
        self.banned.set(self.hash(source), until, unix_now());
    }

    fn hash(&self, source: Source) -> u64 {
        hash::place(source, 0, &self.constants).tag()
    }
}

/// What a kernel program and its userspace agree on, with a new key. `connections` is how many there
/// may be at once.
///
/// # Errors
/// When there are no random numbers.
pub fn constants(settings: &Settings, connections: usize) -> io::Result<Constants> {
    // Two sources to a line, so that few lines ever have more than eight.
    let lines = (connections / 2).next_power_of_two().clamp(*LINES.start(), *LINES.end());
    Ok(Constants {
        hash_key: random_key()?,
        ipv4_mask: hash::prefix_mask(96 + u32::from(settings.ipv4_prefix)),
        ipv6_mask: hash::prefix_mask(u32::from(settings.ipv6_prefix)),
        open_mask: lines as u64 - 1,
        interfaces: 1,
        jiffy_ns: jiffy_ns(),
        raw_cookies: 0,
    })
}

/// The coarse clocks move once for each timer interrupt.
fn jiffy_ns() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_getres(ClockId::MonotonicCoarse);
    tv_sec as u64 * 1_000_000_000 + tv_nsec as u64
}

fn random_key() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    // Once the pool is ready, so few bytes come at once and whole (getrandom(2)).
    if getrandom(bytes.as_mut_slice(), GetRandomFlags::empty())? != bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let key = u128::from_ne_bytes(bytes);
    Ok([key as u64, (key >> 64) as u64])
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub struct Seat {
    counts: Arc<Counts>,
    line: usize,
    way: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        open::leave(&self.counts.line(self.line), self.way);
    }
}

/// Eight words of the table.
struct Line<'a>(&'a [AtomicU64]);

impl bucket::Line for Line<'_> {
    fn load(&self, way: usize) -> u64 {
        self.0.get(way).map_or(0, |word| word.load(Relaxed))
    }

    fn swap(&self, way: usize, old: u64, new: u64) -> bool {
        let word = self.0.get(way);
        word.is_some_and(|word| word.compare_exchange(old, new, Relaxed, Relaxed).is_ok())
    }

    fn add(&self, way: usize, by: u64) -> u64 {
        self.0.get(way).map_or(0, |word| word.fetch_add(by, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_interrupts_a_hundred_to_a_thousand_times_a_second() {
        assert!((900_000..=10_000_000).contains(&jiffy_ns()), "{}", jiffy_ns());
    }

    #[test]
    fn keys_differ() {
        assert_ne!(random_key().unwrap(), random_key().unwrap());
    }

    #[test]
    fn a_source_is_its_first_address() {
        let counts = Counts::new(&Settings::default(), 0).unwrap();
        for (address, first) in
            [("192.0.2.9", "192.0.2.9"), ("2001:db8:1:2:3::4", "2001:db8:1:2::")]
        {
            let source = counts.source(address.parse().unwrap());
            assert_eq!(address_of(source), first.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_as_such() {
        let settings = Settings { ipv4_prefix: 32, ..Settings::default() };
        let counts = Arc::new(Counts::new(&settings, 0).unwrap());
        let mut seats = Vec::new();
        let mut without = 0;
        for source in 0..100_000_u64 {
            match Counts::enter(&counts, [0, source], 0) {
                Some((seat, 1)) => seats.push(seat),
                Some((_, open)) => panic!("{open} open"),
                None => without += 1,
            }
        }
        assert_eq!(seats.len(), (*LINES.start()) * WAYS);
        assert_eq!(counts.uncounted(), without);
    }
}
