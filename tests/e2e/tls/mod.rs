//! TLS as clients nobody here wrote see it. What a script of Python's checks, it checks itself.

mod broken;
mod certificates;
mod clients;
mod upstreams;

use std::net::SocketAddr;
use std::path::PathBuf;

use certs::{Authority, Pair};

use crate::clients::python::WebSockets;
use crate::clients::{PYTHON, has_module, script, text_of};
use crate::harness::{Gateway, Origin, Setup, checksum, pattern, set_up, unique_path};

/// An authority and the files made with it, which go away with it.
pub struct Files {
    authority: Authority,
    folder: PathBuf,
}

impl Files {
    pub fn new() -> Self {
        let files =
            Self { authority: Authority::new("Test authority").unwrap(), folder: unique_path("d") };
        std::fs::create_dir_all(&files.folder).unwrap();
        std::fs::write(files.folder.join("ca.pem"), files.authority.certificate()).unwrap();
        files
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a pair; how `certificates` names it.
    fn entry(&self, name: &str, pair: &Pair) -> String {
        let (chain, key) = pair.write(&self.folder, name).unwrap();
        format!("{{ chain = {chain:?}, key = {key:?} }}")
    }

    /// How `certificates` names a pair that has been written.
    fn entry_of(&self, name: &str) -> String {
        let (chain, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        format!("{{ chain = {chain:?}, key = {key:?} }}")
    }

    pub fn server(&self, names: &[&str]) -> String {
        self.entry(names[0].trim_start_matches("*."), &self.authority.server(names).unwrap())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A gateway's listener with these certificates, in front of `origin`.
pub fn secured(origin: &Origin, certificates: &[String]) -> Setup {
    secured_to(origin.address, certificates)
}

fn secured_to(origin: SocketAddr, certificates: &[String]) -> Setup {
    let certificates = format!("certificates = [{}]", certificates.join(", "));
    set_up().to(&[origin]).set("tls.main", &certificates).listener("tls = 'main'")
}

/// A function of `tls.py` with the port, the authority's file and more.
#[track_caller]
fn python(function: &str, gateway: &Gateway, files: &Files, more: &[&str]) -> bool {
    if !has_module("ssl") {
        return false;
    }
    let script = format!("{}/../tests/e2e/tls/tls.py", env!("CARGO_MANIFEST_DIR"));
    let (port, ca) = (gateway.address().port().to_string(), files.path("ca.pem"));
    let arguments = [&["-I", &script, function, &port, &ca], more].concat();
    text_of(PYTHON, &arguments);
    true
}

#[test]
fn versions_and_protocols() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    if !python("versions", &gateway, &files, &["1.2 1.3"]) {
        return;
    }
    for request in origin.requests() {
        assert_eq!(request.field("x-forwarded-proto"), "https");
        assert!(request.field("forwarded").ends_with(";proto=https"));
    }
    python("protocols", &gateway, &files, &[]);
    assert!(gateway.metric("gateway_tls_handshake_failures_total{reason=\"incompatible\"}") > 0.0);

    let gateway = secured(&origin, &[files.server(&["localhost"])])
        .set_more("tls.main", "minimum_version = '1.3'")
        .start();
    python("versions", &gateway, &files, &["1.3"]);
}

#[test]
fn a_client_is_known_again_by_every_worker() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).workers(2).start();
    if python("resumption", &gateway, &files, &["40"]) {
        assert_eq!(gateway.metric("gateway_tls_handshakes_total{kind=\"full\"}"), 2.0);
        assert_eq!(gateway.metric("gateway_tls_handshakes_total{kind=\"resumed\"}"), 80.0);
    }
}

/// Two gateways that read the same file, one of which then makes tickets of another secret first.
#[test]
fn a_client_is_known_again_by_another_machine() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let (old, new) = ("0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4));
    let secrets = |name: &str, text: &str| {
        std::fs::write(files.folder.join(name), text).unwrap();
        format!("ticket_keys = {:?}", files.path(name))
    };
    let start = |keys: &str| {
        let certificate = files.server(&["localhost"]);
        secured(&origin, &[certificate]).set_more("tls.main", keys).start()
    };
    let one = start(&secrets("one", &old));
    let other = start(&secrets("other", &old));
    let stranger = start(&secrets("stranger", &new));
    let to = |gateway: &Gateway, how: &str| format!("{} {how}", gateway.address().port());
    if !python("elsewhere", &one, &files, &[&to(&other, "yes")]) {
        return;
    }
    python("elsewhere", &one, &files, &[&to(&stranger, "no")]);
    secrets("one", &format!("{new}\n{old}\n"));
    one.wait_for_metric("gateway_file_reloads_total{result=\"applied\"}", 1.0);
    python("elsewhere", &one, &files, &[&to(&stranger, "yes")]);
    python("elsewhere", &other, &files, &[&to(&one, "yes")]);
}

#[test]
fn only_the_ciphers_that_are_named() {
    let (origin, files) = (Origin::echo(), Files::new());
    let suites = "cipher_suites = ['TLS_AES_256_GCM_SHA384', \
                  'TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384']";
    let gateway =
        secured(&origin, &[files.server(&["localhost"])]).set_more("tls.main", suites).start();
    let chosen = "1.2 ECDHE-ECDSA-AES256-GCM-SHA384\n1.3 TLS_AES_256_GCM_SHA384";
    if !python("suites", &gateway, &files, &[chosen]) {
        return;
    }
    let address = gateway.address().to_string();
    let other =
        "openssl s_client -connect \"$0\" -tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256 2>&1";
    let said = text_of("sh", &["-c", &format!("{other} </dev/null || true"), &address]).unwrap();
    assert!(said.contains("handshake failure"), "{said}");
}

#[test]
fn bodies_pass_whole_both_ways() {
    const SIZE: usize = 10 << 20;
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])])
        .set("limits", "body_bytes = '11MiB'")
        .start();
    let url = format!("https://localhost:{}", gateway.address().port());
    let (upload, ca) = (files.path("upload"), files.path("ca.pem"));
    std::fs::write(&upload, pattern(SIZE)).unwrap();
    for how in [&["-T", &upload][..], &["-T", &upload, "-H", "Transfer-Encoding: chunked"]] {
        let target = format!("{url}/?chunked");
        let download = files.path("download");
        let curl = ["-sS", "-D", "-", "-o", &download, "-H", "Expect:", "--cacert", &ca, &target];
        let Some(head) = text_of("curl", &[how, &curl].concat()) else { return };
        assert!(head.contains(&format!("X-Received: {}", checksum(pattern(SIZE)))), "{head}");
        assert!(std::fs::read(&download).unwrap() == pattern(SIZE));
    }
    let target = format!("{url}/bytes/{SIZE}");
    let answer = text_of("curl", &["-sS", "-o", &upload, "--tlsv1.2", "--cacert", &ca, &target]);
    assert_eq!(answer.as_deref(), Some(""));
    assert!(std::fs::read(&upload).unwrap() == pattern(SIZE));
}

#[test]
fn an_end_is_announced_and_must_be() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    if python("ends", &gateway, &files, &[]) {
        origin.wait_for("the cut body", |seen| !seen.broken.is_empty());
    }
}

#[test]
fn pipelined_requests_and_idle_connections() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    if python("pipelining", &gateway, &files, &[]) {
        assert_eq!(origin.requests().len(), 51);
    }
}

#[test]
fn websockets() {
    if !has_module("websockets") {
        return;
    }
    let (server, files) = (WebSockets::start(), Files::new());
    let gateway = secured_to(server.address, &[files.server(&["127.0.0.1"])]).start();
    let (address, ca) = (gateway.address().to_string(), files.path("ca.pem"));
    text_of(PYTHON, &["-I", &script("websockets_client.py"), &address, &ca]);
    gateway.wait_for_metric("gateway_tunnels_open", 0.0);
}
