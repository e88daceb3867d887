//! Who may open a connection: the lists, the classes of limits, and what is counted per source. The
//! kernel program decides by the same before userspace sees anything ([`crate::xdp`]); here it is
//! decided at accept, for connections that came in past it, and where it is not loaded.
//!
//! [`bans`] says who is to be banned, [`lists`] is what a person wrote, `networks` finds the longest network an address is in,
//! `banned` knows who is banned, [`Known`] who has had a connection, [`Traffic`] who keeps a worker busy, and [`Sources`]
//! is what a worker asks.

#![expect(clippy::disallowed_types, reason = "sources are counted for all workers together")]

mod banned;
pub mod bans;
mod counts;
mod known;
pub mod lists;
mod networks;
mod traffic;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

pub use counts::{Counts, Seat, Source, address_of, constants, packet_address};
pub use gateway_ebpf::verdict::Treatment;
pub use known::Known;
pub use lists::{Entry, Settings};
pub use networks::Networks;
pub use traffic::{Tallies, Tally, Traffic};

use crate::telemetry::metrics::Refusal;

/// How many connections a source may open, and have open.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// What listeners call it; the first class is everybody's and has no name.
    pub name: String,
    /// New connections per second and source.
    pub connection_rate: f64,
    /// Connections a source may open at once after a pause, at least 1.
    pub connection_burst: u32,
    /// Connections a source may have open; 0 for any number.
    pub connections_max: u32,
    /// Drop what is above the rate; otherwise only count it.
    pub enforce_rate: bool,
    /// Refuse what is above [`Self::connections_max`]; otherwise only count it.
    pub enforce_connections: bool,
    /// Answer with a reset what would be dropped.
    pub resets: bool,
}

impl Default for Class {
    fn default() -> Self {
        Self {
            name: String::new(),
            connection_rate: 50.0,
            connection_burst: 200,
            connections_max: 100,
            enforce_rate: false,
            enforce_connections: false,
            resets: false,
        }
    }
}

/// What is decided about a connection.
#[must_use]
#[derive(Debug)]
pub enum Verdict {
    /// It comes in, and counts for as long as its seat is kept, where connections are counted.
    Enter(Option<Seat>),
    /// It comes in only because what speaks against it is not enforced.
    Observe(Refusal, Option<Seat>),
    /// It does not come in.
    Refuse(Refusal),
}

/// What the configuration says of sources, and what is counted of them. A worker asks it; it changes
/// only by being replaced.
#[derive(Debug)]
pub struct Sources {
    counts: Arc<Counts>,
    list: Networks<Entry>,
    classes: Vec<Class>,
    enforce_deny: bool,
    /// Whether a network is banned, so that others than direct clients must be looked up.
    bans_networks: bool,
}

impl Sources {
    /// What `settings` say, of which `live` is the list as it is now, counted in `counts`.
    pub fn new(settings: &Settings, live: &[Entry], counts: Arc<Counts>) -> Self {
        let mut list = Networks::default();
        for entry in live {
            list.insert(entry.network, entry.clone());
        }
        Self {
            counts,
            list,
            classes: settings.classes.clone(),
            enforce_deny: settings.enforce_deny,
            bans_networks: live.iter().any(|entry| entry.treatment == Treatment::Ban),
        }
    }

    /// Who `address` counts as.
    pub fn source(&self, address: IpAddr) -> Source {
        self.counts.source(address)
    }

    /// Takes down that a connection of this source has been accepted, whatever becomes of it.
    pub fn accepted(&self, source: Source) {
        if let Some(known) = self.counts.known() {
            known.mark(source);
        }
    }

