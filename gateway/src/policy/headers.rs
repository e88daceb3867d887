//! Sets, adds and removes fields of requests and responses.

use bytes::Bytes;

use super::{Policy, Verdict};
use crate::document::section::Section;
use crate::document::value::Kind;
use crate::document::values::{parsed, text};
use crate::exchange::template::{Escape, Template};
use crate::exchange::{Context, Request};
use crate::http::edits::Edits;
use crate::http::headers::{Name, is_token_byte, is_value_byte};

const REMOVE_HINT: &str = "write [\"Server\"]";

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    request: Changes,
    response: Changes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Changes {
    remove: Vec<Bytes>,
    set: Vec<(Bytes, Value)>,
    add: Vec<(Bytes, Value)>,
}

/// What a field is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// The same of every request.
    Text(Bytes),
    Template(Template),
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let settings = Self {
            request: table.table("request", |table| Changes::read(table, true)),
            response: table.table("response", |table| Changes::read(table, false)),
        };
        if table.is_right() && settings.request.is_empty() && settings.response.is_empty() {
            table.reject(
                "changes nothing: write request.set, response.remove or the like".to_owned(),
            );
        }
        settings
    }
}

impl Policy for Settings {
    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        // All values are made of what came here, also of fields that are removed or set.
        let [of_request, of_response] =
            [&self.request, &self.response].map(|changes| changes.values(request, context));
        self.request.apply(of_request, &mut context.request_edits.borrow_mut());
        self.response.apply(of_response, &mut context.response_edits.borrow_mut());
        Verdict::Continue
    }
}

