//! `[[routes]]`: which requests they are for, and what becomes of those.

use std::collections::{BTreeMap, HashMap};

use super::Route;
use super::check::{BODY_BYTES, TIMEOUT};
use super::compose;
use super::policies::Policies;
use crate::action::mirror::Mirror;
use crate::action::rewrite::Rewrite;
use crate::action::split::Split;
use crate::action::{Action, Fallback, Redirect, Respond};
use crate::document::section::Section;
use crate::document::units::{bytes, duration, percent};
use crate::document::value::Kind;
use crate::document::values::{integer, network, parsed, text, word};
use crate::exchange::Affinity;
use crate::exchange::template::Template;
use crate::http::ambiguity::{Ambiguities, Ambiguity};
use crate::http::headers::is_token_byte;
use crate::routing::conditions::Wanted;
use crate::routing::{Conditions, HostPattern, PathPattern};
use crate::upstream;

const ROUTES_HINT: &str = "write [[routes]] with an upstream, or give --upstream";
const ALLOW_HINT: &str = "write [\"empty_segments\"]";
const METHODS_HINT: &str = "write [\"GET\"]";
const FROM_HINT: &str = "write [\"10.0.0.0/8\"]";
const SPLIT_HINT: &str = "write [{ upstream = \"old\", weight = 9 }, { upstream = \"new\" }]";
const TO_HINT: &str = "write \"https://example.com{path}{query}\"";

/// What a redirect may say: whether for good, and whether the method may become GET.
const REDIRECTS: [i64; 5] = [301, 302, 303, 307, 308];

/// The keys of which a route has one.
const ACTIONS: [&str; 5] = ["upstream", "split", "respond", "redirect", "compose"];

pub(super) fn read(
    root: &mut Section<'_>,
    upstreams: &[upstream::Spec],
    policies: &mut Policies,
) -> Vec<Route> {
    let positions = upstreams.iter().enumerate();
    let positions = positions.map(|(position, spec)| (spec.name.clone(), position)).collect();
    let mut routes = Vec::new();
    #[expect(clippy::mutable_key_type, reason = "expressions are compared by their text")]
    let mut seen = HashMap::new();
    root.tables("routes", ROUTES_HINT, |position, table| {
        let host = table.value("host", HostPattern::Any, parsed);
        let path = table.value("path", PathPattern::Prefix("/".to_owned()), parsed);
        let priority = table.value("priority", 0, integer(-1000..=1000));
        let conditions = conditions(table);
        let action = action(table, &positions);
        let rewrite = rewrite(table, &path);
        let body_bytes = table.optional("body_bytes", bytes(BODY_BYTES));
        let timeout = table.optional("timeout", duration(TIMEOUT));
        let fallback = fallback(table, &positions);
        let mirror = mirror(table, &positions);
        if matches!(action, Some(Action::Respond(_) | Action::Redirect(_))) {
            table.reject_value("timeout", "is for routes that ask an upstream");
        }
        if !matches!(action, Some(Action::Forward(_)) | None) {
            for key in ["fallback", "mirror"] {
                table.reject_value(key, "is for routes with upstream or split");
            }
        }
        let mut allow_in_path = Ambiguities::default();
        if table.has("allow_in_path") {
            let kinds = table.list("allow_in_path", ALLOW_HINT, word(&Ambiguity::NAMES));
            kinds.into_iter().for_each(|kind| allow_in_path.insert(kind));
        }
        let policies = policies.listed(table);
        let templates = action.iter().flat_map(Action::templates);
        let templates = templates.chain(fallback.iter().flat_map(Fallback::templates));
        for template in templates.chain(rewrite.templates()) {
            for group in template.groups() {
                if !path.pattern().is_some_and(|pattern| pattern.has_group(group)) {
                    table.reject(format!("{{path:{}}} is no group of path", group.escape_debug()));
                }
            }
        }
        let key = (host.clone(), path.clone(), priority, conditions.clone());
        if table.is_right()
            && let Some(same) = seen.insert(key, position)
        {
            table.reject(format!("for the same requests as routes[{same}]"));
        }
        routes.extend(action.map(|action| Route {
            host,
            path,
            priority,
            conditions,
            action,
            rewrite,
            body_bytes,
            timeout,
            fallback,
            mirror,
            allow_in_path,
            policies,
        }));
    });
    routes
}

fn conditions(table: &mut Section<'_>) -> Conditions {
    let mut conditions = Conditions::default();
    if table.has("methods") {
        conditions.methods = table.list("methods", METHODS_HINT, |kind| {
            let method = token(text(kind)?)?.to_owned();
            match method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                true => Err(format!("{method:?}: methods are written in capitals")),
                false => Ok(method),
            }
        });
    }
    conditions.fields = table.entries("headers", |name, kind| {
        token(name)?;
        wanted(kind)
    });
    conditions.query = table.entries("query", |_, kind| wanted(kind));
    if table.has("from") {
        conditions.sources = table.list("from", FROM_HINT, network);
    }
    conditions
}

/// A text, `~` and an expression, or whether there is to be any.
fn wanted(kind: &Kind) -> Result<Wanted, String> {
    match kind {
        Kind::Boolean(true) => Ok(Wanted::Present),
        Kind::Boolean(false) => Ok(Wanted::Absent),
        Kind::Text(text) => text.parse(),
        other => Err(format!("must be a string, or whether there is one, is {}", other.name())),
    }
}

pub(super) fn token(text: &str) -> Result<&str, String> {
    match !text.is_empty() && text.bytes().all(is_token_byte) {
        true => Ok(text),
        false => Err(format!("{text:?} is no name: write letters, digits and \"-\"")),
    }
}

