//! All that one core owns. `mailbox` is the one seam between threads.

#![expect(clippy::disallowed_types, reason = "a worker's parts are handed over by another thread")]

mod accept;
pub mod mailbox;

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::net::TcpListener;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::future::{Either, select};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::action::Redirect;
use crate::admission::{Sources, Traffic};
use crate::config::Config;
use crate::downstream::{self, Current, Route, Shared};
use crate::exchange::{Kept, RequestIds, Resources};
use crate::net::rt::{self, Bell, Driver};
use crate::net::{Buffers, Deadlines};
use crate::policy::{self, Named};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Offence;
use crate::telemetry::{access_log, metrics};
use crate::tls::{Acceptor, Connector, Tickets};
use crate::upstream::{self, Address, Upstream};
use accept::Door;
use mailbox::{Event, Handle, Inbox, Look, Next, Report};

/// Between two looks through all connections for those of banned sources.
const BANNED_PAUSE: Duration = Duration::from_millis(200);

/// What control hands to a worker when it starts.
pub struct Spec {
    /// Position among the workers, from 0.
    pub index: usize,
    /// The CPU to run on.
    pub core: usize,
    /// What it waits by.
    pub driver: Driver,
    /// What to serve by, at first.
    pub generation: Generation,
    /// Where to accept from.
    pub entrances: Vec<Entrance>,
    /// This worker's counters.
    pub metrics: Arc<metrics::Worker>,
    /// Where access lines go.
    pub access_log: Option<access_log::Sender>,
    /// Client connections this worker may hold open.
    pub connections_max: usize,
    /// Called on the worker's thread for each event; must not block.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
    /// Called on the worker's thread when a client broke a rule; false when nobody could hear it.
    pub reports: Arc<dyn Fn(Report) -> bool + Send + Sync>,
}

/// A worker's member of a listener's SO_REUSEPORT group.
#[derive(Debug)]
pub struct Entrance {
    /// The listener's number.
    pub listener: usize,
    /// Bound and listening.
    pub socket: TcpListener,
}

/// A configuration and what has been found out for it.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// The numbers of its listeners, in its order. A listener keeps its number as long as it is listened on, and
    /// no other gets it afterwards, so that connections know theirs whatever is reloaded.
    pub listeners: Arc<Vec<usize>>,
    /// The resolved addresses of each upstream, in the configuration's order.
    pub endpoints: Arc<Vec<Vec<Address>>>,
    /// What session tickets are sealed with, in the order of the configuration's TLS settings.
    pub tickets: Arc<Vec<Tickets>>,
    /// What all workers share of each policy, in the configuration's order.
    pub policies: Arc<Vec<policy::Shared>>,
    /// Who may connect.
    pub sources: Arc<Sources>,
}

impl Generation {
    fn differs_only_in_endpoints(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && Arc::ptr_eq(&self.tickets, &other.tickets)
            && Arc::ptr_eq(&self.sources, &other.sources)
    }
}

/// Starts a worker's thread.
///
/// # Errors
/// When the thread cannot be started. What fails later arrives as [`Event::Died`].
pub fn start(spec: Spec) -> io::Result<Handle> {
    let (handle, inbox) = Handle::new()?;
    let name = format!("worker-{}", spec.index);
    thread::Builder::new().name(name).spawn(move || main(spec, inbox))?;
    Ok(handle)
}

/// A worker's life. However it ends, control hears of it: a member of a SO_REUSEPORT group that
/// nobody serves would swallow its share of the connections.
fn main(spec: Spec, inbox: Inbox) {
    let (worker, events) = (spec.index, Arc::clone(&spec.events));
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        pin_to(spec.core)?;
        rt::run(spec.driver, serve(spec, inbox))?
    }));
    events(match ended {
        Ok(Ok(())) => Event::Drained { worker },
        Ok(Err(error)) => Event::Died { worker, reason: error.to_string() },
        Err(_) => Event::Died { worker, reason: "it panicked".to_owned() },
    });
}

fn pin_to(core: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(core);
    sched_setaffinity(None, &cpus).map_err(|error| {
        io::Error::other(format!("cannot run on CPU {core}: {}", io::Error::from(error)))
    })
}

