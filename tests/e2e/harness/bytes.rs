//! Bytes to send: a known pattern, its checksum, its chunked form, and seeded random ones.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

const PATTERN_BYTES: usize = 10 * 1024 * 1024;

/// The first `length` bytes of a pattern in which no two stretches of a buffer's size are alike.
pub fn pattern(length: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut random = Random::seeded(1);
        let mut bytes = Vec::with_capacity(PATTERN_BYTES);
        while bytes.len() < PATTERN_BYTES {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        bytes
    });
    &PATTERN[..length]
}

/// Length and FNV-1a: enough to notice a byte lost, doubled or moved.
pub fn checksum(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}-{hash:016x}", bytes.len())
}

/// `body` in chunks of changing sizes, with the last chunk and no trailers.
pub fn chunked(body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(body.len() + body.len() / 64 + 64);
    let mut rest = body;
    for size in [1, 15, 16, 1000, 4096, 65_536, 7].into_iter().cycle() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        if chunk.is_empty() {
            break;
        }
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        rest = after;
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

/// xorshift64*: the same seed gives the same bytes on every machine.
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Takes `GATEWAY_TEST_SEED`, else a new seed; prints it, which is shown when the test fails.
    pub fn from_env() -> Self {
        let new = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let given = std::env::var("GATEWAY_TEST_SEED").ok();
        let seed = given.map_or_else(new, |text| text.parse().expect("a number"));
        println!("to repeat: GATEWAY_TEST_SEED={seed}");
        Self::seeded(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
