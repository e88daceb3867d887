//! `compose` of a route: which requests are made of one, and what is made of their answers.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::check::TIMEOUT;
use crate::action::compose::{Compose, Part, Shape, part_of};
use crate::document::problem::shown;
use crate::document::section::Section;
use crate::document::units::{bytes, duration};
use crate::document::value::Kind;
use crate::document::values::{boolean, integer, text};
use crate::exchange::template::Template;

const PATH_HINT: &str = "write \"/orders/{path:id}\"";
const STATUSES_HINT: &str = "write [401, 403, 404]";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const PASS_STATUSES_DEFAULT: [u16; 3] = [401, 403, 404];
/// Each is held in memory, some times over.
const BYTES: std::ops::RangeInclusive<u64> = 1..=64 << 20;
const BYTES_DEFAULT: usize = 1 << 20;

pub(super) fn read(
    table: &mut Section<'_>,
    upstreams: &BTreeMap<String, usize>,
) -> Option<Compose> {
    let mut parts = Vec::new();
    let mut names = Vec::new();
    let mut is_empty = true;
    table.named_tables("parts", |name, table| {
        is_empty = false;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_word) {
            table.skip_rest();
            return table.reject("is no name: write letters, digits, \"-\" and \"_\"".to_owned());
        }
        names.push(name.to_owned());
        let upstream = table.reference("upstream", upstreams);
        let path = table.required("path", PATH_HINT, |kind| match text(kind)? {
            path if path.starts_with('/') => Template::with_references(path),
            other => Err(format!("{} is no path: {PATH_HINT}", shown(other))),
        });
        let timeout = table.value("timeout", TIMEOUT_DEFAULT, duration(TIMEOUT));
        let optional = table.value("optional", false, boolean);
        let bytes_max = table.value("bytes_max", BYTES_DEFAULT, bytes(BYTES));
        parts.extend(upstream.zip(path).map(|(upstream, path)| Part {
            name: name.to_owned(),
            upstream,
            path,
            timeout,
            optional,
            bytes_max,
        }));
    });
    if is_empty {
        table.reject(
            "has no parts: write [routes.compose.parts.NAME] with upstream and path".into(),
        );
    }
    let known = |reference: &str| match names.iter().any(|name| name == part_of(reference)) {
        true => Ok(()),
        false => {
            Err(format!("no part named {} (have: {})", shown(part_of(reference)), names.join(", ")))
        }
    };
    let mut merge = None;
    if table.has("merge") {
        let members = table.entries("merge", |_, kind| {
            let shape = shape(kind)?;
            shape.references().into_iter().try_for_each(known)?;
            Ok(shape)
        });
        merge = Some(Shape::Object(members));
    }
    for part in &parts {
        if let Some(Err(message)) = part.path.references().map(known).find(Result::is_err) {
            table.reject(format!("parts.{}.path: {message}", part.name));
        }
    }
    let pass_statuses = match table.has("pass_statuses") {
        true => table.list("pass_statuses", STATUSES_HINT, integer(400..=599)),
        false => PASS_STATUSES_DEFAULT.to_vec(),
    };
    if table.is_right()
        && let Some(circle) = circle(&parts)
    {
        table.reject(format!("parts wait for each other: {}", circle.join(", then ")));
    }
    (!parts.is_empty()).then_some(Compose { parts, merge, pass_statuses })
}

/// What may be written in TOML and in JSON.
fn shape(kind: &Kind) -> Result<Shape, String> {
    match kind {
        Kind::Text(text) => Template::with_references(text).map(Shape::Text),
        Kind::Integer(number) => Ok(Shape::Plain(Value::from(*number))),
        Kind::Float(number) => Ok(Shape::Plain(Value::from(*number))),
        Kind::Boolean(boolean) => Ok(Shape::Plain(Value::from(*boolean))),
        Kind::Datetime => Err("JSON has no dates: write it as a string".to_owned()),
        Kind::List(elements) => {
            let elements = elements.iter().map(|element| shape(&element.kind));
            elements.collect::<Result<_, _>>().map(Shape::Array)
        }
        Kind::Table(table) => {
            let members = table.0.iter();
            let members = members.map(|(name, value)| Ok((name.clone(), shape(&value.kind)?)));
            members.collect::<Result<_, _>>().map(Shape::Object)
        }
    }
}

/// Names of parts of which each waits for the next, and the last for the first.
fn circle(parts: &[Part]) -> Option<Vec<String>> {
    let needs: HashMap<&str, Vec<&str>> =
        parts.iter().map(|part| (part.name.as_str(), part.needs().collect())).collect();
    parts.iter().find_map(|part| {
        let mut way = Vec::new();
        leads_back(&part.name, &part.name, &needs, &mut way)
            .then(|| way.into_iter().map(str::to_owned).collect())
    })
}

/// Whether what `name` needs, and what that needs, comes back to `start`.
fn leads_back<'a>(
    name: &'a str,
    start: &str,
    needs: &HashMap<&'a str, Vec<&'a str>>,
    way: &mut Vec<&'a str>,
) -> bool {
    if way.contains(&name) {
        return false;
    }
    way.push(name);
    let own = needs.get(name).into_iter().flatten();
    let found = own.into_iter().any(|next| {
        *next == start || needs.contains_key(next) && leads_back(next, start, needs, way)
    });
    if !found {
        way.pop();
    }
    found
}
