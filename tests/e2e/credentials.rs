//! Who may come in: keys.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Gateway, Origin, Response, binary, set_up, unique_path, until};

const APPLIED: &str = "gateway_file_reloads_total{result=\"applied\"}";
const REFUSED: &str = "gateway_file_reloads_total{result=\"refused\"}";

fn ask(gateway: &Gateway, target: &str, fields: &[&str]) -> Response {
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n");
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    gateway.client().send(format!("{head}{fields}\r\n")).response()
}

/// The line of a file for a key, by the command line.
fn line(name: &str, key: &str) -> String {
    let mut hash = Command::new(binary())
        .args(["hash-key", name, "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(hash.stdin.take().unwrap(), "{key}").unwrap();
    String::from_utf8(hash.wait_with_output().unwrap().stdout).unwrap()
}

/// Replaces a file in one step.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}

#[test]
fn a_key_is_made_and_its_line_is_of_it() {
    let made = Command::new(binary()).args(["hash-key", "alice"]).output().unwrap();
    let said = String::from_utf8(made.stderr).unwrap();
    let key = said.trim().rsplit(' ').next().unwrap();
    assert_eq!(String::from_utf8(made.stdout).unwrap(), line("alice", key));
    let wrong = Command::new(binary()).args(["hash-key", "a b"]).output().unwrap();
    assert_eq!((wrong.status.code(), wrong.stdout.len()), (Some(2), 0));
}

#[test]
fn keys_let_in_and_the_origin_is_told_whose() {
    let origin = Origin::saying("hello");
    let digest = line("alice", "secret");
    let digest = digest.trim().strip_prefix("alice ").unwrap();
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['keys']")
        .set("policies.keys", "kind = 'api_key'\nidentity_field = 'X-User'")
        .set_more("policies.keys", "from = ['header:x-api-key', 'bearer', 'query:key', 'cookie:k']")
        .set_more("policies.keys", &format!("keys = {{ alice = '{digest}' }}"))
        .set("access_log", "format = 'json'")
        .start();
    // What says who somebody is passes from nobody but the gateway.
    let spoofed = "X-User: root";
    for (target, field) in [
        ("/?a=b", "X-Api-Key: secret"),
        ("/?a=b", "Authorization: Bearer secret"),
        ("/?key=secret&a=b", "Connection: X-User"),
        ("/?a=b", "Cookie: k=secret; other=1"),
    ] {
        assert_eq!(ask(&gateway, target, &[spoofed, field]).text(), "hello");
    }
    for request in origin.requests() {
        assert_eq!(request.fields.all("x-user"), ["alice"]);
        assert_eq!(request.fields.one("x-api-key"), None);
        assert_eq!(request.fields.one("authorization"), None);
    }
    assert_eq!(origin.targets(), ["/?a=b"; 4]);
    assert_eq!(origin.requests()[3].fields.all("cookie"), ["other=1"]);

    let none = ask(&gateway, "/", &[spoofed]);
    assert_eq!(none.status, 401);
    assert_eq!(none.fields.all("www-authenticate").len(), 4);
    assert_eq!(ask(&gateway, "/", &["X-Api-Key: guess"]).status, 401);
    assert_eq!(ask(&gateway, "/?key=typo", &[]).status, 401);
    assert_eq!(origin.requests().len(), 4);
    let offences = "gateway_offences_total{offence=\"credentials\"}";
    assert_eq!(gateway.metric(offences), 2.0);

    let log = gateway.stop();
    let told = log.lines().filter(|line| line.contains(r#""identity":"alice""#)).count();
    assert_eq!(told, 4, "{log}");
    assert!(log.contains(r#""error":"no credentials""#), "{log}");
    assert!(log.contains(r#""error":"wrong credentials""#), "{log}");
    for secret in ["secret", "typo", "guess"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_file_of_keys_counts_when_it_changes_and_stays_when_it_is_wrong() {
    let origin = Origin::saying("hello");
    let path = unique_path("keys");
    put(&path, &line("alice", "one"));
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['keys']")
        .set("policies.keys", &format!("kind = 'api_key'\nfile = {path:?}"))
        .workers(2)
        .start();
    let status = |key: &str| ask(&gateway, "/", &[&format!("X-Api-Key: {key}")]).status;
    assert_eq!((status("one"), status("two")), (200, 401));
    put(&path, &(line("alice", "one") + &line("alice", "two")));
    gateway.wait_for_metric(APPLIED, 1.0);
    until("every worker to know", || (0..8).all(|_| status("two") == 200));
    assert_eq!(status("one"), 200);

    put(&path, "alice two\n");
    gateway.wait_for_metric(REFUSED, 1.0);
    assert_eq!((status("one"), status("two")), (200, 200));
    until("it to be said", || gateway.log().contains("still as it was: policies.keys: "));
    assert!(!gateway.log().contains("alice two"));

    put(&path, &line("alice", "two"));
    gateway.wait_for_metric(APPLIED, 2.0);
    until("every worker to know", || (0..8).all(|_| status("one") == 401));
    assert_eq!(status("two"), 200);
    fs::remove_file(path).unwrap();
}

/// As many series as there are names, whoever knocks.
#[test]
fn requests_are_counted_by_name_where_that_is_asked_for() {
    let origin = Origin::saying("hello");
    let path = unique_path("keys");
    put(&path, &(line("alice", "one") + &line("alice", "two") + &line("bob", "three")));
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['keys']")
        .set("policies.keys", &format!("kind = 'api_key'\nmetrics = true\nfile = {path:?}"))
        .workers(2)
        .start();
    let status = |key: &str| ask(&gateway, "/", &[&format!("X-Api-Key: {key}")]).status;
    let counted = || {
        let page = gateway.admin("/metrics").text();
        let lines = page.lines().filter_map(|line| {
            line.strip_prefix("gateway_identity_requests_total{policy=\"keys\",identity=")
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(["one", "two", "one", "three", "guess"].map(status), [200, 200, 200, 200, 401]);
    assert_eq!(counted(), ["\"alice\"} 3", "\"bob\"} 1"]);
    put(&path, &(line("alice", "one") + &line("carol", "four")));
    gateway.wait_for_metric(APPLIED, 1.0);
    until("every worker to know", || counted().len() == 2 && counted()[1] == "\"carol\"} 0");
    assert_eq!((status("one"), status("four")), (200, 200));
    assert_eq!(counted(), ["\"alice\"} 4", "\"carol\"} 1"]);
    fs::remove_file(path).unwrap();
}

#[test]
fn each_name_has_its_own_rate() {
    let origin = Origin::saying("hello");
    let path = unique_path("keys");
    put(&path, &[line("alice", "a1"), line("alice", "a2"), line("bob", "b")].concat());
    let gateway = set_up()
        .to(&[origin.address])
        .listener("policies = ['keys', 'each']")
        .set("policies.keys", &format!("kind = 'api_key'\nfile = {path:?}"))
        .set("policies.each", "kind = 'rate_limit'\nkey = 'identity'\nlimits = ['2/h']")
        .start();
    let status = |key: &str| ask(&gateway, "/", &[&format!("X-Api-Key: {key}")]).status;
    assert_eq!(["a1", "a2", "a1", "b", "b", "b"].map(status), [200, 200, 429, 200, 200, 429]);
    fs::remove_file(path).unwrap();
}
