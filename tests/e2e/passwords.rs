//! Who may come in: names and passwords.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clients::text_of;
use crate::harness::{Gateway, Origin, Setup, set_up, unique_path, until};

const APPLIED: &str = "gateway_file_reloads_total{result=\"applied\"}";

/// `secret`, by `argon2 somesalt -id -t 2 -m 8 -p 1 -l 32 -e`.
const ARGON2: &str =
    "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$pGAgPgkJ+esPqBoW9JTt6WhwKYDSed0z8JpcGysy3V0";

/// A line as `htpasswd -B -C COST` makes it.
fn line(name: &str, password: &str, cost: u32) -> String {
    let hash = bcrypt::hash_with_salt(password, cost, [7; 16]).unwrap();
    format!("{name}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
}

/// A file of passwords that goes away with it.
struct Passwords(PathBuf);

impl Passwords {
    fn new(text: &str) -> Self {
        let path = unique_path("htpasswd");
        put(&path, text);
        Self(path)
    }

    fn gateway(&self, origin: &Origin) -> Setup {
        let Self(path) = self;
        set_up()
            .to(&[origin.address])
            .listener("policies = ['staff']")
            .set("policies.staff", &format!("kind = 'basic'\nfile = {path:?}"))
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Replaces a file in one step.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, path).unwrap();
}

fn request(credentials: &str) -> String {
    let credentials = STANDARD.encode(credentials);
    format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-User: root\r\nAuthorization: Basic {credentials}\r\n\r\n"
    )
}

fn status(gateway: &Gateway, credentials: &str) -> u16 {
    gateway.client().send(request(credentials)).response().status
}

#[test]
fn passwords_let_in_and_the_origin_is_told_whose() {
    let origin = Origin::saying("hello");
    let passwords = Passwords::new(&format!("# staff\n{}bob:{ARGON2}\n", line("alice", "ü:", 4)));
    let gateway = passwords
        .gateway(&origin)
        .set_more("policies.staff", "identity_field = 'X-User'\nrealm = 'the staff'")
        .set_more("policies.staff", "metrics = true")
        .set("access_log", "format = 'json'")
        .start();
    let mut client = gateway.client();
    for credentials in ["alice:ü:", "bob:secret", "alice:ü:"] {
        assert_eq!(client.send(request(credentials)).response().text(), "hello");
    }
    let known: Vec<_> = origin.requests().iter().map(|it| it.field("x-user").to_owned()).collect();
    assert_eq!(known, ["alice", "bob", "alice"]);
    assert!(origin.requests().iter().all(|it| it.fields.one("authorization").is_none()));

    let wrong = ["alice:ü", "alice:", "bob:ü:", "carol:secret", ":secret", "alice", "al\u{0}:"];
    for credentials in wrong {
        let refused = gateway.client().send(request(credentials)).response();
        assert_eq!(refused.status, 401, "{credentials}");
        let asked = refused.field("www-authenticate");
        assert_eq!(asked, "Basic realm=\"the staff\", charset=\"UTF-8\"");
    }
    assert_eq!(gateway.get("/").status, 401);
    assert_eq!(gateway.metric("gateway_offences_total{offence=\"credentials\"}"), 7.0);
    assert_eq!(origin.requests().len(), 3);
    let series = "gateway_identity_requests_total{policy=\"staff\",identity=\"alice\"}";
    assert_eq!(gateway.metric(series), 2.0);
    let log = gateway.stop();
    assert_eq!(log.lines().filter(|line| line.contains(r#""identity":"alice""#)).count(), 2);
    assert!(log.contains(r#""error":"wrong credentials""#) && !log.contains("secret"), "{log}");
}

#[test]
fn curl_is_let_in() {
    let origin = Origin::saying("hello");
    let passwords = Passwords::new(&line("alice", "secret", 4));
    let gateway = passwords.gateway(&origin).start();
    let url = format!("http://{}/", gateway.address());
    let ask = |more: &[&str]| {
        text_of("curl", &[&["-sS", "-m", "20", "-w", "%{http_code}", &url], more].concat())
    };
    let Some(right) = ask(&["-u", "alice:secret"]) else { return };
    assert_eq!(right, "hello200");
    assert!(ask(&["-u", "alice:Secret"]).unwrap().ends_with("401"));
    // It asks without a password first, and does as it is told.
    assert_eq!(ask(&["--anyauth", "-u", "alice:secret"]).unwrap(), "hello200");
}

#[test]
fn a_password_that_has_changed_is_forgotten() {
    let origin = Origin::saying("hello");
    let passwords = Passwords::new(&line("alice", "one", 4));
    let gateway = passwords.gateway(&origin).workers(2).start();
    assert_eq!(status(&gateway, "alice:one"), 200);
    put(&passwords.0, &line("alice", "two", 4));
    gateway.wait_for_metric(APPLIED, 1.0);
    until("every worker to know", || (0..8).all(|_| status(&gateway, "alice:one") == 401));
    assert_eq!(status(&gateway, "alice:two"), 200);
}

#[test]
fn who_is_known_comes_in_while_others_guess() {
    let origin = Origin::saying("hello");
    let passwords = Passwords::new(&line("alice", "secret", 8));
    let gateway = passwords.gateway(&origin).start();
    assert_eq!(status(&gateway, "alice:secret"), 200);
    let open = || gateway.metric("process_open_fds");
    let before = open();
    let mut guessing: Vec<_> = (0..120).map(|_| gateway.client()).collect();
    for (number, client) in guessing.iter_mut().enumerate() {
        client.send(request(&format!("alice:{number}")));
    }
    let answers: Vec<_> = guessing.iter_mut().rev().map(|client| client.response()).collect();
    assert_eq!(status(&gateway, "alice:secret"), 200);
    let busy: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(!busy.is_empty() && busy.iter().all(|answer| answer.field("retry-after") == "1"));
    let wrong = answers.iter().filter(|answer| answer.status == 401).count();
    assert!(wrong >= 64 && wrong + busy.len() == 120, "{wrong}");
    // Nothing stays of those that have waited, or have left meanwhile.
    for (number, client) in guessing.iter_mut().enumerate() {
        client.send(request(&format!("alice:{number}")));
    }
    until("passwords to be verified", || open() > before + 120.0);
    drop(guessing);
    until("all of it to be closed", || open() <= before);
    assert_eq!(status(&gateway, "alice:secret"), 200);
}
