//! Where a body ends, decided once per message. Nothing looks at Content-Length or
//! Transfer-Encoding afterwards.
//!
//! RFC 9112 §6.3 leaves some choices to the recipient. Wherever two parsers could disagree this
//! one refuses, because a disagreement is how a request is smuggled.

use super::Reject;
use super::head::{Method, RequestHead, ResponseHead, Version, values};
use super::headers::{Name, members, parse_digits};

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body and nothing says there is.
    #[default]
    Empty,
    /// So many bytes, possibly none.
    Length(u64),
    /// The chunked transfer coding (RFC 9112 §7.1).
    Chunked,
    /// Whatever comes until the connection closes; responses only.
    Close,
}

/// The framing of a request's body.
///
/// # Errors
/// When the fields contradict each other or name a transfer coding other than chunked.
pub fn request(head: &RequestHead, bytes: &[u8]) -> Result<Framing, Reject> {
    let chunked = is_chunked(values(&head.fields, bytes, Name::TransferEncoding))?;
    let mut lengths = values(&head.fields, bytes, Name::ContentLength);
    match (chunked, lengths.next()) {
        (false, None) => Ok(Framing::Empty),
        (true, Some(_)) => Err(Reject::Malformed("both Transfer-Encoding and Content-Length")),
        // RFC 9112 §6.1: an HTTP/1.0 message with a transfer coding has faulty framing.
        (true, None) if head.version == Version::Http10 => {
            Err(Reject::Malformed("Transfer-Encoding in HTTP/1.0"))
        }
        (true, None) => Ok(Framing::Chunked),
        (false, Some(length)) => match (parse_digits(length), lengths.next()) {
            (Some(length), None) => Ok(Framing::Length(length)),
            (None, _) => Err(Reject::Malformed("invalid Content-Length")),
            (Some(_), Some(_)) => Err(Reject::Malformed("more than one Content-Length")),
        },
    }
}

/// The framing of the response to a request with this method.
///
/// # Errors
/// When the fields contradict each other or name a transfer coding other than chunked.
pub fn response(method: Method, head: &ResponseHead, bytes: &[u8]) -> Result<Framing, Reject> {
    let length = content_length(head, bytes)?;
    // RFC 9112 §6.3, first rule: these have no body whatever the fields say.
    if method == Method::Head || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok(Framing::Empty);
    }
    let chunked = is_chunked(values(&head.fields, bytes, Name::TransferEncoding))?;
    match (chunked, length) {
        (true, Some(_)) => Err(Reject::Malformed("both Transfer-Encoding and Content-Length")),
        (true, None) if head.version == Version::Http10 => {
            Err(Reject::Malformed("Transfer-Encoding in HTTP/1.0"))
        }
        (true, None) => Ok(Framing::Chunked),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::Close),
    }
}

/// The length a response declares, which is not that of its body where it has none. Equal lengths,
/// as several lines or as one list, mean one (RFC 9110 §8.6).
///
/// # Errors
/// When it is no number or there are two.
pub fn content_length(head: &ResponseHead, bytes: &[u8]) -> Result<Option<u64>, Reject> {
    const INVALID: Reject = Reject::Malformed("invalid Content-Length");
    let mut length = None;
    for value in values(&head.fields, bytes, Name::ContentLength) {
        let mut numbers = members(value).map(parse_digits).peekable();
        numbers.peek().ok_or(INVALID)?;
        for number in numbers {
            let number = number.ok_or(INVALID)?;
            if length.is_some_and(|length| length != number) {
                return Err(Reject::Malformed("differing Content-Length"));
            }
            length = Some(number);
        }
    }
    Ok(length)
}

