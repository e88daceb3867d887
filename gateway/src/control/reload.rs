//! What has changed, checked whole before anything of it counts.

#![expect(clippy::disallowed_types, reason = "files are read on a thread that may block")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::listen::{self, Group};
use super::{Error, key_sets, resolver};
use crate::config::{self, Config};

/// Reads the configuration again, from the same file and flags as the first time.
pub type Load = Box<dyn Fn() -> Result<Config, config::Error> + Send + Sync>;

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// The files that are watched.
    Files,
    /// Everything.
    Configuration,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub change: Change,
    /// What is to be served by from now on; `None` for what is served by already.
    pub next: Option<Candidate>,
    /// What is wrong and does not count, a line each.
    pub wrong: Vec<String>,
}

/// A configuration that can take the place of the running one.
#[derive(Debug)]
pub(super) struct Candidate {
    pub config: Config,
    /// The sockets of its new listeners, with their positions among all of its listeners.
    pub groups: Vec<(usize, Group)>,
    /// What its names are, unless they are as before.
    pub names: Option<resolver::Found>,
}

/// Looks at what may have changed.
pub(super) async fn look(change: Change, load: Arc<Load>, running: Arc<Config>) -> Found {
    // Reading files blocks.
    let known = Arc::clone(&running);
    let looked = tokio::task::spawn_blocking(move || read(change, &load, &known)).await;
    let mut found = looked.unwrap_or_else(|error| refused(change, &error.to_string()));
    if let (Change::Configuration, Some(next)) = (change, &mut found.next) {
        match resolver::look_up(&next.config).await {
            Ok(names) => next.names = Some(names),
            Err(wrong) => return refused(change, &wrong),
        }
        if let Err(wrong) = key_sets::look_up(&next.config).await {
            return refused(change, &wrong);
        }
        // Last, because clients may connect from here on.
        match bind_new(&next.config, &running) {
            Ok(groups) => next.groups = groups,
            Err(wrong) => return refused(change, &wrong),
        }
    }
    found
}

impl Found {
    /// The same when the gateway has begun to drain meanwhile.
    pub fn too_late(&self) -> Self {
        refused(self.change, "the gateway is draining")
    }
}

fn refused(change: Change, wrong: &str) -> Found {
    Found { change, next: None, wrong: wrong.lines().map(str::to_owned).collect() }
}

fn read(change: Change, load: &Load, running: &Config) -> Found {
    match change {
        Change::Files => {
            let mut wrong = Vec::new();
            let config = running.reread_files(&mut wrong);
            let changed = config != *running;
            let next = changed.then_some(Candidate { config, groups: Vec::new(), names: None });
            Found { change, next, wrong }
        }
        Change::Configuration => match prepare(load, running) {
            Ok(next) => Found { change, next: Some(next), wrong: Vec::new() },
            Err(wrong) => refused(change, &wrong),
        },
    }
}

/// Loads and checks a configuration that is to follow `running`.
fn prepare(load: &Load, running: &Config) -> Result<Candidate, String> {
    let config = load().map_err(|error| error.to_string())?;
    let fixed = [
        ("runtime.cores", config.cores == running.cores),
        ("runtime.driver", config.driver == running.driver),
        ("limits.connections", config.limits.connections == running.limits.connections),
        ("admin", config.admin == running.admin),
        ("admin.socket", config.admin_socket == running.admin_socket),
        ("access_log", config.access_log == running.access_log),
        (
            "xdp (interfaces, mode, required, table, on_exit, pin, object)",
            config.xdp == running.xdp,
        ),
        ("xdp.ipv4_prefix", config.sources.ipv4_prefix == running.sources.ipv4_prefix),
        ("xdp.ipv6_prefix", config.sources.ipv6_prefix == running.sources.ipv6_prefix),
    ];
    let changed: Vec<_> = fixed.iter().filter(|(_, same)| !same).map(|(key, _)| *key).collect();
    if !changed.is_empty() {
        return Err(format!("changed, which takes a restart: {}", changed.join(", ")));
    }
    Ok(Candidate { config, groups: Vec::new(), names: None })
}

/// Binds the listeners that `running` does not have: all of them, or none.
fn bind_new(config: &Config, running: &Config) -> Result<Vec<(usize, Group)>, String> {
    let addresses = running.listeners.iter().map(|listener| listener.address);
    let known = matched(config, addresses.collect());
    let new = config.listeners.iter().enumerate().zip(known).filter(|(_, known)| known.is_none());
    new.map(|((position, listener), _)| {
        let address = listener.address;
        let group = listen::bind(address, config.cores.len());
        group.map(|group| (position, group)).map_err(|source| {
            let in_use = source.kind() == io::ErrorKind::AddrInUse;
            match running.listeners.iter().find(|own| in_use && overlap(own.address, address)) {
                Some(own) => format!(
                    "listen {address}: {} overlaps and is still listened on; reload without that one first",
                    own.address
                ),
                None => Error::Listen { address, source }.to_string(),
            }
        })
    })
    .collect()
}

/// Whether the kernel lets only one of two addresses be listened on; IPv6 sockets take no IPv4.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// For each listener of a configuration, which of these addresses is its own, if any is. Each is one
/// listener's only, as several may ask for any free port.
pub(super) fn matched(config: &Config, addresses: Vec<SocketAddr>) -> Vec<Option<usize>> {
    let mut left: Vec<_> = addresses.into_iter().map(Some).collect();
    let own = config.listeners.iter().map(|listener| {
        let at = left.iter().position(|address| *address == Some(listener.address))?;
        left.get_mut(at).and_then(Option::take).map(|_| at)
    });
    own.collect()
}
