//! The program's maps: what userspace writes into them and reads out of them.

#![expect(clippy::disallowed_types, reason = "control writes maps from several of its threads")]

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::Ebpf;
use aya::maps::{self, Array, Map, MapData, MapError, PerCpuArray};
use gateway_ebpf::abi;
use gateway_ebpf::bucket::Limits;
use gateway_ebpf::flood::Flood;
use gateway_ebpf::verdict::{Listener, SLOTS, Treatment, Verdict};
use ipnet::IpNet;
use rustix::thread::{MembarrierCommand, membarrier};
use rustix::time::{ClockId, clock_gettime};

use super::list::List;
use super::{Ban, Count, Offender, hook};
use crate::admission::{Class, Entry, Settings, Source, packet_address, unix_now};

/// Flag in [`abi::Ban::reason`]: only workers keep the ban, as others' packets come from where the source's do. For
/// the kernel it has ended long ago, and when it does stands in place of `hits`.
const BY_WORKERS: u32 = 1 << 31;

/// The maps, taken out of the loaded object. Each is locked for as long as it is written.
pub(super) struct Maps {
    switches: Mutex<Switches>,
    ports: Mutex<Ports>,
    classes: Mutex<Array<MapData, abi::Class>>,
    /// How long LIMITS is.
    lines: u32,
    /// Whether the program is on the loopback.
    has_loopback: bool,
    list: Mutex<List>,
    bans: Mutex<maps::HashMap<MapData, Source, abi::Ban>>,
    counters: PerCpuArray<MapData, u64>,
    offenders: maps::HashMap<MapData, Source, abi::Offender>,
    samples: PerCpuArray<MapData, abi::Sample>,
    floods: PerCpuArray<MapData, Flood>,
    open: MapData,
    known: MapData,
}

/// What PORTS and LOCALS hold.
struct Ports {
    map: Array<MapData, u8>,
    locals: maps::HashMap<MapData, Local, u8>,
    own: BTreeSet<u16>,
    own_locals: BTreeSet<Local>,
}

/// The two words of an address, and a port.
type Local = [u64; 3];

/// What SETTINGS holds.
struct Switches {
    value: abi::Settings,
    map: Array<MapData, abi::Settings>,
}

impl Switches {
    fn set(&mut self, change: impl FnOnce(&mut abi::Settings)) -> Result<(), MapError> {
        let mut value = self.value;
        change(&mut value);
        self.map.set(0, value, 0)?;
        self.value = value;
        Ok(())
    }
}

impl Maps {
    /// Takes them out of the object, whose table of limits has so many lines; `interfaces` are those that packets come
    /// to.
    pub fn take(ebpf: &mut Ebpf, lines: u32, interfaces: &[u32]) -> Result<Self, MapError> {
        let map: Array<MapData, abi::Settings> = take(ebpf, abi::SETTINGS)?.try_into()?;
        let value = map.get(&0, 0)?;
        let Map::Array(open) = take(ebpf, abi::OPEN)? else { return Err(MapError::KeyNotFound) };
        let Map::Array(known) = take(ebpf, abi::KNOWN)? else { return Err(MapError::KeyNotFound) };
        Ok(Self {
            switches: Mutex::new(Switches { value, map }),
            ports: Mutex::new(Ports {
                map: take(ebpf, abi::PORTS)?.try_into()?,
                locals: take(ebpf, abi::LOCALS)?.try_into()?,
                own: BTreeSet::new(),
                own_locals: BTreeSet::new(),
            }),
            classes: Mutex::new(take(ebpf, abi::CLASSES)?.try_into()?),
            lines,
            has_loopback: interfaces.contains(&hook::LOOPBACK),
            list: Mutex::new(List {
                v4: take(ebpf, abi::LIST4)?.try_into()?,
                v6: take(ebpf, abi::LIST6)?.try_into()?,
            }),
            bans: Mutex::new(take(ebpf, abi::BANS)?.try_into()?),
            counters: take(ebpf, abi::COUNTERS)?.try_into()?,
            offenders: take(ebpf, abi::OFFENDERS)?.try_into()?,
            samples: take(ebpf, abi::SAMPLES)?.try_into()?,
            floods: take(ebpf, abi::FLOODS)?.try_into()?,
            open,
            known,
        })
    }

