//! `gateway doctor` where the kernel program would run: on a veth, in a namespace, with and without rights.

use serde_json::Value;

use crate::netns::INTERFACE;
use crate::running::Kind;
use crate::sources::net;

fn findings(inside: &crate::netns::Namespace, with: &[&str]) -> Vec<Value> {
    let mut command = inside.command(with[0]);
    let output = command.args(&with[1..]).output().expect("it runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The status of a check, and all that is said of it.
fn status(findings: &[Value], topic: &str, check: &str) -> (String, String) {
    let found = findings.iter().find(|found| found["topic"] == topic && found["check"] == check);
    let found = found.unwrap_or_else(|| panic!("nothing about {topic}, {check}: {findings:?}"));
    (found["status"].as_str().expect("a text").to_owned(), found.to_string())
}

#[test]
fn the_interface_is_looked_at_and_left_alone() {
    let Some(net) = net() else {
        return;
    };
    let binary = env!("CARGO_BIN_EXE_gateway");
    let doctor = [binary, "doctor", "--json", "--interface", INTERFACE];
    let topic = format!("interface {INTERFACE}");
    let found = findings(&net.gateway, &doctor);
    for (topic, check) in [
        ("rights and limits", "kernel program"),
        ("kernel program", "loading"),
        (&topic, "native mode"),
        (&topic, "other programs"),
    ] {
        assert_eq!(status(&found, topic, check).0, "ok", "{topic}, {check}: {found:?}");
    }

    let running = Kind::Binary(binary).start(&net.gateway, true);
    let (state, said) = status(&findings(&net.gateway, &doctor), &topic, "other programs");
    assert!(state == "ok" && said.contains("a gateway's"), "{said}");
    running.stop();
}

#[test]
fn missing_rights_are_named_before_anything_fails() {
    let Some(net) = net() else {
        return;
    };
    let binary = env!("CARGO_BIN_EXE_gateway");
    let rights = ["setpriv", "--bounding-set", "-bpf,-perfmon", "--inh-caps", "-bpf,-perfmon"];
    let doctor = [&rights[..], &[binary, "doctor", "--json", "--interface", INTERFACE]].concat();
    let found = findings(&net.gateway, &doctor);
    let (state, said) = status(&found, "rights and limits", "kernel program");
    assert!(state == "fail" && said.contains("missing: CAP_BPF, CAP_PERFMON"), "{said}");
}
