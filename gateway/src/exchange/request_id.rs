//! The name of a request in the logs of everybody who handles it: the client's own in X-Request-Id,
//! or one made here.

use std::cell::Cell;

use crate::http::head::{Field, values};
use crate::http::headers::Name;

/// The longest one passed on.
const LENGTH_MAX: usize = 128;

/// 128 bits in hexadecimal.
pub type Made = [u8; 32];

/// Makes them for one worker.
#[derive(Debug)]
pub struct RequestIds {
    /// Tells workers and their restarts apart.
    worker: u64,
    next: Cell<u64>,
}

impl RequestIds {
    /// Begins at a random point.
    ///
    /// # Errors
    /// Those of getrandom(2), which after boot does not fail.
    pub fn new() -> std::io::Result<Self> {
        let mut seed = [0; 16];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        let number = u128::from_le_bytes(seed);
        Ok(Self { worker: (number >> 64) as u64, next: Cell::new(number as u64) })
    }

    /// One that no other request has.
    pub fn make(&self) -> Made {
        let count = self.next.get();
        self.next.set(count.wrapping_add(1));
        let number = u128::from(self.worker) << 64 | u128::from(count);
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        text
    }
}

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' - 10 + value }
}

/// The one a request came with, if it can stand in any log: one value of letters, digits and a few
/// marks.
pub fn given<'a>(fields: &'a [Field], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let mut ids = values(fields, bytes, Name::XRequestId);
    let id = ids.next()?;
    let fits = (1..=LENGTH_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:=+/@~".contains(byte));
    (fits && ids.next().is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        let ids = RequestIds { worker: 1, next: Cell::new(u64::MAX) };
        assert_eq!(&ids.make(), b"0000000000000001ffffffffffffffff");
        assert_eq!(&ids.make(), b"00000000000000010000000000000000");
    }
}
