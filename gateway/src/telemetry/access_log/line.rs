//! A request as one line of text. Clients choose most of what stands in it, so nothing they send
//! may end a line, leave its quotes, or reach a terminal as a control sequence.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::clock::Clock;

/// What the log says about one request, borrowed from where it lives.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the request's head was complete.
    pub time: SystemTime,
    /// Who sent it.
    pub client: SocketAddr,
    /// Empty if the head could not be read.
    pub method: &'a [u8],
    /// As it stood in the request line.
    pub target: &'a [u8],
    /// The authority asked for, or empty.
    pub host: &'a [u8],
    /// The `User-Agent` field, or empty.
    pub user_agent: &'a [u8],
    /// The `Referer` field, or empty.
    pub referer: &'a [u8],
    /// The digit after `HTTP/1.`.
    pub version_minor: u8,
    /// What the client was sent; 0 if no status went out.
    pub status: u16,
    /// Bytes of the request's body, without framing.
    pub bytes_in: u64,
    /// Bytes of the response's body, without framing.
    pub bytes_out: u64,
    /// From the request's head to the end of its response.
    pub duration: Duration,
    /// The upstream's name, if the request got that far.
    pub upstream: Option<&'a str>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<SocketAddr>,
    /// From the request sent to the endpoint's response head.
    pub upstream_duration: Option<Duration>,
    /// Who the client has proven to be, or empty.
    pub identity: &'a str,
    /// Its X-Request-Id; empty if the head could not be read.
    pub request_id: &'a [u8],
    /// What went wrong, in the words of the error.
    pub error: Option<&'a str>,
    /// What would have refused it, if it did not only observe, or empty.
    pub observed: &'a str,
}

/// Appends `entry` as a JSON object and a line feed. What is empty or absent has no member;
/// durations are milliseconds to three places.
pub(super) fn json(out: &mut Vec<u8>, clock: &mut Clock, entry: &Entry<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    clock.write(out, entry.time);
    out.push(b'"');
    json_display(out, "client", entry.client.ip());
    // Proxies seldom say it.
    if entry.client.port() != 0 {
        json_number(out, "client_port", entry.client.port().into());
    }
    json_text(out, "identity", entry.identity.as_bytes());
    json_text(out, "method", entry.method);
    json_text(out, "host", entry.host);
    json_text(out, "target", entry.target);
    out.extend_from_slice(b",\"version\":\"1.");
    number(out, entry.version_minor.into());
    out.push(b'"');
    json_number(out, "status", entry.status.into());
    json_number(out, "bytes_in", entry.bytes_in);
    json_number(out, "bytes_out", entry.bytes_out);
    json_millis(out, "duration_ms", entry.duration);
    json_text(out, "upstream", entry.upstream.unwrap_or_default().as_bytes());
    if let Some(endpoint) = entry.endpoint {
        json_display(out, "endpoint", endpoint);
    }
    if let Some(duration) = entry.upstream_duration {
        json_millis(out, "upstream_ms", duration);
    }
    json_text(out, "user_agent", entry.user_agent);
    json_text(out, "referer", entry.referer);
    json_text(out, "request_id", entry.request_id);
    json_text(out, "error", entry.error.unwrap_or_default().as_bytes());
    json_text(out, "observed", entry.observed.as_bytes());
    out.extend_from_slice(b"}\n");
}

/// Appends `entry` in the combined format, as nginx writes it: `-` for what is absent, `000` for
/// a status that was never sent.
pub(super) fn combined(out: &mut Vec<u8>, clock: &mut Clock, entry: &Entry<'_>) {
    // Writing to a Vec does not fail.
    let _ = write!(out, "{} - ", entry.client.ip());
    // Readers take the next space for the end of it.
    for (position, part) in entry.identity.split(' ').enumerate() {
        out.extend_from_slice(if position > 0 { b"\\x20" } else { b"" });
        combined_text(out, part.as_bytes());
    }
    out.extend_from_slice(if entry.identity.is_empty() { b"- [" } else { b" [" });
    clock.write(out, entry.time);
    out.extend_from_slice(b"] \"");
    if entry.method.is_empty() {
        out.push(b'-');
    } else {
        combined_text(out, entry.method);
        out.push(b' ');
        combined_text(out, entry.target);
        out.extend_from_slice(b" HTTP/1.");
        number(out, entry.version_minor.into());
    }
    let _ = write!(out, "\" {:03} ", entry.status);
    number(out, entry.bytes_out);
    out.extend_from_slice(b" \"");
    combined_text(out, or_dash(entry.referer));
    out.extend_from_slice(b"\" \"");
    combined_text(out, or_dash(entry.user_agent));
    out.extend_from_slice(b"\"\n");
}

fn or_dash(value: &[u8]) -> &[u8] {
    if value.is_empty() { b"-" } else { value }
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn json_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn json_number(out: &mut Vec<u8>, name: &str, value: u64) {
    json_name(out, name);
    number(out, value);
}

fn json_millis(out: &mut Vec<u8>, name: &str, duration: Duration) {
    let us = duration.as_micros();
    json_name(out, name);
    let _ = write!(out, "{}.{:03}", us / 1000, us % 1000);
}

/// For values whose text needs no escape.
fn json_display(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    json_name(out, name);
    let _ = write!(out, "\"{value}\"");
}

fn json_text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    json_name(out, name);
    out.push(b'"');
    if value.iter().all(|byte| is_plain(*byte)) {
        out.extend_from_slice(value);
    } else {
        json_escaped(out, value);
    }
    out.push(b'"');
}

