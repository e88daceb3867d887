//! Rules that keep single requests from an origin that cannot be mended today: expressions over path,
//! query and fields. No firewall: it knows no attacks by itself.

#![expect(clippy::disallowed_types, reason = "control reads what is counted")]

use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::{Build, Parts, Policy, Verdict};
use crate::document::section::Section;
use crate::document::values::{boolean, check_name, parsed, text};
use crate::exchange::error::Denial;
use crate::exchange::{Context, Error, Request};
use crate::http::head::values_of;
use crate::http::headers::is_token_byte;
use crate::routing::conditions::decoded;
use crate::telemetry::metrics;

const RULES_HINT: &str =
    "write rules = [{ name = \"log4shell\", header = { user-agent = \"jndi:\" } }]";

/// Bytes a compiled expression may take; matching is linear in the text whatever it says.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// The rules in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    name: String,
    path: Option<Expression>,
    query: Option<Expression>,
    fields: Vec<(String, Expression)>,
    observe: bool,
}

/// Looked for anywhere in a text, whatever its case.
#[derive(Clone, Debug)]
struct Expression(Regex);

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut builder = RegexBuilder::new(text);
        builder.unicode(false).case_insensitive(true).size_limit(COMPILED_BYTES_MAX);
        let first = |error: regex::Error| {
            let message = error.to_string();
            let line = message.lines().last().unwrap_or_default();
            format!("{text:?}: {}", line.strip_prefix("error: ").unwrap_or(line))
        };
        builder.build().map(Self).map_err(first)
    }
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let mut rules: Vec<Rule> = Vec::new();
        table.tables("rules", RULES_HINT, |_, table| {
            let name =
                table.required("name", "write what log and metrics are to call it", |kind| {
                    let name = text(kind)?;
                    check_name(name)?;
                    match rules.iter().any(|rule| rule.name == name) {
                        true => Err(format!("{name:?} is there already")),
                        false => Ok(name.to_owned()),
                    }
                });
            let rule = Rule {
                name: name.unwrap_or_default(),
                path: table.optional("path", parsed),
                query: table.optional("query", parsed),
                fields: table.entries("header", |name, kind| {
                    match name.bytes().all(is_token_byte) {
                        true => parsed(kind),
                        false => Err("is no name of a field".to_owned()),
                    }
                }),
                observe: table.value("observe", false, boolean),
            };
            let is_empty = rule.path.is_none() && rule.query.is_none() && rule.fields.is_empty();
            if table.is_right() && is_empty {
                table.reject("matches everything: write path, query or header".to_owned());
            }
            rules.push(rule);
        });
        Self { rules }
    }
}

impl Rule {
    /// Whether all that it asks for is there. Paths and queries are looked at as they came and decoded, so
    /// that an encoded letter hides nothing.
    fn matches(&self, request: &Request<'_>) -> bool {
        let Request { head, bytes, .. } = *request;
        let is_in = |expression: &Option<Expression>, text: &[u8]| {
            let Some(Expression(regex)) = expression else { return true };
            regex.is_match(text) || regex.is_match(&decoded(text))
        };
        is_in(&self.path, head.target.path(bytes))
            && is_in(&self.query, head.target.query.of(bytes))
            && self.fields.iter().all(|(name, Expression(regex))| {
                values_of(&head.fields, bytes, name).any(|value| regex.is_match(value))
            })
    }
}

impl Build for Settings {
    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let rules = self.rules.iter().map(|rule| {
            let name = format!("{}:{}", parts.name, rule.name);
            (rule.clone(), parts.metrics.policy(&name), name)
        });
        Rc::new(Rules(rules.collect()))
    }
}

/// Each with what is counted about it, and what it is called there and in the log.
struct Rules(Vec<(Rule, Arc<metrics::Policy>, String)>);

impl Policy for Rules {
    fn rule(&self, _: &Request<'_>) -> String {
        let names = self.0.iter().map(|(rule, ..)| match rule.observe {
            true => format!("{} (only counted)", rule.name),
            false => rule.name.clone(),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        for (rule, counters, name) in &self.0 {
            if !rule.matches(request) {
                continue;
            }
            if rule.observe {
                counters.observed.add(1);
                context.observe(name);
                continue;
            }
            counters.refused.add(1);
            context.reason.replace(Some(format!("rule {name}").into()));
            return Verdict::Refuse(Error::Denied(Denial::Rule));
        }
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, build, settings};
    use super::*;

    fn refuses(lines: &str, asker: &Asker) -> bool {
        let settings = settings(&format!("rules = [{{ name = 'a', {lines} }}]"), Settings::read);
        asker.of(&*build("waf", &settings.unwrap())).verdict != Verdict::Continue
    }

    #[test]
    fn all_of_a_rule_must_match() {
        let both = "path = '^/admin', query = 'debug='";
        assert!(refuses(both, &Asker::get("/ADMIN/x?a=1&debug=1")));
        assert!(!refuses(both, &Asker::get("/admin/x")));
        assert!(!refuses(both, &Asker::get("/x?debug=1")));
        let field = "header = { user-agent = 'jndi:' }";
        assert!(refuses(field, &Asker::get("/").field("User-Agent", "${JNDI:ldap://x}")));
        assert!(!refuses(field, &Asker::get("/")));
        assert!(!refuses("path = 'x', observe = true", &Asker::get("/x")));
    }

    #[test]
    fn encoding_hides_nothing() {
        assert!(refuses("query = 'union +select'", &Asker::get("/?q=1%20UnIoN%20%73elect")));
        assert!(refuses("path = '/etc/passwd'", &Asker::get("/a/%65tc/passwd")));
        assert!(refuses("query = '%00'", &Asker::get("/?a=%00")));
    }

    #[test]
    fn what_would_match_everything_or_nothing_is_refused() {
        for lines in [
            "",
            "rules = []",
            "rules = [{ name = 'a' }]",
            "rules = [{ path = 'x' }]",
            "rules = [{ name = 'a', path = '(' }]",
            "rules = [{ name = 'a', path = 'x' }, { name = 'a', path = 'y' }]",
        ] {
            assert!(settings(lines, Settings::read).is_err(), "{lines}");
        }
    }
}
