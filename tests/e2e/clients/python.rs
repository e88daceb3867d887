//! Python's clients, and its WebSocket server.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::{PYTHON, has_module, script, text_of};
use crate::harness::{Gateway, Origin, set_up};

/// Runs a script with a gateway's address, if the module it uses is there.
#[track_caller]
fn run(gateway: &Gateway, module: &str, name: &str) -> bool {
    let there = has_module(module);
    if there {
        let address = gateway.address().to_string();
        text_of(PYTHON, &["-I", &script(name), &address]).unwrap();
    }
    there
}

#[test]
fn http_client() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    if run(&gateway, "http.client", "http_client.py") {
        assert_eq!(gateway.metric("gateway_connections_accepted_total"), 1.0);
    }
}

#[test]
fn httpx() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    if run(&gateway, "httpx", "httpx.py") {
        assert_eq!(gateway.metric("gateway_connections_accepted_total"), 1.0);
    }
}

#[test]
fn aiohttp() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    if run(&gateway, "aiohttp", "aiohttp.py") {
        gateway.wait_for_metric("gateway_connections_open", 0.0);
    }
}

/// A server of the module `websockets`.
pub struct WebSockets {
    pub address: SocketAddr,
    process: Child,
}

impl WebSockets {
    pub fn start() -> Self {
        let mut command = Command::new(PYTHON);
        command.args(["-I", &script("websockets_server.py")]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("the server's port");
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), process }
    }
}

impl Drop for WebSockets {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn websockets() {
    if !has_module("websockets") {
        return;
    }
    let server = WebSockets::start();
    let gateway = set_up().to(&[server.address]).start();
    assert!(run(&gateway, "websockets", "websockets_client.py"));
    if run(&gateway, "aiohttp", "aiohttp_websocket.py") {
        gateway.wait_for_metric("gateway_tunnels_open", 0.0);
    }
}
