//! The files in `config/examples` run, and those of policies do what their comments say.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::clients::text_of;
use crate::harness::{Gateway, Origin, Response, binary, unique_path};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What `cargo xtask certs` does, once.
pub fn make_certificates() {
    static CERTIFICATES: OnceLock<()> = OnceLock::new();
    let folder = Path::new(FOLDER).join("target/certs");
    CERTIFICATES.get_or_init(|| certs::write_examples(&folder).unwrap());
}

/// Starts one with listeners at ports of the kernel's choice, `origin` in the place of the services it is for,
/// and these texts in the place of others.
fn run(name: &str, origin: &Origin, changes: &[(&str, &str)]) -> Gateway {
    make_certificates();
    let text = fs::read_to_string(format!("{FOLDER}/config/examples/{name}.toml")).unwrap();
    let mut text = text + "\n[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\nformat = \"off\"\n";
    for (from, to) in changes {
        assert!(text.contains(from), "{name}: {from}");
        text = text.replace(from, to);
    }
    for port in ["8080", "8081", "8443"] {
        for address in ["127.0.0.1", "0.0.0.0"] {
            let at = |port| format!("address = \"{address}:{port}\"");
            text = text.replace(&at(port), &at("0"));
        }
    }
    text = text.replace("127.0.0.1:9000", &origin.address.to_string());
    let driver = std::env::var("GATEWAY_TEST_DRIVER").unwrap_or("auto".to_owned());
    text += &format!("[runtime]\ncores = \"1\"\ndriver = {driver:?}\n");
    let listeners = text.matches("[[listeners]]").count();
    let file = unique_path("toml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(binary());
    command.current_dir(FOLDER).arg("run").arg("--config").arg(&file);
    let gateway = Gateway::spawn(&mut command, listeners);
    fs::remove_file(file).unwrap();
    gateway
}

fn ask(gateway: &Gateway, start: &str, fields: &[&str]) -> Response {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let head = format!("{start} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let method = start.split(' ').next().unwrap();
    gateway.client().send(head).response_to(method)
}

fn hello(gateway: &Gateway, fields: &[&str]) -> String {
    let response = ask(gateway, "GET /hello", fields);
    match response.status {
        200 => response.text(),
        status => status.to_string(),
    }
}

/// But for the one of the kernel program, which is for an interface and root: tests/xdp is about that.
#[test]
fn all_start() {
    let origin = Origin::saying("hello");
    for entry in fs::read_dir(format!("{FOLDER}/config/examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|end| end == "toml") && name != "xdp" {
            let gateway = run(name, &origin, &[]);
            assert_eq!(gateway.admin("/readyz").status, 200, "{name}");
            gateway.stop();
        }
    }
}

#[test]
fn access() {
    let origin = Origin::saying("hello");
    let gateway = run("access", &origin, &[]);
    let status = |start: &str, fields: &[&str]| ask(&gateway, start, fields).status;
    assert_eq!(status("GET /admin/x", &[]), 200);
    assert_eq!(status("GET /admin/x", &["User-Agent: ${jndi:ldap://x}"]), 403);
    assert_eq!(status("GET /admin/x?q=union+select", &[]), 200);
    assert_eq!(status("GET /api/x", &[]), 400);
    assert_eq!(status("GET /api/x", &["X-Tenant: a"]), 200);
    assert_eq!(status("PUT /api/x", &["X-Tenant: a"]), 405);
}

#[test]
fn browsers() {
    let origin = Origin::saying("hello");
    let gateway = run("browsers", &origin, &[]);
    let origin_field = "Origin: https://app.example.com";
    let fields = [origin_field, "Access-Control-Request-Method: PUT"];
    let preflight = ask(&gateway, "OPTIONS /api/x", &fields);
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.field("access-control-allow-methods"), "GET, PUT, DELETE");
    let answer = ask(&gateway, "GET /api/x", &[origin_field]);
    assert_eq!(answer.field("access-control-allow-origin"), "https://app.example.com");
    assert_eq!(answer.field("x-content-type-options"), "nosniff");
    assert_eq!(origin.request().field("x-route"), "localhost/api/x");
}

#[test]
fn keys_passwords_and_tokens() {
    let origin = Origin::saying("hello");
    let key = ("X-Api-Key: bobs-new-key", "Hello bob\n");
    let password = ("Authorization: Basic YWxpY2U6b3Blbi1zZXNhbWU=", "Hello alice\n");
    let token = fs::read_to_string(format!("{FOLDER}/config/examples/token.txt")).unwrap();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let token = (&*bearer, "Hello alice\n");
    for (name, known) in [
        ("keys", &[key, ("X-Api-Key: alice-and-nobody-else", "Hello alice\n")][..]),
        ("passwords", &[password]),
        ("tokens", &[token]),
        ("either", &[key, token]),
    ] {
        let gateway = run(name, &origin, &[]);
        assert_eq!(hello(&gateway, &[]), "401", "{name}");
        for (field, text) in known {
            assert_eq!(hello(&gateway, &[field]), *text, "{name}");
        }
    }
}

/// The service that is asked is the gateway's own other listener, so its address must be known before: one
/// of this process's own network of loopback addresses.
#[test]
fn forward_auth() {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let service = SocketAddr::from((Ipv4Addr::new(127, 99, high, low), 8081)).to_string();
    let gateway = run("forward_auth", &Origin::saying(""), &[("127.0.0.1:8081", &service)]);
    let stranger = ask(&gateway, "GET /orders", &[]);
    assert_eq!((stranger.status, stranger.field("location")), (302, "/login"));
    let alice = ask(&gateway, "GET /orders", &["Cookie: session=alice"]);
    assert_eq!(alice.text(), "The orders of alice\n");
}

#[test]
fn limits() {
    let gateway = run("limits", &Origin::saying("hello"), &[]);
    let mut client = gateway.client();
    let first: Vec<_> = (0..20).map(|_| client.get("/hello")).collect();
    assert!(first.iter().all(|answer| answer.status == 200));
    assert!(first[0].field("ratelimit").starts_with("\"per_client 10/s\";r=19;"));
    while client.get("/hello").status != 429 {}
    assert_eq!(run("limits", &Origin::saying("found"), &[]).get("/search").text(), "found");
}

#[test]
fn mtls() {
    let gateway = run("mtls", &Origin::saying("hello"), &[]);
    let port = gateway.address().port();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let ask = |path: &str, more: &[&str]| {
        let ca = format!("{FOLDER}/target/certs/ca.pem");
        let url = url(path);
        let all =
            ["-sS", "-m", "20", "--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}", &url];
        text_of("curl", &[&all[..], more].concat())
    };
    let Some(everybody) = ask("/", &[]) else { return };
    assert_eq!(everybody, "200");
    assert_eq!(ask("/internal/", &[]).unwrap(), "403");
    let [certificate, key] =
        ["pem", "key"].map(|end| format!("{FOLDER}/target/certs/client.{end}"));
    // Nobody plays the service behind it, which the policy lets through to.
    let known = ask("/internal/", &["--cert", &certificate, "--key", &key]);
    assert_eq!(known.unwrap(), "503");
}