    /// Writes down what the maps are keyed with.
    pub fn set_hash_key(&self, hash_key: [u64; 2]) -> Result<(), MapError> {
        locked(&self.switches).set(|value| value.hash_key = hash_key)
    }

    /// The table of open connections.
    pub fn open(&self) -> BorrowedFd<'_> {
        self.open.fd().as_fd()
    }

    /// Who is marked as having a connection.
    pub fn known(&self) -> BorrowedFd<'_> {
        self.known.fd().as_fd()
    }

    /// Lets the program go by who is marked, or not: then no packet is decided any more by what it was.
    pub fn set_known(&self, all_are_marked: bool) -> Result<(), MapError> {
        locked(&self.switches).set(|value| set_flag(value, abi::HAS_KNOWN, all_are_marked))?;
        // As in `set_list`.
        let _ = membarrier(MembarrierCommand::Global);
        Ok(())
    }

    /// The ports that are the gateway's.
    pub fn ports(&self) -> BTreeSet<u16> {
        locked(&self.ports).own.clone()
    }

    /// Makes what is listened on the gateway's, each with the class of its listener, and nothing else any longer.
    pub fn set_ports(&self, listeners: &[(SocketAddr, u8)]) -> Result<(), MapError> {
        let mut all = locked(&self.ports);
        let everywhere = everywhere(listeners);
        let is_everywhere = |port: u16| everywhere.contains(&port);
        let some = listeners.iter().filter(|(address, _)| !is_everywhere(address.port()));
        let own_locals: BTreeSet<Local> = some.map(|(address, _)| local(*address)).collect();
        let own: BTreeSet<u16> = listeners.iter().map(|(address, _)| address.port()).collect();
        // What comes is there before it is asked for, and what goes is not asked for any more.
        for local in &own_locals {
            all.locals.insert(local, 1, 0)?;
        }
        for (address, class) in listeners {
            let port = address.port();
            all.map.set(port.into(), Listener::new(*class, is_everywhere(port)).code(), 0)?;
        }
        for port in std::mem::replace(&mut all.own, own.clone()).difference(&own) {
            all.map.set((*port).into(), 0, 0)?;
        }
        for local in
            std::mem::replace(&mut all.own_locals, own_locals.clone()).difference(&own_locals)
        {
            all.locals.remove(local)?;
        }
        locked(&self.switches).set(|value| value.locals += 1)
    }

    /// Changes the limits, and what of all is enforced.
    pub fn set_limits(&self, settings: &Settings) -> Result<(), MapError> {
        let mut classes = locked(&self.classes);
        for (position, class) in (0..abi::CLASSES_MAX).zip(limits(&settings.classes, self.lines)) {
            classes.set(position, class, 0)?;
        }
        let is_enforced = |class: &Class| class.enforce_rate || class.enforce_connections;
        let is_any_enforced = settings.enforce_deny || settings.classes.iter().any(is_enforced);
        locked(&self.switches).set(|value| {
            set_flag(value, abi::ENFORCE_DENY, settings.enforce_deny);
            set_flag(value, abi::ENFORCE_HIDING, is_any_enforced);
            set_flag(value, abi::ENFORCE_COOKIES, settings.enforce_cookies);
            value.flood = settings.flood;
        })
    }

    /// Swaps the list: no packet sees a part of both. What an entry has counted it keeps.
    pub fn set_list(&self, live: &[Entry]) -> Result<(), MapError> {
        let mut list = locked(&self.list);
        let generation = locked(&self.switches).value.generation ^ 1;
        let hits = list.clear(generation as u8)?;
        // What comes from this machine itself comes to no other interface, and nothing else is looked up for its sake.
        let may_come = |entry: &Entry| self.has_loopback || !is_loopback(&entry.network);
        for entry in live {
            let until = entry.until.map_or(u64::MAX, monotonic_ns);
            let treatment = entry.treatment.code();
            let hits = hits.get(&entry.network).copied().unwrap_or(0);
            let value = abi::Entry { until, hits, treatment };
            list.insert(generation as u8, entry.network, value)?;
        }
        locked(&self.switches).set(|value| {
            value.generation = generation;
            set_flag(value, abi::HAS_LIST, live.iter().any(may_come));
        })?;
        // A packet may be decided right now that has seen the old generation count. This waits until all such
        // are done (RCU); kernels with `nohz_full` refuse it.
        let _ = membarrier(MembarrierCommand::Global);
        list.clear(generation as u8 ^ 1).map(drop)
    }

    /// How many packets each network of the list has decided.
    pub fn list_hits(&self) -> Result<HashMap<IpNet, u64>, MapError> {
        let generation = locked(&self.switches).value.generation;
        let list = locked(&self.list);
        let of_now = |(key, network, entry): (u8, IpNet, abi::Entry)| {
            (u64::from(key) == generation).then_some((network, entry.hits))
        };
        Ok(list.read()?.into_iter().filter_map(of_now).collect())
    }

    /// Networks wider than a source that are banned, and until when.
    pub fn banned_networks(&self) -> Result<Vec<(IpNet, u64)>, MapError> {
        let generation = locked(&self.switches).value.generation;
        let list = locked(&self.list);
        let banned = |(key, network, entry): (u8, IpNet, abi::Entry)| {
            let is_ban = entry.treatment == Treatment::Ban.code();
            (u64::from(key) == generation && is_ban)
                .then(|| (network, unix_of_monotonic(entry.until)))
        };
        Ok(list.read()?.into_iter().filter_map(banned).collect())
    }

    /// Bans a source, or changes its ban.
    pub fn ban(&self, source: Source, ban: Ban) -> Result<(), MapError> {
        let mut bans = locked(&self.bans);
        let Ban { until, level, reason, in_kernel, .. } = ban;
        let until = monotonic_ns(until);
        let value = match in_kernel {
            true => {
                let known = bans.get(&source, 0).ok().map(ban_of);
                abi::Ban { until, hits: known.map_or(0, |known| known.hits), level, reason }
            }
            false => abi::Ban { until: 0, hits: until, level, reason: reason | BY_WORKERS },
        };
        bans.insert(source, value, 0)?;
        match in_kernel {
            true => locked(&self.switches).set(|value| set_flag(value, abi::HAS_BANS, true)),
            false => Ok(()),
        }
    }

    /// Ends a ban, if there is one.
    pub fn unban(&self, source: Source) -> Result<(), MapError> {
        match locked(&self.bans).remove(&source) {
            Err(error) if !matches!(error, MapError::KeyNotFound) && !is_missing(&error) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Every ban, those that have ended included.
    pub fn bans(&self) -> Result<Vec<(Source, Ban)>, MapError> {
        let bans = locked(&self.bans);
        bans.iter().map(|ban| ban.map(|(source, ban)| (source, ban_of(ban)))).collect()
    }

    /// Packets by verdict, of the interface at this place.
    pub fn counters(&self, place: u32) -> Result<Vec<Count>, MapError> {
        Verdict::all()
            .map(|verdict| {
                let counter = place * SLOTS + verdict.slot();
                let packets = self.counters.get(&counter, 0)?.iter().sum();
                Ok(Count { verdict, packets })
            })
            .collect()
    }

    /// Every source of which is known what it has been refused.
    pub fn offenders(&self) -> Result<Vec<Offender>, MapError> {
        let all = self.offenders.iter().map(|offender| {
            let (source, abi::Offender { refused, observed, last }) = offender?;
            let age = Duration::from_nanos(monotonic_now().saturating_sub(last));
            Ok(Offender { source, refused, observed, age })
        });
        all.collect()
    }

    /// Lets the program write events, or not.
    pub fn set_reader(&self, is_there: bool) -> Result<(), MapError> {
        locked(&self.switches).set(|value| set_flag(value, abi::HAS_READER, is_there))
    }

    /// Events that nobody will hear of, as the ring buffer was full.
    pub fn lost_events(&self) -> Result<u64, MapError> {
        Ok(self.samples.get(&0, 0)?.iter().map(|sample| sample.lost).sum())
    }

    /// Whether there is a flood on any CPU.
    pub fn is_flooded(&self) -> Result<bool, MapError> {
        // By the clock that the program reads: nothing is over here before it is there.
        let (floods, now) = (self.floods.get(&0, 0)?, nanoseconds(ClockId::MonotonicCoarse));
        Ok(floods.iter().any(|flood| flood.told > now))
    }
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, MapError> {
    ebpf.take_map(name).ok_or(MapError::KeyNotFound)
}

/// Whether all addresses of a network are the machine's own (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3).
fn is_loopback(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.addr().is_loopback() && network.prefix_len() >= 8,
        IpNet::V6(network) => network.addr().is_loopback() && network.prefix_len() == 128,
    }
}

/// What a map holds is right after each single write, so a panic elsewhere does not spoil it.
fn locked<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the kernel has said that there is no such key.
fn is_missing(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.kind() == std::io::ErrorKind::NotFound)
}

