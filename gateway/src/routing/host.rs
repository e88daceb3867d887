//! Hosts: what a route may ask of them, and how a request's host is made comparable.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What a route asks of the request's authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host, or none.
    Any,
    /// This name, lower case, without port.
    Exact(String),
    /// Any name that ends in this suffix, which begins with a dot: `*.example.com` is `.example.com`.
    Wildcard(String),
}

/// Bytes of the longest name (RFC 1035 §2.3.4), without the root's dot.
pub(super) const NAME_BYTES_MAX: usize = 253;

/// Bytes of one label (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// As a configuration has it.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        if let Some(suffix) = name.strip_prefix('*').filter(|rest| rest.starts_with('.')) {
            return match suffix.strip_prefix('.').is_some_and(is_name) {
                true => Ok(Self::Wildcard(suffix.to_owned())),
                false => Err(format!("{text:?} is not a wildcard: write \"*.example.com\"")),
            };
        }
        if is_name(name) || is_bracketed_ipv6(name) {
            return Ok(Self::Exact(name.to_owned()));
        }
        Err(match name {
            "*" => "leave host out to serve every host".to_owned(),
            _ if name.contains('*') => {
                format!(
                    "{text:?}: a \"*\" stands only for whole labels in front: \"*.example.com\""
                )
            }
            _ if name.contains("://") || name.contains('/') => {
                format!(
                    "{text:?}: write only the name, without scheme or path: \"api.example.com\""
                )
            }
            _ if name.rsplit_once(':').is_some_and(|(name, _)| is_name(name)) => {
                format!("{text:?}: write the name without a port")
            }
            _ if !name.is_ascii() => {
                format!(
                    "{text:?}: write the name in its ASCII form, as in \"xn--bcher-kva.example\""
                )
            }
            _ => format!("{text:?} is not a host: write \"api.example.com\" or \"*.example.com\""),
        })
    }
}

/// Whether `text` is a DNS name or an IPv4 address. Underscores are no part of host names but
/// common in private ones. What ends in a number is an address or nothing (URL standard §3.5).
pub fn is_name(text: &str) -> bool {
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= NAME_BYTES_MAX
        && text.split('.').all(is_label)
        && (!text.rsplit('.').next().is_some_and(numeric) || text.parse::<Ipv4Addr>().is_ok())
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_bracketed_ipv6(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

/// A request's host as the table holds names: lower case, without the root's dot. `buffer` is
/// used when a letter has to be lowered. `None` if no pattern can match, as no name is that long.
pub(super) fn normal<'a>(host: &'a [u8], buffer: &'a mut [u8; NAME_BYTES_MAX]) -> Option<&'a [u8]> {
    let host = host.strip_suffix(b".").unwrap_or(host);
    let (lowered, _) = buffer.split_at_mut_checked(host.len())?;
    if !host.iter().any(u8::is_ascii_uppercase) {
        return Some(host);
    }
    lowered.copy_from_slice(host);
    lowered.make_ascii_lowercase();
    Some(lowered)
}

/// The last `length` bytes of `host`, if they begin at a dot that has a label before it.
pub(super) fn proper_suffix(host: &[u8], length: usize) -> Option<&[u8]> {
    let start = host.len().checked_sub(length).filter(|&start| start > 0)?;
    host.get(start..).filter(|suffix| suffix.starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts() {
        let exact = |name: &str| Ok(HostPattern::Exact(name.to_owned()));
        assert_eq!("API.Example.com.".parse(), exact("api.example.com"));
        assert_eq!("localhost".parse(), exact("localhost"));
        assert_eq!("127.0.0.1".parse(), exact("127.0.0.1"));
        assert_eq!("[::1]".parse(), exact("[::1]"));
        assert_eq!("my_service".parse(), exact("my_service"));
        assert_eq!("*.A.b".parse(), Ok(HostPattern::Wildcard(".a.b".to_owned())));
    }

    #[test]
    fn refuses_what_no_request_could_match() {
        let long = format!("{}.com", "a".repeat(64));
        for wrong in [
            "",
            ".",
            "*",
            "*.",
            "*x.com",
            "a.*.com",
            "**.com",
            "a..b",
            "-a.com",
            "a-.com",
            "a b",
            "a.com:80",
            "http://a.com",
            "a/b",
            "bücher.example",
            "1.2.3.400",
            "[::1",
            "::1",
            "a\0b",
            &long,
        ] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong:?}");
        }
    }
}
