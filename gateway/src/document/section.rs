//! Reads one table of the document key by key. Which keys a table has is said nowhere but where
//! they are read; what is left over is unknown.

use std::collections::BTreeMap;

use super::problem::{Place, Problem, SHOWN_CHARS_MAX, shown};
use super::value::{Document, Kind, Table, Value};

/// How many names a message lists.
const LISTED_MAX: usize = 12;

/// Reads the whole document: `read` gets its root. The problems come in the order of lines.
pub(crate) fn read_document<T>(
    document: &Document,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<T, Vec<Problem>> {
    let mut problems = Problems { incomplete: !document.syntax.is_empty(), found: Vec::new() };
    let read = Section::read(&document.root, Place::Whole, String::new(), &mut problems, read);
    let problems = merge(&document.syntax, problems.found);
    if problems.is_empty() { Ok(read) } else { Err(problems) }
}

/// One mistake in a line's syntax makes others on it, of syntax and of meaning: only the first counts.
fn merge(syntax: &[Problem], found: Vec<Problem>) -> Vec<Problem> {
    let mut problems = syntax.to_vec();
    problems.sort_by_key(|problem| problem.place);
    problems.dedup_by_key(|problem| problem.place);
    let unreadable: Vec<_> = problems.iter().map(|problem| problem.place).collect();
    let readable = |problem: &Problem| unreadable.binary_search(&problem.place).is_err();
    problems.extend(found.into_iter().filter(readable));
    problems.sort_by_key(|problem| problem.place);
    problems
}

/// What has been found so far.
struct Problems {
    /// Some of the file could not be read, so nothing can be said to be missing from it.
    incomplete: bool,
    found: Vec<Problem>,
}

/// One table while it is read.
pub(crate) struct Section<'a> {
    table: &'a Table,
    place: Place,
    /// `routes[2]`; empty for the root.
    path: String,
    /// Every key this table may have.
    known: Vec<&'static str>,
    problems: &'a mut Problems,
    /// How many problems there were before this table.
    problems_before: usize,
    skips_rest: bool,
}

impl<'a> Section<'a> {
    fn read<T>(
        table: &'a Table,
        place: Place,
        path: String,
        problems: &'a mut Problems,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let problems_before = problems.found.len();
        let mut section = Section {
            table,
            place,
            path,
            known: Vec::new(),
            problems,
            problems_before,
            skips_rest: false,
        };
        let result = read(&mut section);
        if !section.skips_rest {
            section.report_unknown();
        }
        result
    }

