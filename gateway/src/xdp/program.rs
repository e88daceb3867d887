//! The program in the kernel and its maps, on an interface or not yet.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs};

use aya::programs::links::FdLink;
use aya::programs::{self, ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use gateway_ebpf::abi::{self, Constants};
use gateway_ebpf::hash;
use gateway_ebpf::packet::Address;
use gateway_ebpf::verdict::Verdict;
use ipnet::IpNet;
use rustix::io::Errno;

use super::error::{self, Error};
use super::maps::Maps;
use super::pins::{MAPS, Pins};
use super::{Attachment, Events, Hook, Logs, Settings, clients, hook, link, log};
use crate::admission::{self, Counts, Source};

/// Built by `cargo xtask build-ebpf` and committed, so that building the gateway takes no BPF
/// toolchain.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!("../../../gateway-ebpf/object/gateway.bpf.o");

/// How many packets met with a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The verdict; its parts have labels for metrics.
    pub verdict: Verdict,
    /// Packets, on all CPUs.
    pub packets: u64,
}

/// What a source has been refused of late. Where there is much of it, the numbers are a sample's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Who.
    pub source: Source,
    /// Packets that went no further.
    pub refused: u64,
    /// Packets that would not have, if all that is observed were enforced.
    pub observed: u64,
    /// How long ago the last of them came.
    pub age: Duration,
}

/// A ban as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The Unix time at which it ends.
    pub until: u64,
    /// How many bans of the source came before it.
    pub level: u32,
    /// What for; the kernel does not look at it. Less than 2^31.
    pub reason: u32,
    /// Connections it has cost so far; what is written here is not changed.
    pub hits: u64,
    /// Whether the kernel drops the source's packets; otherwise it only keeps what is known of the ban for
    /// the next gateway.
    pub in_kernel: bool,
}

/// The program, loaded. What it is attached to it leaves when it is dropped, and also when the
/// process is killed, unless it is to be kept.
pub struct Program {
    ebpf: Ebpf,
    maps: Maps,
    constants: Constants,
    pins: Option<Pins>,
    /// What it is attached by and is to be kept, but not yet: each with where.
    unpinned: Vec<(PathBuf, FdLink)>,
    logs: Option<Logs>,
    events: Option<Events>,
}

