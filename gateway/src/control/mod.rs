//! The control plane: one thread that starts everything, watches over it and ends it. It is one
//! loop over `Event`; its parts only send events. Nothing here carries a request, and nothing
//! here runs on a worker, so `/metrics` answers even when every worker is stuck.

#![expect(clippy::disallowed_types, reason = "control hands its parts to the workers' threads")]

mod admin;
mod bans;
mod cpus;
mod descriptors;
mod driver;
mod error;
mod files;
mod key_sets;
mod lifecycle;
mod listen;
mod offences;
mod policies;
mod privileges;
mod prober;
pub mod reload;
mod resolver;
mod signals;
mod socket;
mod sources;
mod supervise;
mod tickets;
mod traffic;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc::{Sender, UnboundedSender, channel, unbounded_channel};
use tokio::sync::oneshot;

use crate::admission::Tallies;
use crate::config::Config;
use crate::net::rt::Driver;
use crate::telemetry::{access_log, prometheus};
use crate::worker;
use crate::worker::mailbox::{self, Handle};
use crate::worker::{Entrance, Generation};
use admin::Status;
pub use cpus::usable_cpus;
pub use descriptors::connections_for;
pub use driver::io_uring;
pub use error::Error;
use key_sets::KeySets;
pub use listen::can_listen;
use prober::Prober;
use reload::Found;
use resolver::Names;
use supervise::{Gateway, Listening, Reloading};
pub use traffic::{Doings, Report};

/// Offences on their way from workers; more than that are only counted.
const REPORTS_MAX: usize = 4096;

/// Reads the kernel program's counters.
type KernelCounters = Box<dyn Fn() -> Vec<prometheus::KernelCounter> + Send + Sync>;

/// What the loop hears of. A worker sends at most two, so the channel needs no bound.
#[derive(Debug)]
enum Event {
    Worker(mailbox::Event),
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// Files that TLS is set up from have changed.
    FilesChanged,
    /// A name has been looked up again.
    Resolved {
        name: String,
        answer: resolver::Answer,
    },
    /// An entry of the list has ended.
    ListEnded,
    /// Networks were banned, or are no longer.
    ListChanged,
    /// Sources were banned.
    Banned,
    /// Somebody looks at what sources do.
    Look {
        goes_on: bool,
        answers: UnboundedSender<Tallies>,
    },
    /// What looking at a change has found.
    Found(Box<Found>),
    StartTimeout,
    /// Requests have had their time.
    DrainTimeout,
    /// Tunnels have had theirs, too.
    TunnelDrainTimeout,
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When it cannot start, when a worker dies, and when stopping cuts connections.
///
/// `load` reads the configuration anew when it has changed.
pub fn run(config: Config, load: reload::Load) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(start_and_supervise(config, load))
}

/// Everything that often goes wrong comes first, while a failure costs nobody anything. Signals
/// keep their default, which is to end the process at once, until there is something to end well.
async fn start_and_supervise(config: Config, load: reload::Load) -> Result<(), Error> {
    let started = SystemTime::now();
    let descriptors = descriptors::raise_limit();
    let driver = driver::choose(config.driver)?;
    let found = resolver::look_up(&config).await.map_err(Error::Resolve)?;
    key_sets::look_up(&config).await.map_err(Error::Keys)?;
    let groups = listen::bind_all(&config.listeners, config.cores.len())?;
    let admin = config.admin.map(admin::bind).transpose()?;
    let socket = socket::bind(config.admin_socket.as_ref())?;
    let access_log = config.access_log.as_ref().map(open_access_log).transpose()?;

    let (events, inbox) = unbounded_channel();
    signals::watch(&events)?;
    let addresses: Vec<_> = groups.iter().map(|group| group.address).collect();
    let listening = config.listeners.iter().zip(&addresses).enumerate();
    let listening = listening.map(|(number, (listener, address))| Listening {
        number,
        configured: listener.address,
        address: *address,
    });
    let listening: Vec<_> = listening.collect();
    let connections_max = descriptors::connections_max(&config, descriptors);
    let connections = connections_max.saturating_mul(config.cores.len());
    let keeper =
        Arc::new(sources::Keeper::start(&config, &addresses, connections, events.clone())?);
    keeper.adopt();
    // Before there is another thread, which would keep what it began with.
    privileges::give_up(keeper.kernel().is_some());
    let access_log = access_log.map(|(format, file)| access_log::Writer::start(format, file));
    let (access_log, writer) = access_log.transpose().map_err(Error::Runtime)?.unzip();
    let status = Arc::new(Status::new(admin::Sources {
        started,
        descriptors,
        workers: config.cores.iter().map(|_| Arc::default()).collect(),
        kernel: keeper.kernel_counters(),
        keeper: Some(Arc::clone(&keeper)),
        access_log_lines_lost: writer.as_ref().map(access_log::Writer::lines_lost),
    }));
    let admin = admin.map(|listener| admin::serve(listener, Arc::clone(&status))).transpose()?;

    let watch = traffic::Watch::new(Arc::clone(&keeper), events.clone());
    let _socket = socket.map(|socket| socket.serve(Arc::clone(&keeper), watch)).transpose()?;

    let drain_timeouts = (config.drain_timeout, config.tunnel_drain_timeout);
    let (reports, reported) = channel(REPORTS_MAX);
    let (stop_ledger, stopped) = oneshot::channel();
    let ledger = tokio::spawn(offences::keep(reported, stopped, Arc::clone(&keeper)));
    status.set_certificates(&config);
    warn(&config);
    let mut keys = tickets::Keys::new().map_err(Error::Tickets)?;
    let tickets = Arc::new(keys.of(&config).map_err(Error::Tickets)?);
    let mut names = Names::new(events.clone());
    names.follow(&config, found);
    let endpoints = Arc::new(names.endpoints(&config.upstreams));
    let mut states = policies::States::default();
    let policies = Arc::new(states.of(&config));
    let config = Arc::new(config);
    let sources = keeper.apply(&config)?;
    let listeners = Arc::new((0..listening.len()).collect());
    let running = Generation { config, listeners, endpoints, tickets, policies, sources };
    let workers = Workers {
        driver,
        connections_max,
        generation: running.clone(),
        access_log,
        events: events.clone(),
        reports,
    }
    .start(groups, &status)?;
    let gateway = Gateway {
        numbers: listening.len(),
        listening,
        admin,
        drain_timeouts,
        status,
        workers,
        files: watch_files(&events),
        events,
        load: Arc::new(load),
        running,
        keys,
        names,
        prober: Prober::default(),
        key_sets: KeySets::default(),
        states,
        keeper,
        list_ends: None,
        reloading: Reloading::No,
    };
    let outcome = gateway.supervise(inbox).await;
    // What it has not told yet.
    let _ = stop_ledger.send(());
    let _ = ledger.await;
    if let Some(writer) = writer {
        writer.finish();
    }
    outcome
}

