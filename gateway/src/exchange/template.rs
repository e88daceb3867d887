//! Text with values of a request in it, as `https://{host}{path}{query}`.

use std::borrow::Cow;
use std::str::FromStr;

use serde_json::Value as Json;

use super::context::claim;
use super::{Context, Request};
use crate::document::problem::shown;
use crate::http::target;
use crate::routing::Pattern;
use crate::routing::conditions::parameters;
use crate::tls::ClientCertificate;

/// What may stand in braces, beside what has a name behind a colon.
const VALUES: [(&str, Value); 12] = [
    ("certificate_fingerprint", Value::CertificateFingerprint),
    ("certificate_names", Value::CertificateNames),
    ("certificate_subject", Value::CertificateSubject),
    ("client", Value::Client),
    ("host", Value::Host),
    ("identity", Value::Identity),
    ("method", Value::Method),
    ("path", Value::Path),
    ("query", Value::Query),
    ("request_id", Value::RequestId),
    ("route", Value::Route),
    ("scheme", Value::Scheme),
];

/// A text with values of a request in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
    /// To another answer.
    Reference(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// As the field `x-client-cert-…` has it.
    CertificateFingerprint,
    CertificateNames,
    CertificateSubject,
    /// Of a token that has been let in.
    Claim(String),
    Client,
    /// A field's, as policies have left it.
    Field(String),
    /// What a group of the path's expression matches.
    Group(String),
    /// Without port.
    Host,
    Identity,
    Method,
    /// A parameter's of the query, decoded.
    Parameter(String),
    Path,
    /// With its question mark, or nothing.
    Query,
    RequestId,
    /// The host and path the route is for.
    Route,
    Scheme,
}

/// What a value must not be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// It stands for itself.
    Nothing,
    /// It ends no string of JSON (RFC 8259 §7).
    Json,
    /// It begins no element and ends no attribute.
    Html,
    /// It is made of a URI's characters, others percent-encoded (RFC 3986 §2). What has been encoded stays
    /// so.
    Uri,
    /// The same of a path's characters: it begins no query.
    Path,
}

impl Escape {
    /// What values in a body of this kind need.
    pub fn of(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match kind {
            kind if kind.ends_with("json") => Self::Json,
            "text/html" | "application/xhtml+xml" | "image/svg+xml" => Self::Html,
            kind if kind.ends_with("xml") => Self::Html,
            _ => Self::Nothing,
        }
    }

    fn write(self, out: &mut Vec<u8>, value: &[u8]) {
        for (position, &byte) in value.iter().enumerate() {
            let encoded = || is_encoded(value.get(position..).unwrap_or_default());
            match (self, byte) {
                (Self::Json, b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
                (Self::Json, ..0x20) => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                // What is no UTF-8 would make the whole none.
                (Self::Json, 0x80..) => out.push(b'?'),
                (Self::Html, b'<' | b'>' | b'&' | b'"' | b'\'') => {
                    out.extend_from_slice(format!("&#{byte};").as_bytes());
                }
                (Self::Uri | Self::Path, b'%') if encoded() => out.push(byte),
                (Self::Uri, b'?') => out.push(byte),
                (Self::Uri | Self::Path, byte) if !is_path_byte(byte) => {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
                _ => out.push(byte),
            }
        }
    }
}

/// RFC 3986 §3.3, and the brackets of an IPv6 address.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/[]".contains(&byte)
}

fn is_encoded(text: &[u8]) -> bool {
    matches!(text, [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

impl Template {
    /// Names of groups it takes from the path's expression.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(Value::Group(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// What it refers to of other answers, as written behind `part:`.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Reference(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The reference that it consists of, if it does.
    pub fn only_reference(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Reference(name)] => Some(name),
            _ => None,
        }
    }

    /// The text, if it has no values in it.
    pub fn text(&self) -> Option<String> {
        let text = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.0.iter().map(text).collect()
    }

    /// Writes the text for a request, whose path `pattern` has matched.
    pub fn render(
        &self,
        request: &Request<'_>,
        context: &Context,
        pattern: Option<&Pattern>,
        escape: Escape,
    ) -> Vec<u8> {
        self.render_with(request, context, pattern, escape, &|_| None)
    }

    /// The same; `find` gives what is referred to, as it is to be written.
    pub fn render_with(
        &self,
        request: &Request<'_>,
        context: &Context,
        pattern: Option<&Pattern>,
        escape: Escape,
        find: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value(value) => value.write(&mut out, request, context, pattern, escape),
                Part::Reference(name) => out.extend(find(name).unwrap_or_default()),
            }
        }
        out
    }

    /// Reads one that may refer to other answers, by `{part:NAME}` or `{part:NAME.member}`.
    ///
    /// # Errors
    /// As for any other.
    pub fn with_references(text: &str) -> Result<Self, String> {
        Self::parse(text, true)
    }
}

