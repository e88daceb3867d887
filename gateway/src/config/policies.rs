//! `[policies.NAME]`, and the lists of their names in listeners and routes.

use std::collections::{BTreeSet, HashSet};

use super::Policy;
use crate::document::problem::shown;
use crate::document::section::Section;
use crate::document::value::Kind;
use crate::document::values::{check_name, once, text};
use crate::policy::{AUTHENTICATING, KINDS, Settings, any};
use crate::upstream;

/// The kind of those that are made of others.
const COMBINING: &str = "any";

const LIST_HINT: &str = "write [\"hsts\"]";

/// The policies there are by name.
pub(super) struct Policies {
    pub all: Vec<Policy>,
    /// Those whose table is wrong, which is enough to say once.
    wrong: HashSet<String>,
    /// Those that are made of others.
    combining: HashSet<String>,
}

impl Policies {
    pub fn read(root: &mut Section<'_>, upstreams: &[upstream::Spec]) -> Self {
        let positions = upstreams.iter().enumerate();
        let upstreams = positions.map(|(at, upstream)| (upstream.name.clone(), at)).collect();
        let mut policies =
            Self { all: Vec::new(), wrong: HashSet::new(), combining: HashSet::new() };
        root.named_tables("policies", |name, table| {
            if let Err(message) = check_name(name) {
                table.reject(message);
            }
            match is_combining(name, table) {
                true => {
                    table.skip_rest();
                    policies.combining.insert(name.to_owned());
                }
                false => {
                    let settings = read(name, table);
                    if settings.as_ref().is_some_and(|settings| settings.upstream().is_some()) {
                        let _ = table.reference("upstream", &upstreams);
                    }
                    policies.add(name, settings.filter(|_| table.is_right()));
                }
            }
        });
        // What is made of others is read once all of those are known.
        root.named_tables("policies", |name, table| {
            if !policies.combining.contains(name) {
                return table.skip_rest();
            }
            let settings = read(name, table);
            if settings.is_some() {
                table.list("of", any::OF_HINT, |kind| {
                    any::names(kind)?.iter().try_for_each(|name| {
                        policies.check_member(name).map_err(|message| match kind {
                            Kind::List(_) => format!("{}: {message}", shown(name)),
                            _ => message,
                        })
                    })
                });
            }
            policies.add(name, settings.filter(|_| table.is_right()));
        });
        policies
    }

    fn add(&mut self, name: &str, settings: Option<Settings>) {
        match settings {
            Some(settings) => self.all.push(Policy { name: name.to_owned(), settings }),
            None => drop(self.wrong.insert(name.to_owned())),
        }
    }

    /// Whether one may be a part of another.
    fn check_member(&mut self, name: &str) -> Result<(), String> {
        if self.combining.contains(name) {
            return Err("is made of others itself: write those in its place".to_owned());
        }
        let found = self.find(name)?;
        match found.and_then(|position| self.all.get(position)) {
            Some(policy) if !policy.settings.authenticates() => {
                let who = AUTHENTICATING.join(", ");
                Err(format!("does not find out who a client is, as {who} do"))
            }
            _ => Ok(()),
        }
    }

    /// The positions of those that `table` lists at `policies`. A kind that needs no table of its own is
    /// named by its word.
    pub fn listed(&mut self, table: &mut Section<'_>) -> Vec<usize> {
        if !table.has("policies") {
            return Vec::new();
        }
        let mut seen = HashSet::new();
        let found = table.list("policies", LIST_HINT, |kind| {
            let name = once(&mut seen, text(kind)?.to_owned(), kind)?;
            self.find(&name)
        });
        found.into_iter().flatten().collect()
    }

    /// `None` for one that is wrong.
    fn find(&mut self, name: &str) -> Result<Option<usize>, String> {
        if let Some(position) = self.all.iter().position(|policy| policy.name == name) {
            return Ok(Some(position));
        }
        if self.wrong.contains(name) {
            return Ok(None);
        }
        if !KINDS.contains(&name) {
            let named = self.all.iter().map(|policy| policy.name.as_str());
            let known: BTreeSet<_> = named.chain(KINDS.iter().copied()).collect();
            let known = Vec::from_iter(known).join(", ");
            return Err(format!("no policy named {} (have: {known})", shown(name)));
        }
        let settings = Section::read_empty(|table| Settings::read(name, table))
            .ok_or_else(|| format!("needs its keys: write [policies.{name}] with them"))?;
        self.all.extend(settings.map(|settings| Policy { name: name.to_owned(), settings }));
        Ok(self.all.len().checked_sub(1))
    }
}

fn is_combining(name: &str, table: &mut Section<'_>) -> bool {
    let said = table.optional("kind", |kind| Ok(kind.is_text(COMBINING)));
    said.unwrap_or(name == COMBINING)
}

/// One that is named like its kind need not say it.
fn read(name: &str, table: &mut Section<'_>) -> Option<Settings> {
    let hint = format!("write one of {}", KINDS.join(", "));
    let kind = match KINDS.contains(&name) && !table.has("kind") {
        true => Some(name.to_owned()),
        false => table.required("kind", &hint, |kind| match text(kind)? {
            known if KINDS.contains(&known) => Ok(known.to_owned()),
            other => Err(format!("{} is none of {}", shown(other), KINDS.join(", "))),
        }),
    };
    let settings = Settings::read(&kind.unwrap_or_default(), table);
    if settings.is_none() {
        table.skip_rest();
    }
    settings.filter(|_| table.is_right())
}
