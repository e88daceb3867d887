//! A token as it comes (RFC 7515 §3.1), and whether it is what it says it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::keys::Keys;

/// Bytes of a token: more than a request's head has room for, by default.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Keys that a token is tried with that does not name its own.
const TRIED_MAX: usize = 8;

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is not to be believed, and why.
    Wrong(&'static str),
    /// It was right.
    Expired,
    /// There is no such key, or none at all.
    UnknownKey,
    /// It is right, and not for this.
    MissingScope,
}

/// Its claims, if one of `keys` has signed them by one of `algorithms`. Nothing else of its header counts:
/// keys in it and places where keys might be (`jku`, `jwk`, `x5u`, `x5c`) are anybody's word.
pub(super) fn claims(
    token: &[u8],
    kind: Option<&str>,
    algorithms: &[Algorithm],
    keys: &Keys,
) -> Result<Value, Flaw> {
    const MALFORMED: Flaw = Flaw::Wrong("malformed token");
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Flaw::Wrong("token is too long"));
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED);
    };
    let message = token.get(..header.len() + 1 + payload.len()).ok_or(MALFORMED)?;
    let header = object(header).ok_or(MALFORMED)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?;
    // RFC 7515 §4.1.11: what must be understood is not.
    if header.get("crit").is_some() {
        return Err(Flaw::Wrong("token has critical extensions"));
    }
    let named = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
    let algorithm = named
        .filter(|algorithm| algorithms.contains(algorithm))
        .ok_or(Flaw::Wrong("token is signed by another algorithm"))?;
    if kind.is_some_and(|kind| !is_type(header.get("typ"), kind)) {
        return Err(Flaw::Wrong("token is of another type"));
    }
    let id = match header.get("kid") {
        None => None,
        Some(id) => Some(id.as_str().ok_or(MALFORMED)?),
    };
    let mut candidates = keys.candidates(id, algorithm).take(TRIED_MAX).peekable();
    if candidates.peek().is_none() {
        return Err(Flaw::UnknownKey);
    }
    match candidates.any(|key| algorithm.verifies(key, message, &signature)) {
        true => object(payload).ok_or(MALFORMED),
        // It may be of a key that is new.
        false if id.is_none() => Err(Flaw::UnknownKey),
        false => Err(Flaw::Wrong("token's signature is wrong")),
    }
}

/// RFC 7515 §4.1.9: a type may leave out what stands before its slash.
fn is_type(found: Option<&Value>, kind: &str) -> bool {
    let plain =
        |text: &str| text.to_ascii_lowercase().trim_start_matches("application/").to_owned();
    found.and_then(Value::as_str).is_some_and(|found| plain(found) == plain(kind))
}

fn object(part: &[u8]) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;

    use super::*;

    fn sign(header: &str, payload: &str, secret: &[u8]) -> String {
        let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", encode(signature.as_ref()))
    }

    fn read(token: &str) -> Result<Value, Flaw> {
        let keys = Keys::secret(b"secret".to_vec());
        claims(token.as_bytes(), Some("jwt"), &[Algorithm::Hs256], &keys)
    }

    /// RFC 7515 A.1 and A.3, RFC 8037 A.4.
    #[test]
    fn the_examples_of_the_rfcs_are_right() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let secret = Keys::secret(URL_SAFE_NO_PAD.decode(secret).unwrap());
        let p256 = r#"{"keys": [{"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let p256 = Keys::read(p256.as_bytes(), &[Algorithm::Es256]).unwrap();
        let ed25519 = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let ed25519 = Keys::read(ed25519.as_bytes(), &[Algorithm::EdDsa]).unwrap();
        let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let by_secret = format!(
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{payload}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
        let by_p256 = format!(
            "eyJhbGciOiJFUzI1NiJ9.{payload}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        );
        let by_ed25519 = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let all = [Algorithm::Hs256, Algorithm::Es256, Algorithm::EdDsa];
        let read = |token: &str, keys: &Keys| claims(token.as_bytes(), None, &all, keys);
        for claims in [read(&by_secret, &secret).unwrap(), read(&by_p256, &p256).unwrap()] {
            assert_eq!(claims["iss"], "joe");
        }
        // It is right, and its payload is a sentence.
        assert_eq!(read(by_ed25519, &ed25519), Err(Flaw::Wrong("malformed token")));
        assert_eq!(read(&by_ed25519.replace(".R", ".S"), &ed25519), Err(Flaw::UnknownKey));
        assert_eq!(read(&by_p256, &ed25519), Err(Flaw::UnknownKey));
        assert_eq!(read(&by_secret, &p256), Err(Flaw::UnknownKey));
    }

    #[test]
    fn a_header_says_little() {
        let right = r#""alg": "HS256", "typ": "JWT""#;
        let with = |more: &str| read(&sign(&format!("{{{right}{more}}}"), "{}", b"secret"));
        assert!(with("").is_ok());
        assert!(with(r#", "kid": "../../etc/passwd", "jku": "https://evil.example""#).is_ok());
        assert_eq!(with(r#", "kid": 1"#), Err(Flaw::Wrong("malformed token")));
        assert_eq!(with(r#", "crit": []"#), Err(Flaw::Wrong("token has critical extensions")));
        assert_eq!(with(r#", "typ": "at+jwt""#), Err(Flaw::Wrong("token is of another type")));
        let another = Err(Flaw::Wrong("token is signed by another algorithm"));
        for name in ["none", "None", "hs256", "HS384", "RS256", ""] {
            assert_eq!(with(&format!(r#", "alg": "{name}""#)), another, "{name}");
        }
        let other = sign(&format!("{{{right}}}"), "{}", b"Secret");
        assert_eq!(read(&other), Err(Flaw::UnknownKey));
    }

    #[test]
    fn nothing_of_a_token_can_be_changed() {
        let right = sign(r#"{"alg": "HS256", "typ": "JWT"}"#, r#"{"sub": "alice"}"#, b"secret");
        for position in 0..right.len() {
            for other in [b'A', b'.', b'=', b'_', 0, 0xff] {
                let mut token = right.clone().into_bytes();
                let own = std::mem::replace(&mut token[position], other);
                let keys = Keys::secret(b"secret".to_vec());
                let read = claims(&token, None, &[Algorithm::Hs256], &keys);
                assert_eq!(read.is_ok(), own == other, "{position} {other}");
            }
        }
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        let right = sign(r#"{"alg": "HS256", "typ": "JWT"}"#, "{}", b"secret");
        let long = "A".repeat(TOKEN_BYTES_MAX);
        assert!(read(&right).is_ok());
        for token in [
            "",
            ".",
            "..",
            "...",
            &right.replacen('e', "", 1),
            &format!("{right}."),
            &format!("{right}="),
        ] {
            assert_eq!(read(token), Err(Flaw::Wrong("malformed token")), "{token}");
        }
        assert_eq!(read(&format!("{right}{long}")), Err(Flaw::Wrong("token is too long")));
    }
}
