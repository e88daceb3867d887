//! What requests that are counted together have in common.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::jwt;
use crate::document::section::Section;
use crate::document::value::Kind;
use crate::document::values::{integer, text};
use crate::exchange::{Context, Request};
use crate::http::headers::is_token_byte;

const HINT: &str = "\"claim:NAME\", \"client\", \"header:NAME\", \"identity\", \"route\", a list of these, or \"all\"";

/// What requests that are counted together have in common: all of its parts. Without any, all are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    parts: Vec<Part>,
    /// Bits of an address that make a client.
    ipv4_prefix: u32,
    ipv6_prefix: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Of a token that has been let in.
    Claim(String),
    Client,
    Field(String),
    Identity,
    Route,
}

impl Key {
    /// Reads `key` and what belongs to it.
    pub fn read(table: &mut Section<'_>) -> Self {
        Self {
            parts: table.value("key", vec![Part::Client], parts),
            ipv4_prefix: table.value("ipv4_prefix", 32, integer(8..=32)),
            ipv6_prefix: table.value("ipv6_prefix", 64, integer(16..=128)),
        }
    }

    /// Whether it tells apart who has been found to be somebody.
    pub fn has_identity(&self) -> bool {
        self.parts.contains(&Part::Identity)
    }

    /// Whether it tells apart by what a token says.
    pub fn has_claim(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Claim(_)))
    }

    /// The fields that it tells apart by.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it tells them apart by nothing else.
    pub fn is_identity(&self) -> bool {
        self.parts == [Part::Identity]
    }

    /// Where a request lies among all numbers, by a hash that nobody outside can compute.
    pub fn point(&self, request: &Request<'_>, context: &Context, hashes: &RandomState) -> u64 {
        let mut hasher = hashes.build_hasher();
        for part in &self.parts {
            match part {
                Part::Claim(name) => {
                    let claims = request.identity.claims();
                    claims.and_then(|claims| jwt::claim(claims, name)).hash(&mut hasher);
                }
                Part::Client => self.network(request.source.ip()).hash(&mut hasher),
                // Those that have none share what there is. What a policy says of the client in it, the
                // client cannot.
                Part::Field(name) => {
                    context.field(request, name, |value| value.hash(&mut hasher));
                }
                Part::Identity => request.identity().hash(&mut hasher),
                Part::Route => request.route.hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// The network whose addresses are one client.
    fn network(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - self.ipv4_prefix).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - self.ipv6_prefix).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.parts.iter().enumerate() {
            out.write_str(if position == 0 { "by " } else { " and " })?;
            match part {
                Part::Claim(name) => write!(out, "claim {name}"),
                Part::Client => out.write_str("client"),
                Part::Field(name) => write!(out, "header {name}"),
                Part::Identity => out.write_str("identity"),
                Part::Route => out.write_str("route"),
            }?;
        }
        out.write_str(if self.parts.is_empty() { "all together" } else { "" })
    }
}

fn parts(kind: &Kind) -> Result<Vec<Part>, String> {
    let parts = match kind {
        Kind::Text(text) if text == "all" => Vec::new(),
        Kind::List(elements) if !elements.is_empty() => {
            elements.iter().map(|element| part(&element.kind)).collect::<Result<_, _>>()?
        }
        kind => vec![part(kind)?],
    };
    match (1..parts.len()).any(|at| parts.iter().take(at).any(|part| Some(part) == parts.get(at))) {
        true => Err("has the same part twice".to_owned()),
        false => Ok(parts),
    }
}

fn part(kind: &Kind) -> Result<Part, String> {
    let wrong = || format!("must be {HINT}");
    match text(kind).map_err(|_| wrong())? {
        "client" => Ok(Part::Client),
        "identity" => Ok(Part::Identity),
        "route" => Ok(Part::Route),
        text => match text.split_once(':') {
            Some(("header", name)) if !name.is_empty() && name.bytes().all(is_token_byte) => {
                Ok(Part::Field(name.to_ascii_lowercase()))
            }
            Some(("claim", name)) if !name.is_empty() => Ok(Part::Claim(name.to_owned())),
            _ => Err(wrong()),
        },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::{Asker, settings};
    use super::*;

    fn same(key: &str, first: &Asker, second: &Asker) -> bool {
        let key = settings(key, Key::read).unwrap();
        let hashes = RandomState::new();
        let point =
            |asker: &Asker| asker.ask(|request, context| key.point(request, context, &hashes));
        point(first) == point(second)
    }

    #[test]
    fn clients_are_networks() {
        let from = |address: &str| Asker::get("/").from(address);
        assert!(same("", &from("192.0.2.1"), &from("::ffff:192.0.2.1")));
        assert!(!same("", &from("192.0.2.1"), &from("192.0.2.2")));
        assert!(same("ipv4_prefix = 24", &from("192.0.2.1"), &from("192.0.2.2")));
        assert!(same("", &from("2001:db8::1"), &from("2001:db8::ffff:1")));
        assert!(!same("", &from("2001:db8::1"), &from("2001:db8:0:1::1")));
        assert!(!same("ipv6_prefix = 128", &from("2001:db8::1"), &from("2001:db8::2")));
    }

    #[test]
    fn parts_are_combined() {
        let key = "key = ['route', 'header:X-Key']";
        let ask = |route: &str, value: &str| Asker::get("/").route(route).field("x-key", value);
        assert!(same(key, &ask("/a", "1"), &ask("/a", "1").from("192.0.2.77")));
        assert!(!same(key, &ask("/a", "1"), &ask("/b", "1")));
        assert!(!same(key, &ask("/a", "1"), &ask("/a", "2")));
        assert!(!same(key, &ask("/a", ""), &Asker::get("/").route("/a")));
        assert!(same("key = 'all'", &ask("/a", "1"), &ask("/b", "2").from("192.0.2.77")));
    }

    #[test]
    fn clients_do_not_choose_what_policies_say_of_them() {
        let key = settings("key = 'header:x-user'", Key::read).unwrap();
        let hashes = RandomState::new();
        let point = |sent: &str, said: Option<&'static str>| {
            Asker::get("/").field("X-User", sent).ask(|request, context| {
                let name = || Bytes::from_static(b"x-user");
                context.request_edits.borrow_mut().remove(name());
                if let Some(said) = said {
                    context.request_edits.borrow_mut().add(name(), said.into());
                }
                key.point(request, context, &hashes)
            })
        };
        assert_eq!(point("one", Some("alice")), point("two", Some("alice")));
        assert_ne!(point("one", Some("alice")), point("one", Some("bob")));
        assert_eq!(point("one", None), point("two", None));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for key in [
            "[]",
            "''",
            "'header:'",
            "'claim:'",
            "'cookie:a'",
            "1",
            "['all']",
            "['client', 'client']",
        ] {
            assert!(settings(&format!("key = {key}"), Key::read).is_err(), "{key}");
        }
    }
}
