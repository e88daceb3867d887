//! Bytes on their way, and the pool they come from. A buffer belongs to an exchange; an idle
//! connection has none.

use std::cell::RefCell;

use bytes::BytesMut;

/// Room kept free in front of what is read, so that a head or a chunk's size can be put before a
/// body without moving it: one write then carries both.
pub const HEADROOM: usize = 192;

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

/// How many buffers of a kind a worker keeps for reuse; those of a burst above it are freed.
const KEPT_MAX: usize = 512;

/// A worker's buffers. What is taken and not given back is simply freed.
#[derive(Debug)]
pub struct Buffers {
    head_bytes: usize,
    heads: RefCell<Vec<Buffer>>,
    bodies: RefCell<Vec<Buffer>>,
}

/// Bytes of body a worker holds per direction and exchange. 64 KiB is where larger reads stop
/// paying.
pub const BODY_BYTES: usize = 64 * 1024;

impl Buffers {
    /// Buffers whose heads take `head_bytes`.
    pub fn new(head_bytes: usize) -> Self {
        Self { head_bytes, heads: RefCell::default(), bodies: RefCell::default() }
    }

    /// An empty buffer for a request's head.
    pub fn head(&self) -> Buffer {
        let kept = self.heads.borrow_mut().pop();
        kept.unwrap_or_else(|| Buffer::with_capacity(self.head_bytes))
    }

    /// An empty buffer for a body, or for a response's head and what comes with it.
    pub fn body(&self) -> Buffer {
        let kept = self.bodies.borrow_mut().pop();
        kept.unwrap_or_else(|| Buffer::with_capacity(BODY_BYTES.max(self.head_bytes)))
    }

    /// Takes back a buffer from [`Self::head`].
    pub fn give_head(&self, buffer: Buffer) {
        Self::keep(&self.heads, buffer, HEADROOM + self.head_bytes);
    }

    /// Takes back a buffer from [`Self::body`].
    pub fn give_body(&self, buffer: Buffer) {
        Self::keep(&self.bodies, buffer, HEADROOM + BODY_BYTES.max(self.head_bytes));
    }

    fn keep(kept: &RefCell<Vec<Buffer>>, mut buffer: Buffer, capacity: usize) {
        let mut kept = kept.borrow_mut();
        // One that lost its memory to a dropped operation is of no use; one that grew would keep
        // its size for good.
        let as_made = (capacity..2 * capacity).contains(&buffer.bytes.capacity());
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
        let mut buffer = buffers.head();
        buffer.append(b"head body");
        buffer.consume(5);
        assert!(buffer.prepend(b"new head "));
        assert_eq!(buffer.filled(), b"new head body");
        assert!(!buffer.prepend(&[0; HEADROOM]));
        buffer.consume(9);
        buffer.compact();
        assert_eq!(buffer.filled(), b"body");
        assert_eq!(buffer.spare(), 1024 - 4);
        buffer.consume(4);
        assert!(buffer.is_empty());
        buffers.give_head(buffer);
        assert_eq!(buffers.heads.borrow().len(), 1);
        buffers.give_head(Buffer::default());
        assert_eq!(buffers.heads.borrow().len(), 1);
    }
}
