//! The program's log records become tracing's, at debug level. At any other level the program is
//! loaded without them, see `gateway_ebpf`'s `main.rs`.

use std::{fmt, io};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What to enable to see them: `gateway::xdp::kernel=debug`.
const TARGET: &str = "gateway::xdp::kernel";

/// Whether somebody wants to see them.
pub(super) fn wanted() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// The records of one loaded program.
pub struct Logs(EbpfLogger<Tracing>);

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs")
    }
}

impl Logs {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        EbpfLogger::init_with_logger(ebpf, Tracing).map(Self)
    }

    /// Forwards records for as long as it is polled, on a tokio runtime.
    ///
    /// # Errors
    /// When the runtime cannot wait for the ring buffer; then there are no more records.
    pub async fn forward(self) -> io::Result<()> {
        #[expect(deprecated, reason = "the logger owns its descriptor; the successor is unsafe")]
        let mut ring = AsyncFd::with_interest(self.0, Interest::READABLE)?;
        loop {
            let mut ready = ring.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

/// aya-log speaks to the `log` crate's loggers.
struct Tracing;

impl log::Log for Tracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: TARGET, "xdp: {}", record.args());
    }

    fn flush(&self) {}
}