    /// Reads a table without keys; `None` if that is one too few.
    pub(crate) fn read_empty<T>(read: impl FnOnce(&mut Section<'_>) -> T) -> Option<T> {
        let mut problems = Problems { incomplete: false, found: Vec::new() };
        let table = Table::default();
        let read = Section::read(&table, Place::Whole, String::new(), &mut problems, read);
        problems.found.is_empty().then_some(read)
    }

    /// Says nothing of keys that have not been read, because nobody knows which there are.
    pub(crate) fn skip_rest(&mut self) {
        self.skips_rest = true;
    }

    /// The value at `key`, or `default` if there is none. `parse` says what is wrong with it.
    pub(crate) fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Kind) -> Result<T, String>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// The value at `key`, if there is one.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Kind) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        parse(&value.kind).map_err(|message| self.wrong(value.place, key, message)).ok()
    }

    /// The value at `key`, which must be there: `hint` says what belongs there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&Kind) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key, hint);
        }
        self.optional(key, parse)
    }

    /// The elements of the array at `key`, at least one: `hint` says what belongs there.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        mut parse: impl FnMut(&Kind) -> Result<T, String>,
    ) -> Vec<T> {
        let mut read = Vec::new();
        if !self.has(key) {
            self.missing(key, hint);
        }
        let Some(value) = self.take(key) else { return read };
        self.elements(value, key, hint, |section, element, name| match parse(&element.kind) {
            Ok(value) => read.push(value),
            Err(message) => section.wrong(element.place, name, message),
        });
        read
    }

    /// Reads each element of an array, which has at least one.
    fn elements(
        &mut self,
        value: &Value,
        key: &str,
        hint: &str,
        mut read: impl FnMut(&mut Self, &Value, &str),
    ) {
        match &value.kind {
            Kind::List(elements) if elements.is_empty() => {
                self.wrong(value.place, key, format!("is empty: {hint}"));
            }
            Kind::List(elements) => {
                for (position, element) in elements.iter().enumerate() {
                    read(self, element, &format!("{key}[{position}]"));
                }
            }
            other => self.wrong(value.place, key, format!("must be an array, is {}", other.name())),
        }
    }

    /// The elements of the array at `key`, at least one, each of which may be written short or as a table.
    pub(crate) fn list_or_tables<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        mut short: impl FnMut(&Kind) -> Result<T, String>,
        mut table: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        if !self.has(key) {
            self.missing(key, hint);
        }
        let Some(value) = self.take(key) else { return Vec::new() };
        self.short_or_tables(value, key, hint, &mut short, &mut table)
    }

    /// Such an array for each name in the table at `key`.
    pub(crate) fn named_lists_or_tables<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        mut short: impl FnMut(&Kind) -> Result<T, String>,
        mut table: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<(String, Vec<T>)> {
        let mut read = Vec::new();
        let Some(value) = self.take(key) else { return read };
        let Kind::Table(lists) = &value.kind else {
            let message = format!("must be a table, is {}", value.kind.name());
            self.wrong(value.place, key, message);
            return read;
        };
        for (name, list) in &lists.0 {
            let path = format!("{key}.{}", plain(name));
            let elements = self.short_or_tables(list, &path, hint, &mut short, &mut table);
            read.push((name.clone(), elements));
        }
        read
    }

    fn short_or_tables<T>(
        &mut self,
        value: &Value,
        key: &str,
        hint: &str,
        short: &mut impl FnMut(&Kind) -> Result<T, String>,
        table: &mut impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let mut read = Vec::new();
        self.elements(value, key, hint, |section, element, name| match &element.kind {
            Kind::Table(_) => section.element(element, name, "", |table_of_one| {
                read.extend(table(table_of_one));
            }),
            kind => match short(kind) {
                Ok(value) => read.push(value),
                Err(message) => section.wrong(element.place, name, message),
            },
        });
        read
    }

    /// The position of the name at `key` among `names`; a problem if there is none.
    pub(crate) fn reference(
        &mut self,
        key: &'static str,
        names: &BTreeMap<String, usize>,
    ) -> Option<usize> {
        let Some(value) = self.take(key) else {
            self.missing(key, &format!("write the name of an {key} (have: {})", listed(names)));
            return None;
        };
        let message = match &value.kind {
            Kind::Text(name) => match names.get(name) {
                Some(&position) => return Some(position),
                None if self.problems.incomplete => return None,
                None => format!("no {key} named {} (have: {})", shown(name), listed(names)),
            },
            other => format!("must be the name of an {key}, is {}", other.name()),
        };
        self.wrong(value.place, key, message);
        None
    }

    /// Reads the table at `key`, or an empty one, so that defaults are in one place.
    pub(crate) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let empty = Table::default();
        let (table, place) = match self.take(key) {
            None => (&empty, self.place),
            Some(Value { place, kind: Kind::Table(table) }) => (table, *place),
            Some(Value { place, kind }) => {
                let message =
                    format!("must be a table, is {}: write [{key}] above its keys", kind.name());
                self.wrong(*place, key, message);
                (&empty, *place)
            }
        };
        Section::read(table, place, self.path_of(key), self.problems, read)
    }

    /// Whether `key` is present, for tables that mean something by being there.
    pub(crate) fn has(&mut self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    /// Reads each of the tables at `key`, `[[key]]`, at least one: `hint` says what belongs there.
    pub(crate) fn tables(
        &mut self,
        key: &'static str,
        hint: &str,
        mut read: impl FnMut(usize, &mut Section<'_>),
    ) {
        let form = format!("[[{key}]]");
        match self.take(key) {
            None => self.missing(key, hint),
            Some(Value { kind: Kind::List(elements), .. }) if !elements.is_empty() => {
                for (position, element) in elements.iter().enumerate() {
                    let name = format!("{key}[{position}]");
                    self.element(element, &name, &form, |section| read(position, section));
                }
            }
            Some(Value { place, kind: Kind::List(_) }) => {
                self.wrong(*place, key, format!("is empty: {hint}"));
            }
            Some(Value { place, kind }) => {
                let message =
                    format!("must be an array of tables, is {}: write {form}", kind.name());
                self.wrong(*place, key, message);
            }
        }
    }

    /// The values of the table at `key`, whatever they are called, with their names.
    pub(crate) fn entries<T>(
        &mut self,
        key: &'static str,
        mut parse: impl FnMut(&str, &Kind) -> Result<T, String>,
    ) -> Vec<(String, T)> {
        let mut read = Vec::new();
        let Some(value) = self.take(key) else { return read };
        let Kind::Table(table) = &value.kind else {
            let message = format!("must be a table, is {}", value.kind.name());
            self.wrong(value.place, key, message);
            return read;
        };
        for (name, element) in &table.0 {
            match parse(name, &element.kind) {
                Ok(value) => read.push((name.clone(), value)),
                Err(message) => {
                    self.wrong(element.place, &format!("{key}.{}", plain(name)), message);
                }
            }
        }
        read
    }

    /// Reads each of the tables in the table at `key`: `[key.NAME]`.
    pub(crate) fn named_tables(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str, &mut Section<'_>),
    ) {
        let Some(value) = self.take(key) else { return };
        let Kind::Table(table) = &value.kind else {
            let message = format!(
                "must be tables with a name each, is {}: write [{key}.NAME]",
                value.kind.name()
            );
            return self.wrong(value.place, key, message);
        };
        for (name, element) in &table.0 {
            let form = format!("[{key}.NAME]");
            self.element(element, &format!("{key}.{}", plain(name)), &form, |section| {
                read(name, section)
            });
        }
    }

    fn element(
        &mut self,
        element: &Value,
        name: &str,
        form: &str,
        read: impl FnOnce(&mut Section<'_>),
    ) {
        match &element.kind {
            Kind::Table(table) => {
                Section::read(table, element.place, self.path_of(name), self.problems, read);
            }
            other => {
                let message = format!("must be a table, is {}: write {form}", other.name());
                self.wrong(element.place, name, message);
            }
        }
    }

    /// A problem with the section as a whole.
    pub(crate) fn reject(&mut self, message: String) {
        let key = self.path.clone();
        self.problems.found.push(Problem { place: self.place, key, message });
    }

    /// A problem with the value at `key`.
    pub(crate) fn reject_value(&mut self, key: &'static str, message: impl Into<String>) {
        self.optional::<()>(key, |_| Err(message.into()));
    }

    /// Something is nowhere. Says nothing when it may be where the file could not be read.
    fn missing(&mut self, key: &str, hint: &str) {
        if !self.problems.incomplete {
            self.wrong(self.place, key, format!("missing: {hint}"));
        }
    }

    /// Whether nothing was wrong so far, so that it makes sense to compare it with others.
    pub(crate) fn is_right(&self) -> bool {
        self.problems.found.len() == self.problems_before
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.0.get(key)
    }

    fn wrong(&mut self, place: Place, key: &str, message: String) {
        let key = self.path_of(key);
        self.problems.found.push(Problem { place, key, message });
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn report_unknown(&mut self) {
        for (key, value) in &self.table.0 {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let message = match nearest(key, &self.known) {
                Some(known) => format!("no such key; did you mean {known:?}?"),
                None => format!("no such key (have: {})", self.known.join(", ")),
            };
            self.wrong(value.place, &plain(key), message);
        }
    }
}

/// The known key a person may have meant: one edit for every three letters, as rustc does.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let edits_max = (key.len() / 3).max(1);
    let distances = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), *known));
    let short = key.len() <= SHOWN_CHARS_MAX;
    distances.filter(|(edits, _)| short && *edits <= edits_max).min().map(|(_, known)| known)
}

fn listed(names: &BTreeMap<String, usize>) -> String {
    let listed: Vec<_> = names.keys().take(LISTED_MAX).map(|name| plain(name)).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > LISTED_MAX => format!("{}, …", listed.join(", ")),
        _ => listed.join(", "),
    }
}

/// A key as a path shows it: as it is if it needs no quotes in TOML.
fn plain(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match !key.is_empty() && key.len() <= SHOWN_CHARS_MAX && key.bytes().all(bare) {
        true => key.to_owned(),
        false => shown(key),
    }
}
