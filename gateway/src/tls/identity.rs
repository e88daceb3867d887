//! A certificate chain and its key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;

use super::{Roots, pem};

/// What a server shows and proves that it is.
#[derive(Clone)]
pub struct Identity {
    /// The DNS names it is good for, in lower case; a wildcard begins with `*.`.
    pub names: Vec<String>,
    /// The file of the chain.
    pub path: PathBuf,
    key_path: PathBuf,
    /// The first second it is valid in, Unix time.
    pub not_before: i64,
    /// The last second it is valid in, Unix time.
    pub not_after: i64,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a chain, the server's own certificate first, and its key: PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// A file that cannot be read or is no such PEM, and a key that is another certificate's.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, String> {
        let (path, key_path) = (chain.to_owned(), key.to_owned());
        let certificates = pem::certificates(chain)?;
        let own = certificates.first().map_or(&[][..], CertificateDer::as_ref);
        let own = parse(own).map_err(|error| pem::wrong(chain, error))?;
        let (names, validity) = (dns_names(&own), own.validity());
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        let secret = pem::key(key)?;
        let key = CertifiedKey::from_der(certificates.clone(), secret, &super::provider());
        let key = key.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                pem::wrong(&key_path, format!("is not the key of {chain:?}"))
            }
            error => pem::wrong(&key_path, error),
        })?;
        Ok(Self { names, path, key_path, not_before, not_after, key: Arc::new(key) })
    }

    /// The same files as they are now.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn reread(&self) -> Result<Self, String> {
        Self::load(&self.path, &self.key_path)
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [self.path.as_path(), self.key_path.as_path()].into_iter()
    }

    /// What clients may miss in the chain, or stumble over.
    pub fn flaw(&self) -> Option<String> {
        let chain: Vec<_> = self.key.cert.iter().filter_map(|der| parse(der).ok()).collect();
        for pair in chain.windows(2) {
            if let [below, above] = pair
                && below.issuer().as_raw() != above.subject().as_raw()
            {
                let (issuer, subject) = (below.issuer(), above.subject());
                return Some(format!("out of order: {issuer} must follow, {subject} does"));
            }
        }
        let last = chain.last()?;
        let issuer = last.issuer().as_raw();
        let is_root = issuer == last.subject().as_raw();
        // An authority of one's own may sign directly; who publishes where to find the issuer expects
        // it to be sent along.
        if is_root || !names_its_issuer(last) || is_a_systems_root(issuer) {
            return None;
        }
        Some(format!("incomplete: add the certificate of {}", last.issuer()))
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// The key belongs to the certificate, so comparing chains is enough.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
            && (&self.path, &self.key_path) == (&other.path, &other.key_path)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Reads them once: a gateway may have thousands of certificates.
fn is_a_systems_root(name: &[u8]) -> bool {
    static ROOTS: LazyLock<Option<Roots>> = LazyLock::new(|| Roots::system().ok());
    // Where there are none, nothing can be said.
    ROOTS.as_ref().is_none_or(|roots| roots.has(name))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(format!("no certificate: {error}")),
    }
}

/// RFC 9525 §6.3: a certificate's DNS-IDs, never its common name.
fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// Whether it says where its issuer's certificate can be had (RFC 5280 §4.2.2.1).
fn names_its_issuer(certificate: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => access
            .iter()
            .any(|access| access.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS),
        _ => false,
    })
}
