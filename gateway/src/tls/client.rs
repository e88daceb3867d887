//! What the gateway asks of endpoints that speak TLS.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::session::Session;
use super::{Identity, Version, provider};

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

/// Authorities that are trusted.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// Those the system trusts.
    ///
    /// # Errors
    /// When there are none.
    pub fn system() -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        match store.is_empty() {
            true => Err("this system has no root certificates: write ca = \"ca.pem\", or install \
                         them (ca-certificates)"
                .to_owned()),
            false => Ok(Self(Arc::new(store))),
        }
    }

    /// Those in a PEM file.
    ///
    /// # Errors
    /// When it cannot be read, has none, or has something else.
    pub fn load(path: &Path) -> Result<Self, String> {
        let wrong = |error: &dyn fmt::Display| format!("{path:?}: {error}");
        let text = std::fs::read(path).map_err(|error| wrong(&error))?;
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            store.add(certificate).map_err(|error| wrong(&error))?;
        }
        match store.is_empty() {
            true => Err(wrong(&"has no certificate (-----BEGIN CERTIFICATE-----)")),
            false => Ok(Self(Arc::new(store))),
        }
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots == other.0.roots
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

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
            Some(roots) => builder.with_root_certificates(Arc::clone(&roots.0)),
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
        let name = self.server_name(host);
        let name = ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| format!("{name:?} is no name a certificate can have"))?;
        let connection = ClientConnection::new(Arc::clone(&self.config), name)
            .map_err(|error| error.to_string())?;
        Ok(Session::new(connection.into()))
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