fn action(table: &mut Section<'_>, upstreams: &BTreeMap<String, usize>) -> Option<Action> {
    let given: Vec<_> = ACTIONS.into_iter().filter(|key| table.has(key)).collect();
    if let [first, second, ..] = given[..] {
        table.reject(format!("has {first} and {second}: write one of {}", ACTIONS.join(", ")));
    }
    match given.first().copied() {
        Some("split") => split(table, upstreams).map(Action::Forward),
        Some("respond") => Some(Action::Respond(table.table("respond", respond))),
        Some("compose") => {
            table.table("compose", |table| compose::read(table, upstreams)).map(Action::Compose)
        }
        Some("redirect") => table.table("redirect", redirect).map(Action::Redirect),
        _ => {
            let upstream = table.reference("upstream", upstreams)?;
            Some(Action::Forward(Split { shares: vec![(upstream, 1)], sticky: None }))
        }
    }
}

fn mirror(table: &mut Section<'_>, upstreams: &BTreeMap<String, usize>) -> Option<Mirror> {
    if !table.has("mirror") {
        return None;
    }
    table.table("mirror", |table| {
        let upstream = table.reference("upstream", upstreams);
        let share = table.value("share", 100, percent(1..=100));
        upstream.map(|upstream| Mirror { upstream, share })
    })
}

/// An upstream, or an answer.
fn fallback(table: &mut Section<'_>, upstreams: &BTreeMap<String, usize>) -> Option<Fallback> {
    if !table.has("fallback") {
        return None;
    }
    table.table("fallback", |table| match table.has("upstream") {
        true => {
            table.reject_value("respond", "cannot be had together with upstream");
            table.reference("upstream", upstreams).map(Fallback::Forward)
        }
        false => Some(Fallback::Respond(table.table("respond", respond))),
    })
}

fn split(table: &mut Section<'_>, upstreams: &BTreeMap<String, usize>) -> Option<Split> {
    let mut shares = Vec::new();
    table.tables("split", SPLIT_HINT, |_, table| {
        let upstream = table.reference("upstream", upstreams);
        let weight = table.value("weight", 1, integer(0..=1_000_000));
        shares.extend(upstream.map(|upstream| (upstream, weight)));
    });
    let sticky = table.optional("sticky", affinity);
    if table.is_right() && shares.iter().all(|(_, weight)| *weight == 0) {
        table.reject_value("split", "one weight at least must be above 0");
    }
    (!shares.is_empty()).then_some(Split { shares, sticky })
}

/// `"client"`, `"path"`, `"header:NAME"` or `"cookie:NAME"`.
pub(super) fn affinity(kind: &Kind) -> Result<Affinity, String> {
    let text = text(kind)?;
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "client" if name.is_empty() => Ok(Affinity::Client),
        "path" if name.is_empty() => Ok(Affinity::Path),
        "header" => Ok(Affinity::Field(token(name)?.to_owned())),
        "cookie" => Ok(Affinity::Cookie(token(name)?.to_owned())),
        _ => Err("must be \"client\", \"path\", \"header:NAME\" or \"cookie:NAME\"".to_owned()),
    }
}

fn respond(table: &mut Section<'_>) -> Respond {
    Respond {
        status: table.value("status", 200, integer(200..=599)),
        content_type: table.value("content_type", "text/plain; charset=utf-8".to_owned(), |kind| {
            let text = text(kind)?;
            match !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                true => Ok(text.to_owned()),
                false => Err("write \"text/html; charset=utf-8\"".to_owned()),
            }
        }),
        body: table.optional("body", parsed),
    }
}

fn redirect(table: &mut Section<'_>) -> Option<Redirect> {
    let status = table.value("status", 308, |kind| match kind {
        Kind::Integer(status) if REDIRECTS.contains(status) => {
            u16::try_from(*status).map_err(|error| error.to_string())
        }
        _ => Err(format!("must be one of {REDIRECTS:?}")),
    });
    table.required("to", TO_HINT, parsed).map(|to| Redirect { status, to })
}

fn rewrite(table: &mut Section<'_>, path: &PathPattern) -> Rewrite {
    table.table("rewrite", |table| {
        let mut rewrite = Rewrite {
            strip_prefix: table.optional("strip_prefix", prefix),
            add_prefix: table.optional("add_prefix", prefix),
            path: table.optional("path", |kind| match text(kind)?.starts_with('/') {
                true => parsed::<Template>(kind),
                false => Err("a path begins with \"/\"".to_owned()),
            }),
            host: table.optional("host", parsed),
        };
        if let Some(new) = table.optional("replace_prefix", prefix) {
            match path {
                PathPattern::Prefix(own) => {
                    rewrite.strip_prefix = own.strip_suffix('/').map(str::to_owned);
                    rewrite.add_prefix = Some(new);
                }
                _ => table.reject_value(
                    "replace_prefix",
                    "there is none: the route's path is not written as \"/prefix/*\"",
                ),
            }
            for key in ["strip_prefix", "add_prefix"] {
                if table.has(key) {
                    table.reject_value(key, "cannot be had together with replace_prefix");
                }
            }
        }
        for key in ["strip_prefix", "add_prefix", "replace_prefix"] {
            if table.has("path") && table.has(key) {
                table.reject_value(key, "cannot be had together with path");
            }
        }
        rewrite
    })
}

/// Segments without the slash behind them.
fn prefix(kind: &Kind) -> Result<String, String> {
    let text = text(kind)?;
    let prefix = text.strip_suffix('/').unwrap_or(text);
    match prefix.parse::<PathPattern>() {
        Ok(PathPattern::Exact(prefix)) => Ok(prefix),
        Ok(_) => Err("write it without \"*\", as in \"/v2\"".to_owned()),
        Err(_) if prefix.is_empty() && !text.is_empty() => Ok(String::new()),
        Err(message) => Err(message),
    }
}
