//! As much of HTTP/1.1 as a load generator needs, which sees only messages that are right.

use std::io::Read;

use anyhow::{Context, Result, ensure};

/// Where a head ends, its empty line included.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of Content-Length.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    str::from_utf8(line.get(NAME.len()..)?).ok()?.trim().parse().ok()
}

/// Whether a head, written here or by a proxy that keeps connections, says that they end.
pub fn closes(head: &[u8]) -> bool {
    const LINE: &[u8] = b"connection: close";
    head.windows(LINE.len()).any(|line| line.eq_ignore_ascii_case(LINE))
}

/// The target of a request.
pub fn target(head: &[u8]) -> Option<&str> {
    head.split(|byte| *byte == b' ').nth(1).and_then(|target| str::from_utf8(target).ok())
}

/// The status of a response.
pub fn status(head: &[u8]) -> Option<u16> {
    str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// Reads a whole response whose length is declared.
pub fn read_response(stream: &mut impl Read) -> Result<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut room = vec![0; 64 << 10];
    loop {
        if let Some(end) = head_end(&bytes) {
            let head = bytes.get(..end).unwrap_or_default();
            let length = content_length(head).context("no Content-Length")?;
            if bytes.len() >= end + length {
                let status = status(head).context("no status")?;
                ensure!(bytes.len() == end + length, "bytes behind the answer");
                return Ok((status, bytes.split_off(end)));
            }
        }
        let count = stream.read(&mut room)?;
        ensure!(count > 0, "the answer was cut");
        bytes.extend_from_slice(room.get(..count).unwrap_or_default());
    }
}

/// Follows one response after another without keeping them.
#[derive(Debug, Default)]
pub struct Follower {
    /// A head that has not come whole.
    head: Vec<u8>,
    /// Bytes of the body still to come, and the status.
    body: Option<(usize, u16, usize)>,
}

/// A response that has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    pub status: u16,
    pub body_bytes: usize,
}

impl Follower {
    /// Takes the next bytes. An error when they are no response, or more than one.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Whole>> {
        let (left, status, length, came) = match self.body {
            Some((left, status, length)) => (left, status, length, bytes.len()),
            None if self.head.is_empty() => match head_end(bytes) {
                Some(end) => self.begin(bytes, end)?,
                None => return Ok(self.keep(bytes)),
            },
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = head_end(&self.head) else { return Ok(None) };
                let head = std::mem::take(&mut self.head);
                self.begin(&head, end)?
            }
        };
        ensure!(came <= left, "bytes behind an answer");
        if came < left {
            self.body = Some((left - came, status, length));
            return Ok(None);
        }
        self.body = None;
        Ok(Some(Whole { status, body_bytes: length }))
    }

    fn begin(&self, bytes: &[u8], end: usize) -> Result<(usize, u16, usize, usize)> {
        let head = bytes.get(..end).unwrap_or_default();
        let status = status(head).context("no status")?;
        let length = content_length(head).context("no Content-Length")?;
        Ok((length, status, length, bytes.len() - end))
    }

    fn keep(&mut self, bytes: &[u8]) -> Option<Whole> {
        self.head.extend_from_slice(bytes);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello";

    #[test]
    fn a_response_cut_anywhere() {
        let whole = Whole { status: 200, body_bytes: 5 };
        for cut in 1..ANSWER.len() {
            let mut follower = Follower::default();
            let (first, second) = ANSWER.split_at(cut);
            assert_eq!(follower.take(first).unwrap(), None, "{cut}");
            assert_eq!(follower.take(second).unwrap(), Some(whole), "{cut}");
            assert_eq!(follower.take(ANSWER).unwrap(), Some(whole), "{cut}");
        }
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        assert!(Follower::default().take(&[ANSWER, b"x"].concat()).is_err());
        assert!(Follower::default().take(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
