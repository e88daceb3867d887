//! Which other sites' pages may read answers (the CORS protocol of WHATWG Fetch §3.3).
//!
//! A preflight is answered here and never reaches an origin. What a page of another site asks for
//! passes like everything else, without the fields that would let the page read the answer: the browser
//! refuses it. Whether a request may have an effect is for authentication to say.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use super::{Policy, Verdict};
use crate::document::section::Section;
use crate::document::units::duration;
use crate::document::value::Kind;
use crate::document::values::{boolean, text};
use crate::exchange::{Context, Request};
use crate::http::edits::Edits;
use crate::http::head::{Method, values_of};
use crate::http::headers::is_token_byte;

const ORIGINS_HINT: &str =
    "write [\"https://app.example.com\", \"https://*.example.com\"] or [\"*\"]";
const METHODS_HINT: &str = "write [\"GET\", \"PUT\"] or [\"*\"]";
const HEADERS_HINT: &str = "write [\"content-type\", \"authorization\"] or [\"*\"]";

/// Browsers remember for two hours at most, whatever they are told.
const MAX_AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    origins: Vec<Origin>,
    credentials: bool,
    private_network: bool,
    /// `None` where a page may use all, which is answered with those it names.
    methods: Option<Bytes>,
    headers: Option<Bytes>,
    expose: Bytes,
    max_age: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Any,
    Exact(String),
    /// What stands before and behind the labels of a name.
    Below {
        scheme: String,
        suffix: String,
    },
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let origins = table.list("origins", ORIGINS_HINT, origin);
        let credentials = table.value("credentials", false, boolean);
        if credentials && origins.contains(&Origin::Any) {
            let message = "with credentials = true would let every site act as its user: name them";
            table.reject_value("origins", message);
        }
        let headers = names(table, "headers", HEADERS_HINT, &[]);
        let methods = names(table, "methods", METHODS_HINT, &["GET", "HEAD", "POST"]);
        let expose = names(table, "expose", HEADERS_HINT, &[]);
        if expose.is_none() && credentials {
            table.reject_value("expose", "\"*\" means nothing with credentials = true: name them");
        }
        let max_age = table.value("max_age", Duration::from_secs(600), duration(MAX_AGE));
        Self {
            origins,
            credentials,
            private_network: table.value("private_network", false, boolean),
            methods,
            headers,
            expose: expose.unwrap_or(Bytes::from_static(b"*")),
            max_age: max_age.as_secs().to_string().into(),
        }
    }

    fn allows(&self, asking: &[u8]) -> bool {
        self.origins.iter().any(|origin| match origin {
            Origin::Any => true,
            Origin::Exact(text) => asking == text.as_bytes(),
            Origin::Below { scheme, suffix } => {
                let labels = asking.strip_prefix(scheme.as_bytes());
                let labels = labels.and_then(|rest| rest.strip_suffix(suffix.as_bytes()));
                let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
                labels.is_some_and(|labels| !labels.is_empty() && labels.iter().all(is_name))
            }
        })
    }

    /// Whether the answer is the same whoever asks, so that caches need not tell them apart.
    fn is_public(&self) -> bool {
        self.origins.contains(&Origin::Any)
    }
}

/// A list of names for a field; `None` for `"*"`.
fn names(
    table: &mut Section<'_>,
    key: &'static str,
    hint: &str,
    default: &[&str],
) -> Option<Bytes> {
    if !table.has(key) {
        return Some(default.join(", ").into());
    }
    let names = table.list(key, hint, |kind| match text(kind)? {
        name if !name.is_empty() && name.bytes().all(is_token_byte) => Ok(name.to_owned()),
        name => Err(format!("{name:?} is no name: {hint}")),
    });
    (!names.contains(&"*".to_owned())).then(|| names.join(", ").into())
}

/// As browsers write one: a scheme, a host and perhaps a port, and no path.
fn origin(kind: &Kind) -> Result<Origin, String> {
    let text = text(kind)?;
    let wrong = || format!("{text:?} is no origin: {ORIGINS_HINT}");
    if text == "*" {
        return Ok(Origin::Any);
    }
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    let is_good = |host: &str| !host.is_empty() && host.bytes().all(allowed);
    let is_scheme = !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
    match host.strip_prefix("*.") {
        _ if !is_scheme => Err(wrong()),
        Some(below) if is_good(below) => {
            Ok(Origin::Below { scheme: format!("{scheme}://"), suffix: format!(".{below}") })
        }
        None if is_good(host) => Ok(Origin::Exact(text.to_owned())),
        _ => Err(wrong()),
    }
}

