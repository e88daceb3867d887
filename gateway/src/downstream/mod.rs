//! The client's side: connections, and what each request on them goes through.

#![expect(clippy::disallowed_types, reason = "sources are counted for all workers together")]

pub mod connection;
mod current;
mod inquiry;
mod prologue;
mod record;
mod route;
mod serve;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::action::Redirect;
use crate::admission::{Sources, Traffic};
use crate::exchange::{Error, ProxyProtocol, Resources, Trust};
use crate::net::rt;
use crate::policy::Policies;
use crate::routing::Table;
use crate::telemetry::access_log::{AccessLog, Entry};
use crate::telemetry::metrics::Offence;
use crate::tls::Acceptor;
use crate::upstream::Upstream;

pub use current::Current;
pub use route::Route;

/// How long an access line may wait in its worker's buffer.
const LOG_DELAY: Duration = Duration::from_millis(200);

/// Everything the connections of one worker share.
pub struct Shared {
    /// What exchanges need.
    pub resources: Resources,
    /// Which route a request takes.
    pub routes: Table<Route>,
    /// By their numbers, also those that are gone, whose connections may not be.
    pub listeners: Vec<Option<Listener>>,
    /// Who may connect.
    pub sources: Arc<Sources>,
    /// Whether what banned sources have open ends before they ask again.
    pub ends_banned: bool,
    /// What is told of each source while somebody looks.
    pub traffic: Rc<Traffic>,
    /// TLS handshakes this worker may have going on.
    pub handshakes_max: usize,
    /// Where requests go, in the configuration's order.
    pub upstreams: Vec<Rc<Upstream>>,
    /// Whether any of them wants to be told whose each connection is.
    pub announces: bool,
    /// Tells control of a broken rule, and whether packets come from that address; false when it could
    /// not hear.
    pub report: Box<dyn Fn(IpAddr, Offence, bool) -> bool>,
    /// Whether answers of 4xx count as offences.
    pub reports_client_errors: bool,
    /// Where requests are logged.
    pub access_log: Option<Rc<RefCell<AccessLog>>>,
}

/// What is special about the connections of one listener.
#[derive(Clone)]
pub struct Listener {
    /// Whom it believes.
    pub trust: Trust,
    /// How it speaks TLS, if it does.
    pub acceptor: Option<Acceptor>,
    /// What it asks of every request.
    pub policies: Policies,
    /// Where clients of plain HTTP are sent instead.
    pub redirect: Option<Redirect>,
    /// Whose limits who connects here is held to.
    pub class: u8,
}

impl Shared {
    /// The listener with this number.
    pub fn listener(&self, number: usize) -> Option<&Listener> {
        self.listeners.get(number)?.as_ref()
    }

    /// Ends what banned sources have open, if that is wanted; answers on their way are waited for.
    pub fn end_banned(&self) {
        if self.ends_banned {
            self.resources.deadlines.end_those_of(|owner| self.sources.is_banned(owner));
        }
    }

    /// Whether a connection that comes in by this listener has more to it than requests.
    fn has_prologue(&self, listener: usize) -> bool {
        self.announces
            || self.listener(listener).is_some_and(|listener| {
                listener.acceptor.is_some() || listener.trust.proxy_protocol != ProxyProtocol::Off
            })
    }

    /// Counts an error that is a client's offence, and tells control. `socket` is where packets come
    /// from.
    fn note_offence(&self, error: Error, client: SocketAddr, socket: SocketAddr) {
        if let Some(offence) = error.offence() {
            self.note(offence, client, socket);
        }
    }

    /// Takes down an answer that may be a client's offence.
    fn note_status(&self, status: u16, client: SocketAddr, socket: SocketAddr) {
        if self.reports_client_errors && (400..500).contains(&status) {
            self.note(Offence::ClientError, client, socket);
        }
    }

    fn note(&self, offence: Offence, client: SocketAddr, socket: SocketAddr) {
        let metrics = &self.resources.metrics;
        metrics.offence(offence);
        let client = client.ip().to_canonical();
        if !(self.report)(client, offence, client == socket.ip().to_canonical()) {
            metrics.offences_unreported.add(1);
        }
    }

    /// Takes a line down, if there is a log, and sees to it that it does not wait for company for
    /// long.
    fn log<'a>(self: &Rc<Self>, entry: impl FnOnce() -> Entry<'a>) {
        let Some(log) = &self.access_log else { return };
        if log.borrow_mut().record(&entry()) {
            let shared = Rc::clone(self);
            rt::spawn(
                async move {
                    rt::sleep(LOG_DELAY).await;
                    shared.flush_log();
                },
                || {},
            );
        }
    }

    /// Hands the lines taken down so far to the writer.
    pub fn flush_log(&self) {
        if let Some(log) = &self.access_log {
            log.borrow_mut().flush();
        }
    }
}
