//! The control plane: one thread that starts everything, watches over it and ends it. It is one
//! loop over `Event`; its parts only send events. Nothing here carries a request, and nothing
//! here runs on a worker, so `/metrics` answers even when every worker is stuck.

#![expect(clippy::disallowed_types, reason = "control hands its parts to the workers' threads")]

mod admin;
mod cpus;
mod descriptors;
mod driver;
mod error;
mod lifecycle;
mod listen;
mod offences;
pub mod reload;
mod resolver;
mod signals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::oneshot;

use crate::config::Config;
use crate::net::rt::Driver;
use crate::telemetry::{access_log, prometheus};
use crate::tls::Tickets;
use crate::worker::Generation;
use crate::worker::mailbox::{self, Handle};
use crate::xdp::Xdp;
use crate::{worker, xdp};
use admin::Status;
pub use cpus::usable_cpus;
pub use error::Error;
use lifecycle::{Lifecycle, Step};

/// A worker only has to make its ring and its timers before it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Offences on their way from workers; more than that are only counted.
const REPORTS_MAX: usize = 4096;

/// Reads the kernel program's counters, and keeps the program attached until it is dropped.
type KernelCounters = Box<dyn Fn() -> Vec<prometheus::KernelCounter> + Send + Sync>;

/// What the loop hears of. A worker sends at most two, so the channel needs no bound.
#[derive(Debug)]
enum Event {
    Worker(mailbox::Event),
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// What came of it.
    Reloaded(Result<Generation, String>),
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
    let endpoints = resolver::resolve(&config.upstreams)?;
    let groups = listen::bind_all(&config.listeners, config.cores.len())?;
    let admin = config.admin.map(admin::bind).transpose()?;
    let (access_log, writer) =
        config.access_log.as_ref().map(start_access_log).transpose()?.unzip();

    let (events, inbox) = unbounded_channel();
    signals::watch(&events)?;
    let addresses: Vec<_> = groups.iter().map(|group| group.address).collect();
    let kernel = attach_kernel(config.xdp.as_ref(), &addresses)?;
    let status = Arc::new(Status::new(admin::Sources {
        started,
        descriptors,
        workers: config.cores.iter().map(|_| Arc::default()).collect(),
        kernel,
        access_log_lines_lost: writer.as_ref().map(access_log::Writer::lines_lost),
    }));
    let admin = admin.map(|listener| admin::serve(listener, Arc::clone(&status))).transpose()?;

