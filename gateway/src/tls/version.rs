//! Which versions of the protocol are spoken, and with which ciphers.

/// The lowest version of the protocol that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// RFC 5246, with forward secrecy and authenticated encryption only.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Version {
    /// This one and those after it.
    pub(super) fn and_later(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        static ONLY_TLS13: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => &ONLY_TLS13,
        }
    }
}

/// How connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSuite(rustls::CipherSuite);

impl CipherSuite {
    /// Every cipher suite by its name in IANA's registry, best first: AES with 128 bits is as good as with
    /// 256 and faster, and ChaCha20 is for clients without instructions for AES.
    pub const NAMES: [(&'static str, Self); 9] = {
        use rustls::CipherSuite::*;
        [
            ("TLS_AES_128_GCM_SHA256", Self(TLS13_AES_128_GCM_SHA256)),
            ("TLS_AES_256_GCM_SHA384", Self(TLS13_AES_256_GCM_SHA384)),
            ("TLS_CHACHA20_POLY1305_SHA256", Self(TLS13_CHACHA20_POLY1305_SHA256)),
            (
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                Self(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
            ),
            (
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                Self(TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
            ),
            (
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                Self(TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
            ),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Self(TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)),
            ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Self(TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)),
            (
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                Self(TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
            ),
        ]
    };

    /// The version it belongs to.
    pub fn version(self) -> Version {
        use rustls::CipherSuite::*;
        match self.0 {
            TLS13_AES_128_GCM_SHA256
            | TLS13_AES_256_GCM_SHA384
            | TLS13_CHACHA20_POLY1305_SHA256 => Version::Tls13,
            _ => Version::Tls12,
        }
    }

    pub(super) fn is(self, suite: rustls::CipherSuite) -> bool {
        self.0 == suite
    }
}
