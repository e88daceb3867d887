//! Reads PEM files (RFC 7468). Every error names the file.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Bytes of a file: bundles of authorities have some hundred KiB, revocation lists a few MiB.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is wrong with a file.
pub(super) fn wrong(path: &Path, error: impl Display) -> String {
    format!("{path:?}: {error}")
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .and_then(|count| match count as u64 > FILE_BYTES_MAX {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(()),
        });
    read.map(|()| bytes).map_err(|error| wrong(path, error))
}

/// All certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    all(path, "has no certificate (-----BEGIN CERTIFICATE-----)")
}

/// All revocation lists of a file, at least one.
pub(super) fn crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    all(path, "has no revocation list (-----BEGIN X509 CRL-----)")
}

fn all<T: PemObject>(path: &Path, none: &str) -> Result<Vec<T>, String> {
    let items: Vec<T> = T::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(path, error))?;
    if items.is_empty() { Err(wrong(path, none)) } else { Ok(items) }
}

/// The first key of a file: PKCS#8, PKCS#1 or SEC1.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            wrong(path, "has no unencrypted private key (-----BEGIN PRIVATE KEY-----)")
        }
        error => wrong(path, error),
    })
}