impl fmt::Debug for Program {
    /// aya's own would print every instruction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}

impl Program {
    /// Has the kernel check the program and creates its maps. `listeners` are what it limits connections to, each
    /// with its class; `connections` is how many there may be at once.
    ///
    /// # Errors
    /// When the object, the kernel or our rights stand in the way.
    pub fn load(
        settings: &Settings,
        sources: &admission::Settings,
        listeners: &[(SocketAddr, u8)],
        connections: usize,
    ) -> Result<Self, Error> {
        let lines = table_lines(settings.table_bytes);
        let constants = admission::constants(sources, connections)
            .map_err(|error| Error::io("get random bytes", error))?;
        let layout = format!("{lines}-{}-{}", sources.ipv4_prefix, sources.ipv6_prefix);
        let pins = settings.keep.as_deref().map(|folder| Pins::new(folder, &layout)).transpose()?;
        let kept_key = pins.as_ref().and_then(Pins::hash_key);
        let hash_key = kept_key.unwrap_or(constants.hash_key);
        let interfaces = hook::indices_of(&settings.interfaces);
        let raw_cookies = makes_raw_cookies();
        let constants = Constants {
            hash_key,
            interfaces: u64::from(modulus(&interfaces)),
            raw_cookies: raw_cookies.into(),
            ..constants
        };
        let log_level = if log::wanted() { aya_log::Level::Debug as u8 } else { 0 };
        let mut loader = EbpfLoader::new();
        loader
            .override_global(abi::CONSTANTS, &constants, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries(abi::LIMITS, lines)
            .map_max_entries(abi::OPEN, constants.open_mask as u32 + 1);
        for (name, pins) in MAPS.into_iter().zip(std::iter::repeat(pins.as_ref())) {
            if let Some(pins) = pins {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let loaded = match &settings.object {
            Some(path) => loader.load_file(path),
            None => loader.load(EMBEDDED),
        };
        let mut ebpf =
            loaded.map_err(|error| Error::from_object(error, settings.object.clone()))?;

        let maps = Maps::take(&mut ebpf, lines, &interfaces)
            .map_err(|error| Error::io("open the maps", error))?;
        maps.set_hash_key(hash_key).map_err(|error| Error::io("write the key", error))?;
        let events = match settings.log_rate {
            0 => None,
            rate => Some(Events::take(&mut ebpf, rate, settings.interfaces.clone(), interfaces)?),
        };
        maps.set_reader(events.is_some()).map_err(|error| Error::io("write the flags", error))?;
        maps.set_known(false).map_err(|error| Error::io("write the flags", error))?;
        let mut program =
            Self { ebpf, maps, constants, pins, unpinned: Vec::new(), logs: None, events };
        program.configure(sources, listeners)?;
        program.load_entry_points()?;
        if log_level > 0 {
            program.logs = Logs::new(&mut program.ebpf)
                .inspect_err(|error| tracing::warn!("xdp: no log records: {error}"))
                .ok();
        }
        Ok(program)
    }

    /// Changes limits, what they are for, and what is enforced.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn configure(
        &self,
        sources: &admission::Settings,
        listeners: &[(SocketAddr, u8)],
    ) -> Result<(), Error> {
        self.maps.set_limits(sources).map_err(|error| Error::io("write the limits", error))?;
        self.maps.set_ports(listeners).map_err(|error| Error::io("write the ports", error))
    }

    /// Swaps the list for `live`, what counts now. Entries keep what they have counted.
    ///
    /// # Errors
    /// When the kernel does not take it; then the list is as it was.
    pub fn set_list(&self, live: &[admission::Entry]) -> Result<(), Error> {
        self.maps.set_list(live).map_err(|error| Error::io("write the list", error))
    }

    /// How many packets each network of the list has decided.
    ///
    /// # Errors
    /// When the kernel does not let it be read.
    pub fn list_hits(&self) -> Result<HashMap<IpNet, u64>, Error> {
        self.maps.list_hits().map_err(|error| Error::io("read the list", error))
    }

    /// Bans a source until a Unix time, or changes its ban.
    ///
    /// # Errors
    /// When the kernel does not take it, as when there are [`abi::BANS_MAX`] bans.
    pub fn ban(&self, source: Source, ban: Ban) -> Result<(), Error> {
        self.maps.ban(source, ban).map_err(|error| Error::io("write a ban", error))
    }

    /// Ends a ban, if there is one.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn unban(&self, source: Source) -> Result<(), Error> {
        self.maps.unban(source).map_err(|error| Error::io("remove a ban", error))
    }

    /// Every ban, those that have ended included.
    ///
    /// # Errors
    /// When the kernel does not let them be read.
    pub fn bans(&self) -> Result<Vec<(Source, Ban)>, Error> {
        self.maps.bans().map_err(|error| Error::io("read the bans", error))
    }

    /// Networks wider than a source that are banned, each with the Unix time at which that ends.
    ///
    /// # Errors
    /// When the kernel does not let the list be read.
    pub fn banned_networks(&self) -> Result<Vec<(IpNet, u64)>, Error> {
        self.maps.banned_networks().map_err(|error| Error::io("read the list", error))
    }

    /// Takes over who is banned by kept maps of another layout, which go once this program is attached: sources
    /// as `sources` have them; the networks that are wider than that are returned, each with the Unix time at
    /// which its ban ends.
    pub(super) fn inherit(&self, sources: &admission::Settings) -> Vec<(IpNet, u64)> {
        let Some(pins) = &self.pins else { return Vec::new() };
        let (mut networks, mut taken) = (Vec::new(), 0);
        for (network, ban) in pins.inherited() {
            let address = network.addr();
            let (length, octets) = match address {
                IpAddr::V4(address) => (sources.ipv4_prefix, Address::V4(address.octets())),
                IpAddr::V6(address) => (sources.ipv6_prefix, Address::V6(address.octets())),
            };
            if network.prefix_len() < length {
                networks.push((network, ban.until));
                continue;
            }
            match self.ban(hash::source(octets, &self.constants), ban) {
                Ok(()) => taken += 1,
                Err(error) => tracing::warn!("xdp: no longer banned: {network}: {error}"),
            }
        }
        if taken + networks.len() > 0 {
            let networks = networks.len();
            tracing::info!(
                "xdp: the maps are made anew: bans of {taken} sources and {networks} networks are taken over"
            );
        }
        networks
    }

    /// The tables that workers count in and the program reads.
    ///
    /// # Errors
    /// When they cannot be mapped into memory.
    pub fn counts(&self) -> Result<Counts, Error> {
        let known = (self.constants.raw_cookies != 0).then(|| self.maps.known());
        Counts::over(self.constants, Some(self.maps.open()), known)
            .map_err(|error| Error::io("map the tables of connections", error))
    }

    /// Lets the program make SYN cookies without looking for sockets, where it can: whoever has a connection now is
    /// marked in `counts`, and has to be when one is accepted.
    ///
    /// # Errors
    /// When the kernel does not tell who has a connection, or does not take it. Then sockets are looked for.
    pub fn know_clients(&self, counts: &Counts) -> Result<(), Error> {
        let Some(known) = counts.known() else { return Ok(()) };
        let write = |error| Error::io("write the flags", error);
        self.maps.set_known(false).map_err(write)?;
        known.clear();
        clients::each_client(&self.maps.ports(), |client| known.mark(counts.source(client)))
            .map_err(|error| Error::io("list connections", error))?;
        self.maps.set_known(true).map_err(write)
    }

    fn load_entry_points(&mut self) -> Result<(), Error> {
        // Before Linux 5.18 there is only the plain one.
        let frags = self.entry_point_mut(abi::PROGRAM_FRAGS)?.load();
        let plain = self.entry_point_mut(abi::PROGRAM)?.load();
        match (frags, plain) {
            (Err(_), Err(error)) => Err(Error::from_load(&error)),
            _ => Ok(()),
        }
    }

    /// One of the object's entry points, as aya knows it.
    ///
    /// # Errors
    /// When the object has no such entry point.
    pub fn entry_point(&self, name: &str) -> Result<&programs::Xdp, Error> {
        let program = self.ebpf.program(name).ok_or_else(|| not_ours(name))?;
        program.try_into().map_err(|_: ProgramError| not_ours(name))
    }

    fn entry_point_mut(&mut self, name: &str) -> Result<&mut programs::Xdp, Error> {
        let program = self.ebpf.program_mut(name).ok_or_else(|| not_ours(name))?;
        program.try_into().map_err(|_: ProgramError| not_ours(name))
    }

    /// Attaches to `interface` at `hook` and nowhere else: the entry point for packets in several
    /// buffers where the driver has them, else the plain one.
    pub(super) fn attach(&mut self, interface: &str, hook: Hook) -> Result<Attachment, Error> {
        let refused =
            |cause: String| Error::Refused { interface: interface.to_owned(), hook, cause };
        let mut last = None;
        let index = hook::index_of(interface)
            .map_err(|_| Error::UnknownInterface { interface: interface.to_owned() })?;
        let pin = self.pins.as_ref().map(|pins| pins.link(index));
        for (name, frags) in [(abi::PROGRAM_FRAGS, true), (abi::PROGRAM, false)] {
            let program = self.entry_point_mut(name)?;
            if program.fd().is_err() {
                continue;
            }
            match link::attach(program, interface, hook, pin.as_deref()) {
                Ok((hook, link)) => {
                    let program = program.info().map(|info| info.id());
                    let program = program.map_err(|error| refused(error::chain(&error)))?;
                    self.unpinned.extend(pin.zip(link));
                    let interface = interface.to_owned();
                    return Ok(Attachment { interface, index, hook, frags, program });
                }
                Err(ProgramError::UnknownInterface { name }) => {
                    return Err(Error::UnknownInterface { interface: name });
                }
                Err(error) => match error::errno(&error) {
                    Some(Errno::BUSY | Errno::EXIST) => return Err(link::busy(interface)),
                    Some(Errno::PERM | Errno::ACCESS) => return Err(Error::not_permitted()),
                    _ => last = Some(error::chain(&error)),
                },
            }
        }
        Err(refused(last.unwrap_or_else(|| "no entry point could be loaded".to_owned())))
    }

    /// Makes what it is attached by outlive the process, where that is to be so: all of it, or nothing.
    pub(super) fn keep(&mut self) -> Result<(), Error> {
        let mut pinned: Vec<PathBuf> = Vec::new();
        for (path, link) in self.unpinned.drain(..) {
            if let Err(error) = link.pin(&path) {
                for path in pinned {
                    let _ = fs::remove_file(path);
                }
                return Err(Error::pin(&path, error));
            }
            pinned.push(path);
        }
        Ok(())
    }

    /// Removes what is pinned and belongs to none of these interfaces, nor to this program.
    pub(super) fn remove_other_pins(&self, interfaces: &[u32]) {
        if let Some(pins) = &self.pins {
            pins.remove_others(interfaces);
        }
    }

    /// Packets by verdict, on all interfaces.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Vec<Count>, Error> {
        let mut sums: Vec<Count> = Vec::new();
        for place in 0..self.constants.interfaces as u32 {
            let counts = self.counters_at(place)?;
            if sums.is_empty() {
                sums = counts;
                continue;
            }
            for (sum, count) in sums.iter_mut().zip(counts) {
                sum.packets += count.packets;
            }
        }
        Ok(sums)
    }

