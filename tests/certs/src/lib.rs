//! Certificates for tests, benches and examples: an authority nobody trusts by itself, and what it
//! signs. All keys are ECDSA P-256 unless said otherwise.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType, SerialNumber,
    SignatureAlgorithm,
};
pub use rcgen::{Error, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
pub use time::Duration;
use time::OffsetDateTime;

/// Who signs.
pub struct Authority {
    /// As PEM, with those that signed it behind.
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
    serial: Option<SerialNumber>,
}

impl Authority {
    /// An authority of its own.
    ///
    /// # Errors
    /// Those of the cryptography.
    pub fn new(name: &str) -> Result<Self, Error> {
        let (params, key) = authority(name)?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// An authority that this one vouches for.
    ///
    /// # Errors
    /// Those of the cryptography.
    pub fn intermediate(&self, name: &str) -> Result<Self, Error> {
        let (params, key) = authority(name)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem() + &self.certificate;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The list of what it takes back, as PEM; it is out of date after `lifetime`.
    ///
    /// # Errors
    /// Those of the cryptography.
    pub fn revoke(&self, pairs: &[&Pair], lifetime: Duration) -> Result<String, Error> {
        let now = OffsetDateTime::now_utc();
        let revoked = pairs.iter().filter_map(|pair| pair.serial.clone());
        let revoked = revoked.map(|serial_number| RevokedCertParams {
            serial_number,
            revocation_time: now - Duration::minutes(1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + lifetime,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer)?.pem()
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
        self.sign(&server(names)?, KeyPair::generate_for(algorithm)?)
    }

    /// The same for so long; a negative lifetime is over.
    ///
    /// # Errors
    /// As above.
    pub fn server_for(&self, lifetime: Duration, names: &[&str]) -> Result<Pair, Error> {
        let mut params = server(names)?;
        params.not_before -= Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        self.sign(&params, KeyPair::generate()?)
    }

    /// The same that says where the certificate of who signed it is to be had, without that.
    ///
    /// # Errors
    /// As above.
    pub fn server_alone(&self, names: &[&str]) -> Result<Pair, Error> {
        // RFC 5280 §4.2.2.1, with a URI of 10 bytes for id-ad-caIssuers.
        const ACCESS: &[u8] =
            b"\x30\x18\x30\x16\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x0ahttp://a/b";
        let mut params = server(names)?;
        let access = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], ACCESS.into());
        params.custom_extensions.push(access);
        let key = KeyPair::generate()?;
        let chain = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { chain, key: key.serialize_pem(), serial: None })
    }

    /// A client's certificate.
    ///
    /// # Errors
    /// Those of the cryptography.
    pub fn client(&self, name: &str) -> Result<Pair, Error> {
        self.client_with(name, &[], Duration::days(90))
    }

    /// The same with URIs it is good for, and for how long; a negative lifetime is over.
    ///
    /// # Errors
    /// As above.
    pub fn client_with(
        &self,
        name: &str,
        uris: &[&str],
        lifetime: Duration,
    ) -> Result<Pair, Error> {
        let mut params = params(name, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before -= Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        self.sign(&params, KeyPair::generate()?)
    }

    fn sign(&self, params: &CertificateParams, key: KeyPair) -> Result<Pair, Error> {
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = certificate.pem() + &self.certificate;
        Ok(Pair { chain, key: key.serialize_pem(), serial: params.serial_number.clone() })
    }
}

fn server(names: &[&str]) -> Result<CertificateParams, Error> {
    let mut params = params(names.first().copied().unwrap_or("server"), names)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn authority(name: &str) -> Result<(CertificateParams, KeyPair), Error> {
    let mut params = params(name, &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params, KeyPair::generate()?))
}

fn params(common_name: &str, names: &[&str]) -> Result<CertificateParams, Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    // Without a name, the subject is empty.
    params.distinguished_name = DistinguishedName::new();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    params.serial_number = Some(SERIAL.fetch_add(1, Relaxed).into());
    params.use_authority_key_identifier_extension = true;
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

/// Makes what the examples use: `ca.pem`, and server and client signed by it; `clients.crl`, which takes
/// nothing back, and `ticket.keys`, which is no secret.
///
/// # Errors
/// Those of the files, and of the cryptography.
pub fn write_examples(folder: &Path) -> io::Result<()> {
    let authority = Authority::new("Example authority").map_err(io::Error::other)?;
    let names = ["localhost", "*.example.com", "127.0.0.1"];
    authority.server(&names).map_err(io::Error::other)?.write(folder, "server")?;
    authority.client("example client").map_err(io::Error::other)?.write(folder, "client")?;
    let nothing = authority.revoke(&[], Duration::days(90)).map_err(io::Error::other)?;
    fs::write(folder.join("clients.crl"), nothing)?;
    let serial = KeyPair::generate().map_err(io::Error::other)?.public_key_raw().to_vec();
    let secret: String = serial.iter().skip(1).take(32).map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.join("ticket.keys"), secret)?;
    fs::write(folder.join("ca.pem"), authority.certificate())
}