fn open_access_log(settings: &access_log::Settings) -> Result<(access_log::Format, File), Error> {
    let opened = settings.open().map(|file| (settings.format, file));
    opened.map_err(|source| Error::AccessLog { path: settings.path.clone(), source })
}

/// Says what a person should know, and names the upstreams that anybody could pose as.
fn warn(config: &Config) {
    for warning in config.warnings(SystemTime::now()) {
        tracing::warn!("{warning}");
    }
    for upstream in &config.upstreams {
        if upstream.tls.as_ref().is_some_and(|tls| tls.roots.is_none()) {
            tracing::warn!("upstream {:?}: certificates are not verified", upstream.name);
        }
    }
}

/// Whom to tell which files to watch. Where that cannot be done, the gateway serves without.
fn watch_files(events: &UnboundedSender<Event>) -> UnboundedSender<Vec<PathBuf>> {
    let (files, named) = unbounded_channel();
    if let Err(error) = files::watch(events.clone(), named) {
        tracing::warn!("certificates are read again only on SIGHUP: {error}");
    }
    files
}

/// What all workers are started from.
struct Workers {
    driver: Driver,
    generation: Generation,
    access_log: Option<access_log::Sender>,
    connections_max: usize,
    events: UnboundedSender<Event>,
    reports: Sender<mailbox::Report>,
}

impl Workers {
    /// Starts a worker on each core; each takes one socket of every group.
    fn start(self, groups: Vec<listen::Group>, status: &Status) -> Result<Vec<Handle>, Error> {
        let mut sockets: Vec<_> =
            groups.into_iter().map(|group| group.sockets.into_iter()).collect();
        let cores = &self.generation.config.cores;
        let mut handles = Vec::with_capacity(cores.len());
        for ((index, core), metrics) in cores.iter().enumerate().zip(status.workers()) {
            let events = self.events.clone();
            let reports = self.reports.clone();
            let spec = worker::Spec {
                index,
                core: *core,
                driver: self.driver,
                generation: self.generation.clone(),
                entrances: sockets
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(listener, sockets)| {
                        sockets.next().map(|socket| Entrance { listener, socket })
                    })
                    .collect(),
                metrics: Arc::clone(metrics),
                access_log: self.access_log.clone(),
                connections_max: self.connections_max,
                // The loop ends before its channel only when the process does.
                events: Arc::new(move |event| drop(events.send(Event::Worker(event)))),
                reports: Arc::new(move |report| reports.try_send(report).is_ok()),
            };
            let handle = worker::start(spec).map_err(|source| Error::Worker { index, source })?;
            handles.push(handle);
        }
        Ok(handles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    #[test]
    fn a_gateway_that_cannot_be_had_in_full_is_not_started() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = run(config(address, None), Box::new(nothing_to_load)).unwrap_err();
        assert!(matches!(error, Error::Listen { .. }), "{error}");

        let free = "127.0.0.1:0".parse().unwrap();
        let error = run(config(free, Some(address)), Box::new(nothing_to_load)).unwrap_err();
        assert!(matches!(error, Error::Admin { .. }), "{error}");
    }

    pub(super) fn nothing_to_load() -> Result<Config, crate::config::Error> {
        crate::config::load(None, &Default::default(), &[0])
    }

    pub(super) fn config(listen: SocketAddr, admin: Option<SocketAddr>) -> Config {
        Config {
            cores: vec![0],
            driver: None,
            drain_timeout: Duration::from_secs(1),
            tunnel_drain_timeout: Duration::from_secs(1),
            timeouts: Default::default(),
            limits: Default::default(),
            pages: Default::default(),
            admin,
            admin_socket: None,
            access_log: None,
            xdp: None,
            sources: Default::default(),
            bans: None,
            tls: Vec::new(),
            listeners: vec![crate::config::Listener {
                address: listen,
                tls: None,
                trust: Default::default(),
                policies: Vec::new(),
                redirect: None,
                class: 0,
            }],
            policies: Vec::new(),
            dns: Default::default(),
            upstreams: Vec::new(),
            routes: Vec::new(),
        }
    }
}
