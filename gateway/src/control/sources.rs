//! Who may connect, as control keeps it: the kernel program if there is one, the list as it is at
//! this time, and the tables that workers count in.

#![expect(clippy::disallowed_types, reason = "what workers decide by is handed to their threads")]

use std::net::SocketAddr;
use std::sync::Arc;

use super::Error;
use crate::admission::{Counts, Entry, Sources, lists, unix_now};
use crate::config::Config;
use crate::telemetry::prometheus::KernelCounter;
use crate::xdp::{self, Xdp};

/// Outlives configurations.
pub(super) struct Keeper {
    kernel: Option<Arc<Xdp>>,
    counts: Arc<Counts>,
    /// Ports of the listeners, in the configuration's order.
    ports: Vec<u16>,
    /// What is allowed whatever is written.
    implied: Vec<Entry>,
}

impl Keeper {
    /// Attaches the kernel program if there is to be one. Where it is not required, the gateway
    /// serves without it, and says so loudly. `connections` is how many there may be at once.
    pub fn start(
        config: &Config,
        listeners: &[SocketAddr],
        connections: usize,
    ) -> Result<Self, Error> {
        let ports: Vec<_> = listeners.iter().map(SocketAddr::port).collect();
        let implied = lists::implied();
        for entry in implied.iter().filter(|_| config.xdp.is_some()) {
            tracing::debug!("never limited or banned: {} ({})", entry.network, entry.origin);
        }
        let kernel = match &config.xdp {
            Some(settings) => attach(settings, config, &ports, connections)?,
            None => None,
        };
        let counts = match &kernel {
            Some(kernel) => kernel.program().counts().map_err(|error| Error::Xdp(error.into()))?,
            None => Counts::new(&config.sources, connections).map_err(Error::Runtime)?,
        };
        Ok(Self { kernel, counts: Arc::new(counts), ports, implied })
    }

    /// The kernel program's packets, if there is one.
    pub fn kernel_counters(&self) -> Option<super::KernelCounters> {
        let kernel = Arc::clone(self.kernel.as_ref()?);
        Some(Box::new(move || counters(&kernel)))
    }

    /// The tables that workers count in.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Lets the kernel decide by `config`, and returns what workers are to decide by.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn apply(&self, config: &Config) -> Result<Arc<Sources>, Error> {
        let live = lists::live(&self.list(config), unix_now());
        if let Some(kernel) = &self.kernel {
            let ports = ports(&self.ports, config);
            let program = kernel.program();
            let applied = program.configure(&config.sources, &ports);
            applied
                .and_then(|()| program.set_list(&live))
                .map_err(|error| Error::Xdp(error.into()))?;
        }
        Ok(Arc::new(Sources::new(&config.sources, &live, Arc::clone(&self.counts))))
    }

    /// The Unix time at which the next entry of the list ends, if one does.
    pub fn list_ends(&self, config: &Config) -> Option<u64> {
        lists::next_end(&self.list(config), unix_now())
    }

    fn list(&self, config: &Config) -> Vec<Entry> {
        self.implied.iter().chain(&config.sources.list).cloned().collect()
    }
}

/// Each with the class of its listener.
fn ports(ports: &[u16], config: &Config) -> Vec<(u16, u8)> {
    ports.iter().copied().zip(config.listeners.iter().map(|listener| listener.class)).collect()
}

fn attach(
    settings: &xdp::Settings,
    config: &Config,
    listeners: &[u16],
    connections: usize,
) -> Result<Option<Arc<Xdp>>, Error> {
    match Xdp::attach(settings, &config.sources, &ports(listeners, config), connections) {
        Ok(xdp) => {
            announce(&xdp, config);
            Ok(Some(xdp))
        }
        Err(error) if settings.required => Err(Error::Xdp(error.into())),
        Err(error) => {
            tracing::error!(
                "xdp: {error}; serving WITHOUT a limit of new connections: lists, bans and \
                 connections_max are kept at accept"
            );
            Ok(None)
        }
    }
    .map(|xdp| xdp.map(forward_logs))
}

fn announce(xdp: &Xdp, config: &Config) {
    let enforced = config.sources.classes.iter().any(|class| class.enforce_rate);
    let verb = if enforced { "enforcing" } else { "observing" };
    for xdp::Attachment { interface, hook, .. } in xdp.attachments() {
        tracing::info!("xdp on {interface}: {hook} mode, {verb}");
    }
}

/// Forwards the program's log records for as long as there are any.
fn forward_logs(mut xdp: Xdp) -> Arc<Xdp> {
    if let Some(logs) = xdp.take_logs() {
        tokio::spawn(async move {
            if let Err(error) = logs.forward().await {
                tracing::warn!("xdp: no more log records: {error}");
            }
        });
    }
    Arc::new(xdp)
}

fn counters(kernel: &Xdp) -> Vec<KernelCounter> {
    let counts = kernel.counters().unwrap_or_else(|error| {
        tracing::warn!("xdp: {error}");
        Vec::new()
    });
    let counter = |count: xdp::Count| KernelCounter {
        verdict: count.verdict.action.label(),
        reason: count.verdict.reason.label(),
        packets: count.packets,
    };
    counts.into_iter().map(counter).collect()
}
