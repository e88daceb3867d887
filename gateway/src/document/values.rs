//! Values that are no quantities: numbers, words, names, addresses, CPUs.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use super::problem::shown;
use super::value::Kind;
use crate::routing;

/// Bytes of an upstream's name: it becomes a metric's label.
const NAME_BYTES_MAX: usize = 64;

pub(crate) fn text(kind: &Kind) -> Result<&str, String> {
    match kind {
        Kind::Text(text) => Ok(text),
        other => Err(format!("must be a string, is {}", other.name())),
    }
}

pub(crate) fn boolean(kind: &Kind) -> Result<bool, String> {
    match kind {
        Kind::Boolean(boolean) => Ok(*boolean),
        other => Err(format!("must be true or false, is {}", other.name())),
    }
}

/// As whatever integer the range fits in.
pub(crate) fn integer<T: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&Kind) -> Result<T, String> {
    move |kind| {
        let expected = format!("must be a whole number, {} to {}", range.start(), range.end());
        match kind {
            Kind::Integer(integer) if range.contains(integer) => {
                T::try_from(*integer).map_err(|_| expected)
            }
            Kind::Integer(_) => Err(expected),
            other => Err(format!("{expected}, is {}", other.name())),
        }
    }
}

/// One of the words, as what it stands for.
pub(crate) fn word<T: Clone>(words: &[(&str, T)]) -> impl Fn(&Kind) -> Result<T, String> {
    move |kind| {
        let expected = || {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            words.join(", ")
        };
        let text =
            text(kind).map_err(|_| format!("must be one of {}, is {}", expected(), kind.name()))?;
        let found = words.iter().find(|(word, _)| *word == text);
        found
            .map(|(_, meaning)| meaning.clone())
            .ok_or_else(|| format!("{} is none of {}", shown(text), expected()))
    }
}

/// What reads itself from a string.
pub(crate) fn parsed<T: FromStr<Err: Display>>(kind: &Kind) -> Result<T, String> {
    text(kind)?.parse().map_err(|error: T::Err| error.to_string())
}

pub(crate) fn path(kind: &Kind) -> Result<PathBuf, String> {
    match text(kind)? {
        "" => Err("is empty: write a path".to_owned()),
        path if path.contains('\0') => Err("a path has no NUL".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

/// `"10.0.0.0/8"`, or one address.
pub(crate) fn network(kind: &Kind) -> Result<IpNet, String> {
    network_of(text(kind)?)
}

/// The same of a text.
pub(crate) fn network_of(text: &str) -> Result<IpNet, String> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let wrong = || format!("{} is no network: write \"10.0.0.0/8\" or an address", shown(text));
    let network: IpNet = network.ok_or_else(wrong)?;
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(format!("{network} has bits behind its prefix: write \"{whole}\"")),
    }
}

pub(crate) fn address(kind: &Kind) -> Result<SocketAddr, String> {
    let text = text(kind)?;
    let why = |host: &str, port: &str| match host {
        "" if port.parse::<u16>().is_ok() => {
            format!("write \"0.0.0.0:{port}\" or \"[::]:{port}\" for all this machine has")
        }
        _ if host.parse::<IpAddr>().is_ok() => "the port must be 0 to 65535".to_owned(),
        _ if routing::is_name(host) => "write the IP address in place of the name".to_owned(),
        _ => "write \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned(),
    };
    text.parse().map_err(|_| {
        let (host, port) = text.rsplit_once(':').unwrap_or(("/", ""));
        format!("{} is not an address: {}", shown(text), why(host, port))
    })
}

/// What may stand in `[upstreams.NAME]`.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(format!(
            "{} is not a name: use 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, \"-\", \"_\" and \".\"",
            shown(name)
        )),
    }
}

/// The value read from `kind`, unless it was there before.
pub(crate) fn once<T: Clone + Eq + Hash>(
    seen: &mut HashSet<T>,
    value: T,
    kind: &Kind,
) -> Result<T, String> {
    match seen.insert(value.clone()) {
        true => Ok(value),
        false => Err(format!("{} is there already", shown(text(kind)?))),
    }
}
