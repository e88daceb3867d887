//! What proxies in front of the gateway say about a client: X-Forwarded-For and its kin, or
//! Forwarded (RFC 7239). Only asked about a sender that is trusted; of the chain it names, the
//! first address from the right that is not trusted is the client, for whatever stands left of it
//! was written by somebody nobody vouches for.

use std::net::IpAddr;

use super::head::{Field, values};
use super::headers::{Name, members, trim_ows};
use super::target;

/// Which field trusted proxies maintain. The other may be what a client sent through them, so it is
/// never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// X-Forwarded-For, -Proto and -Host.
    #[default]
    XForwarded,
    /// Forwarded.
    Forwarded,
}

/// What is believed about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Its address and those of the proxies behind it, in the order a request took, comma-separated.
    pub chain: String,
    /// What it used to reach the first trusted proxy, where that is said.
    pub scheme: Option<&'static str>,
    /// The host it asked that proxy for, where that is said.
    pub host: Option<Vec<u8>>,
}

/// Proxies looked at, from the right.
const HOPS_MAX: usize = 32;

/// What the fields of a request say that `sender`, who is trusted, has passed on.
pub fn client(
    fields: &[Field],
    bytes: &[u8],
    source: Source,
    sender: IpAddr,
    trusts: impl Fn(IpAddr) -> bool,
) -> Client {
    let mut hops = vec![sender];
    let (mut scheme, mut host) = (None, None);
    match source {
        Source::XForwarded => {
            let all: Vec<_> =
                values(fields, bytes, Name::XForwardedFor).flat_map(members).collect();
            let last = |name| values(fields, bytes, name).flat_map(members).last();
            scheme = last(Name::XForwardedProto).and_then(known_scheme);
            host = last(Name::XForwardedHost).map(<[u8]>::to_vec);
            for member in all.iter().rev().take(HOPS_MAX) {
                let Some(address) = node(member) else { break };
                hops.push(address);
                if !trusts(address) {
                    break;
                }
            }
        }
        Source::Forwarded => {
            let all: Vec<_> = values(fields, bytes, Name::Forwarded)
                .flat_map(|value| split(value, b','))
                .collect();
            for element in all.iter().rev().take(HOPS_MAX) {
                let Some(address) = parameter(element, b"for").as_deref().and_then(node) else {
                    break;
                };
                // Who vouches for this element vouches for all of it.
                scheme = parameter(element, b"proto").as_deref().and_then(known_scheme);
                host = parameter(element, b"host");
                hops.push(address);
                if !trusts(address) {
                    break;
                }
            }
        }
    }
    build(&hops, scheme, host)
}

fn build(hops: &[IpAddr], scheme: Option<&'static str>, host: Option<Vec<u8>>) -> Client {
    let chain: Vec<_> = hops.iter().rev().map(IpAddr::to_string).collect();
    Client {
        address: hops.last().copied().unwrap_or(IpAddr::from([0; 4])),
        chain: chain.join(", "),
        scheme,
        host: host.filter(|host| target::host(host).is_ok()),
    }
}

fn known_scheme(text: &[u8]) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// An address, with or without a port; an IPv6 address with or without brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let address = text.parse().ok().or_else(|| {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
        port.parse::<u16>().ok()?;
        match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
            None => host.parse().ok().map(IpAddr::V4),
        }
    });
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    address.or_else(bare).map(|address| address.to_canonical())
}

/// The value of a parameter of one element, unquoted; `None` also when there are two.
fn parameter(element: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut found = split(element, b';').into_iter().filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        let (key, value) = pair.split_at_checked(at)?;
        key.eq_ignore_ascii_case(name).then(|| value.get(1..)).flatten()
    });
    let value = found.next()?;
    if found.next().is_some() {
        return None;
    }
    match value {
        [b'"', quoted @ .., b'"'] => {
            let mut escaped = false;
            let unquoted = quoted.iter().filter(|byte| {
                escaped = **byte == b'\\' && !escaped;
                !escaped
            });
            Some(unquoted.copied().collect())
        }
        plain => Some(plain.to_vec()),
    }
}

