//! Packets, wherever they lie: in the kernel, where the verifier wants each access checked, or in a slice.

/// Bytes that may or may not be there.
pub trait Bytes {
    /// `N` bytes from offset `at`, or `None` where the frame has no such bytes.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// `N` times four bytes, as the machine has them in memory.
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (number, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.read(at + 4 * number)?);
        }
        Some(words)
    }
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }
}

/// A frame that may be changed.
pub trait Frame: Bytes {
    /// Writes at offset `at` what [`Bytes::words`] reads; `None` where the frame has no such bytes.
    fn write<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Option<()>;
    /// How many bytes it has.
    fn length(&self) -> usize;
    /// Makes the frame `length` bytes long; `false` where that cannot be, and then nothing has changed.
    fn resize(&mut self, length: usize) -> bool;
}
