//! What a person wrote: the values of the TOML file, each with its place.
//!
//! serde stops at the first key it dislikes, and a person with four mistakes would start the
//! gateway four times. So the file stays a document, and `config::check` reads it key by key.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::problem::{Place, Problem, shown};

/// The file's values, and the mistakes that kept others from being read.
pub(crate) struct Document {
    pub(crate) root: Table,
    pub(crate) syntax: Vec<Problem>,
}

/// A table, by key.
#[derive(Default)]
pub(crate) struct Table(pub BTreeMap<String, Value>);

/// One value and where it was written.
pub(crate) struct Value {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a value is.
pub(crate) enum Kind {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime,
    List(Vec<Value>),
    Table(Table),
}

impl Kind {
    /// Whether it is this text.
    pub(crate) fn is_text(&self, text: &str) -> bool {
        matches!(self, Self::Text(own) if own == text)
    }
}

impl Table {
    /// Where the value at a key such as `routes[2].policies` stands, or what holds it.
    pub(crate) fn place_of(&self, key: &str) -> Option<Place> {
        self.0.iter().find_map(|(name, value)| {
            let rest = key.strip_prefix(name.as_str())?;
            value.place_in(rest).filter(|_| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}

impl Value {
    fn place_in(&self, rest: &str) -> Option<Place> {
        let inner = match &self.kind {
            Kind::Table(table) => rest.strip_prefix('.').and_then(|rest| table.place_of(rest)),
            Kind::List(elements) => rest.strip_prefix('[').and_then(|rest| {
                let (position, rest) = rest.split_once(']')?;
                elements.get(position.parse::<usize>().ok()?)?.place_in(rest)
            }),
            _ => None,
        };
        inner.or(Some(self.place))
    }
}

impl Document {
    /// Reads as much as the syntax allows. The parser limits how deep values may nest.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = Lines::new(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        let syntax = errors.iter().map(|error| {
            let span = error.span().unwrap_or_default();
            let place = lines.place(span.start);
            let message = match text.get(span) {
                None | Some("") => error.message().to_owned(),
                Some(at) => format!("{}: {}", error.message(), shown(at)),
            };
            Problem { place, key: String::new(), message }
        });
        Self { syntax: syntax.collect(), root: Table::new(root.into_inner(), &lines) }
    }
}

impl Table {
    fn new(table: DeTable<'_>, lines: &Lines) -> Self {
        let entry = |(key, value): (Spanned<_>, _)| (key.into_inner(), Value::new(value, lines));
        Self(table.into_iter().map(entry).map(|(key, value)| (key.into(), value)).collect())
    }

    /// The table at `key`, made when absent; `None` if something else was written there.
    pub(crate) fn table_at(&mut self, key: &str, place: Place) -> Option<&mut Table> {
        let empty = Value { place, kind: Kind::Table(Table::default()) };
        match &mut self.0.entry(key.to_owned()).or_insert(empty).kind {
            Kind::Table(table) => Some(table),
            _ => None,
        }
    }
}

impl Value {
    fn new(value: Spanned<DeValue<'_>>, lines: &Lines) -> Self {
        let place = lines.place(value.span().start);
        let kind = match value.into_inner() {
            DeValue::String(text) => Kind::Text(text.into()),
            DeValue::Integer(integer) => Kind::Integer(saturated(&integer)),
            DeValue::Float(float) => Kind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => Kind::Boolean(boolean),
            DeValue::Datetime(_) => Kind::Datetime,
            DeValue::Array(array) => {
                Kind::List(array.into_iter().map(|value| Value::new(value, lines)).collect())
            }
            DeValue::Table(table) => Kind::Table(Table::new(table, lines)),
        };
        Self { place, kind }
    }
}

impl Kind {
    /// As a message names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date or time",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// What does not fit is out of any range a key has, so the nearest end serves as well.
fn saturated(integer: &DeInteger<'_>) -> i64 {
    let nearest = if integer.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
    i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(nearest)
}

/// Where each line but the first begins.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(newline, _)| newline + 1).collect())
    }

    fn place(&self, offset: usize) -> Place {
        Place::Line(1 + self.0.partition_point(|&start| start <= offset))
    }
}