    /// Packets by verdict on the interface with this index.
    pub(super) fn counters_of(&self, interface: u32) -> Result<Vec<Count>, Error> {
        self.counters_at(interface % self.constants.interfaces as u32)
    }

    fn counters_at(&self, place: u32) -> Result<Vec<Count>, Error> {
        self.maps.counters(place).map_err(|error| Error::io("read the counters", error))
    }

    /// Every source of which is known what it has been refused, at most [`abi::OFFENDERS_MAX`].
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn offenders(&self) -> Result<Vec<Offender>, Error> {
        self.maps.offenders().map_err(|error| Error::io("read the offenders", error))
    }

    /// Whether there is a flood on any CPU, so that connections are, or would be, answered by cookies.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn is_flooded(&self) -> Result<bool, Error> {
        self.maps.is_flooded().map_err(|error| Error::io("read the floods", error))
    }

    /// Samples of refused packets that nobody will hear of, as the ring buffer was full.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn lost_events(&self) -> Result<u64, Error> {
        self.maps.lost_events().map_err(|error| Error::io("read the samples", error))
    }

    pub(super) fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    pub(super) fn take_logs(&mut self) -> Option<Logs> {
        self.logs.take()
    }
}

/// Whether the kernel makes SYN cookies without a socket (Linux 6.0), for both versions of IP.
fn makes_raw_cookies() -> bool {
    let helpers = [
        BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4,
        BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv6,
    ];
    helpers.into_iter().all(|helper| is_helper_supported(ProgramType::Xdp, helper).unwrap_or(false))
}

