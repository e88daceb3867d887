//! Who may connect, as control keeps it: the kernel program if there is one, the list as it is at
//! this time, and the tables that workers count in.

#![expect(clippy::disallowed_types, reason = "what workers decide by is handed to their threads")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::{Error, Event};
use crate::admission::bans::{self, Bans};
use crate::admission::{Counts, Entry, Known, Settings, Sources, lists, unix_now};
use crate::config::Config;
use crate::telemetry::prometheus::{KernelCounter, ListHits};
use crate::xdp::{self, Xdp};

/// Outlives configurations.
pub(super) struct Keeper {
    kernel: Option<Arc<Xdp>>,
    counts: Arc<Counts>,
    /// Where the listeners are, in the configuration's order.
    listeners: Mutex<Vec<SocketAddr>>,
    /// What is allowed whatever is written.
    implied: Vec<Entry>,
    /// What workers decide by.
    pub(super) current: Mutex<Arc<Sources>>,
    /// Bits of an IPv4 and of an IPv6 address that make a source.
    pub(super) prefixes: (u8, u8),
    pub(super) bans: Mutex<Bans>,
    /// When offences become bans, if they do.
    pub(super) banning: Mutex<Option<bans::Settings>>,
    pub(super) bans_made: AtomicU64,
    /// Bans that were only told of.
    pub(super) bans_observed: AtomicU64,
    /// Bans for which there was no room.
    pub(super) bans_refused: AtomicU64,
    /// Bans that ended early, to make room.
    pub(super) bans_given_up: AtomicU64,
    /// Interfaces that the kernel program is no longer on.
    interfaces_lost: Mutex<HashSet<String>>,
    /// What lists have decided, and when to look again.
    list_hits: Mutex<(Instant, Vec<ListHits>)>,
    /// Whether the loop has been told that the list must be made anew.
    pub(super) list_changed: AtomicBool,
    /// Whether it has been told that somebody is banned.
    pub(super) banned: AtomicBool,
    pub(super) events: UnboundedSender<Event>,
}

