//! Who a client is, by its verified certificate.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::pem;

/// A header field that tells origins of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The certificate (RFC 9440 §2.2).
    Certificate,
    /// What it was signed by (RFC 9440 §2.3).
    Chain,
    /// Whose it is (RFC 4514).
    Subject,
    /// The names it is good for, as `DNS:`, `URI:`, `email:` or `IP:` and a name, with commas between.
    Names,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    Fingerprint,
}

impl Field {
    /// Every field with its name on the wire.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("client-cert", Self::Certificate),
        ("client-cert-chain", Self::Chain),
        ("x-client-cert-subject", Self::Subject),
        ("x-client-cert-names", Self::Names),
        ("x-client-cert-fingerprint", Self::Fingerprint),
    ];
}

/// A client's certificate, which has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whose it is (RFC 4514), in ASCII.
    pub subject: String,
    /// The names it is good for, with their kind in front: `DNS:`, `URI:`, `email:` or `IP:`.
    pub names: Vec<String>,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
    /// The field lines origins are to get.
    pub lines: Box<[u8]>,
}

impl ClientCertificate {
    /// Whom it is of: its subject, or its first name where it has none (RFC 5280 §4.1.2.6), as that of a workload.
    pub fn holder(&self) -> &str {
        match &*self.subject {
            "" => self.names.first().map_or("", String::as_str),
            subject => subject,
        }
    }

    /// That of a PEM file, as if it had been verified.
    ///
    /// # Errors
    /// When it has none.
    pub fn read(path: &Path) -> Result<Self, String> {
        let own = Self::new(&pem::certificates(path)?, &[]);
        own.ok_or_else(|| pem::wrong(path, "is no certificate"))
    }

    /// Reads a chain, the client's own certificate first. `None` if that is none, which rustls would
    /// have found.
    pub(super) fn new(chain: &[CertificateDer<'_>], fields: &[Field]) -> Option<Self> {
        let (own, above) = chain.split_first()?;
        let (_, parsed) = parse_x509_certificate(own).ok()?;
        let mut certificate = Self {
            subject: distinguished_name(parsed.subject()),
            names: names(&parsed),
            fingerprint: hexadecimal(digest(&SHA256, own).as_ref()),
            lines: Box::default(),
        };
        let mut lines = String::new();
        for (name, field) in Field::NAMES {
            if !fields.contains(&field) {
                continue;
            }
            let value = match field {
                Field::Certificate => byte_sequence(own),
                Field::Chain => {
                    above.iter().map(|one| byte_sequence(one)).collect::<Vec<_>>().join(", ")
                }
                Field::Subject => certificate.subject.clone(),
                Field::Names => certificate.names.join(","),
                Field::Fingerprint => certificate.fingerprint.clone(),
            };
            // RFC 9440 §2.3: without more certificates there is no field.
            if !value.is_empty() {
                let _ = write!(lines, "{name}: {value}\r\n");
            }
        }
        certificate.lines = lines.into_bytes().into_boxed_slice();
        Some(certificate)
    }
}

/// RFC 8941 §3.3.5.
fn byte_sequence(bytes: &[u8]) -> String {
    format!(":{}:", BASE64.encode(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{}", encoded(name))),
        GeneralName::URI(uri) => Some(format!("URI:{}", encoded(uri))),
        GeneralName::RFC822Name(address) => Some(format!("email:{}", encoded(address))),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok()?;
            Some(format!("IP:{address}"))
        }
        _ => None,
    });
    names.collect()
}

/// A name of which no part can be taken for another name.
fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b',' | b'%' | ..=b' ' | 0x7f.. => drop(write!(text, "%{byte:02X}")),
            byte => text.push(char::from(byte)),
        }
        text
    })
}

/// RFC 4514 §2: from the most specific part to the least, in ASCII.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    const SHORT: [(&str, &str); 9] = [
        ("2.5.4.3", "CN"),
        ("2.5.4.7", "L"),
        ("2.5.4.8", "ST"),
        ("2.5.4.10", "O"),
        ("2.5.4.11", "OU"),
        ("2.5.4.6", "C"),
        ("2.5.4.9", "STREET"),
        ("0.9.2342.19200300.100.1.25", "DC"),
        ("0.9.2342.19200300.100.1.1", "UID"),
    ];
    let kind = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(id, _)| *id == kind).map(|(_, short)| *short);
    match (short, attribute.as_str()) {
        (Some(short), Ok(value)) => format!("{short}={}", escaped(value)),
        // RFC 4514 §2.4: what has no short name is given by its bytes.
        _ => format!("{kind}=#{}", hexadecimal(attribute.attr_value().data)),
    }
}

/// RFC 4514 §2.4.
fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    value.bytes().enumerate().fold(String::new(), |mut text, (position, byte)| {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' ' | b'#' if position == 0 => drop(write!(text, "\\{}", char::from(byte))),
            b' ' if position == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            byte => drop(write!(text, "\\{byte:02X}")),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_be_taken_for_syntax() {
        assert_eq!(escaped("Sue, Grabbit"), "Sue\\, Grabbit");
        assert_eq!(escaped("#a b "), "\\#a b\\ ");
        assert_eq!(escaped("Lu\u{10d}i\u{107}"), "Lu\\C4\\8Di\\C4\\87");
        assert_eq!(escaped("a\r\nb: c"), "a\\0D\\0Ab: c");
        assert_eq!(encoded("spiffe://a/b,DNS:c%\u{e9}"), "spiffe://a/b%2CDNS:c%25%C3%A9");
    }
}