/// RFC 8259 §7, and more than it asks for: C1 controls can drive a terminal, U+2028 and U+2029
/// end a line for some readers, the direction overrides make a line show another text. What is
/// not UTF-8 becomes U+FFFD, since JSON has no other way to hold it.
fn json_escaped(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => json_code(out, c),
                c if c.is_control() => json_code(out, c),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// All of these have four hexadecimal digits at most.
fn json_code(out: &mut Vec<u8>, c: char) {
    let _ = write!(out, "\\u{:04x}", u32::from(c));
}

fn combined_text(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        if is_plain(*byte) {
            out.push(*byte);
        } else {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
}

/// Stands for itself in both formats.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Format;
    use super::*;
    use std::time::UNIX_EPOCH;

    pub(in super::super) fn entry() -> Entry<'static> {
        Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_795_417_510_007),
            client: "192.0.2.7:51000".parse().unwrap(),
            method: b"GET",
            target: b"/orders?id=1",
            host: b"api.example.com",
            user_agent: b"curl/8",
            referer: b"",
            version_minor: 1,
            status: 200,
            bytes_in: 0,
            bytes_out: 13,
            duration: Duration::from_micros(1_234),
            upstream: Some("orders"),
            endpoint: Some("[::1]:9001".parse().unwrap()),
            upstream_duration: Some(Duration::from_micros(900)),
            identity: "",
            request_id: b"",
            error: None,
            observed: "",
        }
    }

    fn json_line(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        json(&mut out, &mut Clock::new(Format::Json), entry);
        String::from_utf8(out).unwrap()
    }

    fn combined_line(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        combined(&mut out, &mut Clock::new(Format::Combined), entry);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_json_line() {
        assert_eq!(
            json_line(&entry()),
            "{\"time\":\"2026-11-23T07:05:10.007Z\",\"client\":\"192.0.2.7\",\
             \"client_port\":51000,\"method\":\"GET\",\"host\":\"api.example.com\",\
             \"target\":\"/orders?id=1\",\"version\":\"1.1\",\"status\":200,\"bytes_in\":0,\
             \"bytes_out\":13,\"duration_ms\":1.234,\"upstream\":\"orders\",\
             \"endpoint\":\"[::1]:9001\",\"upstream_ms\":0.900,\"user_agent\":\"curl/8\"}\n"
        );
    }

    #[test]
    fn a_combined_line() {
        assert_eq!(
            combined_line(&entry()),
            "192.0.2.7 - - [23/Nov/2026:07:05:10 +0000] \"GET /orders?id=1 HTTP/1.1\" 200 13 \
             \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn who_it_was() {
        let known = Entry { identity: "CN=The \"one\"", ..entry() };
        assert!(combined_line(&known).starts_with("192.0.2.7 - CN=The\\x20\\x22one\\x22 [23/"));
        assert!(json_line(&known).contains(",\"identity\":\"CN=The \\\"one\\\"\","));
    }

    #[test]
    fn a_head_that_was_never_read() {
        let unread = Entry { method: b"", target: b"", host: b"", status: 0, ..entry() };
        assert!(combined_line(&unread).contains("] \"-\" 000 13 "));
        let value: serde_json::Value = serde_json::from_str(&json_line(&unread)).unwrap();
        assert_eq!(value.get("method"), None);
        assert_eq!(value["status"], 0);
    }

    #[test]
    fn json_holds_whatever_a_client_sends() {
        for (sent, read) in [
            (&b"a\"b\\c"[..], "a\"b\\c"),
            (b"x\r\n{\"status\":200}", "x\r\n{\"status\":200}"),
            (b"\0\x1b[31m\x7f", "\0\x1b[31m\x7f"),
            ("grüße \u{9b}31m \u{2028} \u{202e}".as_bytes(), "grüße \u{9b}31m \u{2028} \u{202e}"),
            (b"lone \xff, cut \xe2\x82", "lone \u{fffd}, cut \u{fffd}"),
        ] {
            let line = json_line(&Entry { target: sent, ..entry() });
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["target"], read);
            let text = line.strip_suffix('\n').unwrap();
            assert!(!text.contains(|c: char| c.is_control() || c == '\u{2028}'), "{text:?}");
        }
    }

    #[test]
    fn every_byte_in_every_text_stays_on_its_line() {
        let all: Vec<u8> = (0..=255).collect();
        let hostile = Entry { method: &all, target: &all, host: &all, user_agent: &all, ..entry() };

        let line = json_line(&hostile);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        assert_eq!(line.find('\n'), Some(line.len() - 1));

        let line = combined_line(&hostile);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        assert_eq!(line.matches('"').count(), 6);
        assert!(line.contains("\\x00\\x01"));
        assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
    }
}