    let drain_timeouts = (config.drain_timeout, config.tunnel_drain_timeout);
    let (reports, reported) = channel(REPORTS_MAX);
    let (stop_ledger, stopped) = oneshot::channel();
    let ledger = tokio::spawn(offences::keep(reported, stopped));
    status.set_certificates(&config);
    warn_unverified(&config);
    let running = Arc::new(config);
    let workers = Workers {
        driver,
        tickets: Tickets::new().map_err(Error::Tickets)?,
        connections_max: descriptors::connections_max(&running, descriptors),
        generation: Generation { config: Arc::clone(&running), endpoints: Arc::new(endpoints) },
        access_log,
        events: events.clone(),
        reports,
    }
    .start(groups, &status)?;
    let reloading = Reloading::No;
    let load = Arc::new(load);
    let gateway = Gateway {
        addresses,
        admin,
        drain_timeouts,
        status,
        workers,
        events,
        load,
        running,
        reloading,
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

fn start_access_log(
    settings: &access_log::Settings,
) -> Result<(access_log::Sender, access_log::Writer), Error> {
    access_log::Writer::start(settings)
        .map_err(|source| Error::AccessLog { path: settings.path.clone(), source })
}

/// Attaches the kernel program if there is to be one. Where it is not required, the gateway
/// serves without it, and says so loudly.
fn attach_kernel(
    settings: Option<&xdp::Settings>,
    listeners: &[SocketAddr],
) -> Result<Option<KernelCounters>, Error> {
    let Some(settings) = settings else { return Ok(None) };
    let ports: Vec<u16> = listeners.iter().map(SocketAddr::port).collect();
    match attach_xdp(settings, &ports) {
        Ok(counters) => Ok(Some(counters)),
        Err(error) if settings.required => Err(error),
        Err(error) => {
            tracing::error!("{error}; serving WITHOUT connection limits in the kernel");
            Ok(None)
        }
    }
}

/// Attaches the kernel program and forwards its log records. It stays attached for as long as its
/// counters can be read.
fn attach_xdp(settings: &xdp::Settings, ports: &[u16]) -> Result<KernelCounters, Error> {
    let mut xdp = Xdp::attach(settings, ports).map_err(|error| Error::Xdp(Box::new(error)))?;
    for xdp::Attachment { interface, hook, .. } in xdp.attachments() {
        let verb = if settings.enforce { "enforcing" } else { "observing" };
        tracing::info!("xdp on {interface}: {hook} mode, {verb}");
    }
    if let Some(logs) = xdp.take_logs() {
        tokio::spawn(async move {
            if let Err(error) = logs.forward().await {
                tracing::warn!("xdp: no more log records: {error}");
            }
        });
    }
    Ok(Box::new(move || {
        let counts = xdp.counters().unwrap_or_else(|error| {
            tracing::warn!("xdp: {error}");
            Vec::new()
        });
        let counter = |count: xdp::Count| prometheus::KernelCounter {
            verdict: count.verdict.action.label(),
            reason: count.verdict.reason.label(),
            packets: count.packets,
        };
        counts.into_iter().map(counter).collect()
    }))
}

/// Names the upstreams that anybody could pose as.
fn warn_unverified(config: &Config) {
    for upstream in &config.upstreams {
        if upstream.tls.as_ref().is_some_and(|tls| tls.roots.is_none()) {
            tracing::warn!("upstream {:?}: certificates are not verified", upstream.name);
        }
    }
}

/// What all workers are started from.
struct Workers {
    driver: Driver,
    tickets: Tickets,
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
                tickets: self.tickets.clone(),
                generation: self.generation.clone(),
                listeners: sockets.iter_mut().filter_map(Iterator::next).collect(),
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

/// The gateway once its workers have been started.
struct Gateway {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    /// Of requests, and of tunnels.
    drain_timeouts: (Duration, Duration),
    status: Arc<Status>,
    workers: Vec<Handle>,
    events: UnboundedSender<Event>,
    load: Arc<reload::Load>,
    /// What the workers serve by.
    running: Arc<Config>,
    reloading: Reloading,
}

/// Whether a changed configuration is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reloading {
    No,
    Yes,
    /// It has changed again meanwhile.
    Again,
}

impl Gateway {
    async fn supervise(mut self, mut inbox: UnboundedReceiver<Event>) -> Result<(), Error> {
        let mut lifecycle = Lifecycle::new(self.workers.len());
        self.send_after(START_TIMEOUT, Event::StartTimeout);
        while let Some(event) = inbox.recv().await {
            match event {
                Event::Reload => self.reload(),
                Event::Reloaded(result) => self.reloaded(result),
                event => match lifecycle.on(event) {
                    Step::Wait => {}
                    Step::Serve => self.announce(),
                    Step::Drain => self.drain(),
                    Step::Cut => match self.status.tunnels_open() {
                        0 => self.send_after(Duration::ZERO, Event::TunnelDrainTimeout),
                        tunnels => {
                            lifecycle.cut(self.status.connections_open().saturating_sub(tunnels));
                            self.cut();
                        }
                    },
                    Step::End => break,
                },
            }
        }
        lifecycle.outcome(self.status.connections_open())
    }

    /// Looks at the changed configuration without making anybody wait.
    fn reload(&mut self) {
        if self.reloading != Reloading::No {
            self.reloading = Reloading::Again;
            return;
        }
        self.reloading = Reloading::Yes;
        let (load, running) = (Arc::clone(&self.load), Arc::clone(&self.running));
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let _ = events.send(Event::Reloaded(reload::prepare(&load, &running)));
        });
    }

    /// Lets every worker serve by the changed configuration, or says why not.
    fn reloaded(&mut self, result: Result<Generation, String>) {
        self.status.count_reload(result.is_ok());
        match result {
            Ok(generation) => {
                self.running = Arc::clone(&generation.config);
                self.status.set_certificates(&self.running);
                warn_unverified(&self.running);
                let Config { drain_timeout, tunnel_drain_timeout, .. } = *self.running;
                self.drain_timeouts = (drain_timeout, tunnel_drain_timeout);
                for worker in &self.workers {
                    worker.reload(generation.clone());
                }
                tracing::info!("configuration reloaded");
            }
            Err(reason) => {
                for line in reason.lines() {
                    tracing::error!("not reloaded: {line}");
                }
            }
        }
        if std::mem::replace(&mut self.reloading, Reloading::No) == Reloading::Again {
            self.reload();
        }
    }

    fn announce(&self) {
        self.status.set_ready(true);
        for address in &self.addresses {
            tracing::info!("listening on {address}");
        }
        if let Some(address) = self.admin {
            tracing::info!("admin on {address}");
        }
    }

    fn drain(&self) {
        self.status.set_ready(false);
        tracing::info!(
            "draining: {} connections open, {:?} to end them",
            self.status.connections_open(),
            self.drain_timeouts.0
        );
        for worker in &self.workers {
            worker.drain();
        }
        self.send_after(self.drain_timeouts.0, Event::DrainTimeout);
    }

