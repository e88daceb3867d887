//! Lets in who shows a key. Only digests are kept, and keys are looked up by them: what a look-up's time
//! could tell of a digest helps nobody to a key that has it.

#![expect(clippy::disallowed_types, reason = "all workers look up in one table")]

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::caller::{Caller, name};
use super::place::{self, Place};
use super::tally::Tally;
use super::{Build, Parts, Policy, Verdict, file};
use crate::document::section::Section;
use crate::document::values::{boolean, path, text};
use crate::exchange::error::Denial;
use crate::exchange::{Context, Request};

/// Bytes of a key that is made here.
const KEY_BYTES: usize = 32;

const DIGEST_BYTES: usize = 32;

type Digest = [u8; DIGEST_BYTES];

/// Whose keys, and where they are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    from: Vec<Place>,
    /// Those that the configuration itself has.
    inline: Vec<(String, Digest)>,
    file: Option<PathBuf>,
    /// Whether requests are counted by name.
    metrics: bool,
    /// All of them.
    keys: Arc<HashMap<Digest, String>>,
    caller: Caller,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let default = || vec![Place::Header("x-api-key".to_owned())];
        let from = table.optional("from", Place::read_all).unwrap_or_else(default);
        let has_keys = table.has("keys") || table.has("file");
        let inline = table.entries("keys", |owner, kind| Ok((name(owner)?, hex(text(kind)?)?)));
        let inline = inline.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>();
        let file = table.optional("file", |kind| {
            let path = path(kind)?;
            read_file(&path).map(|entries| (path, entries))
        });
        let (file, entries) = file.unzip();
        let caller =
            Caller::read(table, |realm| from.iter().map(|place| place.challenge(realm)).collect());
        let mut keys = Arc::default();
        if !has_keys {
            table.reject("nobody has a key: write keys or file".to_owned());
        } else if table.is_right() {
            match all(&inline, entries.unwrap_or_default()) {
                Ok(read) => keys = Arc::new(read),
                Err(message) => table.reject(message),
            }
        }
        let metrics = table.value("metrics", false, boolean);
        Self { from, inline, file, metrics, keys, caller }
    }
}

impl Settings {
    /// Whether what comes after it does not see this field, as a key stands there.
    pub fn hides(&self, field: &str) -> bool {
        let is_there = |place: &Place| match place {
            Place::Header(name) => name.eq_ignore_ascii_case(field),
            Place::Bearer => field == "authorization",
            _ => false,
        };
        !self.caller.pass && self.from.iter().any(is_there)
    }
}

impl Build for Settings {
    fn files(&self) -> Vec<&Path> {
        self.file.iter().map(PathBuf::as_path).collect()
    }

    fn reread(&self) -> Result<Self, String> {
        let Some(file) = &self.file else { return Ok(self.clone()) };
        let keys = Arc::new(all(&self.inline, read_file(file)?)?);
        Ok(Self { keys, ..self.clone() })
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let tally = match self.metrics {
            true => Tally::new(parts, self.keys.values()),
            false => Tally::default(),
        };
        Rc::new(ApiKey { settings: self.clone(), tally })
    }
}

/// A worker's part in it.
struct ApiKey {
    settings: Settings,
    tally: Tally,
}

impl Policy for ApiKey {
    fn rule(&self, _: &Request<'_>) -> String {
        let Settings { from, keys, .. } = &self.settings;
        format!("one of {} keys as {}", keys.len(), place::listed(from))
    }

    fn strip(&self, request: &Request<'_>, context: &Context) {
        let Settings { from, caller, .. } = &self.settings;
        caller.strip(context);
        place::keep_from_log(from, request, context);
    }

    fn hide(&self, request: &Request<'_>, context: &Context) {
        let Settings { from, caller, .. } = &self.settings;
        if !caller.pass {
            place::hide(from, request, context);
        }
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let Settings { from, caller, .. } = &self.settings;
        self.strip(request, context);
        self.hide(request, context);
        let shown = place::shown(from, request);
        match self.owner(&shown) {
            Some(name) => caller.known(name, request, context),
            None if shown.is_empty() => caller.unknown(Denial::NoCredentials, context),
            None => caller.unknown(Denial::WrongCredentials, context),
        }
    }

    fn passed(&self, request: &Request<'_>) {
        let Settings { from, metrics, .. } = &self.settings;
        if let Some(name) = metrics.then(|| self.owner(&place::shown(from, request))).flatten() {
            self.tally.count(name);
        }
    }
}