fn set_flag(value: &mut abi::Settings, flag: u64, on: bool) {
    value.flags = if on { value.flags | flag } else { value.flags & !flag };
}

/// The ports at which every address counts as the gateway's: those with a listener on all addresses, or all where
/// there are more of the others than the map has room for.
fn everywhere(listeners: &[(SocketAddr, u8)]) -> BTreeSet<u16> {
    let are_too_many = listeners.len() > abi::LOCALS_MAX as usize;
    let is_wild = |address: &SocketAddr| are_too_many || address.ip().is_unspecified();
    let addresses = listeners.iter().map(|(address, _)| address);
    addresses.filter(|address| is_wild(address)).map(SocketAddr::port).collect()
}

fn local(address: SocketAddr) -> Local {
    let [high, low] = packet_address(address.ip()).words();
    [high, low, address.port().into()]
}

/// The classes as the program has them. Each rate has a part of the table's `lines`; classes of one rate share theirs.
fn limits(classes: &[Class], lines: u32) -> Vec<abi::Class> {
    let mut all: Vec<abi::Class> = classes.iter().map(class).collect();
    let mut intervals: Vec<u64> = Vec::new();
    for class in &all {
        if !intervals.contains(&class.limits.interval) {
            intervals.push(class.limits.interval);
        }
    }
    let part = (lines >> intervals.len().next_power_of_two().ilog2()).max(1);
    for class in &mut all {
        let rate = intervals.iter().position(|interval| *interval == class.limits.interval);
        class.first_line = part * rate.unwrap_or(0) as u32;
        class.line_mask = part - 1;
    }
    all
}

