//! The kernel side: loads, attaches and reads the XDP program, which limits new connections per
//! source before the kernel spends anything on them. What it decides is in `gateway_ebpf`.
//!
//! Only control uses this module. Everything the kernel holds for us hangs on file descriptors: when
//! the process ends, however it ends, the interfaces are as they were. Unless it is to be kept: then
//! links and maps are pinned (`pins.rs`), and the next gateway takes them over without a gap.

mod clients;
mod error;
mod events;
mod features;
mod hook;
mod inherited;
mod link;
mod list;
mod log;
mod maps;
mod netlink;
mod pins;
mod program;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use error::{CAPABILITIES, Error};
pub use events::Events;
pub use features::{Features, features};
pub use hook::{Occupant, occupant};
pub use log::Logs;
pub use pins::{detach, left_on};
pub use program::{Ban, Count, Offender, Program};

use ipnet::IpNet;

use crate::admission::{self, Entry, Treatment};

/// Where in the network stack the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before an skb exists.
    Native,
    /// In the stack, on any interface, slower.
    Generic,
    /// Native, else generic with a loud notice.
    Auto,
}

/// The `[xdp]` table and its flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// At least one.
    pub interfaces: Vec<String>,
    /// Where the program runs.
    pub mode: Mode,
    /// Refuse to start when the program cannot be attached.
    pub required: bool,
    /// Bytes of the limiter's table: a power of two.
    pub table_bytes: u64,
    /// A folder in a bpffs where the program and what it knows of sources outlive the process; `None`
    /// for nothing to do so.
    pub keep: Option<PathBuf>,
    /// Lines a second that tell what is refused, or would be; 0 for none.
    pub log_rate: u32,
    /// A BPF object to load in place of the embedded one.
    pub object: Option<PathBuf>,
}

/// Where links and maps are pinned unless another place is named.
pub const PIN_FOLDER: &str = "/sys/fs/bpf/gateway";

/// Where the program really runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// An interface the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// Where the program runs.
    pub hook: Hook,
    /// Whether it is the entry point for packets spread over several buffers.
    pub frags: bool,
    /// The program's id, by which `bpftool prog` shows it.
    pub program: u32,
}

impl Attachment {
    /// Whether it is still so: an interface that is made anew is another one, whatever its name, and who may
    /// attach programs may put another one in this one's place.
    pub fn holds(&self) -> bool {
        let occupant = occupant(&self.interface).ok().flatten();
        occupant.is_some_and(|occupant| occupant.program == self.program)
    }
}

/// The program, attached. Dropping it detaches it from every interface.
#[derive(Debug)]
pub struct Xdp {
    program: Program,
    attachments: Vec<Attachment>,
    kept: Vec<(IpNet, u64)>,
}

impl Xdp {
    /// Loads the program and attaches it to every interface of `settings`, to all of them or to none.
    /// See [`Program::load`].
    ///
    /// # Errors
    /// Whatever stands in the way, as one line that says what to do about it.
    pub fn attach(
        settings: &Settings,
        sources: &admission::Settings,
        listeners: &[(SocketAddr, u8)],
        connections: usize,
    ) -> Result<Self, Error> {
        let mut program = Program::load(settings, sources, listeners, connections)?;
        let now = admission::unix_now();
        let mut kept = program.banned_networks()?;
        kept.extend(program.inherit(sources));
        kept.retain(|(_, until)| *until > now);
        let banned = kept.iter().map(|(network, until)| Entry {
            network: *network,
            treatment: Treatment::Ban,
            until: Some(*until),
            comment: String::new(),
            origin: String::new(),
        });
        let list: Vec<_> = banned.chain(sources.list.iter().cloned()).collect();
        program.set_list(&admission::lists::live(&list, now))?;
        let attachments = settings
            .interfaces
            .iter()
            .map(|interface| attach(&mut program, interface, settings.mode))
            .collect::<Result<Vec<Attachment>, _>>()?;
        // Only now, so that what has been attached for nothing goes away by itself.
        program.keep()?;
        let indices: Vec<_> = attachments.iter().map(|attachment| attachment.index).collect();
        program.remove_other_pins(&indices);
        Ok(Self { program, attachments, kept })
    }

