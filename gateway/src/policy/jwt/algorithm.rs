//! How tokens may be signed (RFC 7518 §3, RFC 8037 §3.1).

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use super::keys::Material;

/// What a token says it is signed by, and a configuration lets in. There is none that is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
    /// The same by its newer name (RFC 9864 §2.2).
    Ed25519,
}

/// By what the configuration and the tokens call them, to the letter.
pub(super) const ALGORITHMS: [(&str, Algorithm); 14] = [
    ("HS256", Algorithm::Hs256),
    ("HS384", Algorithm::Hs384),
    ("HS512", Algorithm::Hs512),
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("ES512", Algorithm::Es512),
    ("EdDSA", Algorithm::EdDsa),
    ("Ed25519", Algorithm::Ed25519),
];

impl Algorithm {
    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(own, _)| *own == name).map(|(_, algorithm)| *algorithm)
    }

    /// Bytes that a secret must have at least (RFC 7518 §3.2), where it takes one; with a public key anybody
    /// could sign by such an algorithm.
    pub fn secret_bytes_min(self) -> Option<usize> {
        match self {
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Hs512 => Some(64),
            _ => None,
        }
    }

    /// Whether it can be verified by such a key.
    pub fn fits(self, key: &Material) -> bool {
        match key {
            Material::Secret(_) => self.secret_bytes_min().is_some(),
            Material::Rsa { .. } => self.rsa().is_some(),
            Material::P256(_) => self == Self::Es256,
            Material::P384(_) => self == Self::Es384,
            Material::P521(_) => self == Self::Es512,
            Material::Ed25519(_) => matches!(self, Self::EdDsa | Self::Ed25519),
        }
    }

    /// Whether `signature` is this key's of `message`. Never by a key it does not fit.
    pub fn verifies(self, key: &Material, message: &[u8], signature: &[u8]) -> bool {
        let public = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match key {
            Material::Secret(secret) => self.hmac().is_some_and(|algorithm| {
                let key = hmac::Key::new(algorithm, secret);
                hmac::verify(&key, message, signature).is_ok()
            }),
            Material::Rsa { n, e } => self.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            Material::P256(point) => self.fits(key) && public(&ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => self.fits(key) && public(&ECDSA_P384_SHA384_FIXED, point),
            Material::P521(point) => self.fits(key) && public(&ECDSA_P521_SHA512_FIXED, point),
            Material::Ed25519(point) => self.fits(key) && public(&ED25519, point),
        }
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(hmac::HMAC_SHA256),
            Self::Hs384 => Some(hmac::HMAC_SHA384),
            Self::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }
}
