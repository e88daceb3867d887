//! What is kept of passwords: bcrypt's hashes, as `htpasswd -B` writes them, and Argon2's (RFC 9106) as PHC
//! strings.

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier as _, Version};

/// Verifying takes 2^16 rounds: a few seconds.
const BCRYPT_COST_MAX: u32 = 16;

/// KiB that verifying takes, for each thread that does so: four times the second choice of RFC 9106 §4.
const ARGON2_MEMORY_MAX: u32 = 256 << 10;

/// Passes over that memory: a few seconds.
const ARGON2_PASSES_MAX: u32 = 16;

/// What is kept of a password. It can be verified, and that does not take forever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PasswordHash(String);

impl PasswordHash {
    /// Takes one as a file has it. Never says what it has read: that may be a password.
    ///
    /// # Errors
    /// When it is none, or verifying it would cost too much.
    pub fn read(text: &str) -> Result<Self, String> {
        match text.starts_with("$argon2") {
            true => check_argon2(text)?,
            false => check_bcrypt(text)?,
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether it is of this password. Takes as long as it was made to.
    pub fn is_of(&self, password: &[u8]) -> bool {
        match phc::PasswordHash::new(&self.0) {
            Ok(hash) if self.0.starts_with("$argon2") => {
                Argon2::default().verify_password(password, &hash).is_ok()
            }
            _ => bcrypt::verify(password, &self.0).unwrap_or(false),
        }
    }
}

fn check_bcrypt(text: &str) -> Result<(), String> {
    let hash: bcrypt::HashParts = text.parse().map_err(|_| {
        "no hash of bcrypt or Argon2: `htpasswd -B` or `argon2 SALT -id -e` makes one".to_owned()
    })?;
    match hash.get_cost() {
        ..=BCRYPT_COST_MAX => Ok(()),
        cost => Err(format!("a cost of {cost} takes minutes: {BCRYPT_COST_MAX} at most")),
    }
}

fn check_argon2(text: &str) -> Result<(), String> {
    let params = argon2_params(text)
        .ok_or_else(|| "no hash of Argon2: `argon2 SALT -id -e` makes one".to_owned())?;
    match (params.m_cost(), params.t_cost()) {
        (..=ARGON2_MEMORY_MAX, ..=ARGON2_PASSES_MAX) => Ok(()),
        (memory, passes) => Err(format!(
            "{passes} passes over {memory} KiB are too many: {ARGON2_PASSES_MAX} over \
             {ARGON2_MEMORY_MAX} at most"
        )),
    }
}

fn argon2_params(text: &str) -> Option<Params> {
    let hash = phc::PasswordHash::new(text).ok()?;
    Algorithm::new(hash.algorithm.as_str()).ok()?;
    hash.version.map(Version::try_from).transpose().ok()?;
    hash.salt.as_ref().zip(hash.hash.as_ref())?;
    Params::try_from(&hash).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s secret | argon2 somesalt -id -t 2 -m 8 -p 1 -l 32 -e`
    const ARGON2: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$pGAgPgkJ+esPqBoW9JTt6WhwKYDSed0z8JpcGysy3V0";

    #[test]
    fn what_other_tools_make_is_verified() {
        for text in [
            ARGON2,
            "$argon2i$v=19$m=256,t=2,p=2$c29tZXNhbHQ$yNXjJhgheB+jthZGR9A0p8jyIXgD/Wn/jo7QxoGKMQE",
            // htpasswd -nbB -C 4 alice secret
            "$2y$04$BaFOagRQRihOdCNW0CQg.u8FSplFoq6sXNfoZyA1wlyf04bY/iQpG",
            // htpasswd writes $2y$, others $2a$ and $2b$.
            "$2b$04$BaFOagRQRihOdCNW0CQg.u8FSplFoq6sXNfoZyA1wlyf04bY/iQpG",
        ] {
            let hash = PasswordHash::read(text).unwrap();
            assert!(hash.is_of(b"secret"), "{text}");
            assert!(!hash.is_of(b"Secret") && !hash.is_of(b""), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_verified_or_takes_forever_is_refused() {
        for (text, expected) in [
            ("secret", "htpasswd -B"),
            ("$apr1$x$y", "htpasswd -B"),
            (&ARGON2.replace("m=256", "m=262145"), "2 passes over 262145 KiB are too many"),
            (&ARGON2.replace("t=2", "t=17"), "17 passes over 256 KiB"),
            (&ARGON2.replace("v=19", "v=20"), "no hash of Argon2"),
            (&ARGON2.replace("argon2id", "argon2x"), "no hash of Argon2"),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", "no hash of Argon2"),
        ] {
            let wrong = PasswordHash::read(text).unwrap_err();
            assert!(wrong.contains(expected) && !wrong.contains("secret"), "{wrong}");
        }
    }
}
