//! Lets in who shows a name and a password (RFC 7617).

#![expect(
    clippy::disallowed_types,
    reason = "all workers have passwords verified by the same threads"
)]

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use super::caller::{Caller, name};
use super::password_hash::PasswordHash;
use super::tally::Tally;
use super::verifiers::Verifiers;
use super::{Build, Parts, Policy, Shared, Verdict, file};
use crate::document::section::Section;
use crate::document::units::duration;
use crate::document::values::{boolean, path};
use crate::exchange::error::Denial;
use crate::exchange::inquiry::Upstreams;
use crate::exchange::{Context, Error, Request};
use crate::http::head::values_of;
use crate::http::headers::trim_ows;

const REMEMBER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 60 * 60);

/// Who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    file: PathBuf,
    /// Names and what is kept of their passwords, in the order of names.
    users: Arc<Vec<(String, PasswordHash)>>,
    remember: Duration,
    /// Whether requests are counted by name.
    metrics: bool,
    caller: Caller,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let read = table.required("file", "write the path of an htpasswd file", |kind| {
            let path = path(kind)?;
            users(&path).map(|users| (path, users))
        });
        let (file, users) = read.unwrap_or_default();
        Self {
            file,
            users: Arc::new(users),
            remember: table.value("remember", Duration::from_secs(300), duration(REMEMBER)),
            metrics: table.value("metrics", false, boolean),
            // RFC 7617 §2.1.
            caller: Caller::read(table, |realm| {
                vec![format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")]
            }),
        }
    }
}

impl Build for Settings {
    fn files(&self) -> Vec<&Path> {
        vec![&self.file]
    }

    fn reread(&self) -> Result<Self, String> {
        Ok(Self { users: Arc::new(users(&self.file)?), ..self.clone() })
    }

    fn shared(&self) -> Shared {
        Verifiers::start().map(|verifiers| Arc::new(verifiers) as _)
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let shared = parts.shared.clone().or_else(|| self.shared());
        let verifiers = shared.and_then(|shared| shared.downcast().ok());
        let tally = match self.metrics {
            true => Tally::new(parts, self.users.iter().map(|(name, _)| name)),
            false => Tally::default(),
        };
        Rc::new(Basic { settings: self.clone(), verifiers, tally })
    }
}

/// A worker's part in it.
struct Basic {
    settings: Settings,
    /// `None` if they could not be started.
    verifiers: Option<Arc<Verifiers>>,
    tally: Tally,
}

impl Policy for Basic {
    fn rule(&self, _: &Request<'_>) -> String {
        let Settings { file, users, .. } = &self.settings;
        format!("the password of one of {} in {}", users.len(), file.display())
    }

    fn strip(&self, _: &Request<'_>, context: &Context) {
        self.settings.caller.strip(context);
    }

    fn hide(&self, request: &Request<'_>, context: &Context) {
        if !self.settings.caller.pass && shown(request).next().is_some() {
            let mut edits = context.request_edits.borrow_mut();
            edits.remove_received(Bytes::from_static(b"authorization"));
        }
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let caller = &self.settings.caller;
        self.strip(request, context);
        self.hide(request, context);
        let mut shown = shown(request);
        let Some(first) = shown.next() else {
            return caller.unknown(Denial::NoCredentials, context);
        };
        // Of two nobody knows which one is meant.
        let credentials = first.filter(|_| shown.next().is_none());
        let Some((name, _)) = credentials.as_deref().and_then(split) else {
            return caller.unknown(Denial::WrongCredentials, context);
        };
        let remembers = |verifiers: &Arc<Verifiers>| {
            let credentials = credentials.as_deref().unwrap_or_default();
            verifiers.remembers(credentials, request.received)
        };
        match self.verifiers.as_ref().is_some_and(remembers) {
            true => caller.known(name, request, context),
            false => Verdict::Wait,
        }
    }

    fn passed(&self, request: &Request<'_>) {
        if !self.settings.metrics {
            return;
        }
        let credentials = shown(request).flatten().next();
        if let Some((name, _)) = credentials.as_deref().and_then(split) {
            self.tally.count(name);
        }
    }