impl Policy for Settings {
    fn rule(&self, _: &Request<'_>) -> String {
        let origins = self.origins.iter().map(|origin| match origin {
            Origin::Any => "anywhere".to_owned(),
            Origin::Exact(text) => text.clone(),
            Origin::Below { scheme, suffix } => format!("{scheme}*{suffix}"),
        });
        let origins = origins.collect::<Vec<_>>().join(" or ");
        let shown = |names: &Option<Bytes>| match names.as_deref() {
            None => "all".to_owned(),
            Some(b"") => "no others".to_owned(),
            Some(names) => String::from_utf8_lossy(names).into_owned(),
        };
        let (methods, headers) = (shown(&self.methods), shown(&self.headers));
        format!("pages of {origins}; methods: {methods}; headers: {headers}")
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let field = |name| values_of(&request.head.fields, request.bytes, name).next();
        let mut edits = context.response_edits.borrow_mut();
        // An origin's own word would stand beside ours, and two are none.
        for name in ["origin", "credentials", "methods", "headers", "private-network"] {
            edits.remove(format!("access-control-allow-{name}").into());
        }
        edits.remove(Bytes::from_static(b"access-control-expose-headers"));
        edits.remove(Bytes::from_static(b"access-control-max-age"));
        let asking = field("origin");
        let method = field("access-control-request-method");
        let preflight =
            method.filter(|_| asking.is_some() && request.head.method == Method::Options);
        // Also where there is no Origin: a cache would give that answer to a page that has one.
        if !self.is_public() {
            edits.add(Bytes::from_static(b"vary"), Bytes::from_static(b"Origin"));
        }
        if let Some(origin) = asking.filter(|origin| self.allows(origin)) {
            self.allow(&mut edits, origin);
            match preflight {
                Some(method) => self.answer(&mut edits, method, field),
                None if !self.expose.is_empty() => {
                    let name = Bytes::from_static(b"access-control-expose-headers");
                    edits.add(name, self.expose.clone());
                }
                None => {}
            }
        }
        match preflight {
            Some(_) => {
                let asked = "Access-Control-Request-Method, Access-Control-Request-Headers";
                edits.add(Bytes::from_static(b"vary"), asked.into());
                Verdict::Answer(204)
            }
            None => Verdict::Continue,
        }
    }
}

impl Settings {
    fn allow(&self, edits: &mut Edits, origin: &[u8]) {
        let value = match self.is_public() {
            true => Bytes::from_static(b"*"),
            false => Bytes::copy_from_slice(origin),
        };
        edits.add(Bytes::from_static(b"access-control-allow-origin"), value);
        if self.credentials {
            let name = Bytes::from_static(b"access-control-allow-credentials");
            edits.add(name, Bytes::from_static(b"true"));
        }
    }

