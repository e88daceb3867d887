//! Where keys come from that somebody else publishes: control fetches them, all workers look at them, and
//! one who misses a key asks for them to be fetched again.

#![expect(clippy::disallowed_types, reason = "control hands keys to workers here")]

use std::fmt;
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Uri;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::algorithm::Algorithm;
use super::keys::Keys;
use crate::document::section::Section;
use crate::document::units::duration;
use crate::document::values::{boolean, parsed, path};
use crate::net::Deadline;
use crate::net::rt::{self, Bell};
use crate::tls::{Roots, Version, client};

/// Requests that wait for keys at once; each holds three descriptors. Others are answered by those there are.
const WAITING_MAX: usize = 64;

/// How long a request waits for keys at most.
const WAIT_MAX: Duration = Duration::from_secs(5);

const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
const REFRESH_MIN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Where a set of keys is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was written.
    pub text: String,
    /// Whether by TLS.
    pub is_secure: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// As the Host field has it.
    pub authority: String,
    /// Where it listens.
    pub port: u16,
    /// What is asked for, with its query.
    pub target: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be like \"https://id.example.com/keys.json\"".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?.clone();
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') || text.contains('#') {
            return Err(wrong());
        }
        Ok(Self {
            text: text.to_owned(),
            is_secure,
            host: host.to_owned(),
            authority: authority.to_string(),
            port: authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        })
    }
}

/// How keys are fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    /// Where from.
    pub url: Url,
    /// What is asked of whoever is there, where TLS is spoken.
    pub tls: Option<client::Settings>,
    /// How long they count at most until they are fetched again.
    pub refresh: Duration,
    /// How long nobody's asking has them fetched again.
    pub refresh_min: Duration,
    /// Whether a configuration counts only if they can be fetched.
    pub required: bool,
}

impl Remote {
    /// Reads what belongs to it, if there is a URL.
    pub(super) fn read(table: &mut Section<'_>) -> Option<Self> {
        let url: Option<Url> = table.optional("jwks_url", parsed);
        if !table.has("jwks_url") {
            for key in ["jwks_ca", "refresh", "refresh_min", "required"] {
                table.reject_value(key, "says nothing without jwks_url");
            }
            return None;
        }
        let ca = table.optional("jwks_ca", |kind| Roots::load(&path(kind)?));
        let is_secure = url.as_ref().is_some_and(|url| url.is_secure);
        let roots = match (is_secure, table.has("jwks_ca")) {
            (true, false) => match Roots::system() {
                Ok(system) => Some(system),
                Err(message) => {
                    table.reject(message.replace("ca =", "jwks_ca ="));
                    None
                }
            },
            (false, true) if url.is_some() => {
                table.reject_value("jwks_ca", "says nothing of a URL that is no https://");
                None
            }
            _ => ca,
        };
        let refresh = table.value("refresh", Duration::from_secs(600), duration(REFRESH));
        let refresh_min =
            table.value("refresh_min", Duration::from_secs(10), duration(REFRESH_MIN));
        let required = table.value("required", false, boolean);
        let tls = match is_secure {
            // Without roots everybody would be believed.
            true => Some(client::Settings {
                roots: Some(roots?),
                server_name: None,
                identity: None,
                minimum_version: Version::default(),
            }),
            false => None,
        };
        Some(Self { url: url?, tls, refresh, refresh_min, required })
    }

    /// The same with its files as they are now.
    pub(super) fn reread(&self) -> Result<Self, String> {
        let mut read = self.clone();
        if let Some(roots) = read.tls.as_mut().and_then(|tls| tls.roots.as_mut()) {
            *roots = roots.reread()?;
        }
        Ok(read)
    }
}

/// The keys there are, and who waits for others.
pub struct Source {
    /// How they are fetched.
    pub remote: Remote,
    algorithms: Vec<Algorithm>,
    /// How often they have changed.
    version: AtomicU64,
    /// The lock is held for as long as it takes to copy or to swap a pointer, and no worker waits for it.
    keys: Mutex<Arc<Keys>>,
    /// From when on it helps to ask, by [`Deadline::millis`].
    asks_from: AtomicU64,
    asks: Sender<Ask>,
    inbox: Mutex<Option<Receiver<Ask>>>,
}