    fn wait<'a>(
        &'a self,
        request: &'a Request<'_>,
        context: &'a Context,
        _upstreams: &'a dyn Upstreams,
    ) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(async move {
            let Settings { users, remember, caller, .. } = &self.settings;
            let wrong = || caller.unknown(Denial::WrongCredentials, context);
            let Some(credentials) = shown(request).flatten().next() else { return wrong() };
            let Some((name, password)) = split(&credentials) else { return wrong() };
            let busy = Verdict::Refuse(Error::Denied(Denial::TooManyPasswords));
            let Some(verifiers) = &self.verifiers else { return busy };
            let user = users.binary_search_by(|(own, _)| own.as_str().cmp(name));
            // Who is nobody takes as long as somebody, and always as long as the same one.
            let nobody = || verifiers.point(name.as_bytes()) as usize % users.len().max(1);
            let Some((_, hash)) = users.get(user.unwrap_or_else(|_| nobody())) else {
                return wrong();
            };
            let Some(verification) = verifiers.verify(password, hash) else { return busy };
            let Some(is_right) = verification.answer().await else { return busy };
            if !is_right || user.is_err() {
                return wrong();
            }
            verifiers.remember(&credentials, request.received, *remember);
            caller.known(name, request, context)
        })
    }
}

/// The decoded credentials of `Basic BASE64`; `None` for what cannot be decoded.
fn shown<'r>(request: &Request<'r>) -> impl Iterator<Item = Option<Vec<u8>>> {
    let values = values_of(&request.head.fields, request.bytes, "authorization");
    values.filter_map(|value| {
        let (scheme, token) = value.split_at_checked(b"basic ".len())?;
        let is_basic = scheme.eq_ignore_ascii_case(b"basic ");
        is_basic.then(|| STANDARD.decode(trim_ows(token)).ok())
    })
}

/// Name and password.
fn split(credentials: &[u8]) -> Option<(&str, &[u8])> {
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    let (name, password) = credentials.split_at_checked(colon)?;
    Some((str::from_utf8(name).ok()?, password.get(1..)?))
}

/// The lines of a file as `htpasswd -B` makes it.
fn users(path: &Path) -> Result<Vec<(String, PasswordHash)>, String> {
    let mut users = file::read(path, &['#'], |line| match line.split_once(':') {
        Some((user, hash)) => Ok((name(user)?, PasswordHash::read(hash)?)),
        None => Err("must be NAME:HASH, as `htpasswd -B` writes it".to_owned()),
    })?;
    users.sort();
    let twice = users.windows(2).find_map(|pair| match pair {
        [(first, _), (second, _)] if first == second => Some(first),
        _ => None,
    });
    match twice {
        Some(name) => Err(format!("{path:?}: {name} is there twice")),
        None => Ok(users),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, build, settings};
    use super::*;

    fn hash(password: &str, cost: u32) -> String {
        bcrypt::hash_with_salt(password, cost, [7; 16]).unwrap().to_string()
    }

    fn with_file<T>(text: &str, look: impl FnOnce(Result<Settings, Vec<String>>) -> T) -> T {
        let path =
            std::env::temp_dir().join(format!("gateway-basic-{:?}", std::thread::current().id()));
        std::fs::write(&path, text).unwrap();
        let looked = look(settings(&format!("file = {path:?}\nrealm = 'me'"), Settings::read));
        std::fs::remove_file(&path).unwrap();
        looked
    }

    #[test]
    fn what_is_no_password_is_refused_at_once() {
        let text = format!("# mine\nalice:{}\n", hash("secret", 4));
        let policy = with_file(&text, |read| build("p", &read.unwrap()));
        let verdict = |value: &str| Asker::get("/").field("Authorization", value).of(&*policy);
        let denied = |denial| Verdict::Refuse(Error::Denied(denial));
        for (value, expected) in [
            ("Bearer x", denied(Denial::NoCredentials)),
            ("Basic", denied(Denial::NoCredentials)),
            ("Basic !", denied(Denial::WrongCredentials)),
            ("Basic YQ==", denied(Denial::WrongCredentials)),
            ("Basic /zp4", denied(Denial::WrongCredentials)),
            ("basic  YWxpY2U6c2VjcmV0", Verdict::Wait),
        ] {
            assert_eq!(verdict(value).verdict, expected, "{value}");
        }
        let none = Asker::get("/").of(&*policy);
        assert_eq!(none.response, "www-authenticate: Basic realm=\"me\", charset=\"UTF-8\"\n");
    }

    #[test]
    fn wrong_files_are_told() {
        let right = hash("secret", 4);
        let dear = right.replace("$04$", "$17$");
        for (text, expected) in [
            (format!("alice:{right}\nalice:{right}"), "alice is there twice"),
            ("alice:secret".to_owned(), ":1: no hash of bcrypt or Argon2"),
            ("alice".to_owned(), ":1: must be NAME:HASH"),
            ("alice:$apr1$x$y".to_owned(), "htpasswd -B"),
            (format!("alice:{dear}"), "a cost of 17 takes minutes"),
        ] {
            let wrong = with_file(&text, |read| read.unwrap_err().join("\n"));
            assert!(wrong.contains(expected), "{wrong}");
        }
    }
}