/// What is behind these locks is right after each single change.
pub(super) fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Attaches the kernel program if there is to be one. Where it is not required, the gateway
    /// serves without it, and says so loudly. `connections` is how many there may be at once.
    pub fn start(
        config: &Config,
        listeners: &[SocketAddr],
        connections: usize,
        events: UnboundedSender<Event>,
    ) -> Result<Self, Error> {
        let implied = lists::implied();
        for entry in implied.iter().filter(|_| config.xdp.is_some()) {
            tracing::debug!("never limited or banned: {} ({})", entry.network, entry.origin);
        }
        let kernel = match &config.xdp {
            Some(settings) => {
                let mut sources = config.sources.clone();
                sources.list.extend(implied.iter().cloned());
                attach(settings, config, &sources, listeners, connections)?
            }
            None => None,
        };
        if kernel.is_none() {
            tell_of_what_is_left(config.xdp.as_ref());
        }
        let counts = match &kernel {
            Some(kernel) => kernel.program().counts().map_err(|error| Error::Xdp(error.into()))?,
            None => Counts::new(&config.sources, connections).map_err(Error::Runtime)?,
        };
        let counts = Arc::new(counts);
        let settings = &config.sources;
        Ok(Self {
            kernel,
            listeners: Mutex::new(listeners.to_vec()),
            implied,
            current: Mutex::new(Arc::new(Sources::new(settings, &[], Arc::clone(&counts)))),
            prefixes: (settings.ipv4_prefix, settings.ipv6_prefix),
            bans: Mutex::default(),
            banning: Mutex::new(config.bans.clone()),
            bans_made: AtomicU64::new(0),
            bans_observed: AtomicU64::new(0),
            bans_refused: AtomicU64::new(0),
            bans_given_up: AtomicU64::new(0),
            interfaces_lost: Mutex::default(),
            list_hits: Mutex::new((Instant::now(), Vec::new())),
            list_changed: AtomicBool::new(false),
            banned: AtomicBool::new(false),
            events,
            counts,
        })
    }

    /// The kernel program's packets, if there is one.
    pub fn kernel_counters(&self) -> Option<super::KernelCounters> {
        let kernel = Arc::clone(self.kernel.as_ref()?);
        Some(Box::new(move || counters(&kernel)))
    }

    /// Packets that each network on the list has decided in the kernel, those with the most first, and what is
    /// written of it. A network that has just come or gone may be missing.
    ///
    /// # Errors
    /// When the kernel does not let the list be read.
    pub fn hits(&self) -> Result<Vec<(u64, Entry)>, xdp::Error> {
        let Some(kernel) = self.kernel() else { return Ok(Vec::new()) };
        let current = Arc::clone(&locked(&self.current));
        let hits = kernel.program().list_hits()?.into_iter();
        let entries = hits.filter_map(|(network, packets)| {
            current.entry(network).map(|entry| (packets, entry.clone()))
        });
        let mut all: Vec<_> = entries.collect();
        all.sort_by_key(|(packets, entry)| (Reverse(*packets), entry.network));
        Ok(all)
    }

    /// The same by list, and by the file or key that entries are written at. Reading a long list takes a moment, of
    /// which a hundred pass before it is read again.
    pub fn hits_by_list(&self) -> Vec<ListHits> {
        let (begun, mut known) = (Instant::now(), locked(&self.list_hits));
        if begun >= known.0 {
            let hits = self.sum_hits();
            *known = (Instant::now() + begun.elapsed() * 100, hits);
        }
        known.1.clone()
    }

    fn sum_hits(&self) -> Vec<ListHits> {
        let hits = self.hits().unwrap_or_else(|error| {
            tracing::warn!("xdp: {error}");
            Vec::new()
        });
        let current = Arc::clone(&locked(&self.current));
        let mut sums = BTreeMap::<(String, String), u64>::new();
        for (packets, entry) in hits {
            let list = current.list_of(&entry);
            let line =
                entry.origin.rsplit_once(':').filter(|(_, line)| line.parse::<u32>().is_ok());
            let origin = line.map_or(entry.origin.as_str(), |(file, _)| file).to_owned();
            *sums.entry((list, origin)).or_default() += packets;
        }
        let sums = sums.into_iter();
        sums.map(|((list, origin), packets)| ListHits { list, origin, packets }).collect()
    }

    /// Whether the kernel program sees a flood, and how many samples of what it refuses were lost.
    pub fn flood(&self) -> Option<(bool, u64)> {
        let program = self.kernel()?.program();
        program.is_flooded().ok().zip(program.lost_events().ok())
    }

    /// The interfaces the kernel program was attached to, each with whether it still is. That it no longer is
    /// is said once.
    pub fn interfaces(&self) -> Vec<(&str, bool)> {
        let attachments = self.kernel().map(Xdp::attachments).unwrap_or_default();
        let mut lost = locked(&self.interfaces_lost);
        let mut all = Vec::with_capacity(attachments.len());
        for attachment in attachments {
            let (interface, holds) = (attachment.interface.as_str(), attachment.holds());
            if holds {
                lost.remove(interface);
            } else if lost.insert(interface.to_owned()) {
                tracing::error!(
                    "xdp: NOT on {interface} any more, as it was removed, or the program was: new \
                     connections are not limited there until the gateway is restarted; lists, bans and \
                     connections_max are kept at accept"
                );
            }
            all.push((interface, holds));
        }
        all
    }

    /// The kernel program, if there is one.
    pub fn kernel(&self) -> Option<&Xdp> {
        self.kernel.as_deref()
    }

    /// The tables that workers count in.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// What the next configuration listens on, in its order; returns what has been until now.
    pub fn set_listeners(&self, listeners: Vec<SocketAddr>) -> Vec<SocketAddr> {
        std::mem::replace(&mut locked(&self.listeners), listeners)
    }

    /// Lets the kernel decide by `config`, and returns what workers are to decide by.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn apply(&self, config: &Config) -> Result<Arc<Sources>, Error> {
        self.list_changed.store(false, Relaxed);
        let live = lists::live(&self.list(config), unix_now());
        if let Some(kernel) = &self.kernel {
            let listeners = with_classes(&locked(&self.listeners), config);
            let program = kernel.program();
            let applied = program.configure(&config.sources, &listeners);
            applied
                .and_then(|()| program.set_list(&live))
                .map_err(|error| Error::Xdp(error.into()))?;
            self.know_clients(kernel);
        }
        let sources = Arc::new(Sources::new(&config.sources, &live, Arc::clone(&self.counts)));
        *locked(&self.current) = Arc::clone(&sources);
        *locked(&self.banning) = config.bans.clone();
        Ok(sources)
    }

    /// Lets the kernel forget clients that have gone, when there are many; now and then is enough.
    pub fn forget_clients(&self) {
        let is_crowded = self.counts.known().is_some_and(Known::is_crowded);
        if let Some(kernel) = self.kernel.as_ref().filter(|_| is_crowded) {
            self.know_clients(kernel);
        }
    }

    fn know_clients(&self, kernel: &Xdp) {
        if let Err(error) = kernel.program().know_clients(&self.counts) {
            tracing::warn!("xdp: SYN cookies cost more than they need to: {error}");
        }
    }

    /// The Unix time at which the next entry of the list ends, if one does.
    pub fn list_ends(&self, config: &Config) -> Option<u64> {
        lists::next_end(&self.list(config), unix_now())
    }

    fn list(&self, config: &Config) -> Vec<Entry> {
        let mut list = self.banned_networks();
        list.extend(self.implied.iter().chain(&config.sources.list).cloned());
        list
    }
}

