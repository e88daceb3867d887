//! Bans without the kernel program: what leads to one, and what becomes of what a banned client has open. As
//! loopback is never banned, clients come through a proxy here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{
    After, Client, Gate, Gateway, Length, Origin, Setup, binary, set_up, unique_path, until,
};
use crate::tls::{Files, secured};
use crate::websocket::{HANDSHAKE, echo};

const TRUSTING: &str = "trusted_proxies = ['127.0.0.1']";
const FROM: &str = "PROXY TCP4 192.0.2.9 198.51.100.1 5000 443\r\n";

/// An admin socket, at this path.
fn with_socket(setup: Setup, socket: &Path) -> Setup {
    setup.set("admin", &format!("address = '127.0.0.1:0'\nsocket = {socket:?}"))
}

/// Runs a command of `gateway` against the one with this socket: whether it was right, and what it said.
fn ask(socket: &Path, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(binary()).args(arguments).arg("--socket").arg(socket).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[track_caller]
fn ban(socket: &Path, client: &str) {
    let (banned, said) = ask(socket, &["ban", client]);
    assert!(banned, "{said}");
}

/// A WebSocket for a client of the proxy's.
fn tunnel(gateway: &Gateway, client: &str) -> Client {
    let field = format!("X-Forwarded-For: {client}\r\n\r\n");
    let mut tunnel = gateway.client();
    tunnel.send(format!("{}{field}", HANDSHAKE.strip_suffix("\r\n").unwrap()));
    assert_eq!(tunnel.head().0, 101);
    assert_eq!(tunnel.body(Length::Exactly(5)), b"hello");
    tunnel
}

#[test]
fn a_banned_client_loses_its_tunnel_and_another_does_not() {
    let (origin, socket) = (echo(5), unique_path("sock"));
    let gateway = with_socket(set_up(), &socket).listener(TRUSTING).to(&[origin.address]).start();
    let (mut banned, mut other) = (tunnel(&gateway, "192.0.2.9"), tunnel(&gateway, "192.0.2.8"));
    ban(&socket, "192.0.2.9");
    banned.expect_gone();
    gateway.wait_for_metric("gateway_tunnels_open", 1.0);
    other.send("still");
    assert_eq!(other.body(Length::Exactly(5)), b"still");
}

#[test]
fn tunnels_of_a_banned_client_live_on_where_that_is_wanted() {
    let (origin, socket) = (echo(5), unique_path("sock"));
    let closing = |close: bool| {
        let setup = with_socket(set_up(), &socket).listener(TRUSTING).to(&[origin.address]);
        setup.set("bans", &format!("close = {close}"))
    };
    let gateway = closing(false).start();
    let mut banned = tunnel(&gateway, "192.0.2.9");
    ban(&socket, "192.0.2.9");
    banned.send("still");
    assert_eq!(banned.body(Length::Exactly(5)), b"still");
    gateway.reload(closing(true));
    banned.expect_gone();
}

#[test]
fn what_a_banned_client_waits_for_is_answered_and_then_all_it_has_is_closed() {
    let (gate, socket) = (Gate::default(), unique_path("sock"));
    let opened = gate.clone();
    let origin = Origin::start(move |exchange| {
        if exchange.request.target == "/slow" {
            opened.wait();
        }
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(After::Keep)
    });
    let listener = format!("{TRUSTING}\nproxy_protocol = 'required'");
    let gateway = with_socket(set_up(), &socket).listener(&listener).to(&[origin.address]).start();
    let asking = |target: &str| {
        let mut client = gateway.client();
        client.send(format!("{FROM}GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    let (mut idle, mut waiting) = (asking("/"), asking("/slow"));
    assert_eq!(idle.response().text(), "ok");
    until("the request has come", || origin.targets().contains(&"/slow".to_owned()));
    ban(&socket, "192.0.2.9");
    idle.expect_close();
    gate.open();
    assert_eq!(waiting.response().text(), "ok");
    waiting.expect_close();
    assert_eq!(gateway.metric("gateway_deadlines_total{deadline=\"keep_alive\"}"), 0.0);
}

/// Every offence in the order of the reference.
const OFFENCES: [&str; 15] = [
    "malformed",
    "request_line_too_long",
    "head_too_large",
    "body_too_large",
    "chunks_too_large",
    "slow_head",
    "slow_body",
    "slow_read",
    "proxy_header",
    "handshake",
    "certificate",
    "rate_limit",
    "access",
    "credentials",
    "client_error",
];

/// A gateway that bans for one offence, and for nothing else.
fn banning_for(offence: &str, setup: Setup, listener: &str) -> (Gateway, PathBuf) {
    let socket = unique_path("sock");
    let weight = |name: &&str| format!("{name} = {}\n", if *name == offence { 3 } else { 0 });
    let gateway = with_socket(setup, &socket)
        .set("bans", "enforce = true\nthreshold = 3")
        .set("bans.weights", &OFFENCES.iter().map(weight).collect::<String>())
        .set("timeouts", "head = '100ms'")
        .listener(&format!("{TRUSTING}\nproxy_protocol = 'required'\n{listener}"))
        .start();
    (gateway, socket)
}

#[track_caller]
fn expect_ban(socket: &Path, offence: &str) {
    until("it is banned", || {
        let said = ask(socket, &["bans"]).1;
        said.contains("192.0.2.9/32") && said.contains(offence)
    });
}

#[test]
fn a_broken_handshake_is_an_offence() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let setup = secured(&origin, &[files.server(&["localhost"])]);
    let (gateway, socket) = banning_for("handshake", setup, "tls = 'main'");
    gateway.client().send(format!("{FROM}no ClientHello at all"));
    expect_ban(&socket, "handshake");
}

#[test]
fn a_slow_head_is_an_offence() {
    let origin = Origin::saying("hello");
    let (gateway, socket) = banning_for("slow_head", set_up().to(&[origin.address]), "");
    let mut client = gateway.client();
    client.send(format!("{FROM}GET / HTTP/1.1\r\n"));
    assert_eq!(client.response().status, 408);
    expect_ban(&socket, "slow_head");
}

#[test]
fn wrong_credentials_and_too_many_requests_are_offences() {
    let origin = Origin::saying("hello");
    let digest = "00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984";
    for (offence, policy, statuses) in [
        ("credentials", format!("kind = 'api_key'\nkeys = {{ a = '{digest}' }}"), vec![401]),
        ("rate_limit", "kind = 'rate_limit'\nlimits = ['1/h']".to_owned(), vec![200, 429]),
    ] {
        let setup = set_up().to(&[origin.address]).set("policies.asked", &policy);
        let (gateway, socket) = banning_for(offence, setup, "policies = ['asked']");
        let mut client = gateway.client();
        client.send(FROM);
        for status in statuses {
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: wrong\r\n\r\n");
            assert_eq!(client.response().status, status, "{offence}");
        }
        expect_ban(&socket, offence);
        client.expect_close();
    }
}

#[test]
fn who_starts_it_by_ssh_is_never_banned() {
    let (file, socket) = (unique_path("toml"), unique_path("sock"));
    let config = format!(
        "listeners = [{{ address = '127.0.0.1:0' }}]\nruntime.cores = 1\n\
         admin = {{ address = '127.0.0.1:0', socket = {socket:?} }}\n\
         routes = [{{ respond = {{}} }}]\n"
    );
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(&file);
    command.env("SSH_CONNECTION", "203.0.113.9 40000 192.0.2.1 22");
    let _gateway = Gateway::spawn(&mut command, 1);
    let (banned, said) = ask(&socket, &["ban", "203.0.113.9"]);
    assert!(!banned && said.contains("203.0.113.9/32 is allowed: "), "{said}");
    assert!(said.contains("the SSH session"), "{said}");
    ban(&socket, "203.0.113.8");
    std::fs::remove_file(file).unwrap();
}
