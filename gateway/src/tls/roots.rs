//! Authorities that are trusted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;

use super::pem;

/// Authorities that are trusted, and where they were read from.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    /// `None` for those of the system.
    path: Option<PathBuf>,
}

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
            false => Ok(Self { store: Arc::new(store), path: None }),
        }
    }

    /// Those in a PEM file.
    ///
    /// # Errors
    /// When it cannot be read, has none, or has something else.
    pub fn load(path: &Path) -> Result<Self, String> {
        let mut store = RootCertStore::empty();
        for certificate in pem::certificates(path)? {
            store.add(certificate).map_err(|error| pem::wrong(path, error))?;
        }
        Ok(Self { store: Arc::new(store), path: Some(path.to_owned()) })
    }

    /// The same file as it is now.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn reread(&self) -> Result<Self, String> {
        self.path.as_deref().map_or_else(|| Ok(self.clone()), Self::load)
    }

    /// The file.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether one of them goes by this name (a DER-encoded subject).
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.store.roots.iter().any(|root| {
            // Without the sequence's own header, which webpki leaves out.
            name.ends_with(&root.subject) && name.len() <= root.subject.len() + 4
        })
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.store)
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.store.roots == other.store.roots
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.store.len())
    }
}
