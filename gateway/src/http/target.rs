//! The request target and the authority (RFC 9112 §3.2, RFC 3986).

use super::Reject;
use super::ambiguity::Ambiguities;
use super::head::{Method, Span};
use super::headers::parse_digits;

/// A request target, taken apart. Path and query go to the origin byte for byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The path, without query; empty in `http://host` and `http://host?query`, which mean `/`.
    pub path: Span,
    /// The query with its question mark, or nothing.
    pub query: Span,
    /// The authority of the absolute form.
    pub authority: Option<Span>,
    /// What in the path servers may read differently.
    pub ambiguities: Ambiguities,
}

impl Target {
    /// The path to route by and to send on; never empty.
    pub fn path<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        match self.path.of(bytes) {
            [] => b"/",
            path => path,
        }
    }
}

/// Takes a target apart.
///
/// # Errors
/// When its form does not fit the method or a byte does not belong into it.
pub(super) fn parse(method: Method, text: Span, bytes: &[u8]) -> Result<Target, Reject> {
    let target = text.of(bytes);
    match (method, target) {
        (Method::Connect, _) => Err(Reject::NotImplemented("CONNECT is not supported")),
        // RFC 9110 §9.3.8: it would reflect the fields that gateways and origins add.
        (Method::Trace, _) => Err(Reject::NotImplemented("TRACE is not supported")),
        (Method::Options, b"*") => Ok(Target { path: text, ..Target::default() }),
        (_, [b'/', ..]) => path_and_query(text, bytes),
        _ => absolute(text, bytes),
    }
}

/// RFC 9112 §3.2.2: a server MUST accept the absolute form, and its authority replaces Host.
fn absolute(text: Span, bytes: &[u8]) -> Result<Target, Reject> {
    let target = text.of(bytes);
    let scheme_len = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| {
            target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .map(<[u8]>::len)
        .ok_or(Reject::Malformed("request target has no valid form"))?;
    let after = target.get(scheme_len..).unwrap_or_default();
    let authority_len =
        after.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(after.len());
    let rest = text.part(scheme_len + authority_len, target.len());
    Ok(Target {
        authority: Some(text.part(scheme_len, scheme_len + authority_len)),
        ..path_and_query(rest, bytes)?
    })
}

fn path_and_query(text: Span, bytes: &[u8]) -> Result<Target, Reject> {
    let target = text.of(bytes);
    let path_len = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at_checked(path_len).unwrap_or((target, &[]));
    check(path, PATH)?;
    check(query, QUERY)?;
    Ok(Target {
        path: text.part(0, path_len),
        query: text.part(path_len, target.len()),
        authority: None,
        ambiguities: Ambiguities::of(path),
    })
}

fn check(part: &[u8], class: u8) -> Result<(), Reject> {
    if !part.iter().all(|byte| is_in(class, *byte)) {
        return Err(Reject::Malformed("invalid character in the request target"));
    }
    match is_encoded(part) {
        true => Ok(()),
        false => Err(Reject::Malformed("invalid percent-encoding in the request target")),
    }
}

fn is_in(class: u8, byte: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Whether two hexadecimal digits follow every percent sign (RFC 3986 §2.1).
fn is_encoded(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match rest.get(at + 1..) {
            Some([high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after;
            }
            _ => return false,
        }
    }
    true
}

const PATH: u8 = 1;
const QUERY: u8 = 2;
const HOST: u8 = 4;

/// What may stand where: RFC 3986's characters, those of a host by its §3.2.2; in paths and queries also those that
/// browsers leave unencoded by the WHATWG URL standard, which refusing would only break honest clients. `#`, quotes,
/// angle brackets, the backslash, controls and bytes above 0x7f are refused.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let class = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => PATH | QUERY | HOST,
            b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' => {
                PATH | QUERY | HOST
            }
            b'*' | b'+' | b',' | b';' | b'=' => PATH | QUERY | HOST,
            b':' | b'@' | b'/' | b'|' | b'[' | b']' | b'^' => PATH | QUERY,
            b'?' | b'{' | b'}' | b'`' => QUERY,
            _ => 0,
        };
        #[expect(clippy::indexing_slicing, reason = "the loop's condition is the bound")]
        {
            classes[byte] = class;
        }
        byte += 1;
    }
    classes
};

/// Checks `uri-host [":" port]` and returns the host alone (RFC 9110 §7.2, RFC 3986 §3.2.2).
///
/// # Errors
/// When the host is empty, has user information, or a character that no host has.
pub fn host(authority: &[u8]) -> Result<&[u8], Reject> {
    const INVALID: Reject = Reject::Malformed("invalid host");
    let (host, port) = match authority {
        [b'[', rest @ ..] => {
            let end = memchr::memchr(b']', rest).ok_or(INVALID)?;
            let address = rest.get(..end).unwrap_or_default();
            let valid = str::from_utf8(address)
                .is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
            if !valid {
                return Err(INVALID);
            }
            authority.split_at_checked(end + 2).ok_or(INVALID)?
        }
        _ => {
            let end = authority.iter().position(|byte| !is_in(HOST, *byte));
            let end = end.unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(end).ok_or(INVALID)?;
            if host.is_empty() || !is_encoded(host) {
                return Err(INVALID);
            }
            (host, port)
        }
    };
    match port {
        [] => Ok(host),
        [b':'] => Ok(host),
        [b':', digits @ ..] => match parse_digits(digits) {
            Some(0..=65_535) => Ok(host),
            _ => Err(INVALID),
        },
        _ => Err(INVALID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

    fn target(method: Method, text: &str) -> Result<Parts, Reject> {
        let bytes = text.as_bytes();
        let target = parse(method, Span::new(0, bytes.len()), bytes)?;
        Ok((
            target.path(bytes).to_vec(),
            target.query.of(bytes).to_vec(),
            target.authority.map(|a| a.of(bytes).to_vec()),
        ))
    }

    #[test]
    fn forms() {
        let get = |text| target(Method::Get, text);
        assert_eq!(get("/a/b?c=d?e").unwrap(), (b"/a/b".into(), b"?c=d?e".into(), None));
        assert_eq!(
            get("HTTP://a.test:80/x?y").unwrap(),
            (b"/x".into(), b"?y".into(), Some(b"a.test:80".into()))
        );
        assert_eq!(
            get("http://a.test?y").unwrap(),
            (b"/".into(), b"?y".into(), Some(b"a.test".into()))
        );
        assert_eq!(target(Method::Options, "*").unwrap().0, b"*");
        for bad in ["*", "a.test:80", "foo", "ftp://a/", "/a#b", "/%zz", "/%4", "/a\x7f", "/\u{e9}"]
        {
            assert!(get(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(target(Method::Connect, "a:1"), Err(Reject::NotImplemented(_))));
    }

    #[test]
    fn hosts() {
        for (authority, name) in
            [("a.test", "a.test"), ("a.test:8080", "a.test"), ("[::1]:80", "[::1]"), ("a:", "a")]
        {
            assert_eq!(host(authority.as_bytes()).unwrap(), name.as_bytes());
        }
        for bad in [
            "", ":80", "a b", "a/b", "u@a", "a:b", "a:123456", "[::1", "[]", "[x]", "a,b:c", "%zz",
            "a%2", "a:65536",
        ] {
            assert!(host(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
