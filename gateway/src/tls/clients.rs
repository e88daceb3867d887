//! What a listener asks of its clients' certificates.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use super::{Field, Roots, kept, pem, provider};

/// Who may be a client, by certificate.
#[derive(Clone)]
pub struct Clients {
    roots: Roots,
    required: bool,
    lists: Vec<RevocationList>,
    depth: usize,
    /// What origins are told of a client's certificate.
    pub fields: Vec<Field>,
    verifier: Arc<Verifier>,
}

impl Clients {
    /// Those whose certificate one of `roots` vouches for. Where there are revocation lists, each
    /// certificate below a root must be covered by one, and by one that is not out of date.
    /// `depth` certificates may lie between a client's and a root's.
    ///
    /// # Errors
    /// A list that is none.
    pub fn new(
        roots: Roots,
        required: bool,
        lists: Vec<RevocationList>,
        depth: usize,
        fields: Vec<Field>,
    ) -> Result<Self, String> {
        let crls = lists.iter().flat_map(|list| list.ders.iter().cloned());
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots.store(), provider())
            .with_crls(crls)
            .enforce_revocation_expiration();
        if !required {
            builder = builder.allow_unauthenticated();
        }
        let inner = builder.build().map_err(|error| format!("a revocation list: {error}"))?;
        let verifier = Arc::new(Verifier { inner, depth });
        Ok(Self { roots, required, lists, depth, fields, verifier })
    }

    /// The same with its files as they are now; what is wrong with one is told to `wrong`, and all of
    /// them count as they were.
    pub fn reread(&self, wrong: &mut Vec<String>) -> Self {
        kept(
            self,
            |own| {
                let lists = own.lists.iter().map(|list| RevocationList::load(&list.path));
                let lists = lists.collect::<Result<_, _>>()?;
                Self::new(own.roots.reread()?, own.required, lists, own.depth, own.fields.clone())
            },
            wrong,
        )
    }

    /// The files it was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.roots.path().into_iter().chain(self.lists.iter().map(|list| list.path.as_path()))
    }

    /// The revocation lists that are out of date at this Unix time.
    pub fn lists_over(&self, now: i64) -> impl Iterator<Item = &Path> {
        let over =
            self.lists.iter().filter(move |list| list.until.is_some_and(|until| until < now));
        over.map(|list| list.path.as_path())
    }

    /// Whether a session of one may be taken up under the other.
    pub fn is_as_strict(&self, other: &Self) -> bool {
        (&self.roots, self.required, &self.lists, self.depth)
            == (&other.roots, other.required, &other.lists, other.depth)
    }

    /// What tells these clients from others, for the keys of tickets.
    pub(super) fn context(&self) -> Vec<u8> {
        let mut context =
            vec![u8::from(self.required), u8::try_from(self.depth).unwrap_or(u8::MAX)];
        for root in &self.roots.store().roots {
            context.extend_from_slice(&root.subject);
            context.extend_from_slice(&root.subject_public_key_info);
        }
        context
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier) as _
    }
}

impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        self.is_as_strict(other) && self.fields == other.fields
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("required", &self.required).finish_non_exhaustive()
    }
}

/// Certificates that have been taken back, and where that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct RevocationList {
    path: PathBuf,
    ders: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them is out of date, Unix time.
    until: Option<i64>,
}

impl RevocationList {
    /// Reads a PEM file of one list or more.
    ///
    /// # Errors
    /// When it cannot be read, has none, or has something else.
    pub fn load(path: &Path) -> Result<Self, String> {
        let ders = pem::crls(path)?;
        let until = ders
            .iter()
            .filter_map(|der| Some(parse_x509_crl(der).ok()?.1.next_update()?.timestamp()));
        Ok(Self { path: path.to_owned(), until: until.min(), ders })
    }
}

/// Verifies chains of a bounded length.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    depth: usize,
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // A root that is sent along lies between nobody.
        let between = intermediates.iter().filter(|certificate| !is_self_issued(certificate));
        if between.count() > self.depth {
            let reason =
                Box::<dyn Error + Send + Sync>::from("the chain is longer than client_depth");
            return Err(CertificateError::Other(OtherError(Arc::from(reason))).into());
        }
        self.inner.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    parse_x509_certificate(certificate)
        .is_ok_and(|(_, certificate)| certificate.subject() == certificate.issuer())
}