/// Accepts and serves until told to drain, then until the last connection has ended.
async fn serve(mut spec: Spec, inbox: Inbox) -> io::Result<()> {
    let (drain, cut) = (Bell::new(inbox.drain)?, Bell::new(inbox.cut)?);
    let (reload, look) = (Bell::new(inbox.reload)?, Bell::new(inbox.look)?);
    let banned = Bell::new(inbox.banned)?;
    let deadlines = Deadlines::new();
    let draining = Rc::new(Cell::new(false));
    let lasting = Lasting::new(&spec, &deadlines, &draining);
    let current = Rc::new(Current::new(lasting.shared(&spec.generation, None)?));
    rt::spawn(Rc::clone(&deadlines).run(), || {});
    rt::spawn(tell(Rc::clone(&lasting.traffic), look, inbox.asked), || {});
    rt::spawn(end_banned(Rc::clone(&current), banned), || {});
    let door = Rc::new(Door::new(Rc::clone(&current), spec.connections_max));
    for entrance in mem::take(&mut spec.entrances) {
        door.open(entrance)?;
    }
    let serving = spec.generation.clone();
    let (following, broken) = (Rc::clone(&door), Rc::clone(&door));
    rt::spawn(follow(lasting, serving, reload, inbox.next, following), move || broken.fail());
    tracing::debug!(worker = spec.index, core = spec.core, driver = %spec.driver, "worker started");
    (spec.events)(Event::Listening { worker: spec.index });

    if let Either::Right(_) = select(pin!(drain.rung()), pin!(door.failed())).await {
        return Err(io::Error::other("it panicked"));
    }
    draining.set(true);
    door.close_all();
    deadlines.expire_idle();
    if let Either::Left(_) = select(pin!(cut.rung()), pin!(door.closed())).await {
        deadlines.expire_unspared();
        door.closed().await;
    }
    current.get().flush_log();
    // The runtime closes sockets when it next goes to sleep; one that ends first never does, and they
    // would stay open for as long as the process has other workers.
    rt::sleep(Duration::from_millis(1)).await;
    Ok(())
}

/// Serves by each configuration that control sends, as long as the worker lives.
async fn follow(
    lasting: Lasting,
    mut serving: Generation,
    bell: Bell,
    next: Arc<Mutex<Option<Next>>>,
    door: Rc<Door>,
) {
    let current = &door.current;
    while bell.rung().await {
        let next = next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Next { generation, entrances }) = next else { continue };
        let shared = current.get();
        if generation.differs_only_in_endpoints(&serving) {
            for (upstream, addresses) in shared.upstreams.iter().zip(&*generation.endpoints) {
                upstream.set_addresses(addresses);
            }
        } else {
            match lasting.shared(&generation, Some(&shared)) {
                Ok(shared) => {
                    // Networks are banned by another list.
                    shared.end_banned();
                    current.set(shared);
                }
                Err(error) => {
                    tracing::error!(%error, "cannot serve by the new configuration");
                    continue;
                }
            }
        }
        for entrance in entrances {
            let listener = entrance.listener;
            // One of a configuration that was replaced before it came to anything is closed unopened.
            if generation.listeners.contains(&listener)
                && !lasting.draining.get()
                && let Err(error) = door.open(entrance)
            {
                tracing::error!(listener, %error, "cannot accept from a new listener");
            }
        }
        door.close_others(&generation.listeners);
        serving = generation;
    }
}

/// Ends what sources have open that are banned, as long as the worker lives. However many are, it looks only so often.
async fn end_banned(current: Rc<Current>, bell: Bell) {
    while bell.rung().await {
        current.get().end_banned();
        rt::sleep(BANNED_PAUSE).await;
    }
}

/// Tells whoever looks what sources do, as long as the worker lives.
async fn tell(traffic: Rc<Traffic>, bell: Bell, asked: Arc<Mutex<Option<Look>>>) {
    while bell.rung().await {
        let look = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Look { goes_on, answer }) = look {
            answer(traffic.take(goes_on));
        }
    }
}

/// What of a worker outlives a configuration.
struct Lasting {
    worker: usize,
    workers: usize,
    deadlines: Rc<Deadlines>,
    draining: Rc<Cell<bool>>,
    metrics: Arc<metrics::Worker>,
    access_log: Option<Rc<RefCell<AccessLog>>>,
    reports: Arc<dyn Fn(Report) -> bool + Send + Sync>,
    traffic: Rc<Traffic>,
}

impl Lasting {
    fn new(spec: &Spec, deadlines: &Rc<Deadlines>, draining: &Rc<Cell<bool>>) -> Self {
        let access_log = spec.access_log.clone();
        let new_log = |sender| RefCell::new(AccessLog::new(sender, Arc::clone(&spec.metrics)));
        Self {
            worker: spec.index,
            workers: spec.generation.config.cores.len().max(1),
            deadlines: Rc::clone(deadlines),
            draining: Rc::clone(draining),
            metrics: Arc::clone(&spec.metrics),
            access_log: access_log.map(new_log).map(Rc::new),
            reports: Arc::clone(&spec.reports),
            traffic: Rc::default(),
        }
    }

