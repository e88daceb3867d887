//! The chunked transfer coding (RFC 9112 §7.1), decoded in place.
//!
//! httparse's chunk parser takes an empty size for the last chunk and ignores what an extension
//! contains, so the grammar is kept here to the letter. Extensions and trailers are checked and
//! dropped, which §7.1.1 and §7.1.2 allow.

use super::Reject;
use super::headers::{is_token_byte, is_value_byte};

/// Bytes of extensions in one body, all chunks together; more is an attack.
const EXTENSION_BYTES_MAX: usize = 8 * 1024;
/// Bytes of trailers.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// What one call to [`Decoder::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of body, now at the front of the buffer.
    pub body: usize,
    /// Bytes of the buffer that belong to this message; after the body comes what follows it.
    pub consumed: usize,
    /// Whether the last chunk and its trailers have been read.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeFirst,
    Size,
    /// After a semicolon: a name must begin.
    ExtensionStart,
    Extension,
    ExtensionQuoted,
    ExtensionEscaped,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Decodes one body, whose bytes may arrive in any pieces.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: State,
    /// Of the chunk being read: its size so far, then the bytes still to come.
    size: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::SizeFirst, size: 0, extension_bytes: 0, trailer_bytes: 0 }
    }
}

impl Decoder {
    /// Decodes all of `bytes` up to the end of the body, moving the body to the front.
    ///
    /// # Errors
    /// At the first byte that breaks the coding's grammar or exceeds a bound.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Reject> {
        let (mut at, mut body) = (0, 0);
        while self.state != State::Done {
            if self.state == State::Data {
                let available = bytes.len() - at;
                let take = usize::try_from(self.size).map_or(available, |size| size.min(available));
                if at != body {
                    bytes.copy_within(at..at + take, body);
                }
                at += take;
                body += take;
                self.size -= take as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
            }
            let Some(byte) = bytes.get(at) else { break };
            self.state = self.step(*byte)?;
            at += 1;
        }
        Ok(Decoded { body, consumed: at, done: self.state == State::Done })
    }

    fn step(&mut self, byte: u8) -> Result<State, Reject> {
        const SIZE: Reject = Reject::Malformed("invalid chunk size");
        const EXTENSION: Reject = Reject::Malformed("invalid chunk extension");
        const TRAILER: Reject = Reject::Malformed("invalid trailer");
        Ok(match (self.state, byte) {
            (State::SizeFirst | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if self.size >> 60 != 0 {
                    return Err(SIZE);
                }
                self.size = self.size << 4 | u64::from(digit);
                State::Size
            }
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::Extension, b';') => State::ExtensionStart,
            (State::SizeFirst | State::Size, _) => return Err(SIZE),

            (State::ExtensionStart, _) if is_token_byte(byte) => self.extension()?,
            (State::Extension, b'"') => {
                self.extension()?;
                State::ExtensionQuoted
            }
            (State::Extension, _) if is_token_byte(byte) || byte == b'=' => self.extension()?,
            (State::ExtensionQuoted, b'"') => self.extension()?,
            (State::ExtensionQuoted, b'\\') => State::ExtensionEscaped,
            (State::ExtensionQuoted | State::ExtensionEscaped, _) if is_value_byte(byte) => {
                self.extension()?;
                State::ExtensionQuoted
            }
            (
                State::ExtensionStart
                | State::Extension
                | State::ExtensionQuoted
                | State::ExtensionEscaped,
                _,
            ) => return Err(EXTENSION),

            (State::SizeLf, b'\n') if self.size == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::SizeLf, _) => return Err(SIZE),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeFirst,
            (State::DataCr | State::DataLf, _) => {
                return Err(Reject::Malformed("chunk does not end where its size says"));
            }

            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                self.trailer()?;
                State::TrailerName
            }
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_value_byte(byte) => {
                self.trailer()?;
                State::TrailerValue
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            (
                State::TrailerStart
                | State::TrailerName
                | State::TrailerValue
                | State::TrailerLf
                | State::EndLf,
                _,
            ) => return Err(TRAILER),

            // `decode` passes neither data nor anything after the end to this function.
            (State::Data | State::Done, _) => self.state,
        })
    }

    fn extension(&mut self) -> Result<State, Reject> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Reject::ExtensionsTooLarge);
        }
        Ok(State::Extension)
    }

    fn trailer(&mut self) -> Result<(), Reject> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Reject::TrailersTooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), Reject> {
        let mut decoder = Decoder::default();
        let (mut body, mut consumed, mut done) = (Vec::new(), 0, false);
        for piece in pieces {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece)?;
            body.extend_from_slice(&piece[..decoded.body]);
            consumed += decoded.consumed;
            done = decoded.done;
        }
        Ok((body, done, consumed))
    }

    #[test]
    fn every_cut_gives_the_same_body() {
        let coded =
            b"5;a=\"x;\\\"y\";b\r\nhello\r\n00C\r\n, wide world\r\n0\r\nX: y\r\nZ:\r\n\r\nGET /";
        let whole = decode(&[coded]).unwrap();
        assert_eq!(whole, (b"hello, wide world".into(), true, coded.len() - 5));
        for cut in 0..coded.len() {
            let (first, second) = coded.split_at(cut);
            assert_eq!(decode(&[first, second]).unwrap(), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = coded.chunks(1).collect();
        assert_eq!(decode(&bytes).unwrap(), whole);
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for bad in [
            "\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5_0\r\n",
            "-1\r\n",
            ";a\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5\r\nhello\n",
            "5\r\nhello0\r\n",
            "5\r\nhell\r\n0\r\n\r\n",
            "1;\r\na\r\n",
            "1;a\0\r\na\r\n",
            "1;a\nb\r\na\r\n",
            "1;=\r\na\r\n",
            "1 ;a\r\na\r\n",
            "11111111111111111\r\n",
            "g\r\n",
            "0\r\n\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "0\r\n A: b\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\n\rX",
        ] {
            assert!(decode(&[bad.as_bytes()]).is_err(), "{bad:?}");
        }
        let extension = format!("1;{}\r\na\r\n", "a".repeat(EXTENSION_BYTES_MAX + 1));
        assert!(decode(&[extension.as_bytes()]).is_err());
        let trailer = format!("0\r\nA: {}\r\n\r\n", "a".repeat(TRAILER_BYTES_MAX));
        assert!(decode(&[trailer.as_bytes()]).is_err());
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        let coded = b"5\r\nhello\r\n0\r\n\r\n";
        for cut in 0..coded.len() {
            assert!(!decode(&[&coded[..cut]]).unwrap().1, "cut at {cut}");
        }
    }
}
