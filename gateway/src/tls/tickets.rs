//! What session tickets are sealed with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use super::{Clients, pem};

/// How long tickets are sealed with the same key; the one before it still opens them.
const EPOCH_SECONDS: u64 = 6 * 60 * 60;

/// Bytes of a secret, at least.
const SECRET_BYTES_MIN: usize = 32;

/// The keys that session tickets are sealed with: one set for all workers and all configurations,
/// so that a client is recognised wherever it lands. They change every six hours; tickets of the
/// set before are still taken.
#[derive(Clone)]
pub struct Tickets(pub(super) Arc<dyn ProducesTickets>);

impl Tickets {
    /// Makes a set of its own, which nobody else can have.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self, String> {
        rustls::crypto::aws_lc_rs::Ticketer::new().map(Self).map_err(|error| error.to_string())
    }

    /// The set that everybody makes of these secrets who calls the listeners' settings by the same
    /// name and asks the same of clients.
    pub fn shared(secrets: &Secrets, name: &str, clients: Option<&Clients>) -> Self {
        let mut context = name.as_bytes().to_vec();
        context.push(0);
        context.extend(clients.map(Clients::context).unwrap_or_default());
        let salt = Salt::new(HKDF_SHA256, &context);
        let keys = secrets.secrets.iter().map(|secret| salt.extract(secret)).collect();
        Self(Arc::new(Shared { keys }))
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

/// What several machines make the same ticket keys of.
#[derive(Clone, PartialEq)]
pub struct Secrets {
    path: PathBuf,
    secrets: Vec<Vec<u8>>,
}

impl Secrets {
    /// Reads a file of one secret a line, in hexadecimal digits. The first one seals tickets, all of
    /// them open some.
    ///
    /// # Errors
    /// When it cannot be read, has none, or has something else.
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = pem::read(path)?;
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
        let mut secrets = Vec::new();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let secret = digits(line).filter(|secret| secret.len() >= SECRET_BYTES_MIN);
            secrets.push(secret.ok_or_else(|| {
                let hint = "write what `openssl rand -hex 32` says";
                pem::wrong(path, format!("line {} is no secret: {hint}", index + 1))
            })?);
        }
        match secrets.is_empty() {
            true => Err(pem::wrong(path, "is empty: write what `openssl rand -hex 32` says")),
            false => Ok(Self { path: path.to_owned(), secrets }),
        }
    }

    /// The same file as it is now.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn reread(&self) -> Result<Self, String> {
        Self::load(&self.path)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.secrets.len())
    }
}

/// Pairs of hexadecimal digits and nothing else.
fn digits(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let pair = |pair: &[u8; 2]| {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        u8::try_from(high? << 4 | low?).ok()
    };
    pairs.iter().map(pair).collect()
}

/// A ticket is the epoch, a salt, and the session sealed with the key made of both and a secret, which
/// is used for this one ticket only.
struct Shared {
    keys: Vec<Prk>,
}

const SALT_BYTES: usize = 32;

impl Shared {
    fn key(secret: &Prk, epoch: [u8; 4], salt: &[u8]) -> Option<LessSafeKey> {
        let info = [&epoch[..], salt];
        let key = UnboundKey::from(secret.expand(&info, &AES_256_GCM).ok()?);
        Some(LessSafeKey::new(key))
    }

    fn seal(&self, plain: &[u8], epoch: u32) -> Option<Vec<u8>> {
        let epoch = epoch.to_be_bytes();
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let key = Self::key(self.keys.first()?, epoch, &salt)?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).ok()?;
        Some([&epoch[..], &salt, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u32) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<4>()?;
        let (salt, sealed) = rest.split_first_chunk::<SALT_BYTES>()?;
        // One ahead is a machine whose clock is.
        let age = i64::from(now) - i64::from(u32::from_be_bytes(*epoch));
        if !(-1..=1).contains(&age) {
            return None;
        }
        self.keys.iter().find_map(|secret| {
            let key = Self::key(secret, *epoch, salt)?;
            let mut opened = sealed.to_vec();
            let length = key.open_in_place(nonce(), Aad::empty(), &mut opened).ok()?.len();
            opened.truncate(length);
            Some(opened)
        })
    }
}

/// No key is used twice.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn epoch() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(seconds / EPOCH_SECONDS).unwrap_or_default()
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl ProducesTickets for Shared {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * EPOCH_SECONDS as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, epoch())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, epoch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(secrets: &[u8], context: &str) -> Shared {
        let salt = Salt::new(HKDF_SHA256, context.as_bytes());
        Shared { keys: secrets.iter().map(|&byte| salt.extract(&[byte; 32])).collect() }
    }

    #[test]
    fn who_has_the_secret_opens_it_for_two_epochs() {
        let ticket = shared(&[1], "a").seal(b"session", 100).unwrap();
        for now in [99, 100, 101] {
            assert_eq!(shared(&[2, 1], "a").open(&ticket, now).unwrap(), b"session");
        }
        assert_eq!(shared(&[1], "a").open(&ticket, 98), None);
        assert_eq!(shared(&[1], "a").open(&ticket, 102), None);
        assert_eq!(shared(&[2], "a").open(&ticket, 100), None);
        assert_eq!(shared(&[1], "b").open(&ticket, 100), None);
    }

    #[test]
    fn a_changed_one_is_none() {
        let own = shared(&[1], "a");
        let ticket = own.seal(b"session", 100).unwrap();
        for position in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[position] ^= 1;
            assert_eq!(own.open(&changed, 100), None, "{position}");
            assert_eq!(own.open(&ticket[..position], 100), None, "{position}");
        }
    }
}