fn not_ours(name: &str) -> Error {
    Error::Object { path: None, cause: format!("it has no XDP program named \"{name}\"") }
}

/// The least number that leaves each interface's index another rest, so that each has counters of its own;
/// where there is none, they share them.
fn modulus(interfaces: &[u32]) -> u32 {
    let tells_apart = |modulus: &u32| {
        let rests: HashSet<u32> = interfaces.iter().map(|index| index % modulus).collect();
        rests.len() == interfaces.len()
    };
    (1..=abi::INTERFACES_MAX).find(tells_apart).unwrap_or(1)
}

/// Lines of the table: a power of two, at least one.
fn table_lines(bytes: u64) -> u32 {
    let lines = bytes / size_of::<abi::Line>() as u64;
    1 << lines.max(1).ilog2().min(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_has_its_own_counters() {
        assert_eq!(modulus(&[]), 1);
        assert_eq!(modulus(&[7]), 1);
        assert_eq!(modulus(&[2, 4]), 3);
        assert_eq!(modulus(&[1, 65, 129]), 3);
        let crowd: Vec<u32> = (100..200).collect();
        assert_eq!(modulus(&crowd), 1, "more than there are places for");
    }

    #[test]
    fn the_table_is_a_power_of_two_of_lines() {
        assert_eq!(table_lines(8 << 20), 1 << 17);
        assert_eq!(table_lines(64), 1);
        assert_eq!(table_lines(0), 1);
        assert_eq!(table_lines(3 * 64), 2);
        assert_eq!(table_lines(u64::MAX), 1 << 31);
    }
}
