//! Divides the requests of one route among upstreams: some for the new version, most for the old.

use std::hash::{DefaultHasher, Hasher as _};

use crate::exchange::Request;
use crate::http::headers::{Name, members_by};

/// Upstreams and their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Positions of upstreams with their weights, at least one.
    pub shares: Vec<(usize, u32)>,
    /// What makes requests stay together.
    pub sticky: Option<Sticky>,
}

/// What requests that stay together have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// The client's address.
    Client,
    /// The value of a field.
    Field(String),
    /// The value of a cookie, which is set where there is none.
    Cookie(String),
}

impl Split {
    /// The upstream for a point between none and all of the requests: shares lie side by side in the
    /// order written, so that a share that grows at the end takes only from its neighbour.
    pub fn at(&self, point: u64) -> Option<usize> {
        let total: u64 = self.shares.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = (u128::from(point) * u128::from(total)) >> 64;
        let share = self.shares.iter().find(|(_, weight)| {
            let within = left < u128::from(*weight);
            left = left.saturating_sub(u128::from(*weight));
            within
        });
        share.map(|(upstream, _)| *upstream)
    }
}

impl Sticky {
    /// The value of a request; `None` if it has none.
    pub fn value<'a>(&self, request: &Request<'a>) -> Option<Value<'a>> {
        let Request { head, bytes, .. } = *request;
        match self {
            Self::Client => Some(Value::Address(request.source.ip().to_canonical())),
            Self::Field(name) => {
                let called = |field: &&crate::http::head::Field| {
                    field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes())
                };
                head.fields.iter().find(called).map(|field| Value::Text(field.value.of(bytes)))
            }
            Self::Cookie(name) => cookie(request, name).map(Value::Text),
        }
    }
}

/// What requests are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An address.
    Address(std::net::IpAddr),
    /// A field's or a cookie's value.
    Text(&'a [u8]),
}

impl Value<'_> {
    /// The point it always lies at, on every worker and machine.
    pub fn point(self) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Address(std::net::IpAddr::V4(address)) => hasher.write(&address.octets()),
            Self::Address(std::net::IpAddr::V6(address)) => hasher.write(&address.octets()),
            Self::Text(text) => hasher.write(text),
        }
        hasher.finish()
    }
}

/// The value of a cookie (RFC 6265 §4.2.1).
fn cookie<'a>(request: &Request<'a>, name: &str) -> Option<&'a [u8]> {
    let Request { head, bytes, .. } = *request;
    let cookies = crate::http::head::values(&head.fields, bytes, Name::Cookie);
    cookies
        .flat_map(|value| members_by(value, b';'))
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_grow_into_their_neighbour() {
        let split = |weights: [u32; 2]| Split {
            shares: weights.into_iter().enumerate().collect(),
            sticky: None,
        };
        let points: Vec<u64> =
            (0..10_000u32).map(|number| Value::Text(&number.to_le_bytes()).point()).collect();
        let second = |weights| {
            let split = split(weights);
            points.iter().map(|point| split.at(*point).unwrap() == 1).collect::<Vec<_>>()
        };
        let (tenth, fifth) = (second([90, 10]), second([80, 20]));
        let count = |chosen: &[bool]| chosen.iter().filter(|chosen| **chosen).count();
        assert!((900..1100).contains(&count(&tenth)), "{}", count(&tenth));
        assert!((1850..2150).contains(&count(&fifth)), "{}", count(&fifth));
        assert!(tenth.iter().zip(&fifth).all(|(before, after)| !before || *after));
        assert_eq!(split([0, 1]).at(0), Some(1));
        assert_eq!(split([1, 0]).at(u64::MAX), Some(0));
    }
}
