//! Lets in who shows a token that somebody has signed (RFC 7519), with what RFC 8725 asks of those who verify.

#![expect(clippy::disallowed_types, reason = "all workers verify by the same keys")]

mod algorithm;
mod claims;
mod keys;
mod remembered;
mod source;
mod token;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;

use self::algorithm::{ALGORITHMS, Algorithm};
use self::claims::{Period, Rules};
use self::keys::Keys;
use self::remembered::Remembered;
pub use self::source::{Ask, Remote, Source, Url};
use self::token::Flaw;
use super::caller::{Caller, NAME_BYTES_MAX};
use super::place::{self, Place};
use super::{Build, Parts, Policy, Shared, Verdict, headers};
use crate::document::section::Section;
use crate::document::values::{path, text, word};
pub(super) use crate::exchange::context::claim;
use crate::exchange::error::Denial;
use crate::exchange::inquiry::Upstreams;
use crate::exchange::{Context, Error, Request};

/// Bytes of a file with keys: a set of thousands.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What tokens are believed, and what is made of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    from: Vec<Place>,
    algorithms: Vec<Algorithm>,
    /// What they must say they are.
    kind: Option<String>,
    keys: KeySource,
    rules: Rules,
    /// The claim that is the client's name.
    identity: String,
    /// Claims, and the fields the origin is told them in.
    claim_fields: Vec<(String, Bytes)>,
    caller: Caller,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq)]
enum KeySource {
    Set(PathBuf, Arc<Keys>),
    Secret(PathBuf, Arc<Keys>),
    Remote(Box<Remote>),
    /// Nowhere, which has been said.
    Nowhere,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let hint = "write [\"RS256\"], or whatever the issuer signs by";
        let algorithms = table.list("algorithms", hint, word(&ALGORITHMS));
        let by_secret = |algorithm: &Algorithm| algorithm.secret_bytes_min().is_some();
        let is_secret = !algorithms.is_empty() && algorithms.iter().all(by_secret);
        if !is_secret && algorithms.iter().any(by_secret) {
            let message = "HS256, HS384 and HS512 take a secret, the others public keys: write \
                           a policy for each";
            table.reject_value("algorithms", message);
        }
        let keys = KeySource::read(table, &algorithms, is_secret);
        let identity = table.value("identity", "sub".to_owned(), |kind| match text(kind)? {
            "" => Err("is empty".to_owned()),
            name => Ok(name.to_owned()),
        });
        let claim_fields = table
            .entries("claim_fields", |_, kind| headers::name(text(kind)?, true))
            .into_iter()
            .collect::<Vec<_>>();
        let from = table.optional("from", Place::read_all).unwrap_or_else(|| vec![Place::Bearer]);
        Self {
            from,
            algorithms,
            kind: table.optional("type", |kind| text(kind).map(str::to_owned)),
            keys,
            rules: Rules::read(table),
            identity,
            claim_fields,
            caller: Caller::read(table, |realm| vec![format!("Bearer realm=\"{realm}\"")]),
        }
    }

    /// Where keys are fetched from, if they are.
    pub fn remote(&self) -> Option<&Remote> {
        match &self.keys {
            KeySource::Remote(remote) => Some(remote),
            _ => None,
        }
    }

    /// Whether a set has keys that tokens may be verified by.
    ///
    /// # Errors
    /// Why not.
    pub fn check_keys(&self, set: &[u8]) -> Result<(), String> {
        Keys::read(set, &self.algorithms).map(drop)
    }

    /// What it does not ask of tokens, and better did.
    pub fn loose(&self) -> impl Iterator<Item = &'static str> {
        self.rules.loose()
    }
}

impl KeySource {
    fn read(table: &mut Section<'_>, algorithms: &[Algorithm], is_secret: bool) -> Self {
        let places = [table.has("jwks_url"), table.has("jwks_file"), table.has("secret_file")];
        // Read whatever else is wrong, so that all of it is told.
        let remote = Remote::read(table);
        let set = table.optional("jwks_file", |kind| {
            let path = path(kind)?;
            read_set(&path, algorithms).map(|keys| (path, keys))
        });
        let secret = table.optional("secret_file", |kind| {
            let path = path(kind)?;
            read_secret(&path, algorithms).map(|keys| (path, keys))
        });
        match (places, is_secret) {
            ([true, false, false] | [false, true, false], true) => {
                table.reject_value("algorithms", "HS algorithms take secret_file, no public keys");
            }
            ([false, false, true], false) if !algorithms.is_empty() => {
                table.reject_value("secret_file", "only HS256, HS384 and HS512 take a secret");
            }
            ([true, false, false] | [false, true, false] | [false, false, true], _) => {}
            _ => table.reject("write one of jwks_url, jwks_file and secret_file".to_owned()),
        }
        match (remote, set, secret) {
            (Some(remote), ..) => Self::Remote(Box::new(remote)),
            (_, Some((path, keys)), _) => Self::Set(path, Arc::new(keys)),
            (_, _, Some((path, keys))) => Self::Secret(path, Arc::new(keys)),
            _ => Self::Nowhere,
        }
    }
}