/// Whether the Transfer-Encoding fields say chunked, alone; false when there are none.
fn is_chunked<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<bool, Reject> {
    let (mut fields, mut codings, mut chunked, mut last_is_chunked) = (0, 0, 0, false);
    for value in values {
        fields += 1;
        for coding in members(value) {
            codings += 1;
            last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            chunked += usize::from(last_is_chunked);
        }
    }
    match (fields, codings, chunked, last_is_chunked) {
        (0, ..) => Ok(false),
        (_, 1, 1, true) => Ok(true),
        // RFC 9112 §6.1: codings under a final chunked are understood or answered with 501.
        (_, _, 1, true) => Err(Reject::NotImplemented("unsupported transfer coding")),
        _ => Err(Reject::Malformed("invalid Transfer-Encoding")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::{self, HeadLimits, Scan};
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { bytes: 4096, start_line: 1024, fields: 20, underscores: true };

    fn of_request(version: &str, fields: &str) -> Result<Framing, u16> {
        let text = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        let parsed = parse::request(text.as_bytes(), &mut Scan::default(), LIMITS, &mut head);
        assert_eq!(parsed, Ok(true), "{fields:?}");
        request(&head, text.as_bytes()).map_err(Reject::status)
    }

    fn of_response(method: Method, status: u16, fields: &str) -> Result<Framing, Reject> {
        let text = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let mut head = ResponseHead::default();
        let parsed = parse::response(text.as_bytes(), &mut Scan::default(), LIMITS, &mut head);
        assert_eq!(parsed, Ok(true), "{fields:?}");
        response(method, &head, text.as_bytes())
    }

    #[test]
    fn requests() {
        assert_eq!(of_request("1.1", ""), Ok(Framing::Empty));
        assert_eq!(of_request("1.1", "Content-Length: 0\r\n"), Ok(Framing::Length(0)));
        assert_eq!(of_request("1.0", "content-length:\t42 \r\n"), Ok(Framing::Length(42)));
        assert_eq!(of_request("1.1", "Transfer-Encoding: CHUNKED\r\n"), Ok(Framing::Chunked));
        assert_eq!(of_request("1.1", "Transfer-Encoding: , chunked ,\r\n"), Ok(Framing::Chunked));
        for (bad, status) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: -5\r\n", 400),
            ("Content-Length: 0x5\r\n", 400),
            ("Content-Length: 5 5\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: 18446744073709551616\r\n", 400),
            ("Transfer-Encoding:\r\n", 400),
            ("Transfer-Encoding: identity\r\n", 400),
            ("Transfer-Encoding: gzip\r\n", 400),
            ("Transfer-Encoding: chunked, gzip\r\n", 400),
            ("Transfer-Encoding: chunked, chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked;a=b\r\n", 400),
            ("Transfer-Encoding: xchunked\r\n", 400),
            ("Transfer-Encoding: \x0cchunked\r\n", 400),
            ("Transfer-Encoding: chun\u{212a}ed\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ] {
            if bad.contains('\x0c') {
                continue; // the parser refuses it before framing is asked
            }
            assert_eq!(of_request("1.1", bad), Err(status), "{bad:?}");
        }
        assert_eq!(of_request("1.0", "Transfer-Encoding: chunked\r\n"), Err(400));
    }

    #[test]
    fn responses() {
        let get = |status, fields| of_response(Method::Get, status, fields);
        assert_eq!(get(200, ""), Ok(Framing::Close));
        assert_eq!(
            get(200, "Content-Length: 7, 7\r\nContent-Length: 7\r\n"),
            Ok(Framing::Length(7))
        );
        assert_eq!(get(204, "Content-Length: 7\r\n"), Ok(Framing::Empty));
        assert_eq!(get(304, "Transfer-Encoding: chunked\r\n"), Ok(Framing::Empty));
        assert_eq!(of_response(Method::Head, 200, "Content-Length: 7\r\n"), Ok(Framing::Empty));
        for bad in [
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: seven\r\n",
            "Content-Length: ,\r\n",
            "Transfer-Encoding: gzip\r\n",
        ] {
            assert!(get(200, bad).is_err(), "{bad:?}");
        }
    }
}
