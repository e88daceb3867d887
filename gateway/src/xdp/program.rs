//! The program in the kernel and its maps, on an interface or not yet.

use std::{fmt, io};

use aya::maps::{Array, MapData, MapError, PerCpuArray};
use aya::programs::{self, ProgramError, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod};
use gateway_ebpf::abi::{self, Constants};
use gateway_ebpf::bucket::Limits;
use gateway_ebpf::hash::prefix_mask;
use gateway_ebpf::verdict::Verdict;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::error::{self, Error};
use super::{Attachment, Hook, Logs, Settings, hook, log};

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

/// The program, loaded. What it is attached to it leaves when it is dropped, and also when the
/// process is killed.
pub struct Program {
    ebpf: Ebpf,
    logs: Option<Logs>,
}

impl fmt::Debug for Program {
    /// aya's own would print every instruction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}

impl Program {
    /// Has the kernel check the program and creates its maps. `ports` are those it limits.
    ///
    /// # Errors
    /// When the object, the kernel or our rights stand in the way.
    pub fn load(settings: &Settings, ports: &[u16]) -> Result<Self, Error> {
        let lines = table_lines(settings.table_bytes);
        let constants = Constants {
            hash_key: random_key().map_err(|error| Error::io("get random bytes", error))?,
            ipv4_mask: prefix_mask(96 + u32::from(settings.ipv4_prefix)),
            ipv6_mask: prefix_mask(u32::from(settings.ipv6_prefix)),
            line_mask: u64::from(lines - 1),
        };
        let log_level = if log::wanted() { aya_log::Level::Debug as u8 } else { 0 };
        let mut loader = EbpfLoader::new();
        loader
            .override_global(abi::CONSTANTS, &constants, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries(abi::LIMITS, lines);
        let loaded = match &settings.object {
            Some(path) => loader.load_file(path),
            None => loader.load(EMBEDDED),
        };
        let ebpf = loaded.map_err(|error| Error::from_object(error, settings.object.clone()))?;

        let mut program = Self { ebpf, logs: None };
        program.configure(settings)?;
        program.open(ports)?;
        program.load_entry_points()?;
        if log_level > 0 {
            program.logs = Logs::new(&mut program.ebpf)
                .inspect_err(|error| tracing::warn!("xdp: no log records: {error}"))
                .ok();
        }
        Ok(program)
    }

    /// Changes the rate, the burst and whether they are enforced.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn configure(&mut self, settings: &Settings) -> Result<(), Error> {
        // A float that is too large, too small or not a number saturates; `Limits` bounds it again.
        let interval_ns = (1e9 / settings.connection_rate) as u64;
        let value = abi::Settings {
            limits: Limits::new(interval_ns, settings.connection_burst),
            enforce: u64::from(settings.enforce),
        };
        self.array(abi::SETTINGS)
            .and_then(|mut map| map.set(0, value, 0))
            .map_err(|error| Error::io("write the limits", error))
    }

    /// Makes `ports` the gateway's.
    fn open(&mut self, ports: &[u16]) -> Result<(), Error> {
        self.array(abi::PORTS)
            .and_then(|mut map| ports.iter().try_for_each(|port| map.set((*port).into(), 1_u8, 0)))
            .map_err(|error| Error::io("write the ports", error))
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>, MapError> {
        self.ebpf.map_mut(name).ok_or(MapError::KeyNotFound)?.try_into()
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
        for (name, frags) in [(abi::PROGRAM_FRAGS, true), (abi::PROGRAM, false)] {
            let program = self.entry_point_mut(name)?;
            if program.fd().is_err() {
                continue;
            }
            match attach_link(program, interface, hook) {
                Ok(()) => return Ok(Attachment { interface: interface.to_owned(), hook, frags }),
                Err(ProgramError::UnknownInterface { name }) => {
                    return Err(Error::UnknownInterface { interface: name });
                }
                Err(error) => match error::errno(&error) {
                    Some(Errno::BUSY | Errno::EXIST) => return Err(busy(interface)),
                    Some(Errno::PERM | Errno::ACCESS) => return Err(Error::not_permitted()),
                    _ => last = Some(error::chain(&error)),
                },
            }
        }
        Err(refused(last.unwrap_or_else(|| "no entry point could be loaded".to_owned())))
    }

    /// Packets by verdict.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> Result<Vec<Count>, Error> {
        let read = || -> Result<_, MapError> {
            let map = self.ebpf.map(abi::COUNTERS).ok_or(MapError::KeyNotFound)?;
            let map = PerCpuArray::<_, u64>::try_from(map)?;
            Verdict::all()
                .map(|verdict| {
                    let packets = map.get(&verdict.slot(), 0)?.iter().sum();
                    Ok(Count { verdict, packets })
                })
                .collect()
        };
        read().map_err(|error| Error::io("read the counters", error))
    }

    pub(super) fn take_logs(&mut self) -> Option<Logs> {
        self.logs.take()
    }
}

/// Attaches by a link, which ends with the process.
fn attach_link(
    program: &mut programs::Xdp,
    interface: &str,
    hook: Hook,
) -> Result<(), ProgramError> {
    // aya would panic.
    if interface.contains('\0') {
        return Err(ProgramError::UnknownInterface { name: interface.to_owned() });
    }
    let mode = match hook {
        Hook::Native => XdpMode::Driver,
        Hook::Generic => XdpMode::Skb,
    };
    let link = program.attach(interface, mode)?;
    // Where the kernel answers EINVAL, aya 0.14 tries again by netlink. What is attached so outlives
    // a killed process. Only the name of the link's id tells the two apart.
    if format!("{link:?}").contains("FdLinkId") {
        return Ok(());
    }
    program.detach(link)?;
    Err(ProgramError::IOError(io::Error::other("the kernel makes no link for it")))
}

fn busy(interface: &str) -> Error {
    let occupant = hook::occupant(interface).ok().flatten();
    let owner =
        occupant.map_or_else(|| "another XDP program".to_owned(), |occupant| occupant.describe());
    Error::Busy { interface: interface.to_owned(), owner }
}

fn not_ours(name: &str) -> Error {
    Error::Object { path: None, cause: format!("it has no XDP program named \"{name}\"") }
}

/// Lines of the table: a power of two, at least one.
fn table_lines(bytes: u64) -> u32 {
    let lines = bytes / size_of::<abi::Line>() as u64;
    1 << lines.max(1).ilog2().min(31)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_a_power_of_two_of_lines() {
        assert_eq!(table_lines(8 << 20), 1 << 17);
        assert_eq!(table_lines(64), 1);
        assert_eq!(table_lines(0), 1);
        assert_eq!(table_lines(3 * 64), 2);
        assert_eq!(table_lines(u64::MAX), 1 << 31);
    }

    #[test]
    fn keys_differ() {
        assert_ne!(random_key().unwrap(), random_key().unwrap());
    }
}
