//! Finds a whole head in a buffer and parses it, or says why it never will be one.
//!
//! The end of the head is looked for first, each byte once however the bytes arrive, and httparse
//! runs over a complete head only. What httparse lets through and the RFC does not is checked here
//! and in [`super::target`] and [`super::framing`].

use std::mem::MaybeUninit;

use super::Reject;
use super::head::{Field, Method, RequestHead, ResponseHead, Span, Version, values};
use super::headers::{Name, parse_digits, trim_ows};
use super::target;

/// The most fields a limit may allow; sizes an array on the stack.
pub const FIELDS_MAX: usize = 1000;

/// Bounds of one head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes, start line and empty line included.
    pub bytes: usize,
    /// Bytes of the start line alone, its line end included.
    pub start_line: usize,
    /// Field lines, at most [`FIELDS_MAX`].
    pub fields: usize,
    /// Whether names may have underscores. CGI and its heirs make `X_User` and `X-User` one name,
    /// so that a field removed or set by one name is smuggled past by the other.
    pub underscores: bool,
}

/// The longest method taken; the longest one registered has 17 letters.
const METHOD_BYTES_MAX: usize = 32;

/// How far the search for the end of a head has come. One per head, kept between reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    seen: usize,
    line_start: usize,
    lines: usize,
}

impl Scan {
    /// Whether no line has been seen yet.
    pub fn is_at_start(&self) -> bool {
        self.lines == 0
    }

    /// The length of the head that `bytes` begins with, if all of it is there.
    fn find_end(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<usize>, Reject> {
        while let Some(at) =
            memchr::memchr(b'\n', bytes.get(self.seen..).unwrap_or_default()).map(|n| self.seen + n)
        {
            // RFC 9112 §2.2 allows taking a bare LF for a line end; peers that do disagree with
            // those that don't, so we refuse it.
            let before = at.checked_sub(1).and_then(|index| bytes.get(index));
            if before != Some(&b'\r') {
                return Err(Reject::Malformed("line feed without carriage return"));
            }
            self.seen = at + 1;
            self.check(self.seen, limits)?;
            let line_is_empty = at - 1 == self.line_start;
            if line_is_empty {
                return Ok(Some(self.seen));
            }
            self.line_start = self.seen;
            self.lines += 1;
        }
        self.seen = bytes.len();
        // One more byte is to come at least.
        self.check(self.seen + 1, limits)?;
        Ok(None)
    }

    fn check(self, len: usize, limits: HeadLimits) -> Result<(), Reject> {
        match self.lines {
            0 if len > limits.start_line.min(limits.bytes) => Err(Reject::TargetTooLong),
            _ if len > limits.bytes => Err(Reject::HeadTooLarge),
            _ => Ok(()),
        }
    }
}

/// How many empty lines before a request line are ignored (RFC 9112 §2.2 asks for at least one).
const EMPTY_LINES_MAX: usize = 4;

/// The number of bytes of empty lines that `bytes` begins with and that a server ignores before a
/// request line.
pub fn empty_lines(bytes: &[u8]) -> usize {
    let lines = bytes.chunks_exact(2).take(EMPTY_LINES_MAX).take_while(|pair| *pair == b"\r\n");
    2 * lines.count()
}

/// Parses a request's head at the start of `bytes`; `false` means that more bytes are needed.
///
/// # Errors
/// When no further bytes can make it a head this gateway takes.
pub fn request(
    bytes: &[u8],
    scan: &mut Scan,
    limits: HeadLimits,
    head: &mut RequestHead,
) -> Result<bool, Reject> {
    let Some(len) = scan.find_end(bytes, limits)? else { return Ok(false) };
    head.len = len;
    let bytes = bytes.get(..len).unwrap_or_default();
    match whole_request(bytes, limits, head) {
        Err(Failure::Version) => match as_http11(bytes) {
            Some(copy) => whole_request(&copy, limits, head)?,
            None => return Err(Failure::Version.into()),
        },
        result => result?,
    }
    Ok(true)
}

fn whole_request(bytes: &[u8], limits: HeadLimits, head: &mut RequestHead) -> Result<(), Failure> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let fields_max = limits.fields.min(FIELDS_MAX);
    let status = parsed
        .parse_with_uninit_headers(bytes, fields.get_mut(..fields_max).unwrap_or_default())
        .map_err(|error| failure(error, bytes))?;
    let (httparse::Status::Complete(_), Some(method), Some(text)) =
        (status, parsed.method, parsed.path)
    else {
        return Err(Reject::Malformed("incomplete head").into());
    };
    // RFC 9110 §9.1 has no bound; a name this long is no method.
    if method.len() > METHOD_BYTES_MAX {
        return Err(Reject::NotImplemented("method too long").into());
    }
    head.method = Method::of(method.as_bytes());
    head.method_name = Span::locate(bytes, method.as_bytes());
    head.target_text = Span::locate(bytes, text.as_bytes());
    head.version = version(parsed.version);
    collect(parsed.headers, bytes, &mut head.fields);
    if !limits.underscores && parsed.headers.iter().any(|field| field.name.contains('_')) {
        return Err(Reject::Malformed("underscore in a field name").into());
    }
    head.target = target::parse(head.method, head.target_text, bytes)?;
    head.authority = authority(head, bytes)?;
    head.max_forwards = max_forwards(head, bytes)?;
    Ok(())
}

