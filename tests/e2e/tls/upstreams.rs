//! TLS towards endpoints: a Python server, and a second gateway.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use certs::Authority;

use super::{Files, secured};
use crate::clients::{PYTHON, has_module, text_of};
use crate::harness::{Client, Gateway, Origin, Setup, binary, checksum, pattern, set_up, until};

struct Server {
    address: SocketAddr,
    process: Child,
}

impl Server {
    /// `None` where there is no Python.
    fn start(files: &Files, client_ca: Option<&str>) -> Option<Self> {
        if !has_module("ssl") {
            return None;
        }
        files.server(&["orders.internal"]);
        let script = format!("{}/../tests/e2e/tls/server.py", env!("CARGO_MANIFEST_DIR"));
        let (chain, key) = (files.path("orders.internal.pem"), files.path("orders.internal.key"));
        let mut command = Command::new(PYTHON);
        command.args(["-I", &script, &chain, &key]).args(client_ca).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("the server's port");
        Some(Self { address: SocketAddr::from(([127, 0, 0, 1], port)), process })
    }

    fn behind(&self, tls: &str) -> Setup {
        behind(self.address, tls)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn behind(address: SocketAddr, tls: &str) -> Setup {
    set_up().upstream("main", &[address]).upstream_line(tls).route("upstream = 'main'")
}

fn tls(files: &Files, more: &str) -> String {
    format!("tls = {{ ca = {:?}, {more} }}", files.path("ca.pem"))
}

const NAMED: &str = "server_name = 'orders.internal'";

#[track_caller]
fn fails(gateway: &Gateway, reason: &str) {
    assert_eq!(gateway.get("/").status, 502);
    until(&format!("{reason} to be logged"), || {
        gateway.log().lines().any(|line| line.contains("TLS failed") && line.contains(reason))
    });
    gateway.get("/");
    assert_eq!(gateway.log().matches("TLS failed").count(), 1, "once for a while");
}

#[test]
fn connections_are_kept_and_sessions_resumed() {
    let files = Files::new();
    let Some(server) = Server::start(&files, None) else { return };
    let gateway = server.behind(&tls(&files, NAMED)).start();
    let mut client = gateway.client();
    for request in 1..=3 {
        assert_eq!(client.get("/").text(), format!("nobody full TLSv1.3 {request}"));
    }
    let each = format!("{}\nidle_connections = 0", tls(&files, NAMED));
    let gateway = server.behind(&each).start();
    assert_eq!(gateway.get("/").text(), "nobody full TLSv1.3 1");
    assert_eq!(gateway.get("/").text(), "nobody resumed TLSv1.3 1");
}

#[test]
fn an_endpoint_must_be_who_it_is_said_to_be() {
    let files = Files::new();
    let Some(server) = Server::start(&files, None) else { return };
    // By its address, which the certificate is not for.
    fails(&server.behind(&tls(&files, "")).start(), "name=\"127.0.0.1\"");
    fails(&server.behind(&tls(&files, "server_name = 'a.b'")).start(), "not valid for name");
    let other = Authority::new("Another authority").unwrap();
    std::fs::write(files.path("other.pem"), other.certificate()).unwrap();
    let untrusted = format!("tls = {{ ca = {:?}, {NAMED} }}", files.path("other.pem"));
    fails(&server.behind(&untrusted).start(), "UnknownIssuer");
}

#[test]
fn not_to_verify_is_said_loudly() {
    let files = Files::new();
    let Some(server) = Server::start(&files, None) else { return };
    let gateway = server.behind("tls = { verify = false }").start();
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.log().contains("upstream \"main\": certificates are not verified"));
}

#[test]
fn the_gateway_shows_its_own_certificate() {
    let files = Files::new();
    let ca = files.path("ca.pem");
    let Some(server) = Server::start(&files, Some(&ca)) else { return };
    let own = files.entry("gateway", &files.authority.client("the gateway").unwrap());
    let gateway = server.behind(&tls(&files, &format!("{NAMED}, certificate = {own}"))).start();
    assert_eq!(gateway.get("/").text(), "the gateway full TLSv1.3 1");
    assert_eq!(server.behind(&tls(&files, NAMED)).start().get("/").status, 502);
}

#[test]
fn an_endpoint_without_tls_is_502() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    fails(&behind(origin.address, &tls(&files, NAMED)).start(), "TLS failed");
}

