//! Names to addresses, off the workers: by /etc/hosts and DNS, and again whenever their time to live
//! is over.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::Event;
use crate::config::{Config, Dns};
use crate::upstream::{Address, Health, Spec};

/// How long all names together may take when a configuration begins to count. Who takes longer is looked
/// up on.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);

/// When a name that could not be looked up is looked up again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Looks names up as one configuration asks for it.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    lookups: TokioResolver,
    ttl: (Duration, Duration),
}

/// What came of looking a name up.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// All there are, in an order of their own.
    pub addresses: Result<Vec<IpAddr>, Failure>,
    /// When to ask again.
    again_in: Duration,
}

/// Why there are no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A server says that there are none.
    Absent,
    /// Nobody says anything.
    Unknown(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it has no address"),
            Self::Unknown(reason) => f.write_str(reason),
        }
    }
}

impl Resolver {
    /// One that reads /etc/hosts and, where the configuration names no servers, /etc/resolv.conf.
    pub fn new(settings: &Dns) -> Result<Self, String> {
        let provider = TokioRuntimeProvider::default();
        let given = |servers: &[SocketAddr]| {
            let servers = servers.iter().map(server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, provider.clone())
        };
        let mut builder = match &settings.servers[..] {
            [] => TokioResolver::builder(provider.clone()).unwrap_or_else(|error| {
                tracing::warn!("dns: no server in /etc/resolv.conf, only /etc/hosts: {error}");
                given(&[])
            }),
            servers => given(servers),
        };
        let options = builder.options_mut();
        options.timeout = settings.timeout;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Always;
        // What is asked for again is to be asked for.
        options.cache_size = 0;
        let lookups = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { lookups, ttl: settings.ttl })
    }

    /// The addresses of a name.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.look_up(name).await.addresses.map_err(|failure| failure.to_string())
    }

    async fn look_up(&self, name: &str) -> Answer {
        let found = self.lookups.lookup_ip(name).await;
        let (addresses, again_in) = match found {
            Ok(found) => {
                let left = found.valid_until().saturating_duration_since(Instant::now());
                let mut addresses: Vec<IpAddr> = found.iter().collect();
                addresses.sort_unstable();
                addresses.dedup();
                (Ok(addresses), left.clamp(self.ttl.0, self.ttl.1))
            }
            Err(error) => (Err(failure(&error)), RETRY_INTERVAL.min(self.ttl.1)),
        };
        Answer { addresses, again_in }
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn failure(error: &NetError) -> Failure {
    match error.is_no_records_found() {
        true => Failure::Absent,
        false => Failure::Unknown(error.to_string().replace('\n', " ")),
    }
}

/// What a configuration's names are found to be when it is to begin to count.
#[derive(Debug)]
pub(super) struct Found {
    /// Absent where there are no names.
    resolver: Option<Resolver>,
    answers: HashMap<String, Answer>,
}

/// Looks up all names of a configuration at once.
///
/// # Errors
/// When that cannot be done at all, or one has no address and the configuration asks for all.
pub(super) async fn look_up(config: &Config) -> Result<Found, String> {
    let names = names(&config.upstreams);
    if names.is_empty() {
        return Ok(Found { resolver: None, answers: HashMap::new() });
    }
    let resolver = Resolver::new(&config.dns).map_err(|error| format!("dns: {error}"))?;
    let late = || Answer {
        addresses: Err(Failure::Unknown("no answer in time".to_owned())),
        again_in: Duration::ZERO,
    };
    let answers = names.into_iter().map(async |name| {
        let answer = tokio::time::timeout(FIRST_TIMEOUT, resolver.look_up(name)).await;
        (name.to_owned(), answer.unwrap_or_else(|_| late()))
    });
    let answers: HashMap<_, _> = join_all(answers).await.into_iter().collect();
    if config.dns.required {
        for (name, answer) in &answers {
            if let Err(failure) = &answer.addresses {
                return Err(format!(
                    "cannot resolve {name:?}, and dns.required is true: {failure}"
                ));
            }
        }
    }
    Ok(Found { resolver: Some(resolver), answers })
}

/// The hosts that are no addresses.
fn names(upstreams: &[Spec]) -> HashSet<&str> {
    let endpoints = upstreams.iter().flat_map(|upstream| &upstream.endpoints);
    let hosts = endpoints.map(|endpoint| endpoint.host.as_str());
    hosts.filter(|host| host.parse::<IpAddr>().is_err()).collect()
}

/// All that is known of names and endpoints, from one configuration to the next.
#[derive(Debug)]
pub(super) struct Names {
    known: HashMap<String, Known>,
    /// By upstream and address.
    health: HashMap<(String, SocketAddr), Health>,
    events: UnboundedSender<Event>,
}

/// What is known of a name.
#[derive(Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    /// Since when it has none.
    absent_since: Option<Instant>,
    /// What was wrong the last time, which is told once.
    failure: Option<Failure>,
    following: JoinHandle<()>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Names {
    pub fn new(events: UnboundedSender<Event>) -> Self {
        Self { known: HashMap::new(), health: HashMap::new(), events }
    }

    /// A configuration begins to count: its names are followed, others no longer.
    pub fn follow(&mut self, config: &Config, found: Found) {
        let names = names(&config.upstreams);
        self.known.retain(|name, _| names.contains(name.as_str()));
        let Some(resolver) = found.resolver else { return };
        for (name, answer) in found.answers {
            let following = follow(&resolver, &name, answer.again_in, &self.events);
            match self.known.get_mut(&name) {
                Some(known) => std::mem::replace(&mut known.following, following).abort(),
                None => {
                    let known = Known {
                        addresses: Vec::new(),
                        absent_since: None,
                        failure: None,
                        following,
                    };
                    self.known.insert(name.clone(), known);
                }
            }
            self.hear(&name, answer, config.dns.hold);
        }
    }

    /// A name has been looked up. True when it has other addresses from now on.
    pub fn hear(&mut self, name: &str, answer: Answer, hold: Duration) -> bool {
        let Some(known) = self.known.get_mut(name) else { return false };
        known.hear(name, answer, hold)
    }

    /// The addresses of each upstream, in the order of `upstreams`. Those of a name are endpoints of
    /// their own; a name without any has none.
    pub fn endpoints(&mut self, upstreams: &[Spec]) -> Vec<Vec<Address>> {
        let mut health = HashMap::new();
        let endpoints = upstreams
            .iter()
            .map(|upstream| {
                let mut addresses: Vec<Address> = Vec::new();
                for endpoint in &upstream.endpoints {
                    let literal: Option<IpAddr> = endpoint.host.parse().ok();
                    let known = self.known.get(&endpoint.host);
                    let known = known.map_or(&[][..], |known| &known.addresses);
                    for ip in literal.as_slice().iter().chain(known) {
                        let socket = SocketAddr::new(*ip, endpoint.port);
                        let key = (upstream.name.clone(), socket);
                        let own = self.health.get(&key).cloned().unwrap_or_default();
                        addresses.push(Address {
                            socket,
                            host: endpoint.host.clone(),
                            weight: endpoint.weight,
                            backup: endpoint.backup,
                            health: health.entry(key).or_insert(own).clone(),
                        });
                    }
                }
                addresses
            })
            .collect();
        self.health = health;
        endpoints
    }
}

impl Known {
    fn hear(&mut self, name: &str, answer: Answer, hold: Duration) -> bool {
        let failure = match answer.addresses {
            Ok(addresses) => {
                self.absent_since = None;
                let changed = self.addresses != addresses;
                if self.failure.take().is_some() || changed {
                    tracing::info!("{name} is {addresses:?}");
                }
                self.addresses = addresses;
                return changed;
            }
            Err(failure) => failure,
        };
        // Whoever says nothing does not say that there are none.
        self.absent_since = match (&failure, self.absent_since) {
            (Failure::Absent, None) => Some(Instant::now()),
            (Failure::Absent, since) => since,
            (Failure::Unknown(_), _) => None,
        };
        let gone = self.absent_since.is_some_and(|since| since.elapsed() >= hold);
        let changed = gone && !self.addresses.is_empty();
        if gone {
            self.addresses.clear();
        }
        if changed || self.failure.as_ref() != Some(&failure) {
            let left = match self.addresses.len() {
                0 => "requests for it get 503".to_owned(),
                left => format!("the {left} addresses it had stay in use"),
            };
            tracing::warn!("cannot resolve {name:?}: {failure}; {left}");
            self.failure = Some(failure);
        }
        changed
    }
}

/// Looks a name up again and again.
fn follow(
    resolver: &Resolver,
    name: &str,
    mut again_in: Duration,
    events: &UnboundedSender<Event>,
) -> JoinHandle<()> {
    let (resolver, name, events) = (resolver.clone(), name.to_owned(), events.clone());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(again_in).await;
            let answer = resolver.look_up(&name).await;
            again_in = answer.again_in;
            if events.send(Event::Resolved { name: name.clone(), answer }).is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::EndpointSpec;
    use tokio::sync::mpsc::unbounded_channel;

    fn config(upstreams: &[(&str, &[&str])]) -> Config {
        let mut config = crate::control::tests::config("127.0.0.1:0".parse().unwrap(), None);
        for (name, hosts) in upstreams {
            let endpoints = hosts.iter().map(|host| EndpointSpec {
                host: (*host).to_owned(),
                port: 9001,
                weight: 1,
                backup: false,
            });
            config.upstreams.push(Spec::of(name, endpoints.collect()));
        }
        config
    }

    fn sockets(names: &mut Names, config: &Config) -> Vec<Vec<String>> {
        let text = |address: &Address| address.socket.to_string();
        let all = names.endpoints(&config.upstreams);
        all.iter().map(|one| one.iter().map(text).collect()).collect()
    }

    fn known(addresses: &[&str]) -> Answer {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Answer { addresses: Ok(addresses), again_in: Duration::from_secs(1) }
    }

    fn failed(failure: Failure) -> Answer {
        Answer { addresses: Err(failure), again_in: Duration::from_secs(1) }
    }

    #[tokio::test]
    async fn addresses_need_no_resolver_and_keep_their_order() {
        let config = config(&[("a", &["192.0.2.2", "::1"]), ("b", &["192.0.2.1"])]);
        let mut names = Names::new(unbounded_channel().0);
        names.follow(&config, look_up(&config).await.unwrap());
        let expected = [vec!["192.0.2.2:9001", "[::1]:9001"], vec!["192.0.2.1:9001"]];
        assert_eq!(sockets(&mut names, &config), expected);
    }

    #[tokio::test]
    async fn what_is_known_of_an_endpoint_outlives_its_neighbours() {
        let config = config(&[("a", &["name.test"]), ("b", &["name.test"])]);
        let mut names = Names::new(unbounded_channel().0);
        let resolver = Resolver::new(&Dns::default()).ok();
        let answers = [("name.test".to_owned(), known(&["192.0.2.1", "192.0.2.2"]))].into();
        names.follow(&config, Found { resolver, answers });
        let before = names.endpoints(&config.upstreams);
        before[0][1].health.set_down();
        let hold = Duration::ZERO;
        assert!(names.hear("name.test", known(&["192.0.2.2", "192.0.2.3"]), hold));
        assert!(!names.hear("name.test", known(&["192.0.2.2", "192.0.2.3"]), hold));
        let after = names.endpoints(&config.upstreams);
        assert_eq!(before[0][1], after[0][0]);
        assert!(!after[0][0].health.is_up() && after[0][1].health.is_up());
        assert!(after[1][0].health.is_up(), "another upstream may find otherwise");
    }

    #[tokio::test]
    async fn silence_is_not_absence() {
        let config = config(&[("a", &["name.test"])]);
        let mut names = Names::new(unbounded_channel().0);
        let resolver = Resolver::new(&Dns::default()).ok();
        let answers = [("name.test".to_owned(), known(&["192.0.2.1"]))].into();
        names.follow(&config, Found { resolver, answers });
        let silence = || failed(Failure::Unknown("nobody answers".to_owned()));
        assert!(!names.hear("name.test", silence(), Duration::ZERO));
        assert!(!names.hear("name.test", failed(Failure::Absent), Duration::from_secs(3600)));
        assert_eq!(sockets(&mut names, &config), [["192.0.2.1:9001"]]);
        assert!(names.hear("name.test", failed(Failure::Absent), Duration::ZERO));
        assert!(sockets(&mut names, &config)[0].is_empty());
        assert!(!names.hear("other.test", known(&["192.0.2.9"]), Duration::ZERO));
    }

    #[tokio::test]
    async fn localhost_is_known_everywhere() {
        let config = config(&[("a", &["localhost"])]);
        let found = look_up(&config).await.unwrap();
        let addresses = found.answers["localhost"].addresses.clone().unwrap();
        assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback));
    }
}