fn read_set(path: &Path, algorithms: &[Algorithm]) -> Result<Keys, String> {
    let bytes = read_file(path)?;
    // What was wrong with them has been said.
    if algorithms.is_empty() {
        return Ok(Keys::default());
    }
    Keys::read(&bytes, algorithms).map_err(|message| format!("{path:?}: {message}"))
}

/// The whole file but the end of its line.
fn read_secret(path: &Path, algorithms: &[Algorithm]) -> Result<Keys, String> {
    let mut secret = read_file(path)?;
    for end in [b'\n', b'\r'] {
        secret.pop_if(|last| *last == end);
    }
    let least = algorithms.iter().filter_map(|algorithm| algorithm.secret_bytes_min()).max();
    match least {
        Some(least) if secret.len() < least => {
            Err(format!("{path:?}: has {} bytes, {least} at least (RFC 7518)", secret.len()))
        }
        _ => Ok(Keys::secret(secret)),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("{path:?}: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(format!("{path:?}: larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    fs::read(path).map_err(unreadable)
}

impl Build for Settings {
    fn files(&self) -> Vec<&Path> {
        match &self.keys {
            KeySource::Set(path, _) | KeySource::Secret(path, _) => vec![path],
            KeySource::Remote(remote) => {
                let roots = remote.tls.iter().filter_map(|tls| tls.roots.as_ref());
                roots.filter_map(crate::tls::Roots::path).collect()
            }
            KeySource::Nowhere => Vec::new(),
        }
    }

    fn reread(&self) -> Result<Self, String> {
        let keys = match &self.keys {
            KeySource::Set(path, _) => {
                KeySource::Set(path.clone(), Arc::new(read_set(path, &self.algorithms)?))
            }
            KeySource::Secret(path, _) => {
                KeySource::Secret(path.clone(), Arc::new(read_secret(path, &self.algorithms)?))
            }
            KeySource::Remote(remote) => KeySource::Remote(Box::new(remote.reread()?)),
            KeySource::Nowhere => KeySource::Nowhere,
        };
        Ok(Self { keys, ..self.clone() })
    }

    fn shared(&self) -> Shared {
        let remote = self.remote()?.clone();
        Some(Arc::new(Source::new(remote, self.algorithms.clone())))
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let shared = parts.shared.clone().or_else(|| self.shared());
        let keys = match &self.keys {
            KeySource::Set(_, keys) | KeySource::Secret(_, keys) => Arc::clone(keys),
            KeySource::Remote(_) | KeySource::Nowhere => Arc::default(),
        };
        Rc::new(Jwt {
            settings: self.clone(),
            source: shared.and_then(|shared| shared.downcast().ok()),
            keys: RefCell::new((0, keys)),
            remembered: RefCell::default(),
        })
    }
}

/// A worker's part in it.
struct Jwt {
    settings: Settings,
    /// Where keys come from while it runs, if they do.
    source: Option<Arc<Source>>,
    /// Those there are, and how often they had changed.
    keys: RefCell<(u64, Arc<Keys>)>,
    remembered: RefCell<Remembered>,
}

/// What a token that one of the keys has signed comes to.
struct Verified {
    claims: Rc<Value>,
    name: String,
    period: Period,
    has_scopes: bool,
}

impl Policy for Jwt {
    fn rule(&self, _: &Request<'_>) -> String {
        let Settings { from, algorithms, identity, .. } = &self.settings;
        let own = ALGORITHMS.iter().filter(|(_, algorithm)| algorithms.contains(algorithm));
        let names = own.map(|(name, _)| *name).collect::<Vec<_>>().join(" or ");
        format!(
            "a token as {}, signed by {names}; its {identity} is who it is",
            place::listed(from)
        )
    }

    fn strip(&self, request: &Request<'_>, context: &Context) {
        let Settings { from, claim_fields, caller, .. } = &self.settings;
        caller.strip(context);
        for (_, field) in claim_fields {
            context.request_edits.borrow_mut().remove(field.clone());
        }
        place::keep_from_log(from, request, context);
    }

    fn hide(&self, request: &Request<'_>, context: &Context) {
        let Settings { from, caller, .. } = &self.settings;
        if !caller.pass {
            place::hide(from, request, context);
        }
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        self.strip(request, context);
        self.hide(request, context);
        let may_ask = || self.source.as_ref().is_some_and(|source| source.may_ask());
        match self.examine(request, SystemTime::now()) {
            Err(Some(Flaw::UnknownKey)) if may_ask() => Verdict::Wait,
            examined => self.verdict(examined, request, context),
        }
    }

    fn wait<'a>(
        &'a self,
        request: &'a Request<'_>,
        context: &'a Context,
        _upstreams: &'a dyn Upstreams,
    ) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(async move {
            if let Some(source) = &self.source {
                let version = self.keys.borrow().0;
                source.ask(version).await;
            }
            self.verdict(self.examine(request, SystemTime::now()), request, context)
        })
    }
}