impl ApiKey {
    /// Whose the only key is: of two in one place nobody knows which one is meant.
    fn owner(&self, shown: &[Cow<'_, [u8]>]) -> Option<&String> {
        match shown {
            [key] => self.settings.keys.get(&sha256(key)),
            _ => None,
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<(String, Digest)>, String> {
    file::read(path, &['#'], |line| match line.split_once([' ', '\t']) {
        Some((owner, digest)) => Ok((name(owner)?, hex(digest.trim())?)),
        None => Err("must be NAME and DIGEST: `gateway hash-key NAME` prints it".to_owned()),
    })
}

/// The keys of both sources. A name may have several, so that one can be changed while both count.
fn all(
    inline: &[(String, Digest)],
    mut read: Vec<(String, Digest)>,
) -> Result<HashMap<Digest, String>, String> {
    read.extend_from_slice(inline);
    let mut keys: HashMap<Digest, String> = HashMap::with_capacity(read.len());
    for (name, digest) in read {
        match keys.entry(digest) {
            Entry::Vacant(entry) => drop(entry.insert(name)),
            Entry::Occupied(entry) if *entry.get() == name => {}
            Entry::Occupied(entry) => {
                return Err(format!("{name} and {} have the same key", entry.get()));
            }
        }
    }
    Ok(keys)
}

/// Never says what it has read: that may be a key.
fn hex(text: &str) -> Result<Digest, String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let digits: Option<Vec<u8>> = text.bytes().map(|byte| digit(&byte)).collect();
    let digits = digits.unwrap_or_default();
    let pairs = digits.chunks_exact(2).map(|pair| match pair {
        [high, low] => high << 4 | low,
        _ => 0,
    });
    let bytes: Vec<u8> = pairs.collect();
    let wrong = "must be the key's SHA-256, 64 hexadecimal digits: `gateway hash-key` makes it";
    match digits.len() == 2 * DIGEST_BYTES {
        true => bytes.try_into().map_err(|_| wrong.to_owned()),
        false => Err(wrong.to_owned()),
    }
}

fn sha256(key: &[u8]) -> Digest {
    let mut own = [0; DIGEST_BYTES];
    own.copy_from_slice(digest(&SHA256, key).as_ref());
    own
}

/// A key that nobody can guess.
///
/// # Errors
/// When the system has no random numbers.
pub fn make() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    rand::fill(&mut bytes).map_err(|_| "no random numbers".to_owned())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The line of a file of keys for a name and its key.
///
/// # Errors
/// When the name is none, or the key could not be sent.
pub fn line(owner: &str, key: &str) -> Result<String, String> {
    if key.is_empty() || key.bytes().any(|byte| !(b'!'..=b'~').contains(&byte)) {
        return Err("a key is of printable ASCII characters, without spaces".to_owned());
    }
    let digits: Vec<_> = sha256(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{} {}", name(owner)?, digits.concat()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answered, Asker, build, settings};
    use super::*;
    use crate::exchange::Error;

    const NONE: Verdict = Verdict::Refuse(Error::Denied(Denial::NoCredentials));
    const WRONG: Verdict = Verdict::Refuse(Error::Denied(Denial::WrongCredentials));

    fn asked(lines: &str, asker: &Asker) -> Answered {
        let alice = line("a", "secret").unwrap().replace("a ", "");
        let lines = format!("{lines}\nkeys = {{ alice = {alice:?} }}\nidentity_field = 'x-user'");
        asker.of(&*build("p", &settings(&lines, Settings::read).unwrap()))
    }

    #[test]
    fn keys_are_taken_from_their_places_and_nowhere_else() {
        let get = |name: &str, value: &str| Asker::get("/").field(name, value);
        for (from, asker, expected) in [
            ("", get("X-Api-Key", "secret"), Verdict::Continue),
            ("", get("X-Api-Key", "Secret"), WRONG),
            ("", get("X-Api-Key", ""), WRONG),
            ("", Asker::get("/"), NONE),
            ("", Asker::get("/?x-api-key=secret"), NONE),
            ("", get("X-Api-Key", "secret").field("x-api-key", "secret"), WRONG),
            ("from = 'header:X-K'", get("x-k", "secret"), Verdict::Continue),
            ("from = 'bearer'", get("Authorization", "bearer  secret"), Verdict::Continue),
            ("from = 'bearer'", get("Authorization", "Bearer other"), WRONG),
            ("from = 'bearer'", get("Authorization", "Basic secret"), NONE),
            ("from = 'bearer'", get("Authorization", "Bearer"), NONE),
            ("from = 'query:k'", Asker::get("/?a=b&%6b=se%63ret"), Verdict::Continue),
            ("from = 'query:k'", Asker::get("/?k=secret&k=secret"), WRONG),
            ("from = 'query:k'", Asker::get("/?kk=secret"), NONE),
            ("from = 'cookie:k'", get("Cookie", "a=b; k=secret"), Verdict::Continue),
            ("from = 'cookie:k'", get("Cookie", "kk=secret; a=k=secret"), NONE),
            ("from = ['bearer', 'cookie:k']", get("Cookie", "k=secret"), Verdict::Continue),
            // The first place counts.
            (
                "from = ['bearer', 'cookie:k']",
                get("Cookie", "k=secret").field("authorization", "Bearer x"),
                WRONG,
            ),
        ] {
            assert_eq!(asked(from, &asker).verdict, expected, "{from}");
        }
    }

    #[test]
    fn the_origin_sees_the_name_and_not_the_key() {
        let hidden = |from: &str, asker: &Asker| {
            let Answered { verdict, request, .. } = asked(from, asker);
            assert_eq!(verdict, Verdict::Continue);
            request
        };
        let cookies = Asker::get("/").field("Cookie", "a=b; k=secret").field("Cookie", "c=d");
        assert_eq!(
            hidden("from = 'cookie:k'", &cookies),
            "x-user: alice\ncookie: a=b; c=d\n".split_inclusive('\n').rev().collect::<String>()
        );
        let only = Asker::get("/").field("Cookie", "k=secret");
        assert_eq!(hidden("from = 'cookie:k'", &only), "x-user: alice\n");
        assert_eq!(hidden("from = 'cookie:k'\npass = true", &only), "x-user: alice\n");
    }

    #[test]
    fn who_has_none_is_told_what_to_bring() {
        let refused = asked("from = ['bearer', 'query:k']\nrealm = 'orders'", &Asker::get("/"));
        let [bearer, query] = [
            "www-authenticate: Bearer realm=\"orders\"\n",
            "www-authenticate: ApiKey realm=\"orders\", in=\"query\", name=\"k\"\n",
        ];
        assert_eq!(refused.response, format!("{bearer}{query}"));
    }

    #[test]
    fn files_are_read_and_read_again() {
        let path = std::env::temp_dir().join(format!("gateway-keys-{}", std::process::id()));
        let write = |owners: &[(&str, &str)]| {
            let lines = owners.iter().map(|(owner, key)| line(owner, key).unwrap() + " # mine\n");
            std::fs::write(&path, format!("# keys\n\n{}", lines.collect::<String>())).unwrap();
        };
        write(&[("alice", "one"), ("alice", "two"), ("bob", "three")]);
        let first = settings(&format!("file = {path:?}"), Settings::read).unwrap();
        assert_eq!(first.keys.len(), 3);
        assert_eq!(first.reread().unwrap(), first);
        write(&[("alice", "two")]);
        let second = first.reread().unwrap();
        assert_eq!(second.keys.values().collect::<Vec<_>>(), ["alice"]);
        write(&[("alice", "two"), ("bob", "two")]);
        assert_eq!(second.reread().unwrap_err(), "bob and alice have the same key");
        std::fs::write(&path, "alice secret\n").unwrap();
        let wrong = second.reread().unwrap_err();
        assert!(wrong.contains(":1: must be the key's SHA-256") && !wrong.contains("secret"));
        std::fs::remove_file(&path).unwrap();
        assert!(second.reread().is_err());
    }

    #[test]
    fn lines_are_as_other_tools_make_them() {
        // printf %s abc | sha256sum
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(line("alice", "abc").unwrap(), format!("alice {digest}"));
        assert_eq!(hex(&digest.to_uppercase()).unwrap(), sha256(b"abc"));
        for (owner, key) in [("a b", "abc"), ("", "abc"), ("a", ""), ("a", "a b"), ("a:b", "abc")] {
            assert!(line(owner, key).is_err(), "{owner} {key}");
        }
        let (first, second) = (make().unwrap(), make().unwrap());
        assert!(first.len() == 43 && first != second && line("a", &first).is_ok());
    }
}