    /// Ends all connections but tunnels, which are seldom done when asked and are given longer.
    fn cut(&self) {
        let (requests, tunnels) = self.drain_timeouts;
        let left = tunnels.saturating_sub(requests);
        tracing::info!(
            "draining: {} tunnels open, {left:?} to end them",
            self.status.tunnels_open()
        );
        for worker in &self.workers {
            worker.cut();
        }
        self.send_after(left, Event::TunnelDrainTimeout);
    }

    fn send_after(&self, delay: Duration, event: Event) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = events.send(event);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A gateway whose workers are only mailboxes.
    struct Rig {
        status: Arc<Status>,
        events: UnboundedSender<Event>,
        inboxes: Vec<mailbox::Inbox>,
        outcome: tokio::task::JoinHandle<Result<(), Error>>,
    }

    impl Rig {
        fn start(workers: usize, drain_timeout: Duration) -> Self {
            let (events, inbox) = unbounded_channel();
            let status = Arc::new(Status::new(admin::Sources {
                started: SystemTime::now(),
                descriptors: 1024,
                workers: (0..workers).map(|_| Arc::default()).collect(),
                kernel: None,
                access_log_lines_lost: None,
            }));
            let (handles, inboxes) = (0..workers).map(|_| Handle::new().unwrap()).unzip();
            let gateway = Gateway {
                addresses: Vec::new(),
                admin: None,
                drain_timeouts: (drain_timeout, drain_timeout),
                status: Arc::clone(&status),
                workers: handles,
                events: events.clone(),
                load: Arc::new(Box::new(nothing_to_load)),
                running: Arc::new(config("127.0.0.1:0".parse().unwrap(), None)),
                reloading: Reloading::No,
            };
            let outcome = tokio::spawn(gateway.supervise(inbox));
            Self { status, events, inboxes, outcome }
        }

        fn send(&self, event: Event) {
            self.events.send(event).unwrap();
        }

        fn worker(&self, event: mailbox::Event) {
            self.send(Event::Worker(event));
        }

        /// Lets the loop see what was sent.
        async fn settle(&self) {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }

        fn told_to_drain(&self) -> usize {
            let told = |inbox: &mailbox::Inbox| {
                let mut inbox = &inbox.drain;
                inbox.set_nonblocking(true).unwrap();
                inbox.read(&mut [0; 8]).is_ok_and(|read| read == 1)
            };
            self.inboxes.iter().filter(|inbox| told(inbox)).count()
        }
    }

    #[tokio::test]
    async fn ready_while_all_workers_listen_and_not_while_draining() {
        let rig = Rig::start(2, Duration::from_secs(30));
        rig.worker(mailbox::Event::Listening { worker: 0 });
        rig.settle().await;
        assert!(!rig.status.is_ready());
        rig.worker(mailbox::Event::Listening { worker: 1 });
        rig.settle().await;
        assert!(rig.status.is_ready());
        assert_eq!(rig.told_to_drain(), 0);

        rig.send(Event::Stop);
        rig.settle().await;
        assert!(!rig.status.is_ready());
        assert_eq!(rig.told_to_drain(), 2);

        rig.worker(mailbox::Event::Drained { worker: 0 });
        rig.worker(mailbox::Event::Drained { worker: 1 });
        assert!(rig.outcome.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_drain_that_takes_too_long_says_what_it_cuts() {
        let rig = Rig::start(1, Duration::from_millis(20));
        rig.worker(mailbox::Event::Listening { worker: 0 });
        rig.status.workers()[0].connections_open.add(3);
        rig.send(Event::Stop);

        let error = rig.outcome.await.unwrap().unwrap_err();

        assert_eq!(error.to_string(), "drain timeout: 3 connections were cut");
    }

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

    fn nothing_to_load() -> Result<Config, crate::config::Error> {
        crate::config::load(None, &Default::default(), &[0])
    }

    fn config(listen: SocketAddr, admin: Option<SocketAddr>) -> Config {
        Config {
            cores: vec![0],
            driver: None,
            drain_timeout: Duration::from_secs(1),
            tunnel_drain_timeout: Duration::from_secs(1),
            timeouts: Default::default(),
            limits: Default::default(),
            pages: Default::default(),
            admin,
            access_log: None,
            xdp: None,
            tls: Vec::new(),
            listeners: vec![crate::config::Listener {
                address: listen,
                tls: None,
                trust: Default::default(),
            }],
            upstreams: Vec::new(),
            routes: Vec::new(),
        }
    }
}
