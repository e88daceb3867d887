//! One body on its way from one connection to another: decoded as its sender framed it, framed
//! anew for its receiver, never held whole.

use bytes::BytesMut;

use crate::http::Reject;
use crate::http::chunked;
use crate::http::encode::{ChunkSize, LAST_CHUNK};
use crate::http::framing::Framing;
use crate::net::Buffer;

/// A body's framing on both sides and how far it has come.
#[derive(Debug)]
pub struct Body {
    source: Source,
    chunked: bool,
    done: bool,
}

#[derive(Debug)]
enum Source {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(chunked::Decoder),
    Close,
}

impl Body {
    /// A body that arrives framed as `from` and leaves framed as `to`.
    pub fn new(from: Framing, to: Framing) -> Self {
        let source = match from {
            Framing::Empty => Source::Length(0),
            Framing::Length(length) => Source::Length(length),
            Framing::Chunked => Source::Chunked(chunked::Decoder::default()),
            Framing::Close => Source::Close,
        };
        let done = matches!(source, Source::Length(0));
        Self { source, chunked: to == Framing::Chunked, done }
    }

    /// Whether all of it has been seen.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The most to read next, so that nothing behind the body is read where that can be known.
    pub fn wanted(&self) -> usize {
        match self.source {
            Source::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Source::Chunked(_) | Source::Close => usize::MAX,
        }
    }

    /// Whether it leaves as it comes, so that only its bytes have to be counted.
    pub fn is_plain(&self) -> bool {
        matches!(self.source, Source::Length(_)) && !self.chunked
    }

    /// Counts bytes of a plain body; how many of those `available` belong to it.
    pub fn pass(&mut self, available: usize) -> usize {
        let Source::Length(left) = &mut self.source else { return 0 };
        let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
        *left -= passed as u64;
        self.done = *left == 0;
        passed
    }

    /// Turns what `buffer` holds, as received, into what is to be sent. Bytes behind the body are
    /// moved to `surplus`. Returns how many bytes of body there were.
    ///
    /// # Errors
    /// When the chunked coding is broken.
    pub fn recode(&mut self, buffer: &mut Buffer, surplus: &mut BytesMut) -> Result<usize, Reject> {
        let was_done = self.done;
        let available = buffer.len();
        let (body, consumed) = match &mut self.source {
            Source::Length(_) => {
                let body = self.pass(available);
                (body, body)
            }
            Source::Chunked(decoder) => {
                let decoded = decoder.decode(buffer.filled_mut())?;
                self.done = decoded.done;
                (decoded.body, decoded.consumed)
            }
            Source::Close => (available, available),
        };
        surplus.extend_from_slice(buffer.filled().get(consumed..).unwrap_or_default());
        buffer.truncate(body);
        if self.chunked {
            if body > 0 {
                // There is always room: a buffer has headroom, and what was consumed adds to it.
                let _fits = buffer.prepend(ChunkSize::new(body as u64).as_bytes());
                buffer.append(b"\r\n");
            }
            if self.done && !was_done {
                buffer.append(LAST_CHUNK);
            }
        }
        Ok(body)
    }

    /// The sender has closed. Puts what ends the body into `buffer`; `false` when it was cut.
    #[must_use]
    pub fn end(&mut self, buffer: &mut Buffer) -> bool {
        if matches!(self.source, Source::Close) && !self.done {
            self.done = true;
            if self.chunked {
                buffer.append(LAST_CHUNK);
            }
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Buffers;

    fn recode(body: &mut Body, bytes: &[u8]) -> (Vec<u8>, usize) {
        let mut buffer = Buffers::new(1024).take();
        buffer.append(bytes);
        let mut surplus = BytesMut::new();
        body.recode(&mut buffer, &mut surplus).unwrap();
        (buffer.filled().to_vec(), bytes.len() - surplus.len())
    }

    #[test]
    fn every_pair_of_framings() {
        let mut body = Body::new(Framing::Length(5), Framing::Length(5));
        assert_eq!(recode(&mut body, b"he"), (b"he".to_vec(), 2));
        assert_eq!(body.wanted(), 3);
        assert_eq!(recode(&mut body, b"lloGET"), (b"llo".to_vec(), 3));
        assert!(body.is_done());

        let mut body = Body::new(Framing::Chunked, Framing::Chunked);
        assert_eq!(recode(&mut body, b"2\r\nhe\r\n3;a\r\nll"), (b"4\r\nhell\r\n".to_vec(), 14));
        let end = b"o\r\n0\r\nX: y\r\n\r\nGET";
        assert_eq!(recode(&mut body, end), (b"1\r\no\r\n0\r\n\r\n".to_vec(), end.len() - 3));
        assert!(body.is_done());

        let mut body = Body::new(Framing::Close, Framing::Chunked);
        assert_eq!(recode(&mut body, b"hello").0, b"5\r\nhello\r\n");
        let mut buffer = Buffer::default();
        assert!(body.end(&mut buffer));
        assert_eq!(buffer.filled(), LAST_CHUNK);

        let mut body = Body::new(Framing::Chunked, Framing::Close);
        assert_eq!(recode(&mut body, b"5\r\nhello\r\n").0, b"hello");
        assert!(!body.end(&mut Buffer::default()));
    }
}