/// RFC 9112 §3.2: exactly one valid Host field in HTTP/1.1, at most one in 1.0; an authority in the
/// target replaces its value but does not excuse it.
fn authority(head: &RequestHead, bytes: &[u8]) -> Result<Option<Span>, Reject> {
    let mut hosts = head.fields.iter().filter(|field| field.known == Name::Host);
    let host = hosts.next().map(|field| field.value);
    if hosts.next().is_some() {
        return Err(Reject::Malformed("more than one Host field"));
    }
    if host.is_none() && head.version == Version::Http11 {
        return Err(Reject::Malformed("no Host field"));
    }
    for authority in [host, head.target.authority].into_iter().flatten() {
        target::host(authority.of(bytes))?;
    }
    Ok(head.target.authority.or(host))
}

/// RFC 9110 §7.6.2: of OPTIONS and TRACE, the second of which is never forwarded.
fn max_forwards(head: &RequestHead, bytes: &[u8]) -> Result<Option<u64>, Reject> {
    if head.method != Method::Options {
        return Ok(None);
    }
    let mut values = values(&head.fields, bytes, Name::MaxForwards);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match parse_digits(value) {
            None => Err(Reject::Malformed("invalid Max-Forwards")),
            number => Ok(number),
        },
        (Some(_), Some(_)) => Err(Reject::Malformed("more than one Max-Forwards field")),
    }
}

/// Parses a response's head at the start of `bytes`; `false` means that more bytes are needed.
///
/// # Errors
/// When no further bytes can make it the head of a response.
pub fn response(
    bytes: &[u8],
    scan: &mut Scan,
    limits: HeadLimits,
    head: &mut ResponseHead,
) -> Result<bool, Reject> {
    let Some(len) = scan.find_end(bytes, limits)? else { return Ok(false) };
    head.len = len;
    let bytes = bytes.get(..len).unwrap_or_default();
    // httparse skips empty lines here; behind a response they are the start of a desynchronised
    // stream.
    if !bytes.starts_with(b"HTTP/") {
        return Err(Reject::Malformed("not a status line"));
    }
    match whole_response(bytes, limits, head) {
        Err(Failure::Version) => match as_http11(bytes) {
            Some(copy) => whole_response(&copy, limits, head)?,
            None => return Err(Failure::Version.into()),
        },
        result => result?,
    }
    Ok(true)
}

fn whole_response(
    bytes: &[u8],
    limits: HeadLimits,
    head: &mut ResponseHead,
) -> Result<(), Failure> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let fields_max = limits.fields.min(FIELDS_MAX);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(
            &mut parsed,
            bytes,
            fields.get_mut(..fields_max).unwrap_or_default(),
        )
        .map_err(|error| failure(error, bytes))?;
    let (httparse::Status::Complete(_), Some(code @ 100..=599)) = (status, parsed.code) else {
        return Err(Reject::Malformed("status code out of range").into());
    };
    head.status = code;
    head.reason = match parsed.reason {
        Some(reason) if !reason.is_empty() => Span::locate(bytes, reason.as_bytes()),
        _ => Span::default(),
    };
    head.version = version(parsed.version);
    collect(parsed.headers, bytes, &mut head.fields);
    Ok(())
}

