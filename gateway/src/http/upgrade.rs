//! Switching to another protocol on the same connection (RFC 9110 §7.8): to WebSocket and nothing
//! else. A request that asks for anything else, or asks wrongly, is an ordinary request.

use super::framing::Framing;
use super::head::{Field, Method, RequestHead, ResponseHead, Version, connection_has, values};
use super::headers::{Name, members};

/// Whether a request is the opening handshake of WebSocket (RFC 6455 §4.2.1).
pub fn is_handshake(head: &RequestHead, bytes: &[u8], framing: Framing) -> bool {
    let upgrades = values(&head.fields, bytes, Name::Upgrade).next().is_some();
    upgrades
        && head.method == Method::Get
        && head.version == Version::Http11
        && framing == Framing::Empty
        && switches_to_websocket(&head.fields, bytes)
        && only(&head.fields, bytes, b"sec-websocket-version") == Some(b"13")
        && only(&head.fields, bytes, b"sec-websocket-key").is_some_and(is_key)
}

/// Whether a response with status 101 accepts it (RFC 6455 §4.1). The value of
/// Sec-WebSocket-Accept is for the client to check.
pub fn is_acceptance(head: &ResponseHead, bytes: &[u8]) -> bool {
    head.version == Version::Http11
        && switches_to_websocket(&head.fields, bytes)
        && only(&head.fields, bytes, b"sec-websocket-accept").is_some()
}

fn switches_to_websocket(fields: &[Field], bytes: &[u8]) -> bool {
    let mut protocols = values(fields, bytes, Name::Upgrade).flat_map(members);
    let first = protocols.next();
    first.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
        && connection_has(fields, bytes, "upgrade")
}

/// The value of the only field called `name`.
fn only<'a>(fields: &'a [Field], bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut values = fields
        .iter()
        .filter(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
        .map(|field| field.value.of(bytes));
    let value = values.next();
    if values.next().is_none() { value } else { None }
}

/// 16 bytes in base64 (RFC 6455 §4.2.1).
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key, [digits @ .., b'=', b'='] if digits.len() == 22 && digits.iter().all(is_digit))
}

#[cfg(test)]
mod tests {
    use super::super::framing;
    use super::super::parse::{self, HeadLimits, Scan};
    use super::*;

    const LIMITS: HeadLimits =
        HeadLimits { bytes: 4096, start_line: 1024, fields: 20, underscores: true };
    const GOOD: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn asks(text: &str) -> bool {
        let mut head = RequestHead::default();
        let bytes = text.as_bytes();
        assert_eq!(parse::request(bytes, &mut Scan::default(), LIMITS, &mut head), Ok(true));
        is_handshake(&head, bytes, framing::request(&head, bytes).unwrap())
    }

    #[test]
    fn only_a_whole_handshake_counts() {
        assert!(asks(GOOD));
        for (part, instead) in [
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
            (", Upgrade", ""),
            ("WebSocket", "h2c"),
            ("WebSocket", "websocket, h2c"),
            ("WebSocket", ""),
            (": 13", ": 8"),
            ("Version: 13\r\n", "Version: 13\r\nSec-WebSocket-Version: 13\r\n"),
            ("==", "="),
            ("dGhl", "d Gh"),
            ("Host: a\r\n", "Host: a\r\nContent-Length: 0\r\n"),
            ("Host: a\r\n", "Host: a\r\nUpgrade: x\r\n"),
        ] {
            assert!(GOOD.contains(part));
            assert!(!asks(&GOOD.replacen(part, instead, 1)), "{part} -> {instead}");
        }
    }
}
