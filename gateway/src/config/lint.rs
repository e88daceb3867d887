//! What is right and still not what somebody may have meant.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use super::{Config, Listener, Policy, Route};
use crate::action::Action;
use crate::admission::{Entry, Treatment, lists};
use crate::policy;
use crate::routing::{HostPattern, PathPattern};
use crate::tls::{Identity, server};

/// How long before its end a certificate is worth a word: whoever renews it had time enough by then.
const EXPIRY_NOTICE: Duration = Duration::from_secs(14 * 86_400);

/// Networks that decide nothing are named up to here, and then counted.
const NETWORKS_NAMED_MAX: usize = 5;

impl Config {
    /// What a person should know of it at this time, a line each.
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let mut warnings = Vec::new();
        self.unused(&mut warnings);
        for (index, settings) in self.tls.iter().enumerate() {
            for identity in &settings.identities {
                let name = format!("tls.{}: {:?}", settings.name, identity.path);
                warnings.extend(validity(identity, now).map(|state| format!("{name} {state}")));
                warnings.extend(identity.flaw().map(|flaw| format!("{name}: the chain is {flaw}")));
                if self.is_offered(index) {
                    warnings.extend(self.needless_names(&name, identity));
                }
            }
            let over = settings.clients.iter().flat_map(|clients| clients.lists_over(now));
            warnings.extend(over.map(|path| {
                format!("tls.{}: {path:?} is out of date: every client is refused", settings.name)
            }));
        }
        for upstream in &self.upstreams {
            let own = upstream.tls.as_ref().and_then(|tls| tls.identity.as_ref());
            let state = own.and_then(|own| Some(format!("{:?} {}", own.path, validity(own, now)?)));
            warnings.extend(state.map(|state| format!("upstreams.{}.tls: {state}", upstream.name)));
        }
        self.needless_parts(&mut warnings);
        self.pointless_networks(u64::try_from(now).unwrap_or(0), &mut warnings);
        self.missing_names(&mut warnings);
        self.exposed_passwords(&mut warnings);
        self.credulous(&mut warnings);
        self.deaf_to_preflights(&mut warnings);
        self.misplaced(&mut warnings);
        self.nameless_overrides(&mut warnings);
        self.unreachable(&mut warnings);
        warnings
    }

    /// Parts of composed answers that are asked for nothing.
    fn needless_parts(&self, warnings: &mut Vec<String>) {
        for (index, route) in self.routes.iter().enumerate() {
            let Action::Compose(compose) = &route.action else { continue };
            for name in compose.needless() {
                let place = format!("routes[{index}].compose.parts.{name}");
                warnings.push(format!("{place}: nothing is made of its answer"));
            }
        }
    }

    fn unused(&self, warnings: &mut Vec<String>) {
        let routed: BTreeSet<_> = self.routes.iter().flat_map(Route::upstreams).collect();
        let listed = self.listeners.iter().flat_map(|listener| &listener.policies);
        let listed = listed.chain(self.routes.iter().flat_map(|route| &route.policies)).copied();
        let mut listed: BTreeSet<usize> = listed.collect();
        let combining: Vec<_> = listed.iter().filter_map(|at| self.policies.get(*at)).collect();
        let members = combining.iter().flat_map(|policy| policy.settings.members());
        listed.extend(
            members.filter_map(|member| {
                self.policies.iter().position(|policy| policy.name == *member)
            }),
        );
        let asked: BTreeSet<_> =
            self.policies.iter().filter_map(|policy| policy.settings.upstream()).collect();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            if !routed.contains(&index) && !asked.contains(&*upstream.name) {
                warnings.push(format!("upstreams.{}: no route leads there", upstream.name));
            }
        }
        for (index, settings) in self.tls.iter().enumerate() {
            if !self.is_offered(index) {
                warnings.push(format!("tls.{}: no listener speaks it", settings.name));
            }
        }
        for (index, policy) in self.policies.iter().enumerate() {
            if !listed.contains(&index) {
                warnings.push(format!("policies.{}: no listener or route lists it", policy.name));
            } else if policy.settings.kind() == "client_certificate"
                && !self.asks_for_certificates()
            {
                let name = &policy.name;
                warnings.push(format!(
                    "policies.{name}: no listener asks for certificates (client_ca)"
                ));
            }
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            if listener.tls.is_some()
                && listener.redirect.is_some()
                && !listener.trust.has_proxies()
            {
                warnings.push(format!("listeners[{index}].redirect: all its clients speak HTTPS"));
            }
        }
    }

    /// Passwords that anybody on the way can read.
    fn exposed_passwords(&self, warnings: &mut Vec<String>) {
        let is_exposed = |listener: &&Listener| {
            let is_plain = listener.tls.is_none() && listener.redirect.is_none();
            is_plain && !listener.trust.has_proxies() && !listener.address.ip().is_loopback()
        };
        let Some(listener) = self.listeners.iter().find(is_exposed) else { return };
        for Policy { name, settings } in &self.policies {
            if settings.kind() == "basic" {
                let address = listener.address;
                warnings.push(format!("policies.{name}: {address} takes passwords in plain text"));
            }
        }
    }

    /// Policies that believe more tokens than a person may think.
    fn credulous(&self, warnings: &mut Vec<String>) {
        for Policy { name, settings } in &self.policies {
            let policy::Settings::jwt(settings) = settings else { continue };
            for key in settings.loose() {
                warnings.push(format!(
                    "policies.{name}: without {key} it takes tokens that were not made for this"
                ));
            }
            let is_local = |host: &str| {
                let address: Option<IpAddr> = host.parse().ok();
                host == "localhost" || address.is_some_and(|address| address.is_loopback())
            };
            if let Some(url) = settings.remote().map(|remote| &remote.url)
                && !url.is_secure
                && !is_local(&url.host)
            {
                warnings.push(format!(
                    "policies.{name}.jwks_url: over plain HTTP anybody on the way can bring keys"
                ));
            }
        }
    }

    /// Limits of names that are not told apart by name.
    fn nameless_overrides(&self, warnings: &mut Vec<String>) {
        for Policy { name, settings } in &self.policies {
            if let policy::Settings::rate_limit(settings) = settings
                && settings.has_nameless_overrides()
            {
                warnings.push(format!(
                    "policies.{name}.overrides: are by name, and key has no \"identity\""
                ));
            }
        }
    }

    /// Routes with CORS that preflights never reach.
    fn deaf_to_preflights(&self, warnings: &mut Vec<String>) {
        let is_cors = |index: &usize| {
            self.policies.get(*index).is_some_and(|policy| policy.settings.kind() == "cors")
        };
        for (index, route) in self.routes.iter().enumerate() {
            let methods = &route.conditions.methods;
            let takes = methods.is_empty() || methods.iter().any(|method| method == "OPTIONS");
            if route.policies.iter().any(is_cors) && !takes {
                warnings.push(format!(
                    "routes[{index}].methods: without OPTIONS no preflight comes to its cors policy"
                ));
            }
        }
    }

    /// Routes that nothing is left for by those of higher priorities.
    fn unreachable(&self, warnings: &mut Vec<String>) {
        for (index, route) in self.routes.iter().enumerate() {
            let before = |other: &&Route| other.priority > route.priority && covers(other, route);
            if let Some(other) = self.routes.iter().position(|other| before(&other)) {
                warnings.push(format!("routes[{index}]: routes[{other}] takes all its requests"));
            }
        }
    }

    pub(super) fn asks_for_certificates(&self) -> bool {
        let asks = |index: &usize| self.tls.get(*index).is_some_and(|tls| tls.clients.is_some());
        self.listeners.iter().filter_map(|listener| listener.tls.as_ref()).any(asks)
    }

    fn is_offered(&self, tls: usize) -> bool {
        self.listeners.iter().any(|listener| listener.tls == Some(tls))
    }

    /// Names of a certificate that no route is for.
    fn needless_names(&self, identity: &str, certificate: &Identity) -> Option<String> {
        let is_routed = |name: &&String| self.routes.iter().any(|route| meets(&route.host, name));
        let needless: Vec<_> =
            certificate.names.iter().filter(|name| !is_routed(name)).cloned().collect();
        let names = needless.join(", ");
        (!needless.is_empty()).then(|| format!("{identity}: no route is for {names}"))
    }

    /// Networks on lists that decide nothing, and classes that hold nobody.
    fn pointless_networks(&self, now: u64, warnings: &mut Vec<String>) {
        let list = &self.sources.list;
        let live: HashSet<_> = lists::live(list, now).into_iter().map(shape).collect();
        let mut pointless = 0;
        for entry in list {
            let ended = entry.until.is_some_and(|until| until <= now);
            if !ended && live.contains(&shape(entry.clone())) {
                continue;
            }
            pointless += 1;
            if pointless <= NETWORKS_NAMED_MAX {
                let (origin, network) = (&entry.origin, entry.network);
                let why = if ended { "has ended" } else { "another entry has it decided" };
                warnings.push(format!("{origin}: {network}: {why}"));
            }
        }
        if pointless > NETWORKS_NAMED_MAX {
            let more = pointless - NETWORKS_NAMED_MAX;
            warnings.push(format!("{more} more networks on lists decide nothing"));
        }
        for (position, class) in self.sources.classes.iter().enumerate().skip(1) {
            let holds = |entry: &Entry| entry.treatment == Treatment::Class(position as u8);
            let used = list.iter().any(holds)
                || self.listeners.iter().any(|listener| usize::from(listener.class) == position);
            if !used {
                let name = &class.name;
                warnings.push(format!("xdp.classes.{name}: no listener and no network is of it"));
            }
        }
    }

    /// Hosts of routes that no certificate is for, where nobody can ask for them without.
    fn missing_names(&self, warnings: &mut Vec<String>) {
        let all_secure = self
            .listeners
            .iter()
            .all(|listener| listener.tls.is_some() || listener.redirect.is_some());
        let offered = || self.tls.iter().enumerate().filter(|(index, _)| self.is_offered(*index));
        if !all_secure || offered().next().is_none() {
            return;
        }
        for (index, Route { host, .. }) in self.routes.iter().enumerate() {
            let has = |(_, settings): (usize, &server::Settings)| {
                let mut names = settings.identities.iter().flat_map(|identity| &identity.names);
                names.any(|name| meets(host, name))
            };
            if *host != HostPattern::Any && !offered().any(has) {
                warnings.push(format!("routes[{index}].host: no certificate has the name"));
            }
        }
    }
}

