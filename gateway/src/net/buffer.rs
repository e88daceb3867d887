//! Bytes on their way, and the pool they come from. A buffer belongs to an exchange; an idle
//! connection has none.

use std::cell::RefCell;

use bytes::BytesMut;

/// Room kept free in front of what is read, so that a head or a chunk's size can be put before a
/// body without moving it: one write then carries both. What the gateway adds by itself fits; policies may add more.
pub const HEADROOM: usize = 512;

/// Room kept free behind what is read: for the end of a chunk and of a chunked body, and for what TLS
/// adds to the records of it all.
const TAILROOM: usize = 512;

/// Bytes read and not yet used, with room before and after them.
#[derive(Debug, Default)]
pub struct Buffer {
    pub(super) bytes: BytesMut,
    pub(super) start: usize,
}

impl Buffer {
    fn with_capacity(capacity: usize) -> Self {
        let mut buffer =
            Self { bytes: BytesMut::with_capacity(HEADROOM + capacity + TAILROOM), start: 0 };
        buffer.clear();
        buffer
    }

    /// What is in it.
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// What is in it, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many more bytes can be read into it.
    pub fn spare(&self) -> usize {
        self.bytes.capacity().saturating_sub(self.bytes.len() + TAILROOM)
    }

    /// Takes `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }

    /// Empties it, with the headroom free again.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADROOM, 0);
        self.start = HEADROOM;
    }

    /// Moves what is in it to the front, so that all the spare room lies behind it.
    pub fn compact(&mut self) {
        if self.start > HEADROOM {
            let len = self.len();
            self.bytes.copy_within(self.start.., HEADROOM);
            self.bytes.truncate(HEADROOM + len);
            self.start = HEADROOM;
        }
    }

    /// Adds `bytes` at the end.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts `bytes` before what is in it, if the room there suffices.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        let Some(room) = self.bytes.get_mut(start..self.start) else { return false };
        room.copy_from_slice(bytes);
        self.start = start;
        true
    }
}

impl From<Buffer> for BytesMut {
    /// The memory of a buffer, emptied.
    fn from(mut buffer: Buffer) -> Self {
        buffer.bytes.clear();
        buffer.bytes
    }
}

impl From<BytesMut> for Buffer {
    /// A buffer that holds these bytes, without headroom.
    fn from(bytes: BytesMut) -> Self {
        Self { bytes, start: 0 }
    }
}

/// How many buffers a worker keeps for reuse; those of a burst above it are freed.
const KEPT_MAX: usize = 512;

/// Bytes a buffer has room for, or a whole head, if that may be longer. 64 KiB is where larger reads stop paying.
/// What is not written to takes no memory.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// A worker's buffers. What is taken and not given back is simply freed.
#[derive(Debug)]
pub struct Buffers {
    capacity: usize,
    kept: RefCell<Vec<Buffer>>,
}

impl Buffers {
    /// Buffers that have room for a head of `head_bytes`.
    pub fn new(head_bytes: usize) -> Self {
        Self { capacity: BUFFER_BYTES.max(head_bytes), kept: RefCell::default() }
    }

    /// An empty buffer.
    pub fn take(&self) -> Buffer {
        let kept = self.kept.borrow_mut().pop();
        kept.unwrap_or_else(|| Buffer::with_capacity(self.capacity))
    }

    /// Takes a buffer back.
    pub fn give(&self, mut buffer: Buffer) {
        let mut kept = self.kept.borrow_mut();
        // One that lost its memory to a dropped operation is of no use; one that grew would keep
        // its size for good.
        let least = HEADROOM + self.capacity;
        let as_made = (least..2 * least).contains(&buffer.bytes.capacity());
        if as_made && kept.len() < KEPT_MAX {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consuming_compacting_and_prepending() {
        let buffers = Buffers::new(1024);
        let mut buffer = buffers.take();
        buffer.append(b"head body");
        buffer.consume(5);
        assert!(buffer.prepend(b"new head "));
        assert_eq!(buffer.filled(), b"new head body");
        assert!(!buffer.prepend(&[0; HEADROOM]));
        buffer.consume(9);
        buffer.compact();
        assert_eq!(buffer.filled(), b"body");
        assert_eq!(buffer.spare(), BUFFER_BYTES - 4);
        buffer.consume(4);
        assert!(buffer.is_empty());
        buffers.give(buffer);
        assert_eq!(buffers.kept.borrow().len(), 1);
        buffers.give(Buffer::default());
        assert_eq!(buffers.kept.borrow().len(), 1);
    }
}