/// Somebody who misses a key, and has waited for others once it is dropped.
#[derive(Debug)]
pub struct Ask {
    /// Of the keys that lack it.
    version: u64,
    _waiter: UnixStream,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.remote.url.text)
    }
}

impl Source {
    pub(super) fn new(remote: Remote, algorithms: Vec<Algorithm>) -> Self {
        let (asks, inbox) = channel(WAITING_MAX);
        Self {
            remote,
            algorithms,
            version: AtomicU64::new(0),
            keys: Mutex::default(),
            asks_from: AtomicU64::new(0),
            asks,
            inbox: Mutex::new(Some(inbox)),
        }
    }

    /// Takes the keys of a set: how many, and whether they are others than before. For control.
    ///
    /// # Errors
    /// When it has none that can be used.
    pub fn put(&self, set: &[u8]) -> Result<(usize, bool), String> {
        let read = Keys::read(set, &self.algorithms)?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, changed) = (read.len(), **keys != read);
        if changed {
            *keys = Arc::new(read);
            self.version.fetch_add(1, Ordering::Release);
        }
        Ok((count, changed))
    }

    /// Takes over what another has of the same place. For control.
    pub fn take_over(&self, other: &Self) {
        if self.remote.url == other.remote.url && self.algorithms == other.algorithms {
            let before = other.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if before.len() > 0 {
                *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = before;
                self.version.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// How many there are. For control.
    pub fn count(&self) -> usize {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Those who ask. For control; `None` the second time.
    pub fn take_inbox(&self) -> Option<Receiver<Ask>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether who asks knows the keys there are, and not only those before. For control.
    pub fn lack(&self, ask: &Ask) -> bool {
        ask.version == self.version.load(Ordering::Acquire)
    }

    /// Nobody is to ask for so long. For control.
    pub fn close_for(&self, time: Duration) {
        self.asks_from.store(Deadline::after(time).millis(), Ordering::Relaxed);
    }

    /// Whether it helps to ask for other keys.
    pub fn may_ask(&self) -> bool {
        Deadline::now().millis() >= self.asks_from.load(Ordering::Relaxed)
    }

    /// Waits until there are others than those of a version, or none, for a while.
    pub(super) async fn ask(&self, version: u64) {
        let Ok((bell, waiter)) = Bell::pair() else { return };
        if self.asks.try_send(Ask { version, _waiter: waiter }).is_ok() {
            let _ = rt::timeout(WAIT_MAX, bell.rung()).await;
        }
    }

    /// Brings what a worker has up to date; whether that was another.
    pub(super) fn update(&self, own: &mut (u64, Arc<Keys>)) -> bool {
        if self.version.load(Ordering::Acquire) == own.0 {
            return false;
        }
        // What is just being changed is looked at the next time.
        let Ok(keys) = self.keys.try_lock() else { return false };
        // Changes only under the lock.
        *own = (self.version.load(Ordering::Acquire), Arc::clone(&keys));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_while_keys_come_looks_at_those_first() {
        let remote = Remote {
            url: "http://id.example.com/keys".parse().unwrap(),
            tls: None,
            refresh: Duration::from_secs(600),
            refresh_min: Duration::from_secs(10),
            required: false,
        };
        let source = Source::new(remote, vec![Algorithm::EdDsa]);
        let asked = |version| source.lack(&Ask { version, _waiter: UnixStream::pair().unwrap().0 });
        let mut own = Default::default();
        assert!(!source.update(&mut own));
        assert!(asked(own.0));
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let set = format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "x": "{x}"}}]}}"#);
        assert_eq!(source.put(set.as_bytes()), Ok((1, true)));
        assert!(!asked(own.0));
        assert!(source.update(&mut own));
        assert!(asked(own.0));
        // The same once more is nothing new.
        assert_eq!(source.put(set.as_bytes()), Ok((1, false)));
        assert!(asked(own.0));
    }

    #[test]
    fn urls_are_where_keys_are() {
        for (text, host, port, target) in [
            ("https://id.example.com", "id.example.com", 443, "/"),
            ("http://id.example.com/a?b=c", "id.example.com", 80, "/a?b=c"),
            ("https://[::1]:8443/keys", "::1", 8443, "/keys"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((&*url.host, url.port, &*url.target), (host, port, target));
        }
        for text in [
            "",
            "id.example.com",
            "/keys",
            "ftp://a/b",
            "https://a@b/",
            "https://a/#b",
            "https:///b",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