/// Each with the class of its listener.
fn with_classes(listeners: &[SocketAddr], config: &Config) -> Vec<(SocketAddr, u8)> {
    let classes = config.listeners.iter().map(|listener| listener.class);
    listeners.iter().copied().zip(classes).collect()
}

fn attach(
    settings: &xdp::Settings,
    config: &Config,
    sources: &Settings,
    listeners: &[SocketAddr],
    connections: usize,
) -> Result<Option<Arc<Xdp>>, Error> {
    match Xdp::attach(settings, sources, &with_classes(listeners, config), connections) {
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
    .map(|xdp| xdp.map(forward))
}

/// Says what enforces limits that this gateway cannot change, as an earlier one has left it.
fn tell_of_what_is_left(settings: Option<&xdp::Settings>) {
    let folder = settings.and_then(|settings| settings.keep.as_deref());
    let folder = folder.unwrap_or(Path::new(xdp::PIN_FOLDER));
    let left = xdp::left_on(folder);
    if !left.is_empty() {
        let (interfaces, folder) = (left.join(", "), folder.display());
        tracing::error!(
            "xdp: an earlier gateway has left its program on {interfaces}: its limits, lists and bans are \
             enforced there and this one CANNOT change them, nor free the places of connections that were \
             open then; `gateway xdp detach --pin {folder}` removes it"
        );
    }
}

fn announce(xdp: &Xdp, config: &Config) {
    let enforced = config.sources.classes.iter().any(|class| class.enforce_rate);
    let verb = if enforced { "enforcing" } else { "observing" };
    for xdp::Attachment { interface, hook, .. } in xdp.attachments() {
        tracing::info!("xdp on {interface}: {hook} mode, {verb}");
    }
}

/// Forwards what the program tells for as long as there is anything.
fn forward(mut xdp: Xdp) -> Arc<Xdp> {
    let (logs, events) = (xdp.take_logs(), xdp.take_events());
    let xdp = Arc::new(xdp);
    if let Some(events) = events {
        let kernel = Arc::clone(&xdp);
        tokio::spawn(async move {
            let is_flooded = || kernel.program().is_flooded().unwrap_or(false);
            if let Err(error) = events.forward(is_flooded).await {
                tracing::warn!("xdp: no more is told of what is refused: {error}");
            }
        });
    }
    if let Some(logs) = logs {
        tokio::spawn(async move {
            if let Err(error) = logs.forward().await {
                tracing::warn!("xdp: no more log records: {error}");
            }
        });
    }
    xdp
}

fn counters(kernel: &Xdp) -> Vec<KernelCounter> {
    let counts = kernel.counters().unwrap_or_else(|error| {
        tracing::warn!("xdp: {error}");
        Vec::new()
    });
    let counters = counts.into_iter().flat_map(|(interface, counts)| {
        counts.into_iter().map(|count| KernelCounter {
            interface: interface.to_owned(),
            verdict: count.verdict.action.label(),
            reason: count.verdict.reason.label(),
            packets: count.packets,
        })
    });
    counters.collect()
}
