//! What a listener offers to clients.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;

use super::peer::ClientCertificate;
use super::session::{Failure, Session};
use super::{CipherSuite, Clients, Identity, Secrets, Tickets, Version, kept};

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
    /// What is spoken, best first; empty for all there is.
    pub cipher_suites: Vec<CipherSuite>,
    /// Whether a client that asks for a name no certificate has is refused; else it is shown the
    /// first.
    pub refuse_unknown_names: bool,
    /// Who may be a client; `None` for everybody.
    pub clients: Option<Clients>,
    /// What other machines make the same ticket keys of.
    pub ticket_secrets: Option<Secrets>,
}

impl Settings {
    /// The same with its files as they are now; what is wrong with one is told to `wrong`, and it
    /// counts as it was.
    pub fn reread(&self, wrong: &mut Vec<String>) -> Self {
        let identities = self.identities.iter();
        Self {
            identities: identities.map(|own| kept(own, Identity::reread, wrong)).collect(),
            clients: self.clients.as_ref().map(|clients| clients.reread(wrong)),
            ticket_secrets: self
                .ticket_secrets
                .as_ref()
                .map(|secrets| kept(secrets, Secrets::reread, wrong)),
            ..self.clone()
        }
    }

    /// The files it was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let identities = self.identities.iter().flat_map(Identity::files);
        let clients = self.clients.iter().flat_map(Clients::files);
        identities.chain(clients).chain(self.ticket_secrets.iter().map(Secrets::path))
    }
}

/// Begins the server's side of connections.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    clients: Option<Clients>,
}

impl Acceptor {
    /// What `settings` ask for. Each worker makes its own, so that they share no reference counts.
    ///
    /// # Errors
    /// When the cryptography speaks none of the versions.
    pub fn new(settings: &Settings, tickets: &Tickets) -> Result<Self, String> {
        let mut provider = aws_lc_rs::default_provider();
        let all = CipherSuite::NAMES.map(|(_, suite)| suite);
        let wanted = match &settings.cipher_suites[..] {
            [] => &all[..],
            named => named,
        };
        let spoken = &provider.cipher_suites;
        let of = |wanted: &CipherSuite| spoken.iter().find(|suite| wanted.is(suite.suite()));
        provider.cipher_suites = wanted.iter().filter_map(of).copied().collect();
        let builder = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(settings.minimum_version.and_later())
            .map_err(|error| error.to_string())?;
        let builder = match &settings.clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(settings)));
        // The first that the client has, too.
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = Arc::clone(&tickets.0);
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_KEPT);
        // One is enough for a client that comes back; each costs a packet's room.
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), clients: settings.clients.clone() })
    }

    /// A connection about which nothing is known yet.
    ///
    /// # Errors
    /// When the configuration is of no use.
    pub fn session(&self) -> Result<Session, rustls::Error> {
        let connection = rustls::ServerConnection::new(Arc::clone(&self.config))?;
        Ok(Session::new(connection.into()))
    }

    /// Who the client of a connection is that has been agreed on, if it has shown a certificate.
    ///
    /// # Errors
    /// When the certificate has ceased to be good since the session it takes up: rustls verifies only
    /// those of new ones.
    pub fn client(&self, session: &Session) -> Result<Option<Box<ClientCertificate>>, Failure> {
        let Some(clients) = &self.clients else { return Ok(None) };
        let Some((own, above)) = session.peer_chain().split_first() else { return Ok(None) };
        if session.is_resumed() {
            let verified = clients.verifier().verify_client_cert(own, above, UnixTime::now());
            verified.map_err(|error| Failure::of(&error))?;
        }
        Ok(ClientCertificate::new(session.peer_chain(), &clients.fields).map(Box::new))
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
