//! What can stand in the way of the program, each in one line that says what to do. Whoever prints it
//! says that it is about XDP.

use std::path::{Path, PathBuf};
use std::{error, fmt};

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::util::KernelVersion;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::Hook;

/// The oldest kernel this is meant for: bounded loops, compare-and-swap, the coarse clock, links.
pub(super) const KERNEL_MIN: (u8, u8) = (5, 15);

/// The capabilities that loading and attaching the program takes. Maps that are open can be written without.
pub const CAPABILITIES: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];

/// Why the program does not run.
#[derive(Debug)]
pub enum Error {
    /// The object is no object, or not one of ours.
    Object {
        /// Where it came from; `None` is the embedded one.
        path: Option<PathBuf>,
        /// What is wrong with it.
        cause: String,
    },
    /// The process lacks a right.
    NotPermitted {
        /// Which, where that can be told.
        missing: Vec<&'static str>,
    },
    /// The kernel does not take the program.
    Rejected {
        /// What it said.
        cause: String,
        /// Its version, where that is older than what we ask for.
        too_old: Option<String>,
    },
    /// There is no such interface.
    UnknownInterface {
        /// As it was given.
        interface: String,
    },
    /// The interface has an XDP program already.
    Busy {
        /// The interface.
        interface: String,
        /// The program, as far as it can be told.
        owner: String,
    },
    /// The interface does not run XDP programs in this mode.
    Refused {
        /// The interface.
        interface: String,
        /// The mode.
        hook: Hook,
        /// What the kernel said.
        cause: String,
    },
    /// What is to outlive the process cannot be pinned.
    Pin {
        /// Where.
        folder: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// A map or a socket could not be used.
    Io {
        /// What was being done.
        what: &'static str,
        /// What went wrong.
        cause: String,
    },
}

impl error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { path: None, cause } => {
                write!(f, "the embedded BPF object cannot be loaded: {cause}")
            }
            Self::Object { path: Some(path), cause } => write!(
                f,
                "{} cannot be loaded: {cause}; leave it out to use the embedded object",
                path.display()
            ),
            Self::NotPermitted { missing } => {
                write!(f, "the kernel does not permit loading or attaching a program: ")?;
                f.write_str("run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")?;
                match missing.as_slice() {
                    [] => f.write_str(" in the first user namespace"),
                    missing => write!(f, " (missing: {})", missing.join(", ")),
                }
            }
            Self::Rejected { cause, too_old: Some(version) } => {
                let (major, minor) = KERNEL_MIN;
                write!(f, "needs Linux {major}.{minor} or newer, this is {version}: {cause}")
            }
            Self::Rejected { cause, too_old: None } => {
                write!(f, "the kernel rejects the program: {cause}")
            }
            Self::UnknownInterface { interface } => {
                write!(f, "no interface named \"{interface}\"; `ip link` lists those there are")
            }
            Self::Busy { interface, owner } => write!(
                f,
                "{interface} is taken by {owner}; detach that first (`gateway xdp detach` removes what \
                 a gateway has kept), or leave {interface} out"
            ),
            Self::Refused { interface, hook: Hook::Native, cause } => write!(
                f,
                "the driver of {interface} cannot run the program ({cause}); \
                 --xdp-mode generic runs it in the stack, slower"
            ),
            Self::Refused { interface, hook: Hook::Generic, cause } => {
                write!(f, "{interface} does not take the program in generic mode: {cause}")
            }
            Self::Pin { folder, cause } => write!(
                f,
                "nothing can be kept in {}: {cause}; on_exit = \"detach\" keeps nothing",
                folder.display()
            ),
            Self::Io { what, cause } => write!(f, "cannot {what}: {cause}"),
        }
    }
}

impl Error {
    pub(super) fn io(what: &'static str, cause: impl error::Error) -> Self {
        Self::Io { what, cause: chain(&cause) }
    }

    pub(super) fn pin(folder: &Path, cause: impl error::Error) -> Self {
        Self::Pin { folder: folder.to_owned(), cause: chain(&cause) }
    }

    /// From loading the object into maps and programs.
    pub(super) fn from_object(error: EbpfError, path: Option<PathBuf>) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { io_error, .. })
                if io_error.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
            {
                Self::not_permitted()
            }
            EbpfError::FileError { error, .. } => Self::Object { path, cause: error.to_string() },
            EbpfError::MapError(error @ MapError::CreateError { .. }) => Self::rejected(&error),
            error => Self::Object { path, cause: chain(&error) },
        }
    }

    /// From having the verifier load a program.
    pub(super) fn from_load(error: &ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, .. }
                if io_error.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
            {
                Self::not_permitted()
            }
            // Without CAP_PERFMON the verifier finds fault with the program.
            _ if !missing_capabilities().is_empty() => Self::not_permitted(),
            error => Self::rejected(error),
        }
    }

    fn rejected(error: &dyn error::Error) -> Self {
        let (major, minor) = KERNEL_MIN;
        let too_old = match KernelVersion::current() {
            Ok(version) if version < KernelVersion::new(major, minor, 0) => {
                Some(rustix::system::uname().release().to_string_lossy().into_owned())
            }
            _ => None,
        };
        Self::Rejected { cause: chain(error), too_old }
    }

    pub(super) fn not_permitted() -> Self {
        Self::NotPermitted { missing: missing_capabilities() }
    }
}

/// Those of the capabilities we need that the process lacks.
fn missing_capabilities() -> Vec<&'static str> {
    let effective = rustix::thread::capabilities(None)
        .map_or(CapabilitySet::all(), |capabilities| capabilities.effective);
    // For BPF it stands for all three.
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    let lacks = |(capability, name)| (!effective.contains(capability)).then_some(name);
    CAPABILITIES.into_iter().filter_map(lacks).collect()
}

/// The error number of an attempt to attach.
pub(super) fn errno(error: &ProgramError) -> Option<Errno> {
    let number = match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(aya::programs::xdp::XdpError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        _ => None,
    };
    number.map(Errno::from_raw_os_error)
}

/// An error and its causes on one line. The verifier's log has many lines; its last one says why.
pub(super) fn chain(error: &dyn error::Error) -> String {
    let mut text = last_line(&error.to_string());
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = last_line(&inner.to_string());
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn last_line(text: &str) -> String {
    // The verifier ends with statistics.
    let is_news = |line: &&str| !line.trim().is_empty() && !line.starts_with("processed ");
    let last = text.lines().rev().find(is_news).unwrap_or(text).trim();
    match text.lines().next() {
        Some(first) if first.trim() != last => {
            let first = first.split(". Verifier output").next().unwrap_or(first);
            format!("{}: {last}", first.trim())
        }
        _ => last.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_log_becomes_one_line() {
        let text = "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). \
                    Verifier output: 0: R1=ctx() R10=fp0\n1: (79) r0 = *(u64 *)(r1 +512)\n\
                    invalid bpf_context access off=512 size=8\n\
                    processed 2 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(
            last_line(text),
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13): \
             invalid bpf_context access off=512 size=8"
        );
        assert_eq!(last_line("Operation not supported"), "Operation not supported");
    }

    #[test]
    fn a_refusing_driver_leads_to_generic_mode() {
        let error = Error::Refused {
            interface: "eth0".to_owned(),
            hook: Hook::Native,
            cause: "Operation not supported".to_owned(),
        };
        assert_eq!(
            error.to_string(),
            "the driver of eth0 cannot run the program (Operation not supported); \
             --xdp-mode generic runs it in the stack, slower"
        );
    }
}