    /// What the connections of a worker share, as the configuration asks for it. An upstream that is
    /// what it was in `before` keeps its connections.
    fn shared(&self, generation: &Generation, before: Option<&Shared>) -> io::Result<Rc<Shared>> {
        let Generation { config, listeners: numbers, endpoints, tickets, sources, .. } = generation;
        let buffers = Rc::new(Buffers::new(config.limits.head_bytes));
        let upstreams = config.upstreams.iter().zip(endpoints.iter());
        let upstreams = upstreams.map(|(spec, addresses)| {
            let mut known = before.into_iter().flat_map(|before| &before.upstreams);
            let connect = config.timeouts.connect;
            match known.find(|known| known.is_same(spec, connect)) {
                Some(same) => {
                    same.set_addresses(addresses);
                    Ok(Rc::clone(same))
                }
                None => self.upstream(spec, addresses, connect, &buffers),
            }
        });
        let upstreams = upstreams.collect::<io::Result<_>>()?;
        let policies = config.policies.iter().zip(&*generation.policies);
        let policies =
            policies.map(|(policy, shared)| (&*policy.name, &policy.settings, shared.clone()));
        let policies = Named::new(policies, &self.metrics);
        let routes = config.table(|_, route| Route {
            name: format!("{}{}", route.host, route.path),
            conditions: route.conditions.clone(),
            path: route.path.clone(),
            action: route.action.clone(),
            rewrite: route.rewrite.clone(),
            body_bytes_max: route.body_bytes.unwrap_or(config.limits.body_bytes),
            timeout: route.timeout.or(config.timeouts.request),
            fallback: route.fallback.clone(),
            mirror: route.mirror,
            allow_in_path: route.allow_in_path,
            policies: policies.listed(&route.policies),
        });
        let acceptors: Vec<Acceptor> = config
            .tls
            .iter()
            .zip(tickets.iter())
            .map(|(settings, tickets)| Acceptor::new(settings, tickets).map_err(io::Error::other))
            .collect::<io::Result<_>>()?;
        // Connections of listeners that are gone are served as before.
        let mut listeners = before.map(|before| before.listeners.clone()).unwrap_or_default();
        for (number, listener) in numbers.iter().zip(&config.listeners) {
            let acceptor = listener.tls.and_then(|index| acceptors.get(index).cloned());
            let trust = listener.trust.clone();
            let redirect = listener.redirect.map(Redirect::to_https);
            let policies = policies.listed(&listener.policies);
            let class = listener.class;
            if listeners.len() <= *number {
                listeners.resize_with(number + 1, || None);
            }
            if let Some(own) = listeners.get_mut(*number) {
                *own = Some(downstream::Listener { trust, acceptor, policies, redirect, class });
            }
        }
        let reports = Arc::clone(&self.reports);
        Ok(Rc::new(Shared {
            listeners,
            sources: Arc::clone(sources),
            ends_banned: config.bans.as_ref().is_none_or(|bans| bans.close),
            traffic: Rc::clone(&self.traffic),
            handshakes_max: (config.limits.handshakes / self.workers).max(1),
            announces: config.upstreams.iter().any(|upstream| upstream.proxy_protocol.is_some()),
            upstreams,
            routes,
            access_log: self.access_log.clone(),
            report: Box::new(move |client, offence, direct| {
                reports(Report { client, offence, direct })
            }),
            reports_client_errors: config.bans.as_ref().is_some_and(|bans| {
                bans.weights.get(Offence::ClientError as usize).is_some_and(|weight| *weight > 0)
            }),
            resources: Resources {
                buffers,
                request_heads: Kept::default(),
                response_heads: Kept::default(),
                deadlines: Rc::clone(&self.deadlines),
                request_ids: RequestIds::new()?,
                pages: config.pages.clone(),
                date: RefCell::default(),
                timeouts: config.timeouts.clone(),
                limits: config.limits.clone(),
                metrics: Arc::clone(&self.metrics),
                draining: Rc::clone(&self.draining),
            },
        }))
    }

    fn upstream(
        &self,
        spec: &upstream::Spec,
        addresses: &[Address],
        connect_timeout: Duration,
        buffers: &Rc<Buffers>,
    ) -> io::Result<Rc<Upstream>> {
        let connector = spec.tls.as_ref().map(Connector::new).transpose();
        let settings = upstream::Settings {
            connect_timeout,
            deadlines: Rc::clone(&self.deadlines),
            connector: connector.map_err(io::Error::other)?,
            buffers: Rc::clone(buffers),
            counters: Arc::clone(&self.metrics),
            metrics: self.metrics.upstream(&spec.name),
            requests_max: spec.connections_max.map_or(u32::MAX, |max| self.share(max)),
            pending_max: self.share(spec.pending.max) as usize,
            worker: self.worker,
            spec: spec.clone(),
        };
        Ok(Rc::new(Upstream::new(addresses, settings)))
    }

    /// This worker's part of what is for the whole machine. The first ones have what cannot be divided.
    fn share(&self, whole: usize) -> u32 {
        let part = whole / self.workers + usize::from(self.worker < whole % self.workers);
        u32::try_from(part).unwrap_or(u32::MAX)
    }
}
