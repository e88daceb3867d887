//! What has changed, checked whole before anything of it counts.

use std::fmt::Display;

use super::resolver;
use crate::config::{self, Config};
use crate::upstream::Address;

/// Reads the configuration again, from the same file and flags as the first time.
pub type Load = Box<dyn Fn() -> Result<Config, config::Error> + Send + Sync>;

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// The files that TLS is set up from.
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
    /// The addresses of each upstream, unless they are as before.
    pub endpoints: Option<Vec<Vec<Address>>>,
}

/// Looks at what may have changed. Blocks for as long as that takes.
pub(super) fn look(change: Change, load: &Load, running: &Config) -> Found {
    match change {
        Change::Files => {
            let mut wrong = Vec::new();
            let config = running.reread_tls_files(&mut wrong);
            let changed = config != *running;
            let next = changed.then_some(Candidate { config, endpoints: None });
            Found { change, next, wrong }
        }
        Change::Configuration => match prepare(load, running) {
            Ok(next) => Found { change, next: Some(next), wrong: Vec::new() },
            Err(wrong) => {
                Found { change, next: None, wrong: wrong.lines().map(str::to_owned).collect() }
            }
        },
    }
}

/// Loads and checks a configuration that is to follow `running`, and looks up its endpoints.
fn prepare(load: &Load, running: &Config) -> Result<Candidate, String> {
    let config = load().map_err(|error| error.to_string())?;
    let fixed = [
        ("runtime.cores", config.cores == running.cores),
        ("runtime.driver", config.driver == running.driver),
        ("limits.connections", config.limits.connections == running.limits.connections),
        ("listeners (their addresses)", addresses(&config).eq(addresses(running))),
        ("admin", config.admin == running.admin),
        ("access_log", config.access_log == running.access_log),
        ("xdp", config.xdp == running.xdp),
    ];
    let changed: Vec<_> = fixed.iter().filter(|(_, same)| !same).map(|(key, _)| *key).collect();
    if !changed.is_empty() {
        return Err(format!("changed, which takes a restart: {}", changed.join(", ")));
    }
    let endpoints = resolver::resolve(&config.upstreams).map_err(|error| error.to_string())?;
    Ok(Candidate { config, endpoints: Some(endpoints) })
}

fn addresses(config: &Config) -> impl Iterator<Item = impl Display + PartialEq> {
    config.listeners.iter().map(|listener| listener.address)
}
