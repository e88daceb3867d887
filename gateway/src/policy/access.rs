//! Which requests are let in: by address, method, kind and size of the body, and fields there must be.

use bytes::Bytes;
use ipnet::IpNet;

use super::{Policy, Verdict, file};
use crate::document::section::Section;
use crate::document::units::bytes;
use crate::document::value::Kind;
use crate::document::values::{network, network_of, path, text};
use crate::exchange::error::Denial;
use crate::exchange::{Context, Error, Request};
use crate::http::framing::Framing;
use crate::http::head::values_of;
use crate::http::headers::is_token_byte;

const NETWORKS_HINT: &str = "write [\"10.0.0.0/8\"]";
const METHODS_HINT: &str = "write [\"GET\", \"POST\"]";
const TYPES_HINT: &str = "write [\"application/json\", \"image/*\"]";
const FIELDS_HINT: &str = "write [\"x-tenant\"]";

/// Which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// All, where there are none and no list was named.
    allow: Option<Networks>,
    deny: Networks,
    methods: Vec<String>,
    /// The same as a field.
    allowed_methods: Bytes,
    content_types: Vec<String>,
    body_bytes: Option<u64>,
    required: Vec<String>,
}

/// Sorted and without overlap, so that looking up an address takes a few steps however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Networks(Vec<IpNet>);

impl Networks {
    fn new(networks: Vec<IpNet>) -> Self {
        let mut networks = IpNet::aggregate(&networks);
        networks.sort_by_key(IpNet::network);
        Self(networks)
    }

    fn contains(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        let behind = self.0.partition_point(|network| network.network() <= address);
        let before = behind.checked_sub(1).and_then(|index| self.0.get(index));
        before.is_some_and(|network| network.contains(&address))
    }
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let has_allow = table.has("allow") || table.has("allow_files");
        let allow = networks(table, "allow", "allow_files");
        let deny = networks(table, "deny", "deny_files");
        let mut list = |key, hint, parse: fn(&Kind) -> Result<String, String>| match table.has(key)
        {
            true => table.list(key, hint, parse),
            false => Vec::new(),
        };
        let methods = list("methods", METHODS_HINT, method);
        let content_types = list("content_types", TYPES_HINT, content_type);
        let required = list("required", FIELDS_HINT, field);
        let settings = Self {
            allow: has_allow.then(|| Networks::new(allow)),
            deny: Networks::new(deny),
            allowed_methods: methods.join(", ").into(),
            methods,
            content_types,
            body_bytes: table.optional("body_bytes", bytes(0..=1024 << 40)),
            required,
        };
        if table.is_right() && settings.asks_nothing() {
            table.reject("asks for nothing: write allow, deny, methods or the like".to_owned());
        }
        settings
    }

    fn asks_nothing(&self) -> bool {
        self.allow.is_none()
            && self.deny.0.is_empty()
            && self.methods.is_empty()
            && self.content_types.is_empty()
            && self.body_bytes.is_none()
            && self.required.is_empty()
    }

    /// Why a request is not let in, if it is not.
    fn denial(&self, request: &Request<'_>) -> Option<Denial> {
        let Request { head, bytes, .. } = *request;
        let source = request.source.ip();
        let is_allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(source));
        if !is_allowed || self.deny.contains(source) {
            return Some(Denial::Address);
        }
        let method = head.method_name.of(bytes);
        if !self.methods.is_empty() && !self.methods.iter().any(|own| own.as_bytes() == method) {
            return Some(Denial::Method);
        }
        let values = |name| values_of(&head.fields, bytes, name);
        if self.required.iter().any(|name| values(name).next().is_none_or(<[u8]>::is_empty)) {
            return Some(Denial::MissingField);
        }
        let has_body = !matches!(request.framing, Framing::Empty | Framing::Length(0));
        if has_body && !self.content_types.is_empty() {
            let mut kinds = values("content-type");
            // One, and one that is let in: of two nobody knows which one the origin takes.
            let only = kinds.next().filter(|_| kinds.next().is_none());
            if !only.is_some_and(|kind| self.content_types.iter().any(|own| is_kind(kind, own))) {
                return Some(Denial::ContentType);
            }
        }
        match (self.body_bytes, request.framing) {
            (Some(most), Framing::Length(length)) if length > most => Some(Denial::BodyTooLarge),
            _ => None,
        }
    }
}

impl Policy for Settings {
    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let Some(denial) = self.denial(request) else {
            if let Some(most) = self.body_bytes {
                let lower = context.body_bytes_max.get().map_or(most, |own| own.min(most));
                context.body_bytes_max.set(Some(lower));
            }
            return Verdict::Continue;
        };
        if denial == Denial::Method {
            // RFC 9110 §15.5.6.
            let mut edits = context.response_edits.borrow_mut();
            edits.set(Bytes::from_static(b"allow"), self.allowed_methods.clone());
        }
        Verdict::Refuse(Error::Denied(denial))
    }
}

/// Whether a Content-Type's value is of a kind such as `application/json` or `image/*`.
fn is_kind(value: &[u8], kind: &str) -> bool {
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match kind.strip_suffix('*') {
        Some(start) => {
            essence.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start.as_bytes()))
        }
        None => essence.eq_ignore_ascii_case(kind.as_bytes()),
    }
}

