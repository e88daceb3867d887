//! What a listener offers to clients.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;

use super::session::Session;
use super::{Identity, Version, provider};

/// Sessions kept for clients of TLS 1.2 that take no tickets; the oldest goes first.
const SESSIONS_KEPT: usize = 1024;

/// One `[tls.NAME]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What listeners call it.
    pub name: String,
    /// At least one; the first is shown to clients that name no server.
    pub identities: Vec<Identity>,
    /// The lowest version spoken.
    pub minimum_version: Version,
    /// Whether a client that asks for a name no certificate has is refused; else it is shown the
    /// first.
    pub refuse_unknown_names: bool,
}

/// The keys that session tickets are sealed with: one set for all workers and all configurations,
/// so that a client is recognised wherever it lands. They change every six hours; tickets of the
/// set before are still taken.
#[derive(Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    /// Makes the first set.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self, String> {
        rustls::crypto::aws_lc_rs::Ticketer::new().map(Self).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

/// Begins the server's side of connections.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    /// What `settings` ask for. Each worker makes its own, so that they share no reference counts.
    ///
    /// # Errors
    /// When the cryptography speaks none of the versions.
    pub fn new(settings: &Settings, tickets: &Tickets) -> Result<Self, String> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(settings.minimum_version.and_later())
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Certificates::new(settings)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&tickets.0);
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_KEPT);
        // One is enough for a client that comes back; each costs a packet's room.
        config.send_tls13_tickets = 1;
        Ok(Self(Arc::new(config)))
    }

    /// A connection about which nothing is known yet.
    ///
    /// # Errors
    /// When the configuration is of no use.
    pub fn session(&self) -> Result<Session, rustls::Error> {
        let connection = rustls::ServerConnection::new(Arc::clone(&self.0))?;
        Ok(Session::new(connection.into()))
    }
}

/// Certificates by the name a client asks for (RFC 6066 §3).
struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the asterisk and its dot.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
    refuse_unknown_names: bool,
}

impl Certificates {
    fn new(settings: &Settings) -> Self {
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        for identity in &settings.identities {
            for name in &identity.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcards, suffix),
                    None => (&mut exact, name.as_str()),
                };
                // The first of two with the same name is the one listed first.
                names.entry(name.to_owned()).or_insert_with(|| identity.key());
            }
        }
        let default = settings.identities.first().map(Identity::key);
        let refuse_unknown_names = settings.refuse_unknown_names;
        Self { exact, wildcards, default, refuse_unknown_names }
    }

    /// A wildcard stands for one label (RFC 9525 §6.3).
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || self.wildcards.get(name.split_once('.')?.1);
            self.exact.get(&name).or_else(wildcard)
        });
        let default =
            self.default.as_ref().filter(|_| !self.refuse_unknown_names || name.is_none());
        named.or(default).map(Arc::clone)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}