impl Jwt {
    /// What the token of a request comes to; no flaw of one that there is not.
    fn examine(
        &self,
        request: &Request<'_>,
        now: SystemTime,
    ) -> Result<Rc<Verified>, Option<Flaw>> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        match &place::shown(&self.settings.from, request)[..] {
            [] => Err(None),
            [token] => self.verify(token, now).map_err(Some),
            [..] => Err(Some(Flaw::Wrong("several tokens"))),
        }
    }

    fn verify(&self, token: &[u8], now: f64) -> Result<Rc<Verified>, Flaw> {
        let Settings { algorithms, kind, rules, .. } = &self.settings;
        let keys = {
            let mut own = self.keys.borrow_mut();
            if self.source.as_ref().is_some_and(|source| source.update(&mut own)) {
                // One of a key that is gone counts no longer.
                self.remembered.borrow_mut().clear();
            }
            Arc::clone(&own.1)
        };
        let known = self.remembered.borrow().find(token);
        let verified = match known {
            Some(known) => known,
            None => {
                let claims = token::claims(token, kind.as_deref(), algorithms, &keys)?;
                let verified = Rc::new(self.check(claims)?);
                self.remembered.borrow_mut().add(token, &verified);
                verified
            }
        };
        rules.is_time(verified.period, now)?;
        match verified.has_scopes {
            true => Ok(verified),
            false => Err(Flaw::MissingScope),
        }
    }

    fn check(&self, claims: Value) -> Result<Verified, Flaw> {
        let Settings { rules, identity, .. } = &self.settings;
        let period = rules.check(&claims)?;
        let name = claim(&claims, identity).and_then(Value::as_str);
        let is_name = |name: &&str| {
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        let name = name.filter(is_name).ok_or(Flaw::Wrong("token has no name for its client"))?;
        Ok(Verified {
            name: name.to_owned(),
            period,
            has_scopes: rules.has_scopes(&claims),
            claims: Rc::new(claims),
        })
    }

    fn verdict(
        &self,
        examined: Result<Rc<Verified>, Option<Flaw>>,
        request: &Request<'_>,
        context: &Context,
    ) -> Verdict {
        let Settings { rules, caller, claim_fields, .. } = &self.settings;
        // RFC 6750 §3.1. The words are this file's own, and have no quotes.
        let invalid = |denial: Denial, why: &str| {
            let more = format!(", error=\"invalid_token\", error_description=\"{why}\"");
            caller.unknown_because(denial, &more, context)
        };
        match examined {
            Ok(verified) => {
                for (name, field) in claim_fields {
                    if let Some(value) = claim(&verified.claims, name) {
                        context.request_edits.borrow_mut().set(field.clone(), field_value(value));
                    }
                }
                request.identity.set_claims(&verified.claims);
                caller.known(&verified.name, request, context)
            }
            Err(None) => caller.unknown(Denial::NoCredentials, context),
            Err(Some(Flaw::Wrong(why))) => invalid(Denial::WrongToken(why), why),
            Err(Some(Flaw::Expired)) => invalid(Denial::ExpiredToken, "token has expired"),
            Err(Some(Flaw::UnknownKey)) if self.keys.borrow().1.len() == 0 => {
                Verdict::Refuse(Error::Denied(Denial::NoKeys))
            }
            Err(Some(Flaw::UnknownKey)) => {
                invalid(Denial::UnknownKey, "token is signed by an unknown key")
            }
            Err(Some(Flaw::MissingScope)) => {
                let scopes = rules.scopes();
                let more = format!(", error=\"insufficient_scope\", scope=\"{scopes}\"");
                caller.unknown_because(Denial::MissingScope, &more, context)
            }
        }
    }
}

/// Texts as they are, other values as JSON.
fn field_value(value: &Value) -> Bytes {
    match value {
        Value::String(text) => Bytes::copy_from_slice(text.as_bytes()),
        other => other.to_string().into(),
    }
}
