//! The kernel side: loads, attaches and reads the XDP program, which limits new connections per
//! source before the kernel spends anything on them. What it decides is in `gateway_ebpf`.
//!
//! Only control uses this module. Everything the kernel holds for us hangs on file descriptors: when
//! the process ends, however it ends, the interfaces are as they were.

mod error;
mod hook;
mod log;
mod program;

use std::fmt;
use std::path::PathBuf;

pub use error::Error;
pub use hook::{Occupant, occupant};
pub use log::Logs;
pub use program::{Count, Program};

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
    /// Drop what is over the limit; otherwise only count it.
    pub enforce: bool,
    /// Refuse to start when the program cannot be attached.
    pub required: bool,
    /// New connections per second and source.
    pub connection_rate: f64,
    /// Connections a source may open at once after a pause, at least 1.
    pub connection_burst: u32,
    /// Bytes of the limiter's table: a power of two.
    pub table_bytes: u64,
    /// Bits of an IPv4 address that make a source.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make a source.
    pub ipv6_prefix: u8,
    /// A BPF object to load in place of the embedded one.
    pub object: Option<PathBuf>,
}

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
    /// Where the program runs.
    pub hook: Hook,
    /// Whether it is the entry point for packets spread over several buffers.
    pub frags: bool,
}

/// The program, attached. Dropping it detaches it from every interface.
#[derive(Debug)]
pub struct Xdp {
    program: Program,
    attachments: Vec<Attachment>,
}

impl Xdp {
    /// Loads the program, makes `ports` its own and attaches it to every interface of `settings`;
    /// to all of them or to none.
    ///
    /// # Errors
    /// Whatever stands in the way, as one line that says what to do about it.
    pub fn attach(settings: &Settings, ports: &[u16]) -> Result<Self, Error> {
        let mut program = Program::load(settings, ports)?;
        let attachments = settings
            .interfaces
            .iter()
            .map(|interface| attach(&mut program, interface, settings.mode))
            .collect::<Result<_, _>>()?;
        Ok(Self { program, attachments })
    }

    /// Where the program runs, in the order of [`Settings::interfaces`].
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// The program itself.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Packets by verdict, since the program was loaded. The metric is
    /// `gateway_xdp_packets_total{verdict, reason}`:
    ///
    /// | verdict | reason | packets |
    /// |---|---|---|
    /// | `pass` | `other` | that open no connection to the gateway |
    /// | `pass` | `undecodable` | with headers cut short, contradictory or too many |
    /// | `pass` | `within_limit` | that open a connection within the limit |
    /// | `pass` | `contended` | as before, but uncounted: other CPUs changed the state meanwhile |
    /// | `drop` or `observe` | `over_limit` | that open a connection above the limit |
    /// | `drop` or `observe` | `tiny_fragment` | first fragments too short for a TCP header |
    /// | `drop` or `observe` | `overlapping_fragment` | fragments that begin inside a TCP header |
    ///
    /// `observe` counts what passes only because the limit is not enforced.
    ///
    /// # Errors
    /// When the kernel does not let the counters be read.
    pub fn counters(&self) -> Result<Vec<Count>, Error> {
        self.program.counters()
    }

    /// Changes the rate, the burst and whether they are enforced, at once and without losing what
    /// is known about sources.
    ///
    /// # Errors
    /// When the kernel does not let the settings be written.
    pub fn configure(&mut self, settings: &Settings) -> Result<(), Error> {
        self.program.configure(settings)
    }

    /// The program's log records, for control to forward; there are none unless records of level
    /// debug were wanted when the program was loaded. Yields them once.
    pub fn take_logs(&mut self) -> Option<Logs> {
        self.program.take_logs()
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
    }
}