/// Client, gateway, gateway, origin; with TLS or without on either side of the first.
#[test]
fn bodies_pass_whole_through_every_pairing() {
    const SIZE: usize = 10 << 20;
    let (origin, files) = (Origin::echo(), Files::new());
    let large = |setup: Setup| setup.set("limits", "body_bytes = '11MiB'").start();
    let inner = [
        large(set_up().to(&[origin.address])),
        large(secured(&origin, &[files.server(&["orders.internal"])])),
    ];
    let (upload, download, ca) =
        (files.path("upload"), files.path("download"), files.path("ca.pem"));
    std::fs::write(&upload, pattern(SIZE)).unwrap();
    for (towards, back) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let towards_origin = if back == 1 { tls(&files, NAMED) } else { String::new() };
        let mut outer = behind(inner[back].address(), &towards_origin);
        let scheme = ["http", "https"][towards];
        if towards == 1 {
            let certificates = format!("certificates = [{}]", files.server(&["localhost"]));
            outer = outer.set("tls.main", &certificates).listener("tls = 'main'");
        }
        let outer = large(outer);
        for target in ["/", "/?chunked"] {
            let url = format!("{scheme}://localhost:{}{target}", outer.address().port());
            let curl = ["-sS", "-D", "-", "-o", &download, "-H", "Expect:", "--cacert", &ca];
            let Some(head) = text_of("curl", &[&curl[..], &["-T", &upload, &url]].concat()) else {
                return;
            };
            let sum = checksum(pattern(SIZE));
            assert!(head.contains(&format!("X-Received: {sum}")), "{url} {back}: {head}");
            assert!(std::fs::read(&download).unwrap() == pattern(SIZE), "{url} {back}");
        }
    }
}

#[test]
fn the_examples_work_as_written() {
    let files = Files::new();
    certs::write_examples(&files.folder.join("target/certs")).unwrap();
    // On other ports, as these may be taken.
    let app = Origin::saying("app");
    let internal = secured(&Origin::saying("internal"), &[files.entry_of("target/certs/server")])
        .set_more("tls.main", &format!("client_ca = {:?}", files.path("target/certs/ca.pem")))
        .start();
    let example = std::fs::read_to_string("../config/examples/mtls.toml").unwrap();
    let text = example
        .replace("127.0.0.1:8443", "127.0.0.1:0")
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:9000", &app.address.to_string())
        .replace("127.0.0.1:9443", &internal.address().to_string())
        .replace("target/certs/", &files.path("target/certs/"));
    std::fs::write(files.path("mtls.toml"), text).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--admin", "127.0.0.1:0", "--config", &files.path("mtls.toml")]);
    let gateway = Gateway::spawn(&mut command, 2);
    let [secure, plain] = gateway.addresses[..] else { panic!("two listeners") };
    let file = |name: &str| files.path(&format!("target/certs/{name}"));
    let (ca, chain, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let get = |certificate: &[&str], path: &str| {
        let url = format!("https://localhost:{}{path}", secure.port());
        let curl = ["-sS", "-w", " %{http_code}", "--cacert", &ca, &url];
        text_of("curl", &[&curl[..], certificate].concat())
    };
    let own = ["--cert", &chain, "--key", &key];
    let Some(said) = get(&own, "/internal/") else { return };
    assert_eq!(said, "internal 200");
    assert_eq!(get(&[], "/internal/").unwrap(), "403 Forbidden\n 403");
    assert_eq!(get(&[], "/").unwrap(), "app 200");
    let sent = Client::connect(plain).get("/x");
    assert_eq!((sent.status, sent.field("location")), (308, "https://test:8443/x"));
}

#[test]
fn probes_speak_it_too() {
    let files = Files::new();
    let Some(server) = Server::start(&files, None) else { return };
    let probe = "health = { path = '/', interval = '50ms', fall = 1, rise = 1 }";
    let up = "gateway_upstream_endpoint_up{upstream=\"main\"";
    let gateway = server.behind(&format!("{}\n{probe}", tls(&files, NAMED))).start();
    until("a connection of a probe's own", || {
        gateway.get("/").text().starts_with("nobody") && gateway.metric(up) == 1.0
    });
    // One that is somebody else is not well.
    let gateway =
        server.behind(&format!("{}\n{probe}", tls(&files, "server_name = 'a.b'"))).start();
    gateway.wait_for_metric(up, 0.0);
    assert_eq!(gateway.get("/").status, 503);
    until("the reason", || gateway.log().contains("down: TLS: "));
}