    /// Whether a connection from `peer` may come in by a listener of this class.
    pub fn enter(&self, peer: IpAddr, class: u8) -> Verdict {
        let mut class = class;
        let mut observed = None;
        match self.listed(peer) {
            Some(Treatment::Allow) => return Verdict::Enter(None),
            Some(Treatment::Ban) => return Verdict::Refuse(Refusal::Banned),
            Some(Treatment::Deny) if self.enforce_deny => return Verdict::Refuse(Refusal::Denied),
            Some(Treatment::Deny) => observed = Some(Refusal::Denied),
            Some(Treatment::Class(own)) => class = own,
            None => {}
        }
        let source = self.counts.source(peer);
        if self.counts.is_banned(source) {
            return Verdict::Refuse(Refusal::Banned);
        }
        let limits =
            self.classes.get(usize::from(class)).filter(|limits| limits.connections_max > 0);
        let (seat, open) = limits.and_then(|_| Counts::enter(&self.counts, source, class)).unzip();
        if let Some((limits, open)) = limits.zip(open)
            && open > limits.connections_max
        {
            if limits.enforce_connections {
                return Verdict::Refuse(Refusal::TooManyOpen);
            }
            observed = observed.or(Some(Refusal::TooManyOpen));
        }
        match observed {
            Some(refusal) => Verdict::Observe(refusal, seat),
            None => Verdict::Enter(seat),
        }
    }

    /// Whether requests of `client` are refused, who may have come by another's connection.
    pub fn is_banned(&self, client: IpAddr) -> bool {
        if !self.bans_networks && !self.counts.has_bans() {
            return false;
        }
        match self.listed(client) {
            Some(Treatment::Allow) => false,
            Some(Treatment::Ban) => true,
            _ => self.counts.is_banned(self.counts.source(client)),
        }
    }

    /// The allowed network that all of `network` is in, if there is one.
    pub fn allowed(&self, network: IpNet) -> Option<&Entry> {
        self.list.covering(network).filter(|entry| entry.treatment == Treatment::Allow)
    }

    /// What stands on the list for just this network.
    pub fn entry(&self, network: IpNet) -> Option<&Entry> {
        self.list.covering(network).filter(|entry| entry.network == network)
    }

    /// The key of `[xdp]` by which an entry has come onto the list, or "bans".
    pub fn list_of(&self, entry: &Entry) -> String {
        match entry.treatment {
            Treatment::Allow => "allow".to_owned(),
            Treatment::Deny => "deny".to_owned(),
            Treatment::Ban => "bans".to_owned(),
            Treatment::Class(own) => {
                let class = self.classes.get(usize::from(own));
                format!("classes.{}", class.map_or("", |class| &class.name))
            }
        }
    }

