//! Which certificate a client is shown, and how one takes another's place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use std::process::Command;

use certs::{Duration, PKCS_RSA_SHA256};

use super::{Files, python, secured};
use crate::clients::text_of;
use crate::harness::{Origin, binary, set_up, until};

#[test]
fn the_name_asked_for_chooses() {
    let (origin, files) = (Origin::echo(), Files::new());
    let certificates = [
        files.server(&["first.example"]),
        files.server(&["a.example", "b.example"]),
        files.server(&["*.c.example"]),
    ];
    let gateway = secured(&origin, &certificates).start();
    let expected = "a.example=a.example B.example=a.example x.c.example=*.c.example \
                    x.y.c.example=first.example c.example=first.example -=first.example";
    python("names", &gateway, &files, &[expected]);

    let gateway =
        secured(&origin, &certificates).set_more("tls.main", "unknown_names = 'refuse'").start();
    let expected = "a.example=a.example other.example=refused -=first.example";
    if python("names", &gateway, &files, &[expected]) {
        let refused = "gateway_tls_handshake_failures_total{reason=\"unknown_name\"}";
        assert_eq!(gateway.metric(refused), 1.0);
    }
}

#[test]
fn rsa_keys_serve() {
    let (origin, files) = (Origin::echo(), Files::new());
    let pair = files.authority.server_with(&PKCS_RSA_SHA256, &["localhost"]).unwrap();
    let gateway = secured(&origin, &[files.entry("rsa", &pair)]).start();
    python("versions", &gateway, &files, &["1.2 1.3"]);
}

/// Keys as older tools write them: PKCS#1 for RSA, SEC1 for curves.
#[test]
fn keys_serve_in_every_form() {
    let (origin, files) = (Origin::echo(), Files::new());
    let rsa = files.authority.server_with(&PKCS_RSA_SHA256, &["localhost"]).unwrap();
    let ecdsa = files.authority.server(&["localhost"]).unwrap();
    for (name, pair, begins) in [("rsa", rsa, "RSA PRIVATE KEY"), ("ec", ecdsa, "EC PRIVATE KEY")] {
        let entry = files.entry(name, &pair);
        let key = files.path(&format!("{name}.key"));
        // In place, and `-traditional` where PKCS#8 is what it writes otherwise.
        let mut convert = vec![name, "-in", &key, "-out", &key];
        convert.extend((name == "rsa").then_some("-traditional"));
        if text_of("openssl", &convert).is_none() {
            return;
        }
        assert!(std::fs::read_to_string(&key).unwrap().contains(begins));
        let gateway = secured(&origin, &[entry]).start();
        python("versions", &gateway, &files, &["1.2 1.3"]);
    }
}

#[test]
fn openssl_finds_the_chain_good() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    let (address, ca) = (gateway.address().to_string(), files.path("ca.pem"));
    let arguments = ["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", &ca];
    let more = ["-verify_return_error", "-verify_hostname", "localhost", "-brief"];
    // Standard input is at its end, so that it leaves at once.
    text_of("openssl", &[&arguments[..], &more].concat());
}

/// A hundred changes under load: no request fails, no connection is closed.
#[test]
fn another_takes_its_place_unnoticed() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let setup = || secured(&origin, &[files.server(&["localhost"])]);
    let gateway = setup().workers(2).start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (gateway, files, over) = (&gateway, &files, &over);
        let load = scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if !python("load", gateway, files, &["200"]) {
                    return;
                }
            }
        });
        for _ in 0..100 {
            gateway.reload(setup());
        }
        over.store(true, Ordering::Relaxed);
        load.join().unwrap();
    });
    let applied = "gateway_reloads_total{result=\"applied\"}";
    assert_eq!(gateway.metric(applied), 100.0);
}

#[test]
fn a_bad_one_changes_nothing() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    let (other, own) = (files.path("other.example.pem"), files.path("localhost.key"));
    files.server(&["other.example"]);
    let wrong = format!("{{ chain = {other:?}, key = {own:?} }}");
    gateway.reload(secured(&origin, &[wrong]));
    until("the reason to be logged", || gateway.log().contains("is not the key of"));
    python("load", &gateway, &files, &["1"]);
    let ends = "gateway_tls_certificate_expiry_seconds";
    assert!(gateway.metric(ends) > 1.7e9);
}

