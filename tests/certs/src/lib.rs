//! Certificates for tests, benches and examples: an authority nobody trusts by itself, and what it
//! signs. All keys are ECDSA P-256 unless said otherwise.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SignatureAlgorithm,
};
pub use rcgen::{Error, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use time::{Duration, OffsetDateTime};

/// Who signs.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, and what it was signed by.
    pub chain: String,
    /// Its key, PKCS#8.
    pub key: String,
}

impl Authority {
    /// An authority of its own.
    ///
    /// # Errors
    /// Those of the cryptography.
    pub fn new(name: &str) -> Result<Self, Error> {
        let mut params = params(name, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// What must be trusted, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A server's certificate for these names, IP addresses and wildcards among them.
    ///
    /// # Errors
    /// Those of the cryptography; a name that is none.
    pub fn server(&self, names: &[&str]) -> Result<Pair, Error> {
        self.server_with(&PKCS_ECDSA_P256_SHA256, names)
    }

    /// The same with another kind of key.
    ///
    /// # Errors
    /// As above.
    pub fn server_with(
        &self,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
    ) -> Result<Pair, Error> {
        let mut params = params(names.first().copied().unwrap_or("server"), names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params, KeyPair::generate_for(algorithm)?)
    }

    /// A client's certificate.
    ///
    /// # Errors
    /// Those of the cryptography.
    pub fn client(&self, name: &str) -> Result<Pair, Error> {
        let mut params = params(name, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, KeyPair::generate()?)
    }

    fn sign(&self, params: &CertificateParams, key: KeyPair) -> Result<Pair, Error> {
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = certificate.pem() + &self.certificate;
        Ok(Pair { chain, key: key.serialize_pem() })
    }
}

fn params(common_name: &str, names: &[&str]) -> Result<CertificateParams, Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(90);
    Ok(params)
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key`, and returns their paths.
    ///
    /// # Errors
    /// Those of the files.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<(PathBuf, PathBuf)> {
        fs::create_dir_all(folder)?;
        let chain = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        fs::write(&chain, &self.chain)?;
        fs::write(&key, &self.key)?;
        Ok((chain, key))
    }
}

/// Makes what the examples use: `ca.pem`, and server and client signed by it.
///
/// # Errors
/// Those of the files, and of the cryptography.
pub fn write_examples(folder: &Path) -> io::Result<()> {
    let authority = Authority::new("Example authority").map_err(io::Error::other)?;
    let names = ["localhost", "*.example.com", "127.0.0.1"];
    authority.server(&names).map_err(io::Error::other)?.write(folder, "server")?;
    authority.client("example client").map_err(io::Error::other)?.write(folder, "client")?;
    fs::write(folder.join("ca.pem"), authority.certificate())
}
