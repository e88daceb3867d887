//! Keys that tokens are verified by: sets of public ones (RFC 7517), or one secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::Algorithm;

/// Keys of a set that are looked at; a key takes up to a kilobyte.
const KEYS_MAX: usize = 64;

/// Bits of an RSA key that can be verified by (RFC 7518 §3.3 asks for as many at least), in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Material {
    Secret(Vec<u8>),
    /// Numbers, most significant byte first and without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Points, uncompressed (SEC 1 §2.3.3).
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Never says what it is.
impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material")
    }
}

/// A key, and what it may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The only algorithm it is for, if it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

/// Keys of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// The one that both sides know, whatever tokens call it.
    pub fn secret(secret: Vec<u8>) -> Self {
        Self(vec![Key { id: None, algorithm: None, material: Material::Secret(secret) }])
    }

    /// Those of a set that one of `algorithms` can use. Others may be for other uses, and say nothing. A secret
    /// has no place in a set.
    ///
    /// # Errors
    /// When it is none, or has none of them, or too many.
    pub fn read(set: &[u8], algorithms: &[Algorithm]) -> Result<Self, String> {
        let set: Value =
            serde_json::from_slice(set).map_err(|error| format!("no JSON: {error}"))?;
        let all = set.get("keys").and_then(Value::as_array);
        let all = all.ok_or("no key set: it has no array \"keys\"")?;
        let read = all.iter().filter_map(Key::read);
        let keys: Vec<_> = read.filter(|key| algorithms.iter().any(|one| key.fits(*one))).collect();
        match keys.len() {
            0 => Err("it has no key for these algorithms".to_owned()),
            1..=KEYS_MAX => Ok(Self(keys)),
            many => Err(format!("it has {many} keys for these algorithms, {KEYS_MAX} at most")),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that a token may be signed by: those it calls by their name, or all if it names none.
    pub fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &Material> {
        let keys = self.0.iter().filter(move |key| {
            let is_secret = matches!(key.material, Material::Secret(_));
            is_secret || id.is_none() || key.id.as_deref() == id
        });
        keys.filter(move |key| key.fits(algorithm)).map(|key| &key.material)
    }
}

impl Key {
    /// `None` for one that nothing here can use, or that is not for signatures.
    fn read(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let is_for_signatures = jwk.get("use").is_none_or(|purpose| purpose == "sig");
        let verifies = |all: &Vec<Value>| all.iter().any(|one| one == "verify");
        let may_verify = jwk.get("key_ops").is_none_or(|all| all.as_array().is_some_and(verifies));
        if !is_for_signatures || !may_verify {
            return None;
        }
        let number = |name: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text(name)?).ok()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes.get(zeros..).map(<[u8]>::to_vec)
        };
        let exactly = |name: &str, length: usize| {
            let bytes = URL_SAFE_NO_PAD.decode(text(name)?).ok()?;
            (bytes.len() == length).then_some(bytes)
        };
        let point =
            |length: usize| Some([vec![4], exactly("x", length)?, exactly("y", length)?].concat());
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (n, e) = (number("n")?, number("e")?);
                (RSA_BYTES.contains(&n.len()) && !e.is_empty()).then_some(Material::Rsa { n, e })?
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("EC", Some("P-521")) => Material::P521(point(66)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(exactly("x", 32)?),
            _ => return None,
        };
        let id = jwk.get("kid").map(|id| id.as_str().map(str::to_owned));
        let algorithm = jwk.get("alg").map(|name| name.as_str().and_then(Algorithm::named));
        Some(Self {
            id: id.map_or(Some(None), |id| id.map(Some))?,
            algorithm: algorithm.map_or(Some(None), |algorithm| algorithm.map(Some))?,
            material,
        })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm) && algorithm.fits(&self.material)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";

    fn read(keys: &str, algorithms: &[Algorithm]) -> Result<Keys, String> {
        Keys::read(format!("{{\"keys\": [{keys}]}}").as_bytes(), algorithms)
    }

    #[test]
    fn what_nothing_can_use_is_left_out() {
        let ed = |more: &str| format!(r#"{{"kty": "OKP", "crv": "Ed25519", "x": "{X}"{more}}}"#);
        let n = |bytes: usize| URL_SAFE_NO_PAD.encode([&[0, 0][..], &vec![7; bytes]].concat());
        let rsa = |bytes: usize| format!(r#"{{"kty": "RSA", "n": "{}", "e": "AQAB"}}"#, n(bytes));
        let count =
            |keys: &str| read(keys, &[Algorithm::EdDsa, Algorithm::Rs256]).map(|keys| keys.len());
        for right in [
            ed(""),
            ed(r#", "use": "sig", "alg": "EdDSA", "key_ops": ["verify"], "kid": "a", "x5c": [1]"#),
            rsa(256),
            rsa(1024),
        ] {
            assert_eq!(count(&right), Ok(1), "{right}");
        }
        let none = Err("it has no key for these algorithms".to_owned());
        for wrong in [
            ed(r#", "use": "enc""#),
            ed(r#", "use": 7"#),
            ed(r#", "key_ops": ["sign"]"#),
            ed(r#", "alg": "ES256""#),
            ed(r#", "alg": "none""#),
            ed(r#", "kid": 7"#),
            ed("").replace("Ed25519", "X25519"),
            ed("").replace("f83", "f8"),
            rsa(255),
            rsa(1025),
            rsa(256).replace("AQAB", ""),
            format!(r#"{{"kty": "oct", "k": "{X}"}}"#),
            format!(r#"{{"kty": "EC", "crv": "P-256", "x": "{X}", "y": "{X}"}}"#),
            "{}".to_owned(),
            "null".to_owned(),
        ] {
            assert_eq!(count(&wrong), none, "{wrong}");
        }
        assert_eq!(count(&vec![ed(""); KEYS_MAX].join(",")), Ok(KEYS_MAX));
        let many = count(&vec![ed(""); KEYS_MAX + 1].join(",")).unwrap_err();
        assert!(many.contains("65 keys") && many.contains("64 at most"), "{many}");
        for set in ["", "[]", "{}", r#"{"keys": {}}"#] {
            assert!(Keys::read(set.as_bytes(), &[Algorithm::EdDsa]).is_err(), "{set}");
        }
    }

    #[test]
    fn keys_are_found_by_name_and_kind() {
        let key = |id: &str| format!(r#"{{"kty": "OKP", "crv": "Ed25519", "x": "{X}"{id}}}"#);
        let keys = [key(r#", "kid": "a""#), key(r#", "kid": "b""#), key("")].join(",");
        let keys = read(&keys, &[Algorithm::EdDsa]).unwrap();
        let count = |id, algorithm| keys.candidates(id, algorithm).count();
        assert_eq!(count(Some("a"), Algorithm::EdDsa), 1);
        assert_eq!(count(Some("a"), Algorithm::Ed25519), 1);
        assert_eq!(count(Some("c"), Algorithm::EdDsa), 0);
        assert_eq!(count(None, Algorithm::EdDsa), 3);
        assert_eq!(count(None, Algorithm::Hs256), 0);
        assert_eq!(count(None, Algorithm::Es256), 0);
        let secret = Keys::secret(vec![1]);
        assert_eq!(secret.candidates(Some("a"), Algorithm::Hs256).count(), 1);
        assert_eq!(secret.candidates(None, Algorithm::Rs256).count(), 0);
        assert_eq!(format!("{:?}", secret.0[0].material), "Material");
    }
}
