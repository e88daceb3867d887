//! The heads of requests and responses, as positions in the buffer they were read into: parsing
//! copies nothing, and a head is reused for the next message.

use super::headers::Name;
use super::target::Target;

/// A range of the buffer a head was parsed from, relative to the head's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it. Heads are at most 64 KiB, so 32 bits suffice.
    pub(super) fn locate(whole: &[u8], part: &[u8]) -> Self {
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        Self::new(start, start.wrapping_add(part.len()))
    }

    /// The bytes from `start` to before `end`.
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes themselves, given those the head was parsed from.
    pub fn of<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The part of this span from its byte `from` to before its byte `to`.
    pub(super) fn part(&self, from: usize, to: usize) -> Self {
        Self { start: self.start + from as u32, end: self.start + to as u32 }
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Which name it has.
    pub known: Name,
    /// The name as it was written.
    pub name: Span,
    /// The value, without whitespace around it.
    pub value: Span,
}

/// The protocol version a peer speaks. A higher minor version than 1 counts as 1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no 1xx, closes unless told otherwise.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// The methods whose meaning matters to a gateway (RFC 9110 §9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Asks for a tunnel.
    Connect,
    /// Safe.
    #[default]
    Get,
    /// Safe; its response has no body.
    Head,
    /// Idempotent and not otherwise special.
    Idempotent,
    /// Safe; may ask about the server as a whole.
    Options,
    /// Every other method: sent at most once.
    Other,
    /// Reflects the request.
    Trace,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 §9.1).
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"PUT" | b"DELETE" => Self::Idempotent,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Whether sending the request twice has the effect of sending it once (RFC 9110 §9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Connect | Self::Other)
    }
}

/// A request's head.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// Bytes up to and including the empty line.
    pub len: usize,
    /// What kind of method it is.
    pub method: Method,
    /// The method as written.
    pub method_name: Span,
    /// The request target as written.
    pub target_text: Span,
    /// The request target, taken apart.
    pub target: Target,
    /// The version of the request line.
    pub version: Version,
    /// The field lines in their order.
    pub fields: Vec<Field>,
    /// The authority asked for: the target's, else the Host field's.
    pub authority: Option<Span>,
    /// How many more hops an OPTIONS may take (RFC 9110 §7.6.2), where it says so.
    pub max_forwards: Option<u64>,
}

/// A response's head.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// Bytes up to and including the empty line.
    pub len: usize,
    /// 100 to 599.
    pub status: u16,
    /// The text after the status; may be empty.
    pub reason: Span,
    /// The version of the status line.
    pub version: Version,
    /// The field lines in their order.
    pub fields: Vec<Field>,
}

/// Values of every field called `name`, in their order.
pub fn values<'a>(
    fields: &'a [Field],
    bytes: &'a [u8],
    name: Name,
) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.known == name).map(move |field| field.value.of(bytes))
}

/// Values of every field of a name, whatever its case, in their order.
pub fn values_of<'a>(
    fields: &'a [Field],
    bytes: &'a [u8],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    let same = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
    fields.iter().filter(same).map(move |field| field.value.of(bytes))
}

/// Whether any Connection field has the member `option` (RFC 9110 §7.6.1).
pub fn connection_has(fields: &[Field], bytes: &[u8], option: &str) -> bool {
    values(fields, bytes, Name::Connection)
        .flat_map(super::headers::members)
        .any(|member| member.eq_ignore_ascii_case(option.as_bytes()))
}

/// Whether the sender of a message keeps its connection open afterwards (RFC 9112 §9.3).
pub fn is_persistent(version: Version, fields: &[Field], bytes: &[u8]) -> bool {
    match version {
        Version::Http11 => !connection_has(fields, bytes, "close"),
        Version::Http10 => {
            connection_has(fields, bytes, "keep-alive") && !connection_has(fields, bytes, "close")
        }
    }
}
