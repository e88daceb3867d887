//! What a person sees who made a mistake: one clear line, and an exit code.

use std::net::TcpListener;
use std::process::{Command, Output};

use crate::harness::{Gateway, Origin, binary, unique_path};

fn gateway(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

#[track_caller]
fn fails(arguments: &[&str], code: i32, says: &str) {
    let output = gateway(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(says), "{arguments:?}: {text}");
    assert!(text.lines().count() <= 3, "too much: {text}");
    assert!(!text.contains("listening"), "half started: {text}");
}

#[test]
fn no_file_is_needed() {
    let origin = Origin::saying("hello");
    let upstream = origin.address.to_string();
    let mut command = Command::new(binary());
    let flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--cores", "1"];
    command.arg("run").args(flags).args(["--upstream", &upstream]);
    let gateway = Gateway::spawn(&mut command, 1);
    assert_eq!(gateway.get("/").text(), "hello");
    let log = gateway.stop();
    assert!(log.contains("\"status\":200"), "the access log goes to standard output: {log}");
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let upstream = ["--upstream", "127.0.0.1:9", "--admin", "off"];
    fails(&[&["run", "--listen", &address], &upstream[..]].concat(), 1, &address);
    let admin =
        ["run", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:9", "--admin", &address];
    fails(&admin, 1, &address);
}

#[test]
fn two_gateways_do_not_share_a_port() {
    let origin = Origin::saying("hello");
    let first = Gateway::in_front_of(&origin);
    let address = first.address().to_string();
    fails(
        &["run", "--listen", &address, "--upstream", "127.0.0.1:9", "--admin", "off"],
        1,
        "in use",
    );
}

#[test]
fn a_file_that_cannot_be_read() {
    fails(&["run", "--config", "no/such/file.toml"], 1, "no/such/file.toml");
    fails(&["check", "no/such/file.toml"], 1, "no/such/file.toml");
}

#[test]
fn a_name_that_does_not_resolve() {
    let file = unique_path("toml");
    let text = "listeners = [{ address = '127.0.0.1:0' }]\nroutes = [{ upstream = 'main' }]\n\
                upstreams.main.endpoints = ['nowhere.invalid:80']\ndns.required = true\n";
    std::fs::write(&file, text).unwrap();
    fails(&["run", "--config", file.to_str().unwrap()], 1, "nowhere.invalid");
}

#[test]
fn an_interface_that_is_not_there() {
    let arguments = [
        "run",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "127.0.0.1:9",
        "--admin",
        "off",
        "--xdp-interface",
        "nope0",
    ];
    let output = gateway(&arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("nope0") || text.contains("CAP_BPF"), "{text}");
}

#[test]
fn mistakes_in_a_file_have_their_lines() {
    let path = unique_path("toml");
    std::fs::write(&path, "[runtime]\ncorse = 2\n[[routes]]\nupstream = 'api'\n").unwrap();
    let name = path.to_str().unwrap();
    let output = gateway(&["check", name]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("{name}:2: runtime.corse")), "{text}");
    assert!(text.contains(&format!("{name}:4: routes[0].upstream")), "{text}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn nothing_to_do() {
    let output = gateway(&["run"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("gateway run --config FILE"), "{text}");
    assert!(text.contains("gateway run --listen"), "{text}");
}
