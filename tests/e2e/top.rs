//! `gateway top`: who connects and asks, once and live on a terminal.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::clients::skip;
use crate::harness::{Gateway, binary, set_up, unique_path};

/// A gateway with an admin socket.
fn start() -> (Gateway, PathBuf) {
    let socket = unique_path("sock");
    let setup = set_up()
        .workers(2)
        .set("admin", &format!("address = '127.0.0.1:0'\nsocket = {socket:?}"))
        .set("limits", "requests_per_connection = 1000000")
        .route("path = '/hello'\nrespond = { body = 'hello' }");
    (setup.start(), socket)
}

fn top(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("top").args(arguments).arg("--socket").arg(socket);
    command
}

/// Asks until it has ended; what it said.
fn asking_until_it_ends(gateway: &Gateway, mut top: Child) -> String {
    let mut client = gateway.client();
    while top.try_wait().unwrap().is_none() {
        assert_eq!(client.get("/hello").status, 200);
        assert_eq!(client.get("/nothing").status, 404);
    }
    let output = top.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn once_for_scripts_and_for_people() {
    let (gateway, socket) = start();
    // They are known although they came before anybody looked.
    let mut idle: Vec<_> = (0..5).map(|_| gateway.client()).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/hello").status, 200));

    let json = top(&socket, &["--once", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let report: Value = serde_json::from_str(&asking_until_it_ends(&gateway, json)).unwrap();
    assert_eq!(report["sources"], 1);
    let shown = &report["shown"][0];
    assert_eq!((&shown["source"], &shown["connections_open"]), (&"127.0.0.1".into(), &6.into()));
    assert_eq!(shown["banned_until"], Value::Null);
    let number = |name: &str| shown[name].as_f64().unwrap();
    let (requests, errors) = (number("requests"), number("client_errors"));
    assert!(requests > 0.0 && (requests / 2.0 - errors).abs() <= 1.0, "{report}");
    assert!(number("bytes_out") >= errors * 5.0, "{report}");
    assert_eq!((number("drops"), number("would_drop")), (0.0, 0.0));
    assert_eq!(report["total"]["requests"], shown["requests"]);

    drop(idle);
    let text = top(&socket, &["--once", "--sort", "open"]).stdout(Stdio::piped()).spawn().unwrap();
    let text = asking_until_it_ends(&gateway, text);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("SOURCE ") && lines[1].starts_with("all "), "{text}");
    assert!(lines[2].starts_with("127.0.0.1 ") && lines.len() == 3, "{text}");
}

#[test]
fn live_on_a_terminal() {
    let (gateway, socket) = start();
    let shell = format!("stty rows 24 cols 110; {:?}", top(&socket, &["--sort", "errors"]));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--echo", "never", "--command", &shell, "/dev/null"]);
    script.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut terminal) = script.spawn() else { return skip("script") };
    let mut keys = terminal.stdin.take().unwrap();
    let mut screen = terminal.stdout.take().unwrap();

    let mut client = gateway.client();
    let (mut drawn, mut read) = (String::new(), [0; 4096]);
    let mut wait_for = |text: &str| {
        while !drawn.contains(text) {
            client.get("/nothing");
            let count = screen.read(&mut read).unwrap();
            assert!(count > 0, "it ended without {text:?}: {drawn}");
            drawn.push_str(&String::from_utf8_lossy(&read[..count]));
        }
    };
    wait_for("127.0.0.1");
    wait_for("q quit");
    keys.write_all(b"p").unwrap();
    wait_for("paused");
    keys.write_all(b"q").unwrap();
    // It leaves the terminal as it was.
    wait_for("\u{1b}[?1049l");
    assert!(terminal.wait().unwrap().success());
}

#[test]
fn where_it_cannot_be_shown() {
    let nobody = unique_path("sock");
    let output = top(&nobody, &["--once"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("no gateway answers at "), "{said}");

    let (_gateway, socket) = start();
    let output = top(&socket, &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("--once"), "{said}");
}
