//! A client's connection, with TLS or without.

#![expect(clippy::disallowed_types, reason = "rustls shares its configuration so")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    StreamOwned,
};

/// What the certificate is for; each connection has a name of its own, and tickets of its own.
pub const NAMES: &str = "*.bench.example";

/// How a client speaks TLS 1.3: one cipher suite and one group, so that every proxy does the same.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// What a handshake must be, if that matters.
    kind: Option<HandshakeKind>,
}

impl Tls {
    /// Handshakes all anew, all from tickets, or as it comes.
    pub fn new(kind: Option<HandshakeKind>) -> Result<Self> {
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth();
        config.resumption = match kind {
            Some(HandshakeKind::Resumed) => Resumption::in_memory_sessions(1024),
            _ => Resumption::disabled(),
        };
        Ok(Self { config: Arc::new(config), kind })
    }

    /// What is wrong with the handshake of a connection.
    pub fn complaint(&self, wire: &Wire) -> Option<&'static str> {
        let Wire::Tls(stream) = wire else { return Some("no TLS") };
        match (self.kind, stream.conn.handshake_kind()) {
            (Some(HandshakeKind::Resumed), Some(HandshakeKind::Resumed)) | (None, _) => None,
            (Some(HandshakeKind::Resumed), _) => Some("not resumed"),
            (Some(_), Some(HandshakeKind::Resumed)) => Some("resumed"),
            (Some(_), _) => None,
        }
    }
}

/// A connection.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn new(stream: TcpStream, tls: Option<&Tls>, number: usize) -> Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(stream)) };
        let name = NAMES.replace('*', &format!("c{number}"));
        let name = ServerName::try_from(name).context("no server name")?;
        let connection = ClientConnection::new(Arc::clone(&tls.config), name)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, stream))))
    }

    /// Whether it waits for room to write rather than for bytes to read.
    pub fn wants_write(&self, sending: bool) -> bool {
        match self {
            Self::Plain(_) => sending,
            // During a handshake a request waits for the server to speak.
            Self::Tls(stream) => stream.conn.wants_write(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}

/// Believes every server: what a client makes sure of is not what is measured.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
