//! Watches over a gateway whose workers run: one loop over [`Event`].

#![expect(clippy::disallowed_types, reason = "what workers serve by is handed to their threads")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::admin::Status;
use super::key_sets::KeySets;
use super::lifecycle::{Lifecycle, Step};
use super::listen::Group;
use super::prober::Prober;
use super::reload::{self, Candidate, Change, Found};
use super::resolver::{Answer, Names};
use super::sources::Keeper;
use super::{Error, Event, policies, tickets, warn};
use crate::admission::{Tallies, unix_now};
use crate::config::Config;
use crate::worker::mailbox::{Handle, Look};
use crate::worker::{Entrance, Generation};

/// A worker only has to make its ring and its timers before it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The gateway once its workers have been started.
pub(super) struct Gateway {
    pub listening: Vec<Listening>,
    /// The number that the next new listener gets.
    pub numbers: usize,
    pub admin: Option<SocketAddr>,
    /// Of requests, and of tunnels.
    pub drain_timeouts: (Duration, Duration),
    pub status: Arc<Status>,
    pub workers: Vec<Handle>,
    pub events: UnboundedSender<Event>,
    pub load: Arc<reload::Load>,
    /// What the workers serve by.
    pub running: Generation,
    pub keys: tickets::Keys,
    pub names: Names,
    pub prober: Prober,
    pub key_sets: KeySets,
    pub states: policies::States,
    pub keeper: Arc<Keeper>,
    /// When an entry of the list ends, and an event comes.
    pub list_ends: Option<u64>,
    /// Who is told which files to watch.
    pub files: UnboundedSender<Vec<PathBuf>>,
    pub reloading: Reloading,
}

/// A listener that is accepted from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listening {
    /// Its own, and no other's after it.
    pub number: usize,
    /// As the configuration has it.
    pub configured: SocketAddr,
    /// With the port it has got.
    pub address: SocketAddr,
}

/// Whether a change is being looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reloading {
    #[default]
    No,
    Yes {
        /// What has changed meanwhile.
        next: Option<Change>,
    },
}

