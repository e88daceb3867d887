//! The kernel side: loads, attaches and reads the XDP program.

use std::path::PathBuf;

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