fn class(class: &Class) -> abi::Class {
    // A float that is too large, too small or not a number saturates; `Limits` bounds it again.
    let interval_ns = (1e9 / class.connection_rate) as u64;
    let rate = if class.enforce_rate { abi::ENFORCE_RATE } else { 0 };
    let connections = if class.enforce_connections { abi::ENFORCE_CONNECTIONS } else { 0 };
    let reset = if class.resets { abi::RESET } else { 0 };
    abi::Class {
        limits: Limits::new(interval_ns, class.connection_burst),
        connections_max: class.connections_max,
        flags: rate | connections | reset,
        first_line: 0,
        line_mask: 0,
    }
}

/// Nanoseconds of the kernel's clock now.
fn monotonic_now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// What a clock shows; asking cannot fail.
fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// A Unix time by the kernel's clock; one before the machine began is 0.
fn monotonic_ns(unix: u64) -> u64 {
    let (now, unix_now) = (monotonic_now(), unix_now());
    let ns = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    match unix.checked_sub(unix_now) {
        Some(left) => now.saturating_add(ns(left)),
        None => now.saturating_sub(ns(unix_now - unix)),
    }
}

/// The reverse: the second it is in, as less than one had passed when it was written.
pub(super) fn unix_of_monotonic(ns: u64) -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    // Between two clocks that are read one after the other some time passes, too.
    let from_now = i128::from(ns) - i128::from(monotonic_now()) + 1_000_000;
    let unix = u128::try_from(unix as i128 + from_now).unwrap_or(0) / 1_000_000_000;
    u64::try_from(unix).unwrap_or(u64::MAX)
}