    /// Where the program runs, in the order of [`Settings::interfaces`].
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Networks wider than a source that another process has banned and this one goes on with, each
    /// with the Unix time at which that ends.
    pub fn kept_networks(&self) -> &[(IpNet, u64)] {
        &self.kept
    }

    /// The program itself.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Packets by verdict, since the program was loaded, for each of [`Self::attachments`]. The metric is
    /// `gateway_xdp_packets_total{interface, verdict, reason}`:
    ///
    /// | verdict | reason | packets |
    /// |---|---|---|
    /// | `pass` | `other` | that open no connection to the gateway |
    /// | `pass` | `undecodable` | with headers cut short or contradictory, or too many tags |
    /// | `pass` | `within_limit` | that open a connection within the limit |
    /// | `pass` | `contended` | as before, but uncounted: other CPUs changed the state meanwhile |
    /// | `pass` | `allowed` | that open a connection from an allowed network |
    /// | `drop`, `reset` or `observe` | `over_limit` | that open a connection above the limit |
    /// | `drop`, `reset` or `observe` | `connections_max` | of a source that has as many open as it may |
    /// | `drop` or `observe` | `denied` | that open a connection from a network on a deny list |
    /// | `drop` | `banned` | that open a connection from a banned source |
    /// | `drop` or `observe` | `tiny_fragment` | first fragments too short for a TCP header |
    /// | `drop` or `observe` | `overlapping_fragment` | fragments that begin inside a TCP header |
    /// | `drop` or `observe` | `hidden_header` | with more IPv6 extension headers than are read |
    /// | `cookie` or `observe` | `flood` | that open a connection while there are too many new sources |
    ///
    /// `observe` counts what passes only because the limit is not enforced.
    ///
    /// # Errors
    /// When the kernel does not let the counters be read.
    pub fn counters(&self) -> Result<Vec<(&str, Vec<Count>)>, Error> {
        let all = self.attachments.iter().map(|attachment| {
            let counts = self.program.counters_of(attachment.index)?;
            Ok((attachment.interface.as_str(), counts))
        });
        all.collect()
    }

    /// The program's log records, for control to forward; there are none unless records of level
    /// debug were wanted when the program was loaded. Yields them once.
    pub fn take_logs(&mut self) -> Option<Logs> {
        self.program.take_logs()
    }

    /// What the program tells of packets it refuses, for control to read; `None` where nobody wants to
    /// hear of it. Yields it once.
    pub fn take_events(&mut self) -> Option<Events> {
        self.program.take_events()
    }

    /// Detaches the program from every interface.
    pub fn detach(self) {
        drop(self);
    }
}

fn attach(program: &mut Program, interface: &str, mode: Mode) -> Result<Attachment, Error> {
    match mode {
        Mode::Native => program.attach(interface, Hook::Native),
        Mode::Generic => program.attach(interface, Hook::Generic),
        // Where one of ours is kept, it stays where it is.
        Mode::Auto => match program.attach(interface, Hook::Native) {
            Err(Error::Refused { hook: Hook::Native, cause, .. }) => {
                tracing::warn!(
                    "xdp: the driver of {interface} cannot run the program ({cause}): \
                     it runs in generic mode, at a multiple of the cost for each packet"
                );
                program.attach(interface, Hook::Generic)
            }
            result => result,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The admin thread reads the counters of what control attached.
    #[test]
    fn threads_may_share_it() {
        fn shareable<T: Send + Sync>() {}
        fn sendable<T: Send>() {}
        shareable::<Xdp>();
        sendable::<Logs>();
        sendable::<Events>();
    }
}
