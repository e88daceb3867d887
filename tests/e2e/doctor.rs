//! `gateway doctor`: what it finds on this machine, and in configurations that it does not go with.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{binary, unique_path};

fn doctor(arguments: &[&str]) -> Output {
    Command::new(binary()).arg("doctor").args(arguments).output().unwrap()
}

/// What was found of a check.
fn finding<'a>(findings: &'a Value, topic: &str, check: &str) -> &'a Value {
    let all = findings.as_array().unwrap();
    let found = all.iter().find(|finding| finding["topic"] == topic && finding["check"] == check);
    found.unwrap_or_else(|| panic!("nothing about {topic}, {check}: {findings}"))
}

fn findings(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = doctor(&[arguments, &["--json"]].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn it_looks_at_what_the_gateway_needs() {
    let (_, found) = findings(&["--interface", "lo"]);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(finding(&found, "kernel", "release")["found"], release.trim());
    for (topic, check) in [
        ("kernel", "io_uring"),
        ("rights and limits", "kernel program"),
        ("rights and limits", "open files"),
        ("kernel program", "loading"),
        ("kernel program", "outliving a crash"),
        ("interface lo", "native mode"),
        ("interface lo", "other programs"),
        ("clock", "synchronised"),
    ] {
        let status = &finding(&found, topic, check)["status"];
        assert!(["ok", "warn", "fail"].iter().any(|known| status == known), "{topic}, {check}");
    }
    // No driver of its own, so at least slower than it could be.
    assert_ne!(finding(&found, "interface lo", "native mode")["status"], "ok");

    let text = String::from_utf8(doctor(&[]).stdout).unwrap();
    assert!(text.starts_with("kernel\n  ok    release: "), "{text}");
}

#[test]
fn what_a_configuration_asks_for_in_vain_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (file, socket) = (unique_path("toml"), unique_path("sock"));
    let text = format!(
        "listeners = [{{ address = '{address}' }}]\nroutes = [{{ respond = {{ body = 'hello' }} }}]\n\
         admin = {{ address = 'off', socket = {socket:?} }}\nxdp = {{ interfaces = ['no-such-if0'] }}\nupstreams.none.endpoints = ['127.0.0.1:9']\n"
    );
    std::fs::write(&file, text).unwrap();
    let (code, found) = findings(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    let listener = finding(&found, "network", "listener");
    assert_eq!(listener["status"], "fail");
    assert!(listener["found"].as_str().unwrap().contains(&address.to_string()), "{listener}");
    assert!(listener["fix"].as_str().unwrap().contains("ss -ltnp"), "{listener}");
    assert_eq!(finding(&found, "interface no-such-if0", "there")["status"], "fail");

    drop(taken);
    std::fs::write(&file, "listeners = 7\n").unwrap();
    let (code, found) = findings(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert_eq!(finding(&found, "configuration", "file")["status"], "fail");
}

#[test]
fn without_a_kernel_program_nothing_is_said_of_it() {
    let file = unique_path("toml");
    let text = "listeners = [{ address = '127.0.0.1:0' }]\nroutes = [{ respond = { body = 'hello' } }]\n\
                admin.address = 'off'\nupstreams.none.endpoints = ['127.0.0.1:9']\n";
    std::fs::write(&file, text).unwrap();
    let (code, found) = findings(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{found}");
    let is_about = |finding: &Value| finding["topic"] == "kernel program";
    assert!(!found.as_array().unwrap().iter().any(is_about), "{found}");
}