/// What of an entry decides.
fn shape(entry: Entry) -> (IpNet, Treatment) {
    (entry.network, entry.treatment)
}

/// Whether one serves whatever the other could.
fn covers(route: &Route, other: &Route) -> bool {
    let host = match (&route.host, &other.host) {
        (HostPattern::Any, _) => true,
        (HostPattern::Wildcard(suffix), HostPattern::Exact(name) | HostPattern::Wildcard(name)) => {
            name.ends_with(suffix)
        }
        (host, other) => host == other,
    };
    let path = match (&route.path, &other.path) {
        (PathPattern::Prefix(prefix), PathPattern::Exact(path) | PathPattern::Prefix(path)) => {
            format!("{path}/").starts_with(prefix)
        }
        (PathPattern::Prefix(prefix), PathPattern::Pattern(_)) => prefix == "/",
        (path, other) => path == other,
    };
    host && path && route.conditions.count() == 0
}

fn validity(identity: &Identity, now: i64) -> Option<String> {
    let left = identity.not_after - now;
    if identity.not_before > now {
        Some("is not valid yet".to_owned())
    } else if left < 0 {
        Some("has expired".to_owned())
    } else if left < EXPIRY_NOTICE.as_secs() as i64 {
        Some(match (left + 86_399) / 86_400 {
            ..=1 => "expires within a day".to_owned(),
            days => format!("expires within {days} days"),
        })
    } else {
        None
    }
}