    /// What a preflight is told. Where all is allowed, what is asked for is named, because `*` means
    /// nothing to requests with credentials and never includes Authorization.
    fn answer<'r>(
        &self,
        edits: &mut Edits,
        method: &'r [u8],
        field: impl Fn(&'static str) -> Option<&'r [u8]>,
    ) {
        let asked = field("access-control-request-headers");
        let methods = self.methods.clone().unwrap_or_else(|| Bytes::copy_from_slice(method));
        edits.add(Bytes::from_static(b"access-control-allow-methods"), methods);
        let headers = match &self.headers {
            Some(headers) => headers.clone(),
            None => Bytes::copy_from_slice(asked.unwrap_or_default()),
        };
        if !headers.is_empty() {
            edits.add(Bytes::from_static(b"access-control-allow-headers"), headers);
        }
        edits.add(Bytes::from_static(b"access-control-max-age"), self.max_age.clone());
        if self.private_network && field("access-control-request-private-network").is_some() {
            let name = Bytes::from_static(b"access-control-allow-private-network");
            edits.add(name, Bytes::from_static(b"true"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, settings};
    use super::*;

    const APP: &str = "origins = ['https://app.example', 'https://*.shop.example:8443']";

    /// Settings, Origin, method asked for in a preflight, and the fields that come of it.
    const CASES: [(&str, &str, &str, &str); 12] = [
        (APP, "https://app.example", "", "vary: Origin|origin: https://app.example"),
        (APP, "https://app.example.evil", "", "vary: Origin"),
        (APP, "http://app.example", "", "vary: Origin"),
        (APP, "null", "", "vary: Origin"),
        (APP, "", "", "vary: Origin"),
        (
            APP,
            "https://a.b.shop.example:8443",
            "",
            "vary: Origin|origin: https://a.b.shop.example:8443",
        ),
        (APP, "https://.shop.example:8443", "", "vary: Origin"),
        (APP, "https://evil/.shop.example:8443", "", "vary: Origin"),
        (
            APP,
            "https://app.example",
            "PUT",
            "vary: Origin|origin: https://app.example|methods: GET, HEAD, POST|max-age: 600|VARY",
        ),
        (APP, "https://other.example", "PUT", "vary: Origin|VARY"),
        ("origins = ['*']\nexpose = ['X-Total']", "https://a", "", "origin: *|expose: X-Total"),
        (
            "origins = ['https://a']\ncredentials = true\nmethods = ['*']\nheaders = ['*']\nmax_age = '0s'",
            "https://a",
            "PATCH",
            "vary: Origin|origin: https://a|credentials: true|methods: PATCH|headers: x-a, authorization|max-age: 0|VARY",
        ),
    ];

    #[test]
    fn every_case_gets_its_fields() {
        for (lines, origin, method, expected) in CASES {
            let settings = settings(lines, Settings::read).unwrap();
            let mut asker = Asker::new(if method.is_empty() { "GET" } else { "OPTIONS" }, "/");
            if !origin.is_empty() {
                asker = asker.field("Origin", origin);
            }
            if !method.is_empty() {
                asker = asker
                    .field("Access-Control-Request-Method", method)
                    .field("Access-Control-Request-Headers", "x-a, authorization");
            }
            let answered = asker.of(&settings);
            let said = answered
                .response
                .replace("access-control-allow-", "")
                .replace("access-control-", "")
                .replace("expose-headers", "expose")
                .replace(
                    "vary: Access-Control-Request-Method, Access-Control-Request-Headers",
                    "VARY",
                );
            assert_eq!(said.trim_end().replace('\n', "|"), expected, "{lines} {origin} {method}");
            let preflight =
                if method.is_empty() { Verdict::Continue } else { Verdict::Answer(204) };
            assert_eq!(answered.verdict, preflight);
        }
    }

    #[test]
    fn an_options_request_that_is_no_preflight_passes() {
        let settings = settings(APP, Settings::read).unwrap();
        let plain = Asker::new("OPTIONS", "/").field("Origin", "https://app.example");
        assert_eq!(plain.of(&settings).verdict, Verdict::Continue);
        let no_origin = Asker::new("OPTIONS", "/").field("Access-Control-Request-Method", "PUT");
        assert_eq!(no_origin.of(&settings).verdict, Verdict::Continue);
    }

    #[test]
    fn private_networks_are_named_only_if_asked_for() {
        let lines = format!("{APP}\nprivate_network = true");
        let settings = settings(&lines, Settings::read).unwrap();
        let preflight = Asker::new("OPTIONS", "/")
            .field("Origin", "https://app.example")
            .field("Access-Control-Request-Method", "GET");
        let name = "access-control-allow-private-network: true";
        assert!(!preflight.of(&settings).response.contains(name));
        let asking = preflight.field("Access-Control-Request-Private-Network", "true");
        assert!(asking.of(&settings).response.contains(name));
    }

    #[test]
    fn what_opens_too_much_is_refused() {
        for lines in [
            "origins = ['*']\ncredentials = true",
            "origins = ['https://a/']",
            "origins = ['a.example']",
            "origins = ['https://*.']",
            "origins = ['https://a*.example']",
            "origins = []",
            "origins = ['https://A']",
            "origins = ['https://a']\ncredentials = true\nexpose = ['*']",
        ] {
            assert!(settings(lines, Settings::read).is_err(), "{lines}");
        }
    }
}
