//! HTTP/1.1 without I/O: bytes in, values out. RFC 9110 (semantics) and RFC 9112 (messaging).
//!
//! A request takes the files in this order: [`parse`] finds a whole head or rejects it, [`target`]
//! and [`framing`] decide what it asks for and where its body ends, [`forward`] turns it into the
//! one head that may be sent on. [`chunked`] and [`encode`] serve both directions.

pub mod accept;
pub mod ambiguity;
pub mod chunked;
pub mod edits;
pub mod encode;
pub mod forward;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod headers;
pub mod parse;
pub mod target;
pub mod upgrade;

/// Why a message is refused. The text goes to the log and the answer; it never quotes the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// It breaks the grammar or its framing is ambiguous: 400.
    Malformed(&'static str),
    /// The request line alone exceeds the limit for a head: 414.
    TargetTooLong,
    /// Head or number of fields over the limit: 431.
    HeadTooLarge,
    /// Chunk extensions over the limit: 400.
    ExtensionsTooLarge,
    /// Trailers over the limit: 431.
    TrailersTooLarge,
    /// An expectation other than `100-continue`: 417.
    Expectation,
    /// A method or transfer coding the gateway does not handle: 501.
    NotImplemented(&'static str),
    /// A major version other than 1: 505.
    Version,
}

impl Reject {
    /// The status a client gets for it. For a response from an origin every reason is a 502, which
    /// the exchange decides.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) | Self::ExtensionsTooLarge => 400,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TrailersTooLarge => 431,
            Self::NotImplemented(_) => 501,
            Self::Version => 505,
        }
    }

    /// What was wrong, in a few words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed(reason) | Self::NotImplemented(reason) => reason,
            Self::TargetTooLong => "request target too long",
            Self::HeadTooLarge => "head too large",
            Self::ExtensionsTooLarge => "chunk extensions too large",
            Self::TrailersTooLarge => "trailers too large",
            Self::Expectation => "unknown expectation",
            Self::Version => "HTTP version not supported",
        }
    }
}