/// Splits at a separator, but not inside quotes.
fn split(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = value.split(|byte| {
        let was_escaped = std::mem::take(&mut escaped);
        match byte {
            b'\\' if quoted && !was_escaped => escaped = true,
            b'"' if !was_escaped => quoted = !quoted,
            _ => {}
        }
        *byte == separator && !quoted
    });
    parts.map(trim_ows).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::head::RequestHead;
    use super::super::parse::{self, HeadLimits, Scan};
    use super::*;

    fn of(source: Source, fields: &str) -> (String, String, Option<&'static str>, Option<String>) {
        const LIMITS: HeadLimits =
            HeadLimits { bytes: 4096, start_line: 1024, fields: 20, underscores: true };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let bytes = text.as_bytes();
        let mut head = RequestHead::default();
        assert_eq!(parse::request(bytes, &mut Scan::default(), LIMITS, &mut head), Ok(true));
        let trusts = |address: IpAddr| address.to_string().starts_with("10.");
        let sender = IpAddr::from([10, 0, 0, 1]);
        let client = client(&head.fields, bytes, source, sender, trusts);
        let host = client.host.map(|host| String::from_utf8(host).unwrap());
        (client.address.to_string(), client.chain, client.scheme, host)
    }

    #[test]
    fn the_first_untrusted_from_the_right_is_the_client() {
        let x = |fields| {
            let (client, chain, ..) = of(Source::XForwarded, fields);
            format!("{client} | {chain}")
        };
        assert_eq!(x(""), "10.0.0.1 | 10.0.0.1");
        assert_eq!(x("X-Forwarded-For: 192.0.2.7\r\n"), "192.0.2.7 | 192.0.2.7, 10.0.0.1");
        assert_eq!(
            x("X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-For: 10.0.0.2\r\n"),
            "192.0.2.7 | 192.0.2.7, 10.0.0.2, 10.0.0.1"
        );
        assert_eq!(
            x("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n"),
            "10.0.0.3 | 10.0.0.3, 10.0.0.2, 10.0.0.1"
        );
        assert_eq!(
            x("X-Forwarded-For: 6.6.6.6, junk, 10.0.0.2\r\n"),
            "10.0.0.2 | 10.0.0.2, 10.0.0.1"
        );
        for (node, address) in [
            ("192.0.2.7:80", "192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("[192.0.2.7]", "10.0.0.1"),
            ("192.0.2.7:x", "10.0.0.1"),
            ("192.0.2.7:99999", "10.0.0.1"),
        ] {
            assert_eq!(of(Source::XForwarded, &format!("X-Forwarded-For: {node}\r\n")).0, address);
        }
    }

    #[test]
    fn scheme_and_host_come_from_who_is_trusted() {
        let (.., scheme, host) = of(
            Source::XForwarded,
            "X-Forwarded-Proto: gopher, HTTPS\r\nX-Forwarded-Host: a.test:81\r\n",
        );
        assert_eq!((scheme, host.as_deref()), (Some("https"), Some("a.test:81")));
        let (.., scheme, host) =
            of(Source::XForwarded, "X-Forwarded-Proto: x\r\nX-Forwarded-Host: a b\r\n");
        assert_eq!((scheme, host), (None, None));
    }

    #[test]
    fn forwarded_is_read_element_by_element() {
        let (client, chain, scheme, host) = of(
            Source::Forwarded,
            "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=gopher\r\n\
             forwarded: For=\"[2001:db8::1]:9\" ; HOST=\"a.test:81\";proto=https, for=10.0.0.2;by=\"a,b;c\\\"\"\r\n",
        );
        assert_eq!(client, "2001:db8::1");
        assert_eq!(chain, "2001:db8::1, 10.0.0.2, 10.0.0.1");
        assert_eq!((scheme, host.as_deref()), (Some("https"), Some("a.test:81")));
        for (element, client) in [
            ("for=unknown", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1"),
            ("for=\"1.1.1.1", "10.0.0.1"),
            ("by=1.1.1.1", "10.0.0.1"),
            ("for=1.1.1.1, for=10.0.0.9", "1.1.1.1"),
        ] {
            assert_eq!(of(Source::Forwarded, &format!("Forwarded: {element}\r\n")).0, client);
        }
    }
}
