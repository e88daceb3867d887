//! A certificate chain and its key, read from PEM files.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// What a server shows and proves that it is.
#[derive(Clone)]
pub struct Identity {
    /// The DNS names it is good for, in lower case; a wildcard begins with `*.`.
    pub names: Vec<String>,
    /// The file of the chain.
    pub path: PathBuf,
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
        let wrong = |path: &Path, error: &dyn fmt::Display| format!("{path:?}: {error}");
        let read = |path: &Path| fs::read(path).map_err(|error| wrong(path, &error));
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(chain)?)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(chain, &error))?;
        let Some(own) = certificates.first() else {
            return Err(wrong(chain, &"has no certificate (-----BEGIN CERTIFICATE-----)"));
        };
        let (names, not_after) = about(own).map_err(|error| wrong(chain, &error))?;
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                wrong(key, &"has no unencrypted private key (-----BEGIN PRIVATE KEY-----)")
            }
            error => wrong(key, &error),
        })?;
        let key =
            CertifiedKey::from_der(certificates, secret, &super::provider()).map_err(|error| {
                match error {
                    rustls::Error::InconsistentKeys(_) => {
                        wrong(key, &format!("is not the key of {chain:?}"))
                    }
                    error => wrong(key, &error),
                }
            })?;
        Ok(Self { names, path: chain.to_owned(), not_after, key: Arc::new(key) })
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// The key belongs to the certificate, so comparing chains is enough.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The names of a certificate (RFC 9525 §6.3: its DNS-IDs, never its common name), and its end.
fn about(certificate: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
    let (_, certificate) =
        parse_x509_certificate(certificate).map_err(|error| format!("no certificate: {error}"))?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok((names.collect(), certificate.validity().not_after.timestamp()))
}
