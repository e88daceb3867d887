//! What the gateway asks of endpoints that speak TLS.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::session::Session;
use super::{Identity, Roots, Version, kept, provider};

/// The `tls` table of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whose word about endpoints counts; `None` believes every endpoint.
    pub roots: Option<Roots>,
    /// Whom an endpoint must be; `None` for the host it is configured by.
    pub server_name: Option<String>,
    /// Who the gateway is, if endpoints ask.
    pub identity: Option<Identity>,
    /// The lowest version spoken.
    pub minimum_version: Version,
}

impl Settings {
    /// The same with its files as they are now; what is wrong with one is told to `wrong`, and it
    /// counts as it was.
    pub fn reread(&self, wrong: &mut Vec<String>) -> Self {
        Self {
            roots: self.roots.as_ref().map(|roots| kept(roots, Roots::reread, wrong)),
            identity: self.identity.as_ref().map(|own| kept(own, Identity::reread, wrong)),
            ..self.clone()
        }
    }

    /// The files it was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let roots = self.roots.iter().filter_map(Roots::path);
        roots.chain(self.identity.iter().flat_map(Identity::files))
    }
}

/// A connection of the control thread's own.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Begins the client's side of connections; keeps what it takes to resume them.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl Connector {
    /// What `settings` ask for. Each worker makes its own.
    ///
    /// # Errors
    /// When the cryptography speaks none of the versions.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(settings.minimum_version.and_later())
            .map_err(|error| error.to_string())?;
        let builder = match &settings.roots {
            Some(roots) => builder.with_root_certificates(roots.store()),
            None => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            }
        };
        let mut config = match &settings.identity {
            Some(identity) => {
                let key = SingleCertAndKey::from(identity.key());
                builder.with_client_cert_resolver(Arc::new(key))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), server_name: settings.server_name.clone() })
    }

    /// Whom an endpoint configured by `host` must be.
    pub fn server_name<'a>(&'a self, host: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(host)
    }

    /// A connection about which nothing is known yet.
    ///
    /// # Errors
    /// When the name is none.
    pub fn session(&self, host: &str) -> Result<Session, String> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name(host)?)
            .map_err(|error| error.to_string())?;
        Ok(Session::new(connection.into()))
    }

    /// A connection of the control thread, which has a runtime of its own.
    ///
    /// # Errors
    /// When the name is none, or the endpoint does not agree or is somebody else.
    pub async fn connect_tokio(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream> {
        let name = self.name(host).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }

    fn name(&self, host: &str) -> Result<ServerName<'static>, String> {
        let name = self.server_name(host);
        ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| format!("{name:?} is no name a certificate can have"))
    }
}

/// Whether a certificate can have this name.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// Believes whatever certificate comes, but makes sure that its owner is speaking.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