fn collect(parsed: &[httparse::Header<'_>], bytes: &[u8], fields: &mut Vec<Field>) {
    fields.clear();
    fields.extend(parsed.iter().map(|field| Field {
        known: Name::of(field.name.as_bytes()),
        name: Span::locate(bytes, field.name.as_bytes()),
        value: Span::locate(bytes, trim_ows(field.value)),
    }));
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

/// Why httparse, or what comes after it, does not take a whole head.
enum Failure {
    /// The version alone: it may be one that is treated as 1.1.
    Version,
    Reject(Reject),
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

impl From<Failure> for Reject {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Version => Self::Version,
            Failure::Reject(reject) => reject,
        }
    }
}

fn failure(error: httparse::Error, bytes: &[u8]) -> Failure {
    use httparse::Error;
    Failure::Reject(match error {
        Error::TooManyHeaders => Reject::HeadTooLarge,
        Error::Version if version_at(bytes).is_some() => return Failure::Version,
        Error::HeaderName => Reject::Malformed("invalid field name"),
        Error::HeaderValue => Reject::Malformed("invalid field value"),
        Error::NewLine => Reject::Malformed("invalid line end"),
        Error::Status => Reject::Malformed("invalid status line"),
        Error::Token | Error::Version => Reject::Malformed("invalid start line"),
    })
}

/// A copy of a head whose version is HTTP/1.2 to 1.9, with that version made 1.1, which it is to be
/// treated as (RFC 9110 §2.5). httparse knows no such version. Positions stay the same.
fn as_http11(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = version_at(bytes)?;
    let mut copy = bytes.to_vec();
    match copy.get_mut(at..)? {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9', ..] => *minor = b'1',
        _ => return None,
    }
    Some(copy)
}

/// Where in a start line with three parts, or a status line, a well-formed version is.
fn version_at(bytes: &[u8]) -> Option<usize> {
    let is_version = |text: &[u8]| {
        matches!(
            text,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit()
        )
    };
    let line = memchr::memchr(b'\r', bytes).and_then(|end| bytes.get(..end))?;
    if line.get(..8).is_some_and(is_version) && line.get(8) == Some(&b' ') {
        return Some(0);
    }
    let mut parts = line.split(|byte| *byte == b' ');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    (parts.next().is_none() && is_version(three[2])).then(|| line.len() - 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { bytes: 1024, start_line: 512, fields: 8, underscores: false };

    fn parse(text: &str) -> Result<RequestHead, Reject> {
        let mut head = RequestHead::default();
        match request(text.as_bytes(), &mut Scan::default(), LIMITS, &mut head) {
            Ok(true) => Ok(head),
            Ok(false) => panic!("partial: {text:?}"),
            Err(reject) => Err(reject),
        }
    }

    #[test]
    fn a_head_is_taken_apart_without_copying() {
        let text = "POST /a?b HTTP/1.1\r\nHost: x.test:81\r\nA:  b c \r\n\r\nbody";
        let head = parse(text).unwrap();
        let bytes = text.as_bytes();
        assert_eq!(head.len, text.len() - 4);
        assert_eq!(head.method_name.of(bytes), b"POST");
        assert_eq!(head.target.path(bytes), b"/a");
        assert_eq!(head.target.query.of(bytes), b"?b");
        assert_eq!(head.authority.unwrap().of(bytes), b"x.test:81");
        assert_eq!(head.fields[1].value.of(bytes), b"b c");
    }

    #[test]
    fn every_split_gives_the_same_result() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
        let mut scan = Scan::default();
        let mut head = RequestHead::default();
        for end in 1..text.len() {
            assert_eq!(request(&text[..end], &mut scan, LIMITS, &mut head), Ok(false));
        }
        assert_eq!(request(text, &mut scan, LIMITS, &mut head), Ok(true));
        assert_eq!(head.len, text.len());
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nB: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.x\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\n\r\n",
        ] {
            assert!(matches!(parse(bad), Err(Reject::Malformed(_))), "{bad:?}: {:?}", parse(bad));
        }
    }

    #[test]
    fn each_limit_has_its_status() {
        let long = "a".repeat(2000);
        let many = "A: b\r\n".repeat(9);
        let longer_line = "a".repeat(512 - "GET / HTTP/1.1\r\n".len() + 1);
        for (bad, status) in [
            (format!("GET /{longer_line} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
            (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
            (format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
            ("GET / HTTP/0.9\r\nHost: a\r\n\r\n".into(), 505),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
            (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(33)), 501),
        ] {
            assert_eq!(parse(&bad).unwrap_err().status(), status, "{bad:?}");
        }
        let longest_line = "a".repeat(longer_line.len() - 1);
        parse(&format!("GET /{longest_line} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
    }

    #[test]
    fn a_higher_minor_version_is_treated_as_one() {
        let text = "GET /a HTTP/1.2\r\nHost: b\r\n\r\n";
        let head = parse(text).unwrap();
        assert_eq!(head.version, Version::Http11);
        assert_eq!(head.target_text.of(text.as_bytes()), b"/a");
        assert_eq!(head.fields[0].value.of(text.as_bytes()), b"b");
        let mut head = ResponseHead::default();
        let text = b"HTTP/1.9 204 Nothing\r\nA: b\r\n\r\n";
        assert_eq!(response(text, &mut Scan::default(), LIMITS, &mut head), Ok(true));
        assert_eq!((head.status, head.reason.of(text)), (204, &b"Nothing"[..]));
        for bad in ["GET / HTTP/1.2\r\n\r\n", "GET / HTTP/1.2 \r\nHost: a\r\n\r\n"] {
            assert!(matches!(parse(bad), Err(Reject::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_response_with_an_empty_line_before_it_is_refused() {
        let mut head = ResponseHead::default();
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        assert_eq!(response(text, &mut Scan::default(), LIMITS, &mut head), Ok(true));
        assert_eq!((head.status, head.reason.of(text)), (200, &b"OK"[..]));
        for bad in [
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/1.1 600 x\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "200 OK\r\n\r\n",
        ] {
            let result = response(bad.as_bytes(), &mut Scan::default(), LIMITS, &mut head);
            assert!(result.is_err(), "{bad:?}");
        }
    }
}
