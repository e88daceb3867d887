//! What a route asks of a request beside its host and path.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::Pattern;
use crate::http::head::{RequestHead, values_of};

/// What is known of a request when its route is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// The bytes the head was parsed from.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub source: IpAddr,
}

/// All of these must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// One of these methods, where there are any. GET includes HEAD.
    pub methods: Vec<String>,
    /// What fields must have, by name.
    pub fields: Vec<(String, Wanted)>,
    /// What parameters of the query must have, by name.
    pub query: Vec<(String, Wanted)>,
    /// One of these networks, where there are any.
    pub sources: Vec<IpNet>,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// There is one.
    Present,
    /// There is none.
    Absent,
    /// One is this text.
    Text(String),
    /// One matches.
    Pattern(Pattern),
}

/// A condition that is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// It comes from elsewhere.
    Source,
    /// The field of this name.
    Field(&'a str),
    /// The parameter of this name.
    Query(&'a str),
    /// All others are met.
    Method,
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("from is another"),
            Self::Field(name) => write!(f, "header {name} does not fit"),
            Self::Query(name) => write!(f, "query {name} does not fit"),
            Self::Method => f.write_str("method is another"),
        }
    }
}

impl Conditions {
    /// How many there are.
    pub fn count(&self) -> usize {
        usize::from(!self.methods.is_empty())
            + self.fields.len()
            + self.query.len()
            + usize::from(!self.sources.is_empty())
    }

    /// The first that a request does not meet, its method last: a client may be told that another would
    /// do.
    pub fn unmet(&self, facts: &Facts<'_>) -> Option<Unmet<'_>> {
        let Facts { head, bytes, source } = *facts;
        let source = source.to_canonical();
        if !self.sources.is_empty() && !self.sources.iter().any(|net| net.contains(&source)) {
            return Some(Unmet::Source);
        }
        for (name, wanted) in &self.fields {
            if !wanted.is_met(values_of(&head.fields, bytes, name)) {
                return Some(Unmet::Field(name));
            }
        }
        let query = head.target.query.of(bytes);
        for (name, wanted) in &self.query {
            let parameters = parameters(query).filter(|(key, _)| *key == name.as_bytes());
            let values: Vec<_> = parameters.map(|(_, value)| value).collect();
            if !wanted.is_met(values.iter().map(Vec::as_slice)) {
                return Some(Unmet::Query(name));
            }
        }
        let method = head.method_name.of(bytes);
        let allowed = |allowed: &String| {
            allowed.as_bytes() == method || allowed == "GET" && method == b"HEAD"
        };
        (!self.methods.is_empty() && !self.methods.iter().any(allowed)).then_some(Unmet::Method)
    }
}

/// Names and values of the parameters of a query, decoded as forms are: `+` is a space.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let query = query.strip_prefix(b"?").unwrap_or(query);
    query.split(|byte| *byte == b'&').filter(|part| !part.is_empty()).map(|part| {
        let middle = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let (name, value) = part.split_at(middle);
        (decoded(name), decoded(value.strip_prefix(b"=").unwrap_or(value)))
    })
}

/// A text of a query, decoded as forms are.
pub fn decoded(mut text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(text.len());
    while let [byte, rest @ ..] = text {
        text = rest;
        let encoded = match rest {
            [high, low, behind @ ..] if *byte == b'%' => {
                digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, behind))
            }
            _ => None,
        };
        match (encoded, byte) {
            (Some((byte, behind)), _) => {
                out.push(byte);
                text = behind;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(*byte),
        }
    }
    out
}

impl Wanted {
    fn is_met<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Text(text) => values.any(|value| value == text.as_bytes()),
            Self::Pattern(pattern) => values.any(|value| pattern.matches(value)),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('~') {
            Some(pattern) => pattern.parse().map(Self::Pattern),
            None => Ok(Self::Text(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse::{self, HeadLimits, Scan};

    #[track_caller]
    fn unmet(conditions: &Conditions, text: &str) -> Option<String> {
        let limits = HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: true };
        let mut head = RequestHead::default();
        let bytes = text.as_bytes();
        assert_eq!(parse::request(bytes, &mut Scan::default(), limits, &mut head), Ok(true));
        let facts = Facts { head: &head, bytes, source: "::ffff:192.0.2.7".parse().unwrap() };
        conditions.unmet(&facts).map(|unmet| format!("{unmet:?}"))
    }

    #[test]
    fn all_must_be_met() {
        let wanted = |name: &str, text: &str| (name.to_owned(), text.parse().unwrap());
        let conditions = Conditions {
            methods: vec!["GET".to_owned(), "PUT".to_owned()],
            fields: vec![wanted("X-Canary", "1"), ("cookie".to_owned(), Wanted::Absent)],
            query: vec![wanted("id", "~[0-9]+"), wanted("a b", "c&d")],
            sources: vec!["192.0.2.0/24".parse().unwrap()],
        };
        assert_eq!(conditions.count(), 6);
        let with = |method: &str, query: &str, fields: &str| {
            unmet(&conditions, &format!("{method} /?{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
        };
        let (query, field) = ("x&id=z&id=7&a+b=c%26d", "x-canary: 1\r\n");
        assert_eq!(with("HEAD", query, field), None);
        assert_eq!(with("POST", query, field), Some("Method".to_owned()));
        assert_eq!(with("POST", query, ""), Some("Field(\"X-Canary\")".to_owned()));
        let more = format!("{field}Cookie: a=b\r\n");
        assert_eq!(with("GET", query, &more), Some("Field(\"cookie\")".to_owned()));
        assert_eq!(with("GET", "id=7x&a+b=c%26d", field), Some("Query(\"id\")".to_owned()));
        assert_eq!(with("GET", "id=7&a+b=c&d", field), Some("Query(\"a b\")".to_owned()));
        let elsewhere = Conditions { sources: vec!["10.0.0.0/8".parse().unwrap()], ..conditions };
        assert_eq!(
            unmet(&elsewhere, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            Some("Source".to_owned())
        );
    }
}
