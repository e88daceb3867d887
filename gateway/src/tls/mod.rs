//! TLS without sockets: certificates, what a listener offers, and the state of one connection. The
//! only place that names rustls and the cryptography under it.

#![expect(clippy::disallowed_types, reason = "certificates and ticket keys serve every worker")]

pub mod client;
pub mod clients;
pub mod identity;
pub mod peer;
mod pem;
pub mod roots;
pub mod server;
pub mod session;
pub mod tickets;
pub mod version;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::Connector;
pub use clients::{Clients, RevocationList};
pub use identity::Identity;
pub use peer::{ClientCertificate, Field};
pub use roots::Roots;
pub use server::Acceptor;
pub use session::{Failure, Session};
pub use tickets::{Secrets, Tickets};
pub use version::{CipherSuite, Version};

/// The cryptography all connections use.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What has been read anew, or what was there if that is wrong, which `wrong` is told.
fn kept<T: Clone>(
    old: &T,
    reread: impl FnOnce(&T) -> Result<T, String>,
    wrong: &mut Vec<String>,
) -> T {
    reread(old).unwrap_or_else(|message| {
        wrong.push(message);
        old.clone()
    })
}