#[test]
fn a_check_says_what_will_go_wrong() {
    let files = Files::new();
    let authority = &files.authority;
    let over = authority.server_for(Duration::hours(-1), &["over.example"]).unwrap();
    let soon = authority.server_for(Duration::days(5), &["soon.example"]).unwrap();
    let mut shuffled = authority.intermediate("Between").unwrap().server(&["a.example"]).unwrap();
    let (own, above) = shuffled.chain.split_at(shuffled.chain.find("-----END").unwrap() + 26);
    let (between, root) = above.split_at(above.find("-----END").unwrap() + 26);
    shuffled.chain = format!("{own}{root}{between}");
    let alone = authority.server_alone(&["alone.example"]).unwrap();
    let entries = [
        files.entry("over", &over),
        files.entry("soon", &soon),
        files.entry("shuffled", &shuffled),
        files.entry("alone", &alone),
        files.server(&["*.wild.example"]),
    ];
    let lists = authority.revoke(&[], Duration::minutes(-1)).unwrap();
    std::fs::write(files.folder.join("over.crl"), lists).unwrap();
    let (ca, lists) = (files.path("ca.pem"), files.path("over.crl"));
    let hosts = ["over.example", "soon.example", "alone.example", "b.wild.example", "none.example"];
    let routes =
        hosts.map(|host| format!("[[routes]]\nhost = '{host}'\nupstream = 'a'\n")).concat();
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:1', tls = 'main' }}]\n\
         upstreams = {{ a.endpoints = ['127.0.0.1:2'], b.endpoints = ['127.0.0.1:3'] }}\n\
         [tls.main]\ncertificates = [{}]\nclient_ca = {ca:?}\nclient_crls = [{lists:?}]\n{routes}",
        entries.join(", ")
    );
    let path = files.path("gateway.toml");
    std::fs::write(&path, text).unwrap();
    let output = Command::new(binary()).args(["check", &path]).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let folder = files.folder.display();
    let lines: Vec<_> = said.lines().map(|line| line.replace(&format!("{folder}/"), "")).collect();
    assert_eq!(
        lines,
        [
            (2, "upstreams.b: no route leads there"),
            (3, "tls.main: \"over.pem\" has expired"),
            (3, "tls.main: \"soon.pem\" expires within 5 days"),
            (
                3,
                "tls.main: \"shuffled.pem\": the chain is out of order: CN=Between must follow, \
             CN=Test authority does"
            ),
            (3, "tls.main: \"shuffled.pem\": no route is for a.example"),
            (
                3,
                "tls.main: \"alone.pem\": the chain is incomplete: add the certificate of \
             CN=Test authority"
            ),
            (3, "tls.main: \"over.crl\" is out of date: every client is refused"),
            (20, "routes[4].host: no certificate has the name"),
        ]
        .map(|(at, line)| format!("gateway.toml:{at}: warning: {line}"))
    );
}

/// Nobody says that they have changed: the files are watched, through links, too.
#[test]
fn files_that_change_are_read_again() {
    const APPLIED: &str = "gateway_file_reloads_total{result=\"applied\"}";
    const REFUSED: &str = "gateway_file_reloads_total{result=\"refused\"}";
    let (origin, files) = (Origin::saying("hello"), Files::new());
    // As certbot and Kubernetes do it: names that lead elsewhere.
    let versions = |version: &str| {
        let pair = files.authority.server(&["localhost"]).unwrap();
        pair.write(&files.folder.join(version), "own").unwrap();
        files.path(version)
    };
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, files.folder.join("next")).unwrap();
        std::fs::rename(files.folder.join("next"), files.folder.join("now")).unwrap();
    };
    link(&versions("first"));
    let (chain, key) = (files.path("now/own.pem"), files.path("now/own.key"));
    let entry = format!("{{ chain = {chain:?}, key = {key:?} }}");
    let gateway = secured(&origin, &[entry]).workers(2).start();
    let serial = || {
        let script = format!("{}/../tests/e2e/tls/tls.py", env!("CARGO_MANIFEST_DIR"));
        let (port, ca) = (gateway.address().port().to_string(), files.path("ca.pem"));
        text_of(crate::clients::PYTHON, &["-I", &script, "certificate", &port, &ca])
    };
    let Some(first) = serial() else { return };

    link(&versions("second"));
    gateway.wait_for_metric(APPLIED, 1.0);
    let second = serial().unwrap();
    assert_ne!(first, second);

    // A key that is another's: the pair stays, and it is said.
    std::fs::copy(files.path("first/own.key"), files.path("second/own.key")).unwrap();
    gateway.wait_for_metric(REFUSED, 1.0);
    assert_eq!(serial().unwrap(), second);
    until("it to be said", || gateway.log().contains("still as it was: "));
    assert!(gateway.log().contains("is not the key of"));

    // And whole again, in place.
    std::fs::copy(files.path("first/own.pem"), files.path("second/own.pem")).unwrap();
    gateway.wait_for_metric(APPLIED, 2.0);
    assert_eq!(serial().unwrap(), first);

    // The folder goes, and comes back with another pair.
    std::fs::remove_dir_all(files.folder.join("second")).unwrap();
    gateway.wait_for_metric(REFUSED, 2.0);
    assert_eq!(serial().unwrap(), first);
    versions("second");
    gateway.wait_for_metric(APPLIED, 3.0);
    let third = serial().unwrap();
    assert!(third != first && third != second);
}

#[test]
fn one_listener_speaks_tls_and_another_does_not() {
    let (origin, files) = (Origin::saying("hello"), Files::new());
    let secured = secured(&origin, &[files.server(&["localhost"])]).start();
    let plain = set_up().to(&[origin.address]).start();
    assert_eq!(plain.get("/").text(), "hello");
    assert_eq!(secured.get("/").status, 400, "plain HTTP where TLS is spoken");
    until("it to be counted", || {
        secured.metric("gateway_tls_handshake_failures_total{reason=\"plain_http\"}") == 1.0
    });
}
