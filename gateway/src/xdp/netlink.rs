//! Messages to the kernel and back (linux/netlink.h).

use std::io;

/// Before everything else, in both directions.
pub const MESSAGE_HEADER_BYTES: usize = 16;
/// Before the value of an attribute.
pub const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// What a message says that tells of a failure.
pub const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// A request of this kind.
pub fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = (MESSAGE_HEADER_BYTES + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// What a reply of this kind says behind its header.
///
/// # Errors
/// The one the kernel tells of, or that it says something else.
pub fn body(reply: &[u8], kind: u16) -> io::Result<&[u8]> {
    let body = reply.get(MESSAGE_HEADER_BYTES..).unwrap_or_default();
    match reply.get(4..).and_then(u16_at_start) {
        Some(own) if own == kind => Ok(body),
        Some(NLMSG_ERROR) => {
            let errno = u32_at_start(body).map_or(0, |code| (code as i32).saturating_neg());
            Err(io::Error::from_raw_os_error(errno))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// An attribute, with what it takes to be followed by another.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((ATTRIBUTE_HEADER_BYTES + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Attributes as netlink strings them together: length, type, value, padding to four bytes.
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at_start(self.0)?);
        let kind = u16_at_start(self.0.get(2..)?)? & ATTRIBUTE_TYPE_MASK;
        let value = self.0.get(ATTRIBUTE_HEADER_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub fn u16_at_start(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

pub fn u32_at_start(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}