/// Those of a list and those of files, one a line; what follows a `#` or `;` is a comment.
fn networks(table: &mut Section<'_>, list: &'static str, files: &'static str) -> Vec<IpNet> {
    let mut all = Vec::new();
    if table.has(list) {
        all = table.list(list, NETWORKS_HINT, network);
    }
    if table.has(files) {
        let read = table.list(files, "write [\"networks.txt\"]", |kind| {
            file::read(&path(kind)?, &['#', ';'], network_of)
        });
        all.extend(read.into_iter().flatten());
    }
    all
}

fn method(kind: &Kind) -> Result<String, String> {
    match text(kind)? {
        text if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Ok(text.to_owned())
        }
        text => Err(format!("{text:?}: methods are written in capitals")),
    }
}

fn content_type(kind: &Kind) -> Result<String, String> {
    let text = text(kind)?;
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token_byte);
    match text.split_once('/') {
        Some((kind, sub)) if is_name(kind) && is_name(sub) && !kind.contains('*') => {
            Ok(text.to_owned())
        }
        _ => Err(format!("{text:?} is no content type: {TYPES_HINT}")),
    }
}

fn field(kind: &Kind) -> Result<String, String> {
    match text(kind)? {
        text if !text.is_empty() && text.bytes().all(is_token_byte) => Ok(text.to_owned()),
        text => Err(format!("{text:?} is no name of a field")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{Asker, settings};
    use super::*;

    fn denial(lines: &str, asker: &Asker) -> Option<Denial> {
        let settings = settings(lines, Settings::read).unwrap();
        asker.ask(|request, _| settings.denial(request))
    }

    #[test]
    fn addresses_are_let_in_or_not() {
        let from = |address: &str| Asker::get("/").from(address);
        let lines = "allow = ['10.0.0.0/8', '2001:db8::/32']\ndeny = ['10.1.0.0/16', '10.2.3.4']";
        for (address, is_denied) in [
            ("10.0.0.1", false),
            ("::ffff:10.255.255.255", false),
            ("10.1.2.3", true),
            ("10.2.3.4", true),
            ("10.2.3.5", false),
            ("11.0.0.0", true),
            ("9.255.255.255", true),
            ("2001:db8:ffff::1", false),
            ("2001:db9::1", true),
        ] {
            let expected = is_denied.then_some(Denial::Address);
            assert_eq!(denial(lines, &from(address)), expected, "{address}");
        }
        assert_eq!(denial("deny = ['0.0.0.0/0']", &from("::1")), None);
    }

    #[test]
    fn lists_come_from_files() {
        let path = std::env::temp_dir().join(format!("gateway-access-{}", std::process::id()));
        fs::write(&path, "# mine\n192.0.2.0/24 ; ours\n\n2001:db8::/32\n").unwrap();
        let lines = format!("deny_files = [{path:?}]");
        assert_eq!(denial(&lines, &Asker::get("/").from("192.0.2.9")), Some(Denial::Address));
        assert_eq!(denial(&lines, &Asker::get("/").from("192.0.3.9")), None);
        fs::write(&path, "192.0.2.0/24\n192.0.2.1/24\n").unwrap();
        let wrong = settings(&lines, Settings::read).unwrap_err().join("\n");
        assert!(wrong.contains(":2: 192.0.2.1/24 has bits behind its prefix"), "{wrong}");
        fs::remove_file(&path).unwrap();
        assert!(settings(&lines, Settings::read).is_err());
    }

    #[test]
    fn methods_kinds_sizes_and_fields() {
        let post = |kind: &str, length: &str| {
            let asker = Asker::new("POST", "/").field("Content-Length", length);
            if kind.is_empty() { asker } else { asker.field("Content-Type", kind) }
        };
        let types = "content_types = ['application/json', 'image/*']";
        for (lines, asker, expected) in [
            ("methods = ['GET']", post("", "1"), Some(Denial::Method)),
            ("methods = ['GET']", Asker::get("/"), None),
            (types, post("Application/JSON; charset=utf-8", "1"), None),
            (types, post("image/png", "1"), None),
            (types, post("text/plain", "1"), Some(Denial::ContentType)),
            (types, post("", "1"), Some(Denial::ContentType)),
            (types, post("", "0"), None),
            (
                types,
                post("text/plain", "1").field("content-type", "image/png"),
                Some(Denial::ContentType),
            ),
            ("body_bytes = '10B'", post("", "11"), Some(Denial::BodyTooLarge)),
            ("body_bytes = '10B'", post("", "10"), None),
            ("required = ['X-Tenant']", Asker::get("/"), Some(Denial::MissingField)),
            (
                "required = ['X-Tenant']",
                Asker::get("/").field("x-tenant", ""),
                Some(Denial::MissingField),
            ),
            ("required = ['X-Tenant']", Asker::get("/").field("x-tenant", "a"), None),
        ] {
            assert_eq!(denial(lines, &asker), expected, "{lines}");
        }
        let refused =
            Asker::get("/").of(&settings("methods = ['POST', 'PUT']", Settings::read).unwrap());
        assert_eq!(refused.response, "allow: POST, PUT\n");
        assert!(settings("", Settings::read).is_err());
    }
}