/// Whether a host may be asked for by a name of a certificate, whose wildcard is for one label
/// (RFC 9525 §6.3), unlike that of a route.
fn meets(host: &HostPattern, name: &str) -> bool {
    match (host, name.strip_prefix('*')) {
        (HostPattern::Any, _) => true,
        (HostPattern::Exact(host), None) => host == name,
        (HostPattern::Exact(host), Some(suffix)) => {
            host.strip_suffix(suffix).is_some_and(|label| !label.is_empty() && !label.contains('.'))
        }
        (HostPattern::Wildcard(suffix), None) => {
            name.len() > suffix.len() && name.ends_with(suffix)
        }
        (HostPattern::Wildcard(suffix), Some(name)) => {
            name.ends_with(suffix)
                || suffix.strip_suffix(name).is_some_and(|label| !label.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_may_leave_nothing() {
        let text = b"
            listeners = [{ address = '127.0.0.1:1' }]
            [[routes]]
            path = '/a/b'
            respond = {}
            [[routes]]
            host = 'x.example'
            path = '/a/*'
            respond = {}
            [[routes]]
            path = '/a/*'
            respond = {}
            priority = 1
            [[routes]]
            path = '/c/*'
            methods = ['GET']
            respond = {}
            priority = 1
            [[routes]]
            path = '/c/d'
            respond = {}
            policies = ['client_certificate']
        ";
        let config = super::super::check::check(text, &Default::default(), &[0]).unwrap();
        let expected = [
            "policies.client_certificate: no listener asks for certificates (client_ca)",
            "routes[0]: routes[2] takes all its requests",
            "routes[1]: routes[2] takes all its requests",
        ];
        assert_eq!(config.warnings(UNIX_EPOCH), expected);
    }

    #[test]
    fn preflights_need_a_route() {
        let text = b"
            listeners = [{ address = '127.0.0.1:1' }]
            policies.pages = { kind = 'cors', origins = ['*'] }
            [[routes]]
            path = '/a'
            methods = ['GET']
            policies = ['pages']
            respond = {}
            [[routes]]
            path = '/b'
            methods = ['GET', 'OPTIONS']
            policies = ['pages']
            respond = {}";
        let config = super::super::check::check(text, &Default::default(), &[0]).unwrap();
        let message = "routes[0].methods: without OPTIONS no preflight comes to its cors policy";
        assert_eq!(config.warnings(UNIX_EPOCH), [message]);
    }

    #[test]
    fn passwords_want_tls() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/examples/passwords.txt");
        let text = format!(
            "listeners = [{{ address = '127.0.0.1:1' }}, {{ address = '192.0.2.1:1' }}]
            policies.staff = {{ kind = 'basic', file = {file:?} }}
            routes = [{{ respond = {{}}, policies = ['staff'] }}]"
        );
        let load = |text: &str| {
            super::super::check::check(text.as_bytes(), &Default::default(), &[0]).unwrap()
        };
        let message = "policies.staff: 192.0.2.1:1 takes passwords in plain text";
        assert_eq!(load(&text).warnings(UNIX_EPOCH), [message]);
        let redirected = text.replace("192.0.2.1:1'", "192.0.2.1:1', redirect = 'https'");
        assert!(load(&redirected).warnings(UNIX_EPOCH).is_empty());
    }

    #[test]
    fn tokens_want_to_be_for_somebody() {
        let text = b"
            listeners = [{ address = '127.0.0.1:1' }]
            [policies.users]
            kind = 'jwt'
            algorithms = ['ES256']
            jwks_url = 'http://id.example.com/keys.json'
            audience = 'orders'
            [[routes]]
            policies = ['users']
            respond = {}
        ";
        let config = super::super::check::check(text, &Default::default(), &[0]).unwrap();
        let expected = [
            "policies.users: without issuer it takes tokens that were not made for this",
            "policies.users.jwks_url: over plain HTTP anybody on the way can bring keys",
        ];
        assert_eq!(config.warnings(UNIX_EPOCH), expected);
    }

    #[test]
    fn networks_that_decide_nothing_are_named() {
        let text = b"
            listeners = [{ address = '127.0.0.1:8080' }]
            [xdp]
            interfaces = ['eth0']
            allow = ['10.0.0.0/8']
            deny = ['10.1.0.0/16', '203.0.113.0/24 until=1970-01-01', '198.51.100.0/24']
            classes.some = {}
            [[routes]]
            respond = {}
        ";
        let config = super::super::check::check(text, &Default::default(), &[0]).unwrap();
        let expected = [
            "xdp.deny: 10.1.0.0/16: another entry has it decided",
            "xdp.deny: 203.0.113.0/24: has ended",
            "xdp.classes.some: no listener and no network is of it",
        ];
        assert_eq!(config.warnings(UNIX_EPOCH), expected);
    }

    #[test]
    fn names_meet_hosts() {
        for (host, name, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("a.example", "*.example", true),
            ("a.b.example", "*.example", false),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", true),
            ("*.example", "example", false),
            ("*.example", "*.example", true),
            ("*.example", "*.b.example", true),
            ("*.b.example", "*.example", true),
            ("*.b.example", "*.c.example", false),
        ] {
            assert_eq!(meets(&host.parse().unwrap(), name), expected, "{host} {name}");
        }
    }
}