impl Changes {
    fn read(table: &mut Section<'_>, of_request: bool) -> Self {
        let mut remove = Vec::new();
        if table.has("remove") {
            remove = table.list("remove", REMOVE_HINT, |kind| name(text(kind)?, of_request));
        }
        let mut values = |key| {
            let read =
                table.entries(key, |name, kind| Ok((self::name(name, of_request)?, value(kind)?)));
            read.into_iter().map(|(_, field)| field).collect()
        };
        Self { remove, set: values("set"), add: values("add") }
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// What the fields that are set and added are to say.
    fn values(&self, request: &Request<'_>, context: &Context) -> Vec<Bytes> {
        let values = self.set.iter().chain(&self.add);
        values.map(|(_, value)| value.of(request, context)).collect()
    }

    /// Removes first, so that what is both removed and added is there once.
    fn apply(&self, values: Vec<Bytes>, edits: &mut Edits) {
        let mut values = values.into_iter();
        for name in &self.remove {
            edits.remove(name.clone());
        }
        for ((name, _), value) in self.set.iter().zip(&mut values) {
            edits.set(name.clone(), value);
        }
        for ((name, _), value) in self.add.iter().zip(values) {
            edits.add(name.clone(), value);
        }
    }
}

impl Value {
    /// What may not stand in a field's value becomes a space: [`Edits`] sees to that, whatever a client has
    /// written.
    fn of(&self, request: &Request<'_>, context: &Context) -> Bytes {
        match self {
            Self::Text(text) => text.clone(),
            Self::Template(template) => {
                template.render(request, context, None, Escape::Nothing).into()
            }
        }
    }
}

/// A field's name, unless the gateway alone may write it.
pub(super) fn name(text: &str, of_request: bool) -> Result<Bytes, String> {
    if text.is_empty() || !text.bytes().all(is_token_byte) {
        return Err(format!("{text:?} is no name of a field"));
    }
    let known = Name::of(text.as_bytes());
    let reason = match known {
        Name::Connection
        | Name::ContentLength
        | Name::KeepAlive
        | Name::ProxyConnection
        | Name::Te
        | Name::Trailer
        | Name::TransferEncoding
        | Name::Upgrade => "is of one connection, and the gateway's own",
        Name::Host if of_request => "is set by the route's rewrite.host",
        Name::Expect | Name::MaxForwards if of_request => "is the gateway's own",
        Name::ClientCert if of_request => "is set by client_fields of the listener's tls",
        Name::Forwarded
        | Name::XForwarded
        | Name::XForwardedFor
        | Name::XForwardedHost
        | Name::XForwardedProto
        | Name::XRequestId
            if of_request =>
        {
            "is set by the gateway, of what it knows about the client"
        }
        Name::Date if !of_request => "is the gateway's own",
        _ => return Ok(Bytes::from(text.to_owned())),
    };
    Err(format!("{text} {reason}"))
}

fn value(kind: &Kind) -> Result<Value, String> {
    let template: Template = parsed(kind)?;
    if !text(kind)?.bytes().all(is_value_byte) {
        return Err("a field's value has no line ends and no control characters".to_owned());
    }
    if let Some(group) = template.groups().next() {
        return Err(format!("{{path:{group}}} is for routes: a policy has no path of its own"));
    }
    Ok(match template.text() {
        Some(text) => Value::Text(text.into()),
        None => Value::Template(template),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, settings};
    use super::*;

    #[test]
    fn fields_are_removed_set_and_added() {
        let lines = "
            request.remove = ['X-Debug']
            request.set = { X-Client = '{client}', X-User = '{identity}', X-Route = '{route}' }
            response.add = { Vary = 'accept' }
            response.set = { X-Served-By = 'gateway {{1}}', X-Id = '{request_id}' }";
        let settings = settings(lines, Settings::read).unwrap();
        let asker = Asker::get("/a").route("/a").identity("alice");
        let answered = asker.of(&settings);
        assert_eq!(answered.request, "X-Client: 192.0.2.1\nX-Route: /a\nX-User: alice\n");
        assert_eq!(answered.response, "X-Id: 7\nX-Served-By: gateway {1}\nVary: accept\n");
    }

    #[test]
    fn a_field_is_what_policies_before_have_left_of_it() {
        let lines = "request.remove = ['X-Old']\nrequest.set = { X-New = '{header:x-old}' }\n\
                     response.set = { X-Seen = '{header:x-old}{header:x-new}' }";
        let settings = settings(lines, Settings::read).unwrap();
        Asker::get("/").field("X-Old", "a").field("X-New", "b").ask(|request, context| {
            assert_eq!(settings.request(request, context), Verdict::Continue);
            let value = |edits: &Edits, name: &[u8]| edits.values(name).next().unwrap().to_vec();
            assert_eq!(value(&context.request_edits.borrow(), b"x-new"), b"a");
            assert_eq!(value(&context.response_edits.borrow(), b"x-seen"), b"ab");
            // The next one sees what this one has made of it.
            assert_eq!(settings.request(request, context), Verdict::Continue);
            assert_eq!(value(&context.request_edits.borrow(), b"x-new"), b"");
            assert_eq!(value(&context.response_edits.borrow(), b"x-seen"), b"a");
        });
    }

    #[test]
    fn nothing_of_a_client_splits_a_field() {
        let lines = "request.set = { X-Query = 'q={query:q}', X-Seen = '{header:x-a}' }";
        let settings = settings(lines, Settings::read).unwrap();
        let asker = Asker::get("/?q=a%0d%0aX-Evil:%201%00").field("X-A", "b\tc");
        assert_eq!(asker.of(&settings).request, "X-Query: q=a  X-Evil: 1 \nX-Seen: b\tc\n");
    }

    #[test]
    fn what_the_gateway_writes_is_refused() {
        for (lines, part) in [
            ("request.set = { Host = 'a' }", "rewrite.host"),
            ("request.set = { connection = 'a' }", "one connection"),
            ("response.remove = ['Content-Length']", "one connection"),
            ("response.add = { Transfer-Encoding = 'chunked' }", "one connection"),
            ("request.remove = ['X-Forwarded-For']", "knows about the client"),
            ("request.set = { Client-Cert = 'a' }", "client_fields"),
            ("response.set = { 'a b' = 'c' }", "no name"),
            ("response.set = { a = \"b\\r\\nc\" }", "line ends"),
            ("response.set = { a = '{path:1}' }", "for routes"),
            ("response.set = { a = '{x' }", "brace"),
            ("", "changes nothing"),
        ] {
            let wrong = settings(lines, Settings::read).unwrap_err().join("\n");
            assert!(wrong.contains(part), "{lines}: {wrong}");
        }
    }
}
