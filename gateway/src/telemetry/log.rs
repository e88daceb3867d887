//! What the gateway says about itself: to standard error, for people. Standard output belongs to
//! the access log.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Says how much to log where `--log-level` does not.
const VARIABLE: &str = "GATEWAY_LOG";

/// A level that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownLevel(String);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log level {:?}: expected error, warn, info, debug, trace or off, or a level by module \
             such as \"info,gateway::xdp=debug\"",
            self.0
        )
    }
}

impl std::error::Error for UnknownLevel {}

/// Starts logging: at `level` if given, else what `GATEWAY_LOG` says, else `info`.
///
/// # Errors
/// When the level is none.
pub fn start(level: Option<&str>) -> Result<(), UnknownLevel> {
    let from_environment = env::var(VARIABLE).ok();
    let level = level.or(from_environment.as_deref()).unwrap_or("info");
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .with_target(false);
    // A program that brought its own subscriber, such as a test, keeps it.
    let _ = tracing_subscriber::registry().with(lines).with(targets(level)?).try_init();
    Ok(())
}

/// `Targets` takes a word it does not know for a module's name and would silence all others, and
/// nothing at all for `error`; here a directive without `=` must be a level.
fn targets(level: &str) -> Result<Targets, UnknownLevel> {
    let unknown = || UnknownLevel(level.to_owned());
    let misspelt = |directive: &str| {
        let directive = directive.trim();
        !directive.contains('=')
            && (directive.is_empty() || LevelFilter::from_str(directive).is_err())
    };
    if level.split(',').any(misspelt) {
        return Err(unknown());
    }
    level.parse().map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood() {
        for level in ["error", "warn", "INFO", "debug", "trace", "off", "info,gateway::xdp=debug"] {
            assert!(targets(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for level in ["inof", "", "info,", "gateway=loud", "info,gateway"] {
            assert_eq!(targets(level), Err(UnknownLevel(level.to_owned())));
        }
    }
}
