//! TLS without sockets: certificates, what a listener offers, and the state of one connection. The
//! only place that names rustls.

#![expect(clippy::disallowed_types, reason = "certificates and ticket keys serve every worker")]

pub mod client;
pub mod identity;
pub mod server;
pub mod session;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::Connector;
pub use identity::Identity;
pub use server::{Acceptor, Tickets};
pub use session::{Failure, Session};

/// The cryptography all connections use.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

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
    fn and_later(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        static ONLY_TLS13: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => &ONLY_TLS13,
        }
    }
}