    /// What the list says of `peer` now.
    pub fn listed(&self, peer: IpAddr) -> Option<Treatment> {
        let entry = self.list.find(peer)?;
        // Control makes another list when an entry ends; this is for the moment until then.
        let ended = entry.until.is_some_and(|until| until <= unix_now());
        (!ended).then_some(entry.treatment)
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(settings: &Settings) -> Sources {
        let live = lists::live(&settings.list, 0);
        Sources::new(settings, &live, Arc::new(Counts::new(settings, 64).unwrap()))
    }

    fn settings(connections_max: u32, enforce: bool, list: &[(&str, Treatment)]) -> Settings {
        let class = Class { connections_max, enforce_connections: enforce, ..Class::default() };
        let other = Class { name: "other".to_owned(), connections_max: 1, ..class.clone() };
        let entry =
            |(line, treatment): &(&str, Treatment)| Entry::parse(line, *treatment, "here").unwrap();
        Settings {
            classes: vec![class, other],
            enforce_deny: enforce,
            list: list.iter().map(entry).collect(),
            ..Settings::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[track_caller]
    fn seat(verdict: Verdict) -> Option<Seat> {
        match verdict {
            Verdict::Enter(seat) => seat,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_source_may_have_so_many_open_and_another_as_many() {
        let sources = sources(&settings(2, true, &[]));
        let first = seat(sources.enter(ip("192.0.2.1"), 0)).unwrap();
        let second = seat(sources.enter(ip("192.0.2.1"), 0)).unwrap();
        let third = sources.enter(ip("192.0.2.1"), 0);
        assert!(matches!(third, Verdict::Refuse(Refusal::TooManyOpen)), "{third:?}");
        let other = seat(sources.enter(ip("192.0.2.2"), 0));
        drop(first);
        let again = seat(sources.enter(ip("192.0.2.1"), 0));
        assert!(other.is_some() && again.is_some());
        drop((second, again));
    }

    #[test]
    fn observing_lets_in_and_counts() {
        let sources = sources(&settings(1, false, &[("198.51.100.0/24", Treatment::Deny)]));
        let _first = seat(sources.enter(ip("2001:db8::1"), 0));
        let second = sources.enter(ip("2001:db8::2"), 0);
        assert!(matches!(second, Verdict::Observe(Refusal::TooManyOpen, Some(_))), "{second:?}");
        let denied = sources.enter(ip("198.51.100.1"), 0);
        assert!(matches!(denied, Verdict::Observe(Refusal::Denied, Some(_))), "{denied:?}");
    }

    #[test]
    fn who_is_on_a_list_that_is_observed_is_held_to_all_that_is_enforced() {
        let mut only_denied = settings(1, true, &[("192.0.2.0/24", Treatment::Deny)]);
        only_denied.enforce_deny = false;
        let sources = sources(&only_denied);
        let first = sources.enter(ip("192.0.2.1"), 0);
        assert!(matches!(first, Verdict::Observe(Refusal::Denied, Some(_))), "{first:?}");
        let second = sources.enter(ip("192.0.2.1"), 0);
        assert!(matches!(second, Verdict::Refuse(Refusal::TooManyOpen)), "{second:?}");
        sources.counts.ban(sources.counts.source(ip("192.0.2.2")), unix_now() + 60);
        let banned = sources.enter(ip("192.0.2.2"), 0);
        assert!(matches!(banned, Verdict::Refuse(Refusal::Banned)), "{banned:?}");
    }

    #[test]
    fn allowed_denied_banned_and_of_another_class() {
        let sources = sources(&settings(
            5,
            true,
            &[
                ("192.0.2.0/24", Treatment::Deny),
                ("192.0.2.7", Treatment::Allow),
                ("198.51.100.0/24", Treatment::Class(1)),
                ("203.0.113.0/24", Treatment::Ban),
            ],
        ));
        let denied = sources.enter(ip("192.0.2.1"), 0);
        assert!(matches!(denied, Verdict::Refuse(Refusal::Denied)), "{denied:?}");
        for _ in 0..9 {
            assert!(seat(sources.enter(ip("192.0.2.7"), 0)).is_none(), "not even counted");
        }
        let banned = sources.enter(ip("203.0.113.9"), 0);
        assert!(matches!(banned, Verdict::Refuse(Refusal::Banned)), "{banned:?}");
        assert!(sources.is_banned(ip("203.0.113.9")) && !sources.is_banned(ip("192.0.2.1")));
        let _one = seat(sources.enter(ip("198.51.100.1"), 0));
        let two = sources.enter(ip("198.51.100.1"), 0);
        assert!(matches!(two, Verdict::Refuse(Refusal::TooManyOpen)), "{two:?}");
    }

    #[test]
    fn a_banned_source_is_refused_until_its_ban_ends_unless_it_is_allowed() {
        let sources = sources(&settings(0, true, &[("192.0.2.0/24", Treatment::Allow)]));
        let now = unix_now();
        for address in ["198.51.100.1", "192.0.2.1"] {
            sources.counts.ban(sources.counts.source(ip(address)), now + 60);
        }
        let banned = sources.enter(ip("198.51.100.1"), 0);
        assert!(matches!(banned, Verdict::Refuse(Refusal::Banned)), "{banned:?}");
        assert!(sources.is_banned(ip("198.51.100.1")));
        assert!(seat(sources.enter(ip("192.0.2.1"), 0)).is_none());
        assert!(!sources.is_banned(ip("192.0.2.1")));

        sources.counts.ban(sources.counts.source(ip("198.51.100.1")), now);
        assert!(!sources.is_banned(ip("198.51.100.1")));
    }
}
