//! Which requests are let in: by address, method, kind and size of the body, and fields there must be.

#![expect(clippy::disallowed_types, reason = "all workers look up in one list")]

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use super::networks::Networks;
use super::{Build, Parts, Policy, Verdict, file};
use crate::document::listed::{COMMENTS, Listed};
use crate::document::section::Section;
use crate::document::units::{bytes, shown_bytes};
use crate::document::value::Kind;
use crate::document::values::{path, text};
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
    allow: Option<List>,
    deny: Option<List>,
    methods: Vec<String>,
    /// The same as a field.
    allowed_methods: Bytes,
    content_types: Vec<String>,
    body_bytes: Option<u64>,
    required: Vec<String>,
}

/// Networks that are written in the configuration, and in files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    inline: Vec<Network>,
    files: Vec<PathBuf>,
    /// All of them.
    networks: Arc<Networks>,
}

/// One, and the Unix time at which it ends to count, if it does.
type Network = (IpNet, Option<u64>);

impl List {
    /// As a person is told of it.
    fn text(&self) -> String {
        let inline = self.inline.iter().map(|(network, _)| network.to_string());
        let files = self.files.iter().map(|file| file.display().to_string());
        inline.chain(files).collect::<Vec<_>>().join(", ")
    }

    fn read(table: &mut Section<'_>, list: &'static str, files: &'static str) -> Option<Self> {
        let has = [table.has(list), table.has(files)];
        let mut inline = Vec::new();
        if table.has(list) {
            inline = table.list(list, NETWORKS_HINT, |kind| network(text(kind)?));
        }
        let mut read = Vec::new();
        if table.has(files) {
            read = table.list(files, "write [\"networks.txt\"]", |kind| {
                let path = path(kind)?;
                read_file(&path).map(|networks| (path, networks))
            });
        }
        let (files, read): (Vec<_>, Vec<_>) = read.into_iter().unzip();
        let networks = Arc::new(Networks::new([inline.clone(), read.concat()].concat()));
        has.contains(&true).then_some(Self { inline, files, networks })
    }

    fn reread(&self) -> Result<Self, String> {
        let read: Vec<_> =
            self.files.iter().map(|path| read_file(path)).collect::<Result<_, _>>()?;
        let networks = Arc::new(Networks::new([self.inline.clone(), read.concat()].concat()));
        Ok(Self { networks, ..self.clone() })
    }
}

fn read_file(path: &Path) -> Result<Vec<Network>, String> {
    file::read(path, &COMMENTS, network)
}

fn network(line: &str) -> Result<Network, String> {
    Listed::parse(line).map(|listed| (listed.network, listed.until))
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let allow = List::read(table, "allow", "allow_files");
        let deny = List::read(table, "deny", "deny_files");
        let mut list = |key, hint, parse: fn(&Kind) -> Result<String, String>| match table.has(key)
        {
            true => table.list(key, hint, parse),
            false => Vec::new(),
        };
        let methods = list("methods", METHODS_HINT, method);
        let content_types = list("content_types", TYPES_HINT, content_type);
        let required = list("required", FIELDS_HINT, field);
        let settings = Self {
            allow,
            deny,
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
            && self.deny.is_none()
            && self.methods.is_empty()
            && self.content_types.is_empty()
            && self.body_bytes.is_none()
            && self.required.is_empty()
    }

    /// Why a request is not let in, if it is not.
    fn denial(&self, request: &Request<'_>) -> Option<Denial> {
        let Request { head, bytes, .. } = *request;
        let source = request.source.ip();
        let has = |list: &List| list.networks.contains(source);
        if !self.allow.as_ref().is_none_or(has) || self.deny.as_ref().is_some_and(has) {
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

impl Build for Settings {
    fn files(&self) -> Vec<&Path> {
        let lists = self.allow.iter().chain(&self.deny);
        lists.flat_map(|list| &list.files).map(PathBuf::as_path).collect()
    }

    fn reread(&self) -> Result<Self, String> {
        let again = |list: &Option<List>| list.as_ref().map(List::reread).transpose();
        Ok(Self { allow: again(&self.allow)?, deny: again(&self.deny)?, ..self.clone() })
    }

    fn build(&self, _: &Parts<'_>) -> Rc<dyn Policy> {
        Rc::new(Access(self.clone()))
    }
}

struct Access(Settings);

impl Policy for Access {
    fn rule(&self, _: &Request<'_>) -> String {
        let Settings { allow, deny, methods, required, content_types, body_bytes, .. } = &self.0;
        let list = |what: &str, names: &[String]| match names {
            [] => None,
            names => Some(format!("{what} {}", names.join(", "))),
        };
        let parts = [
            allow.as_ref().map(|allow| format!("from {}", allow.text())),
            deny.as_ref().map(|deny| format!("not from {}", deny.text())),
            list("methods", methods),
            list("with", required),
            list("bodies of", content_types),
            body_bytes.map(|most| format!("bodies of {} at most", shown_bytes(most))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let Some(denial) = self.0.denial(request) else {
            if let Some(most) = self.0.body_bytes {
                let lower = context.body_bytes_max.get().map_or(most, |own| own.min(most));
                context.body_bytes_max.set(Some(lower));
            }
            return Verdict::Continue;
        };
        if denial == Denial::Method {
            // RFC 9110 §15.5.6.
            let mut edits = context.response_edits.borrow_mut();
            edits.set(Bytes::from_static(b"allow"), self.0.allowed_methods.clone());
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

    use super::super::testing::{Asker, build, settings};
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
        let ended = "198.51.100.0/24 until=2020-01-01 # over";
        let text = format!("# mine\n192.0.2.0/24 ; ours\n\n{ended}\n2001:db8::/32\n");
        fs::write(&path, text).unwrap();
        let lines =
            format!("deny_files = [{path:?}]\ndeny = ['203.0.113.9 until=2999-01-01 # for long']");
        assert_eq!(denial(&lines, &Asker::get("/").from("192.0.2.9")), Some(Denial::Address));
        assert_eq!(denial(&lines, &Asker::get("/").from("203.0.113.9")), Some(Denial::Address));
        assert_eq!(denial(&lines, &Asker::get("/").from("192.0.3.9")), None);
        assert_eq!(denial(&lines, &Asker::get("/").from("198.51.100.9")), None);
        let first = settings(&lines, Settings::read).unwrap();
        assert_eq!(first.files(), [&path]);
        fs::write(&path, "").unwrap();
        let second = first.reread().unwrap();
        let denial = |settings: &Settings, address| {
            Asker::get("/").from(address).ask(|request, _| settings.denial(request))
        };
        assert_eq!(denial(&second, "192.0.2.9"), None);
        assert_eq!(denial(&second, "203.0.113.9"), Some(Denial::Address));
        fs::write(&path, "192.0.2.0/24\n192.0.2.1/24\n").unwrap();
        assert!(second.reread().is_err());
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
        let refused = Asker::get("/")
            .of(&*build("p", &settings("methods = ['POST', 'PUT']", Settings::read).unwrap()));
        assert_eq!(refused.response, "allow: POST, PUT\n");
        assert!(settings("", Settings::read).is_err());
    }
}
