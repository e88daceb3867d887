//! TLS towards endpoints: a Python server, and a second gateway.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use certs::Authority;

use super::{Files, secured};
use crate::clients::{PYTHON, has_module};
use crate::harness::{Gateway, Origin, Setup, checksum, pattern, set_up, until};

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

/// Client, gateway, gateway, origin; TLS between the first two, the second two, or both.
#[test]
fn bodies_pass_whole_through_every_pairing() {
    const SIZE: usize = 3 << 20;
    let (origin, files) = (Origin::echo(), Files::new());
    let certificate = files.server(&["orders.internal"]);
    let inner = secured(&origin, &[certificate]).start();
    let outer = behind(inner.address(), &tls(&files, NAMED)).start();
    for target in ["/", "/?chunked"] {
        let body = pattern(SIZE);
        let mut client = outer.client();
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
        let mut stream = client.stream().try_clone().unwrap();
        let response = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
                std::io::Write::write_all(&mut stream, body).unwrap();
            });
            client.response_to("POST")
        });
        assert_eq!(response.field("x-received"), checksum(body).to_string());
        assert!(response.body == body);
    }
    assert_eq!(origin.requests()[0].field("x-forwarded-proto"), "https");
}
