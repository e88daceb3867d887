//! A changed configuration, checked whole before anything of it counts.

#![expect(clippy::disallowed_types, reason = "one configuration serves every worker")]

use std::fmt::Display;
use std::sync::Arc;

use super::resolver;
use crate::config::{self, Config};
use crate::worker::Generation;

/// Reads the configuration again, from the same file and flags as the first time.
pub type Load = Box<dyn Fn() -> Result<Config, config::Error> + Send + Sync>;

/// Loads and checks a configuration that is to follow `running`, and looks up its endpoints. Blocks
/// for as long as that takes.
///
/// # Errors
/// Why it cannot take the place of the running one, a line each.
pub(super) fn prepare(load: &Load, running: &Config) -> Result<Generation, String> {
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
    Ok(Generation { config: Arc::new(config), endpoints: Arc::new(endpoints) })
}

fn addresses(config: &Config) -> impl Iterator<Item = impl Display + PartialEq> {
    config.listeners.iter().map(|listener| listener.address)
}
