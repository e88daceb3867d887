//! What requests that belong together have in common.

use std::hash::{DefaultHasher, Hasher as _};
use std::net::IpAddr;

use super::Request;
use crate::http::head::{values, values_of};
use crate::http::headers::{Name, members_by};

/// What requests that belong together have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// The client's address.
    Client,
    /// The value of a field.
    Field(String),
    /// The value of a cookie.
    Cookie(String),
    /// The path, without query.
    Path,
}

impl Affinity {
    /// Where a request lies among all numbers: the same for all that belong together, on every worker
    /// and on every machine that runs the same build. `None` if it belongs to no others.
    pub fn point(&self, request: &Request<'_>) -> Option<u64> {
        let Request { head, bytes, source, .. } = *request;
        match self {
            Self::Client => Some(match source.ip().to_canonical() {
                IpAddr::V4(address) => point(&address.octets()),
                IpAddr::V6(address) => point(&address.octets()),
            }),
            Self::Field(name) => values_of(&head.fields, bytes, name).next().map(point),
            Self::Cookie(name) => cookie(request, name).map(point),
            Self::Path => Some(point(head.target.path(bytes))),
        }
    }
}

/// The point of some bytes.
pub fn point(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The value of a cookie (RFC 6265 §4.2.1).
fn cookie<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    let Request { head, bytes, .. } = *request;
    let cookies = values(&head.fields, bytes, Name::Cookie);
    cookies
        .flat_map(|value| members_by(value, b';'))
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