impl Value {
    fn write(
        &self,
        out: &mut Vec<u8>,
        request: &Request<'_>,
        context: &Context,
        pattern: Option<&Pattern>,
        escape: Escape,
    ) {
        let Request { head, bytes, client, .. } = *request;
        let path = match head.target.path(bytes) {
            // It asks about the server as a whole.
            b"*" => &b""[..],
            path => path,
        };
        let mut of_certificate = |value: fn(&ClientCertificate) -> Cow<'_, str>| {
            let value = request.certificate.map(value).unwrap_or_default();
            escape.write(out, value.as_bytes());
        };
        match self {
            Self::CertificateFingerprint => of_certificate(|one| (&one.fingerprint).into()),
            Self::CertificateNames => of_certificate(|one| one.names.join(",").into()),
            Self::CertificateSubject => of_certificate(|one| (&one.subject).into()),
            Self::Claim(name) => {
                match request.identity.claims().and_then(|claims| claim(claims, name)) {
                    Some(Json::String(text)) => escape.write(out, text.as_bytes()),
                    Some(value) => escape.write(out, value.to_string().as_bytes()),
                    None => {}
                }
            }
            Self::Client => {
                escape.write(out, request.source.ip().to_canonical().to_string().as_bytes())
            }
            Self::Field(name) => {
                let write = |value: Option<&[u8]>| escape.write(out, value.unwrap_or_default());
                context.field(request, name, write);
            }
            Self::Group(name) => {
                let captures = pattern.and_then(|pattern| pattern.captures(path));
                let group = captures.as_ref().and_then(|captures| match name.parse() {
                    Ok(number) => captures.get(number),
                    Err(_) => captures.name(name),
                });
                escape.write(out, group.map(|group| group.as_bytes()).unwrap_or_default());
            }
            Self::Host => escape.write(out, host(request)),
            Self::Identity => escape.write(out, request.identity().as_bytes()),
            Self::Method => escape.write(out, head.method_name.of(bytes)),
            Self::Parameter(name) => {
                let mut parameters = parameters(head.target.query.of(bytes));
                let value = parameters.find(|(key, _)| key == name.as_bytes());
                escape.write(out, &value.map(|(_, value)| value).unwrap_or_default());
            }
            Self::Path => escape.write(out, path),
            Self::Query => escape.write(out, head.target.query.of(bytes)),
            Self::RequestId => escape.write(out, client.request_id),
            Self::Route => escape.write(out, request.route.as_bytes()),
            Self::Scheme => escape.write(out, client.scheme.as_bytes()),
        }
    }
}

/// The host a client asked for, without port; empty if it named none.
pub fn host<'a>(request: &Request<'a>) -> &'a [u8] {
    let authority = || request.head.authority.map(|authority| authority.of(request.bytes));
    let host = request.client.host.or_else(authority).unwrap_or_default();
    target::host(host).unwrap_or_default()
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, false)
    }
}

impl Template {
    fn parse(text: &str, may_refer: bool) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once(['{', '}']) {
            let brace = rest.as_bytes().get(before.len()).copied().unwrap_or_default();
            literal.push_str(before);
            let doubled = behind.as_bytes().first() == Some(&brace);
            if doubled {
                literal.push(char::from(brace));
                rest = behind.get(1..).unwrap_or_default();
                continue;
            }
            let wrong = || format!("{text:?}: write a brace that is meant as one twice");
            let (name, behind) =
                behind.split_once('}').filter(|_| brace == b'{').ok_or_else(wrong)?;
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(match name.strip_prefix("part:").filter(|_| may_refer) {
                Some(reference) if !reference.is_empty() => Part::Reference(reference.to_owned()),
                _ => Part::Value(name.parse()?),
            });
            rest = behind;
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }
}

impl FromStr for Value {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = VALUES.into_iter().find(|(name, _)| *name == text).map(|(_, value)| value);
        let named = || {
            let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty())?;
            let name = name.to_owned();
            match kind {
                "claim" => Some(Self::Claim(name)),
                "header" => Some(Self::Field(name)),
                "path" => Some(Self::Group(name)),
                "query" => Some(Self::Parameter(name)),
                _ => None,
            }
        };
        known.or_else(named).ok_or_else(|| {
            let names: Vec<_> = VALUES.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            let own = shown(&format!("{{{text}}}"));
            format!("{own} is none of {names}, claim:NAME, header:NAME, path:GROUP, query:NAME in braces")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_templates() {
        let parse = |text: &str| text.parse::<Template>().map(|template| template.0);
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(parse("a"), Ok(vec![text("a")]));
        assert_eq!(
            parse("{{x}}{path}-{path:id}"),
            Ok(vec![
                text("{x}"),
                Part::Value(Value::Path),
                text("-"),
                Part::Value(Value::Group("id".to_owned())),
            ])
        );
        for wrong in ["{", "}", "a{path", "{}", "{x}", "{header:}", "{path}}", "{ path }"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_stay_values() {
        let escaped = |escape: Escape, value: &[u8]| {
            let mut out = Vec::new();
            escape.write(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(escaped(Escape::Json, b"a\"b\\c\n\xff"), "a\\\"b\\\\c\\u000a?");
        assert_eq!(escaped(Escape::Html, b"<a b='\">&"), "&#60;a b=&#39;&#34;&#62;&#38;");
        assert_eq!(escaped(Escape::Uri, b"/a%20b?c d\r\n\"\xff"), "/a%20b?c%20d%0D%0A%22%FF");
        assert_eq!(escaped(Escape::Uri, b"%zz%2f%"), "%25zz%2f%25");
        assert_eq!(escaped(Escape::Path, b"/a?b=c#d"), "/a%3Fb=c%23d");
        assert_eq!(Escape::of("application/problem+json; charset=utf-8"), Escape::Json);
        assert_eq!(Escape::of("text/html"), Escape::Html);
        assert_eq!(Escape::of("text/plain"), Escape::Nothing);
    }
}
