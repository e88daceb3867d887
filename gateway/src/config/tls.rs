//! The tables of TLS: `[tls.NAME]` towards clients, `upstreams.NAME.tls` towards endpoints.

use std::collections::HashSet;

use crate::document::section::Section;
use crate::document::values::{boolean, check_name, integer, once, path, text, word};
use crate::tls::{
    CipherSuite, Clients, Field, Identity, RevocationList, Roots, Secrets, Version, client, server,
};

/// What `minimum_version` may be.
const VERSIONS: [(&str, Version); 2] = [("1.2", Version::Tls12), ("1.3", Version::Tls13)];

/// What `tls.NAME.unknown_names` may be: whether they are refused.
const UNKNOWN_NAMES: [(&str, bool); 2] = [("default", false), ("refuse", true)];

/// What `tls.NAME.client_auth` may be: whether a certificate is asked for, and must be shown.
const CLIENT_AUTH: [(&str, Option<bool>); 3] =
    [("off", None), ("optional", Some(false)), ("required", Some(true))];

const CERTIFICATES_HINT: &str = "write [{ chain = \"server.pem\", key = \"server.key\" }]";
const CLIENT_CA_HINT: &str = "says nothing without client_ca: write who vouches for clients";
const PEM_HINT: &str = "write the path of a PEM file";
const CRLS_HINT: &str = "write [\"clients.crl\"]";
const FIELDS_HINT: &str = "write [\"client-cert\"]";
const SUITES_HINT: &str = "write [\"TLS_AES_128_GCM_SHA256\"]";

/// Certificates between a client's and a root's; webpki builds no longer paths than the upper end.
const CLIENT_DEPTH_DEFAULT: usize = 3;
const CLIENT_DEPTH_MAX: i64 = 6;

pub(super) fn offers(root: &mut Section<'_>) -> Vec<server::Settings> {
    let mut all = Vec::new();
    root.named_tables("tls", |name, table| {
        if let Err(message) = check_name(name) {
            table.reject(message);
        }
        let mut identities = Vec::new();
        table.tables("certificates", CERTIFICATES_HINT, |_, table| {
            identities.extend(identity(table));
        });
        let minimum_version = minimum_version(table);
        all.push(server::Settings {
            name: name.to_owned(),
            identities,
            minimum_version,
            cipher_suites: cipher_suites(table, minimum_version),
            refuse_unknown_names: table.value("unknown_names", false, word(&UNKNOWN_NAMES)),
            clients: clients(table),
            ticket_secrets: table.optional("ticket_keys", |kind| Secrets::load(&path(kind)?)),
        });
    });
    all
}

fn minimum_version(table: &mut Section<'_>) -> Version {
    table.value("minimum_version", Version::default(), word(&VERSIONS))
}

fn cipher_suites(table: &mut Section<'_>, minimum: Version) -> Vec<CipherSuite> {
    if !table.has("cipher_suites") {
        return Vec::new();
    }
    let suites = table.list("cipher_suites", SUITES_HINT, word(&CipherSuite::NAMES));
    let has = |version| suites.iter().any(|suite| suite.version() == version);
    if table.is_right() {
        if !has(Version::Tls13) {
            table.reject_value("cipher_suites", "none of TLS 1.3: add TLS_AES_128_GCM_SHA256");
        } else if minimum == Version::Tls12 && !has(Version::Tls12) {
            table.reject_value("cipher_suites", "none of TLS 1.2: write minimum_version = \"1.3\"");
        }
    }
    suites
}

/// What is asked of clients, if anything.
fn clients(table: &mut Section<'_>) -> Option<Clients> {
    let roots = table.optional("client_ca", |kind| Roots::load(&path(kind)?));
    let required = table.value("client_auth", Some(true), word(&CLIENT_AUTH));
    let mut lists = Vec::new();
    if table.has("client_crls") {
        lists = table.list("client_crls", CRLS_HINT, |kind| RevocationList::load(&path(kind)?));
    }
    let depth = table.value("client_depth", CLIENT_DEPTH_DEFAULT, integer(0..=CLIENT_DEPTH_MAX));
    let mut fields = Vec::new();
    if table.has("client_fields") {
        let mut seen = HashSet::new();
        fields = table.list("client_fields", FIELDS_HINT, |kind| {
            once(&mut seen, text(kind)?.to_owned(), kind)?;
            word(&Field::NAMES)(kind)
        });
    }
    if !table.has("client_ca") {
        for key in ["client_auth", "client_crls", "client_depth", "client_fields"] {
            table.reject_value(key, CLIENT_CA_HINT);
        }
    }
    match Clients::new(roots?, required?, lists, depth, fields) {
        Ok(clients) => Some(clients),
        Err(message) => {
            table.reject(message);
            None
        }
    }
}

pub(super) fn towards_endpoints(table: &mut Section<'_>) -> client::Settings {
    let verify = table.value("verify", true, boolean);
    let mut roots = table.optional("ca", |kind| Roots::load(&path(kind)?));
    if verify && !table.has("ca") {
        match Roots::system() {
            Ok(system) => roots = Some(system),
            Err(message) => table.reject(message),
        }
    }
    let server_name = table.optional("server_name", |kind| match text(kind)? {
        name if client::is_server_name(name) => Ok(name.to_owned()),
        _ => Err("must be a DNS name or an IP address".to_owned()),
    });
    let identity = table.has("certificate").then(|| table.table("certificate", identity)).flatten();
    client::Settings {
        roots: roots.filter(|_| verify),
        server_name,
        identity,
        minimum_version: minimum_version(table),
    }
}

/// A certificate and its key.
fn identity(table: &mut Section<'_>) -> Option<Identity> {
    let chain = table.required("chain", PEM_HINT, path)?;
    let key = table.required("key", PEM_HINT, path)?;
    match Identity::load(&chain, &key) {
        Ok(identity) => Some(identity),
        Err(message) => {
            table.reject(message);
            None
        }
    }
}