/// A ban as [`Maps::ban`] has written it.
pub(super) fn ban_of(ban: abi::Ban) -> Ban {
    let abi::Ban { until, hits, level, reason } = ban;
    let in_kernel = reason & BY_WORKERS == 0;
    let (until, hits) = if in_kernel { (until, hits) } else { (hits, 0) };
    let (until, reason) = (unix_of_monotonic(until), reason & !BY_WORKERS);
    Ban { until, hits, level, reason, in_kernel }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_everywhere_where_one_listener_is_or_there_are_too_many() {
        let at = |address: &str| (address.parse().unwrap(), 0);
        let some = [at("192.0.2.1:80"), at("[2001:db8::1]:80"), at("192.0.2.1:443")];
        assert!(everywhere(&some).is_empty());
        let all = [&some[..], &[at("[::]:80"), at("0.0.0.0:25")]].concat();
        assert_eq!(everywhere(&all), BTreeSet::from([25, 80]));
        let many: Vec<_> = (1..=abi::LOCALS_MAX as u16 + 1)
            .map(|port| (SocketAddr::from(([192, 0, 2, 1], port)), 0))
            .collect();
        assert_eq!(everywhere(&many).len(), many.len());
        assert_eq!(local(at("[::ffff:192.0.2.1]:80").0), local(at("192.0.2.1:80").0));
    }

    #[test]
    fn what_is_implied_is_not_looked_up_where_it_cannot_come_from() {
        let of_this_machine = |text: &str| is_loopback(&text.parse().unwrap());
        assert!(["127.0.0.0/8", "127.0.0.1/32", "::1/128"].into_iter().all(of_this_machine));
        let others = ["127.0.0.0/7", "0.0.0.0/0", "10.0.0.0/8", "::/0", "::1/127", "fe80::1/128"];
        assert!(!others.into_iter().any(of_this_machine));
    }

    #[test]
    fn each_rate_has_its_part_of_the_table() {
        let parts = |rates: &[f64]| -> Vec<(u32, u32)> {
            let class = |rate: &f64| Class { connection_rate: *rate, ..Class::default() };
            let classes: Vec<_> = rates.iter().map(class).collect();
            let part = |class: abi::Class| (class.first_line, class.line_mask);
            limits(&classes, 1 << 10).into_iter().map(part).collect()
        };
        assert_eq!(parts(&[50.0]), [(0, 1023)]);
        assert_eq!(parts(&[50.0, 50.0]), [(0, 1023); 2]);
        assert_eq!(parts(&[50.0, 1.0, 50.0]), [(0, 511), (512, 511), (0, 511)]);
        assert_eq!(parts(&[50.0, 1.0, 2.0]), [(0, 255), (256, 255), (512, 255)]);
        let many: Vec<f64> = (1..=abi::CLASSES_MAX).map(f64::from).collect();
        assert_eq!(parts(&many).last(), Some(&(1008, 15)));
    }

    #[test]
    fn times_survive_the_kernels_clock() {
        let until = unix_now() + 600;
        let ended = unix_now() - 1;
        for time in [until, ended] {
            assert_eq!(unix_of_monotonic(monotonic_ns(time)), time);
        }
        assert!(monotonic_ns(ended) < monotonic_now());
        assert_eq!(monotonic_ns(0), 0);
    }
}
