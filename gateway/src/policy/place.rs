//! Where a request may have a secret that shows who its client is.

use std::borrow::Cow;

use bytes::Bytes;

use crate::document::value::Kind;
use crate::document::values::text;
use crate::exchange::{Context, Request};
use crate::http::edits::Edits;
use crate::http::head::{values, values_of};
use crate::http::headers::{Name, is_token_byte, members_by, trim_ows};
use crate::routing::conditions::parameters;

const HINT: &str =
    "\"header:NAME\", \"bearer\", \"query:NAME\", \"cookie:NAME\", or a list of these";

/// Where a request may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Header(String),
    Bearer,
    Query(String),
    Cookie(String),
}

impl Place {
    /// Reads one, or a list.
    pub fn read_all(kind: &Kind) -> Result<Vec<Self>, String> {
        let places = match kind {
            Kind::List(elements) if !elements.is_empty() => {
                elements.iter().map(|element| place(&element.kind)).collect::<Result<_, _>>()?
            }
            kind => vec![place(kind)?],
        };
        let seen = |at: usize| places.iter().take(at).any(|place| Some(place) == places.get(at));
        match (1..places.len()).any(seen) {
            true => Err("has the same place twice".to_owned()),
            false => Ok(places),
        }
    }

    /// Asks for a key there. There is no registered scheme for keys; the parameters are those that OpenAPI
    /// describes them by.
    pub fn challenge(&self, realm: &str) -> String {
        let (place, name) = match self {
            // RFC 6750 §3.
            Self::Bearer => return format!("Bearer realm=\"{realm}\""),
            Self::Header(name) => ("header", name),
            Self::Query(name) => ("query", name),
            Self::Cookie(name) => ("cookie", name),
        };
        format!("ApiKey realm=\"{realm}\", in=\"{place}\", name=\"{name}\"")
    }

    /// As a configuration writes it.
    fn text(&self) -> String {
        match self {
            Self::Bearer => "bearer".to_owned(),
            Self::Header(name) => format!("header:{name}"),
            Self::Query(name) => format!("query:{name}"),
            Self::Cookie(name) => format!("cookie:{name}"),
        }
    }

    /// The secrets that are there.
    fn shown<'r>(&'r self, request: &Request<'r>) -> Vec<Cow<'r, [u8]>> {
        let Request { head, bytes, .. } = *request;
        match self {
            Self::Header(name) => values_of(&head.fields, bytes, name).map(Cow::Borrowed).collect(),
            Self::Bearer => {
                let values = values_of(&head.fields, bytes, "authorization");
                values.filter_map(bearer).map(Cow::Borrowed).collect()
            }
            Self::Query(name) => {
                let own = |(key, value): (Vec<u8>, Vec<u8>)| {
                    (key == name.as_bytes()).then_some(Cow::Owned(value))
                };
                let query = head.target.query.of(bytes);
                parameters(query).filter_map(own).collect()
            }
            Self::Cookie(name) => {
                let pairs = cookies(request).filter_map(|pair| cookie(pair, name));
                pairs.map(Cow::Borrowed).collect()
            }
        }
    }

    fn hide(&self, request: &Request<'_>, edits: &mut Edits) {
        match self {
            Self::Query(name) => {
                let own = || request.head.target.query.of(request.bytes);
                let left = without(edits.query().unwrap_or_else(own), name);
                edits.set_query(left);
            }
            Self::Header(name) => edits.remove_received(Bytes::copy_from_slice(name.as_bytes())),
            Self::Bearer => edits.remove_received(Bytes::from_static(b"authorization")),
            Self::Cookie(name) => hide_cookie(request, edits, name),
        }
    }
}

/// As a person is told of them.
pub(super) fn listed(places: &[Place]) -> String {
    places.iter().map(Place::text).collect::<Vec<_>>().join(" or ")
}

/// The secrets at the first place that has one.
pub(super) fn shown<'r>(places: &'r [Place], request: &Request<'r>) -> Vec<Cow<'r, [u8]>> {
    let mut shown = places.iter().map(|place| place.shown(request));
    shown.find(|here| !here.is_empty()).unwrap_or_default()
}

/// Keeps the secrets of all places from the origin.
pub(super) fn hide(places: &[Place], request: &Request<'_>, context: &Context) {
    for place in places.iter().filter(|place| !place.shown(request).is_empty()) {
        place.hide(request, &mut context.request_edits.borrow_mut());
    }
}

/// Keeps the secrets of all places from the access log, which shows the query.
pub(super) fn keep_from_log(places: &[Place], request: &Request<'_>, context: &Context) {
    for place in places.iter().filter(|place| !place.shown(request).is_empty()) {
        let Place::Query(name) = place else { continue };
        let own = || request.head.target.query.of(request.bytes);
        let logged = context.logged_query.take();
        let left = without(logged.as_deref().unwrap_or_else(own), name);
        context.logged_query.replace(Some(left));
    }
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| trim_ows(token))
}

/// A query with its question mark, without the parameters of a name.
fn without(query: &[u8], name: &str) -> Bytes {
    let kept = query.strip_prefix(b"?").unwrap_or(query).split(|byte| *byte == b'&');
    let kept: Vec<_> =
        kept.filter(|part| !parameters(part).any(|(key, _)| key == name.as_bytes())).collect();
    match &kept.join(&b'&')[..] {
        b"" => Bytes::new(),
        kept => [b"?", kept].concat().into(),
    }
}

/// Pairs of a name and a value (RFC 6265 §4.2.1).
fn cookies<'r>(request: &Request<'r>) -> impl Iterator<Item = &'r [u8]> {
    let Request { head, bytes, .. } = *request;
    values(&head.fields, bytes, Name::Cookie).flat_map(|value| members_by(value, b';'))
}

fn cookie<'r>(pair: &'r [u8], name: &str) -> Option<&'r [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

fn hide_cookie(request: &Request<'_>, edits: &mut Edits, name: &str) {
    let field = Bytes::from_static(b"cookie");
    let pairs: Vec<Vec<u8>> = match edits.removes(&field) {
        true => {
            let changed = edits.values(&field);
            changed.flat_map(|value| members_by(value, b';')).map(<[u8]>::to_vec).collect()
        }
        false => cookies(request).map(<[u8]>::to_vec).collect(),
    };
    let kept: Vec<_> = pairs.into_iter().filter(|pair| cookie(pair, name).is_none()).collect();
    match kept.is_empty() {
        true => edits.remove(field),
        false => edits.set(field, kept.join(&b"; "[..]).into()),
    }
}

fn place(kind: &Kind) -> Result<Place, String> {
    let wrong = || format!("must be {HINT}");
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token_byte);
    let text = text(kind).map_err(|_| wrong())?;
    match text.split_once(':') {
        None if text == "bearer" => Ok(Place::Bearer),
        Some(("header", name)) if name.eq_ignore_ascii_case("authorization") => {
            Err("write \"bearer\"".to_owned())
        }
        Some((place, name)) if is_name(name) => match place {
            "header" => Ok(Place::Header(name.to_ascii_lowercase())),
            "query" => Ok(Place::Query(name.to_owned())),
            "cookie" => Ok(Place::Cookie(name.to_owned())),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_taken_out_of_a_query() {
        for (query, left) in [
            ("?k=secret", ""),
            ("?a=b&k=secret", "?a=b"),
            ("?k=secret&a=%6b", "?a=%6b"),
            ("?&a&%6B=secret", "?&a"),
        ] {
            assert_eq!(without(query.as_bytes(), "k"), left);
        }
    }
}