impl Gateway {
    /// Ends when the gateway has ended.
    ///
    /// # Errors
    /// How, if not well.
    pub async fn supervise(mut self, mut inbox: UnboundedReceiver<Event>) -> Result<(), Error> {
        let mut lifecycle = Lifecycle::new(self.workers.len());
        self.send_after(START_TIMEOUT, Event::StartTimeout);
        self.watch_files();
        self.watch_endpoints();
        self.fetch_keys();
        self.await_end_of_list();
        while let Some(event) = inbox.recv().await {
            match event {
                Event::Reload => self.look(Change::Configuration),
                Event::FilesChanged => self.look(Change::Files),
                // Workers that drain would not accept from what it opens.
                Event::Found(found) if lifecycle.is_draining() => self.found(found.too_late()),
                Event::Found(found) => self.found(*found),
                Event::Resolved { name, answer } => self.resolved(&name, answer),
                Event::ListEnded => {
                    // A timer may be of a configuration that is gone.
                    if self.list_ends.is_some_and(|end| end <= unix_now()) {
                        self.list_ends = None;
                        self.renew_list();
                    }
                }
                Event::ListChanged => self.renew_list(),
                Event::Banned => {
                    self.keeper.banned.store(false, Relaxed);
                    self.workers.iter().for_each(Handle::end_banned);
                }
                Event::Look { goes_on, answers } => self.look_at_sources(goes_on, &answers),
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

    /// Asks every worker what sources do.
    fn look_at_sources(&self, goes_on: bool, answers: &UnboundedSender<Tallies>) {
        for worker in &self.workers {
            let answers = answers.clone();
            // Who has asked may have given up.
            let answer = Box::new(move |tallies| drop(answers.send(tallies)));
            worker.look(Look { goes_on, answer });
        }
    }

    /// Looks at what may have changed without making anybody wait.
    fn look(&mut self, change: Change) {
        self.reloading = match self.reloading {
            Reloading::No => Reloading::Yes { next: None },
            // The configuration includes the files.
            Reloading::Yes { next } => {
                self.reloading = Reloading::Yes { next: next.max(Some(change)) };
                return;
            }
        };
        let (load, running) = (Arc::clone(&self.load), Arc::clone(&self.running.config));
        let events = self.events.clone();
        tokio::spawn(async move {
            let found = reload::look(change, load, running).await;
            let _ = events.send(Event::Found(Box::new(found)));
        });
    }

    /// Lets every worker ask a name's addresses, if they are others now.
    fn resolved(&mut self, name: &str, answer: Answer) {
        let Generation { config, endpoints, .. } = &mut self.running;
        if self.names.hear(name, answer, config.dns.hold) {
            *endpoints = Arc::new(self.names.endpoints(&config.upstreams));
            self.watch_endpoints();
            for worker in &self.workers {
                worker.reload(self.running.clone(), []);
            }
        }
    }

    /// Lets every worker serve by what has been found, and says what does not count.
    fn found(&mut self, found: Found) {
        let Found { change, next, wrong } = found;
        let is_right = next.is_some();
        let applied = next.is_some_and(|next| self.serve_by(next));
        let failed = usize::from(is_right && !applied);
        self.status.count_reload(change, applied, wrong.len() + failed);
        match change {
            Change::Configuration if applied => tracing::info!("configuration reloaded"),
            Change::Files if applied => tracing::info!("files reloaded"),
            _ => {}
        }
        for line in wrong {
            match change {
                Change::Configuration => tracing::error!("not reloaded: {line}"),
                Change::Files => tracing::error!("not reloaded, still as it was: {line}"),
            }
        }
        if let Reloading::Yes { next } = std::mem::take(&mut self.reloading)
            && let Some(change) = next
        {
            self.look(change);
        }
    }

    /// Hands a configuration to every worker. False when that cannot be done.
    fn serve_by(&mut self, next: Candidate) -> bool {
        let tickets = match self.keys.of(&next.config) {
            Ok(tickets) => Arc::new(tickets),
            Err(error) => {
                tracing::error!("not reloaded: {error}");
                return false;
            }
        };
        let before = self.keeper.set_listeners(self.addresses(&next));
        let sources = match self.keeper.apply(&next.config) {
            Ok(sources) => sources,
            Err(error) => {
                self.keeper.set_listeners(before);
                tracing::error!("not reloaded: {error}");
                return false;
            }
        };
        if let Some(found) = next.names {
            self.names.follow(&next.config, found);
        }
        let endpoints = Arc::new(self.names.endpoints(&next.config.upstreams));
        let policies = Arc::new(self.states.of(&next.config));
        let entrances = self.listen(&next.config, next.groups);
        let listeners = self.listening.iter().map(|listening| listening.number).collect();
        let (config, listeners) = (Arc::new(next.config), Arc::new(listeners));
        self.running = Generation { config, listeners, endpoints, tickets, policies, sources };
        self.await_end_of_list();
        let config = &self.running.config;
        self.status.set_certificates(config);
        self.watch_files();
        self.watch_endpoints();
        self.fetch_keys();
        let config = &self.running.config;
        warn(config);
        self.drain_timeouts = (config.drain_timeout, config.tunnel_drain_timeout);
        for (worker, entrances) in self.workers.iter().zip(entrances) {
            worker.reload(self.running.clone(), entrances);
        }
        true
    }

    /// What a configuration listens on, in its order.
    fn addresses(&self, next: &Candidate) -> Vec<SocketAddr> {
        let known = self.listening.iter().map(|listening| listening.configured).collect();
        let known = reload::matched(&next.config, known).into_iter();
        let address = |(position, known): (usize, Option<usize>)| {
            let group = || next.groups.iter().find(|(own, _)| *own == position);
            let known = known.and_then(|at| self.listening.get(at));
            let address = known.map(|listening| listening.address);
            address.or_else(|| group().map(|(_, group)| group.address))
        };
        known.enumerate().filter_map(address).collect()
    }

    /// From now on the listeners are those of `config`, of which the new ones are bound. What each worker
    /// is to accept from, too.
    fn listen(&mut self, config: &Config, groups: Vec<(usize, Group)>) -> Vec<Vec<Entrance>> {
        let before = std::mem::take(&mut self.listening);
        let known = before.iter().map(|listening| listening.configured).collect();
        let known = reload::matched(config, known);
        let gone = (0..before.len()).filter(|at| !known.contains(&Some(*at)));
        for listening in gone.filter_map(|at| before.get(at)) {
            tracing::info!("no longer listening on {}", listening.address);
        }
        let mut entrances: Vec<Vec<Entrance>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut groups = groups.into_iter().peekable();
        for ((position, listener), known) in config.listeners.iter().enumerate().zip(known) {
            if let Some(listening) = known.and_then(|at| before.get(at)) {
                self.listening.push(*listening);
                continue;
            }
            let Some((_, group)) = groups.next_if(|(own, _)| *own == position) else { continue };
            let number = self.numbers;
            self.numbers += 1;
            for (own, socket) in entrances.iter_mut().zip(group.sockets) {
                own.push(Entrance { listener: number, socket });
            }
            let (configured, address) = (listener.address, group.address);
            self.listening.push(Listening { number, configured, address });
            tracing::info!("listening on {address}");
        }
        entrances
    }

    /// Makes the list anew, with what is banned now and without the entries that have ended.
    fn renew_list(&mut self) {
        match self.keeper.apply(&self.running.config) {
            Ok(sources) => self.running.sources = sources,
            Err(error) => tracing::error!("the list cannot be renewed: {error}"),
        }
        self.await_end_of_list();
        for worker in &self.workers {
            worker.reload(self.running.clone(), []);
        }
    }

    /// Sends an event when the next entry of the list ends.
    fn await_end_of_list(&mut self) {
        let end = self.keeper.list_ends(&self.running.config);
        if let Some(end) = end
            && Some(end) != self.list_ends
        {
            // The timer's clock is not the calendar's: better late than too early.
            let left = end.saturating_sub(unix_now()) + 1;
            self.send_after(Duration::from_secs(left), Event::ListEnded);
        }
        self.list_ends = end;
    }

    fn watch_files(&self) {
        let files = self.running.config.watched_files().map(Path::to_owned).collect();
        // Nobody listens where nothing can be watched.
        let _ = self.files.send(files);
    }

    /// Asks the endpoints there are whether they are well, and shows what comes of it.
    fn watch_endpoints(&mut self) {
        let Generation { config, endpoints, .. } = &self.running;
        self.prober.watch(config, endpoints);
        self.status.set_endpoints(config, endpoints);
    }

    /// Fetches the keys that policies verify by.
    fn fetch_keys(&mut self) {
        let Generation { config, policies, .. } = &self.running;
        self.key_sets.watch(config, policies, &self.status);
    }

    fn announce(&self) {
        self.status.set_ready(true);
        for Listening { address, .. } in &self.listening {
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
    use crate::control::admin;
    use crate::control::tests::{config, nothing_to_load};
    use crate::worker::mailbox;
    use std::io::Read;
    use std::time::SystemTime;
    use tokio::sync::mpsc::unbounded_channel;

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
                keeper: None,
                access_log_lines_lost: None,
            }));
            let config = config("127.0.0.1:0".parse().unwrap(), None);
            let keeper = Arc::new(Keeper::start(&config, &[], 64, events.clone()).unwrap());
            let sources = keeper.apply(&config).unwrap();
            let (handles, inboxes) = (0..workers).map(|_| Handle::new().unwrap()).unzip();
            let gateway = Gateway {
                listening: Vec::new(),
                numbers: 0,
                admin: None,
                drain_timeouts: (drain_timeout, drain_timeout),
                status: Arc::clone(&status),
                workers: handles,
                events: events.clone(),
                files: unbounded_channel().0,
                load: Arc::new(Box::new(nothing_to_load)),
                running: Generation {
                    config: Arc::new(config),
                    listeners: Arc::default(),
                    endpoints: Arc::default(),
                    tickets: Arc::default(),
                    policies: Arc::default(),
                    sources,
                },
                keeper,
                list_ends: None,
                keys: tickets::Keys::new().unwrap(),
                names: Names::new(events.clone()),
                prober: Prober::default(),
                key_sets: KeySets::default(),
                states: policies::States::default(),
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
}
