//! Bytes the gateway writes of its own: status lines, dates, chunk sizes, short answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};

use super::edits::Edits;
use super::head::Version;

/// The usual reason phrase of a status (RFC 9110 §15), or an empty one.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Writes `HTTP/1.1 STATUS REASON` and its line end. The version is always ours (RFC 9112 §2.3).
pub fn status_line(out: &mut BytesMut, status: u16, reason: &[u8]) {
    out.put_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.put_u8(b' ');
    out.put_slice(reason);
    out.put_slice(b"\r\n");
}

/// Writes one field line.
pub fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes a number in decimal.
pub fn decimal(out: &mut BytesMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The most bytes [`ChunkSize`] has: 16 digits and a line end.
pub const CHUNK_SIZE_MAX: usize = 18;

/// A chunk's size line.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSize {
    text: [u8; CHUNK_SIZE_MAX],
    start: usize,
}

impl ChunkSize {
    /// The line before a chunk of `size` bytes.
    pub fn new(mut size: u64) -> Self {
        let mut text = *b"0000000000000000\r\n";
        let mut start = 16;
        for place in text.iter_mut().take(16).rev() {
            *place = char::from_digit((size & 15) as u32, 16).map_or(b'0', |digit| digit as u8);
            start -= 1;
            size >>= 4;
            if size == 0 {
                break;
            }
        }
        Self { text, start }
    }

    /// The bytes of the line.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(self.start..).unwrap_or_default()
    }
}

/// Writes the Connection field, where one is needed: closing is said, and so is keeping open to a
/// client of HTTP/1.0, which would not expect it (RFC 9112 §9.3).
pub fn connection(out: &mut BytesMut, persistent: bool, version: Version) {
    match (persistent, version) {
        (false, _) => field(out, "connection", b"close"),
        (true, Version::Http10) => field(out, "connection", b"keep-alive"),
        (true, Version::Http11) => {}
    }
}

/// An answer of the gateway's own.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// 200 to 599.
    pub status: u16,
    /// Whether the connection stays open afterwards.
    pub persistent: bool,
    /// The version the client speaks.
    pub version: Version,
    /// False in answer to HEAD.
    pub with_body: bool,
    /// What the body is.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// More fields, and which go without.
    pub edits: &'a Edits,
}

/// Writes a whole answer of the gateway's own.
pub fn answer(out: &mut BytesMut, answer: Answer<'_>, date: &[u8]) {
    status_line(out, answer.status, reason(answer.status).as_bytes());
    field(out, "date", date);
    // RFC 9110 §8.6: they have no body, and 204 no length.
    if !matches!(answer.status, 204 | 304) {
        if !answer.edits.removes(b"content-type") {
            field(out, "content-type", answer.content_type.as_bytes());
        }
        out.put_slice(b"content-length: ");
        decimal(out, answer.body.len() as u64);
        out.put_slice(b"\r\n");
    }
    answer.edits.write(out);
    if answer.status == 503 && !answer.edits.removes(b"retry-after") {
        field(out, "retry-after", b"1");
    }
    connection(out, answer.persistent, answer.version);
    out.put_slice(b"\r\n");
    if answer.with_body && !matches!(answer.status, 204 | 304) {
        out.put_slice(answer.body);
    }
}

/// The Date field's value (RFC 9110 §6.6.1), formatted once a second.
#[derive(Debug)]
pub struct DateCache {
    second: u64,
    text: [u8; 29],
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: u64::MAX, text: [b' '; 29] }
    }
}

impl DateCache {
    /// The value at `now`.
    pub fn at(&mut self, now: SystemTime) -> &[u8; 29] {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second {
            self.second = second;
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            if let Ok(text) = text.as_bytes().try_into() {
                self.text = text;
            }
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        for (size, line) in [
            (0, "0\r\n"),
            (1, "1\r\n"),
            (16, "10\r\n"),
            (0xabcd, "abcd\r\n"),
            (u64::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(ChunkSize::new(size).as_bytes(), line.as_bytes());
        }
    }

    #[test]
    fn the_date_changes_with_the_second() {
        let mut cache = DateCache::default();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(cache.at(at(784_111_777)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(at(784_111_778)), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
