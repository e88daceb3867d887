//! Who may come in: tokens that somebody has signed, made by PyJWT.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;

use crate::clients::{PYTHON, has_module, script, text_of};
use crate::harness::{
    Gateway, Origin, Response, Setup, binary, closed_port, set_up, unique_path, until,
};

const FETCHED: &str = "gateway_key_fetches_total{result=\"fetched\"}";
const FAILED: &str = "gateway_key_fetches_total{result=\"failed\"}";
const OFFENCES: &str = "gateway_offences_total{offence=\"credentials\"}";

/// What `tokens.py` makes: the same of all tests, as making keys takes a while.
struct Tokens {
    made: Value,
    /// Where an attacker's keys would be.
    evil: Origin,
}

fn tokens() -> Option<&'static Tokens> {
    static TOKENS: OnceLock<Option<Tokens>> = OnceLock::new();
    let tokens = TOKENS.get_or_init(|| {
        if !has_module("jwt") || !has_module("cryptography") {
            return None;
        }
        let evil = Origin::saying("{}");
        let url = format!("http://{}", evil.address);
        let made = text_of(PYTHON, &["-I", &script("tokens.py"), &url])?;
        Some(Tokens { made: serde_json::from_str(&made).unwrap(), evil })
    });
    tokens.as_ref()
}

impl Tokens {
    fn text(&self, name: &str) -> &str {
        self.made[name].as_str().unwrap()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let all = self.made[name].as_object().unwrap();
        all.iter().map(|(name, token)| (name.as_str(), token.as_str().unwrap()))
    }

    fn right(&self) -> &str {
        self.made["right"]["RS256"].as_str().unwrap()
    }
}

/// Somebody who publishes keys, which can be exchanged.
struct Issuer {
    origin: Origin,
    answer: Arc<Mutex<String>>,
}

impl Issuer {
    fn new(set: &str) -> Self {
        Self::on(closed_port().1, set)
    }

    fn on(bound: socket2::Socket, set: &str) -> Self {
        let answer = Arc::new(Mutex::new(found(set)));
        let said = Arc::clone(&answer);
        let origin = Origin::start_on(bound, move |exchange| {
            exchange.body()?;
            let answer = said.lock().unwrap().clone();
            exchange.answer(&answer)
        });
        Self { origin, answer }
    }

    fn publish(&self, set: &str) {
        *self.answer.lock().unwrap() = found(set);
    }

    fn fail(&self) {
        *self.answer.lock().unwrap() =
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned();
    }

    /// Where a policy is to fetch them.
    fn keys(&self) -> String {
        format!("jwks_url = 'http://{}/keys.json'\nrefresh_min = '1h'", self.origin.address)
    }
}

fn found(set: &str) -> String {
    let length = set.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{set}")
}

/// A file that goes away with it.
struct Temporary(PathBuf);

impl Temporary {
    fn new(text: &str) -> Self {
        let path = unique_path("keys");
        put(&path, text);
        Self(path)
    }
}

impl Drop for Temporary {
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

fn set_up_with(origin: &Origin, lines: &str) -> Setup {
    set_up()
        .to(&[origin.address])
        .listener("policies = ['users']")
        .set("policies.users", &format!("kind = 'jwt'\n{lines}"))
}

/// All that can be asked of a token.
fn strict(origin: &Origin, keys: &str) -> Setup {
    set_up_with(
        origin,
        &format!(
            "{keys}
            algorithms = ['RS256', 'RS384', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']
            issuer = 'https://id.example.com/'
            audience = ['orders', 'invoices']
            claims = {{ tenant = 'a', level = [6, 7], '/realm_access/roles' = 'ops' }}
            scopes = ['orders:write', 'orders:read']
            identity_field = 'X-User'
            claim_fields = {{ email = 'X-Email', level = 'X-Level', missing = 'X-Missing' }}"
        ),
    )
}

fn ask(gateway: &Gateway, token: &str) -> Response {
    let spoofed =
        "X-User: root\r\nX-Email: root@example.com\r\nX-Missing: 1\r\nConnection: x-level";
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{spoofed}\r\nAuthorization: Bearer {token}");
    gateway.client().send(format!("{head}\r\n\r\n")).response()
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    ask(gateway, token).status
}

#[test]
fn tokens_let_in_and_the_origin_is_told_whose() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new(tokens.text("first")));
    let gateway = strict(&origin, &issuer.keys()).set("access_log", "format = 'json'").start();
    // Of each a second time, which then costs no signature.
    for (name, token) in tokens.all("right").chain(tokens.all("right")) {
        assert_eq!(ask(&gateway, token).status, 200, "{name}: {}", gateway.log());
    }
    let requests = origin.requests();
    for request in &requests {
        assert_eq!(request.fields.all("x-user"), ["alice"]);
        assert_eq!(request.fields.all("x-email"), ["alice@example.com"]);
        assert_eq!(request.fields.all("x-level"), ["7"]);
        assert_eq!(request.fields.one("x-missing"), None);
        assert_eq!(request.fields.one("authorization"), None);
    }
    let asked = issuer.origin.request();
    assert_eq!((asked.target.as_str(), asked.field("accept")), ("/keys.json", "application/json"));
    let log = gateway.stop();
    let told = log.lines().filter(|line| line.contains(r#""identity":"alice""#)).count();
    assert_eq!(told, requests.len());
}

#[test]
fn claims_become_part_of_other_values() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new(tokens.text("first")));
    let gateway = strict(&origin, &issuer.keys())
        .listener("policies = ['users', 'fields']")
        .set("policies.fields", "kind = 'headers'")
        .set_more(
            "policies.fields",
            "request.set.X-Tenant = '{claim:tenant}-{claim:level}-{claim:none}'",
        )
        .set_more("policies.fields", "request.set.X-Roles = '{claim:/realm_access/roles}'")
        .start();
    assert_eq!(status(&gateway, tokens.right()), 200);
    let request = origin.request();
    assert_eq!(request.field("x-tenant"), "a-7-");
    assert_eq!(request.field("x-roles"), r#"["ops","staff"]"#);
}

#[test]
fn what_is_wrong_with_a_token_lets_nobody_in() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new(tokens.text("first")));
    let gateway = strict(&origin, &issuer.keys()).start();
    assert_eq!(status(&gateway, tokens.right()), 200);
    let mut count = 0.0;
    for (name, token) in tokens.all("wrong") {
        let refused = ask(&gateway, token);
        assert_eq!(refused.status, 401, "{name}");
        let challenge = refused.field("www-authenticate");
        let expected = "Bearer realm=\"gateway\", error=\"invalid_token\", error_description=\"";
        assert!(challenge.starts_with(expected), "{name}: {challenge}");
        // Who was right, and is late, has done nothing wrong, nor who may know a newer key.
        let in_good_faith = challenge.contains("expired") || challenge.contains("unknown key");
        count += if in_good_faith { 0.0 } else { 1.0 };
    }
    assert_eq!(gateway.metric(OFFENCES), count);
    for (name, token) in tokens.all("scopeless") {
        let refused = ask(&gateway, token);
        assert_eq!(refused.status, 403, "{name}");
        let challenge = refused.field("www-authenticate");
        let more = "error=\"insufficient_scope\", scope=\"orders:write orders:read\"";
        assert_eq!(challenge, format!("Bearer realm=\"gateway\", {more}"));
    }
    assert_eq!(gateway.get("/").field("www-authenticate"), "Bearer realm=\"gateway\"");
    let twice = format!("{0}\r\nAuthorization: Bearer {0}", tokens.right());
    assert_eq!(status(&gateway, &twice), 401);
    assert_eq!(origin.requests().len(), 1);
    // Nobody asked where the tokens said, and only once where keys are.
    assert!(tokens.evil.requests().is_empty());
    assert_eq!(issuer.origin.requests().len(), 2);
    assert_eq!(gateway.metric(OFFENCES), count + 1.0);
}

#[test]
fn a_key_that_is_new_is_fetched_when_somebody_shows_it() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new(tokens.text("first")));
    let gateway = strict(&origin, &issuer.keys()).workers(2).start();
    assert_eq!(status(&gateway, tokens.right()), 200);
    issuer.publish(tokens.text("second"));
    // The request that shows it waits for it.
    let shown = ask(&gateway, tokens.text("next"));
    assert_eq!(shown.status, 200, "{:?}", shown.field("www-authenticate"));
    // One that is gone counts nowhere, not even where it was remembered.
    until("every worker to know", || (0..8).all(|_| status(&gateway, tokens.right()) == 401));
    assert_eq!(status(&gateway, tokens.text("next")), 200);
    assert_eq!(gateway.metric(FETCHED), 2.0);
}

#[test]
fn unknown_keys_are_not_asked_for_as_often_as_somebody_likes() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new(tokens.text("first")));
    let gateway = strict(&origin, &issuer.keys()).start();
    assert_eq!(status(&gateway, tokens.right()), 200);
    let mut clients: Vec<_> = Vec::new();
    for token in tokens.made["unknown"].as_array().unwrap() {
        let mut client = gateway.client();
        let token = token.as_str().unwrap();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
        clients.push(client);
    }
    assert!(clients.iter_mut().all(|client| client.response().status == 401));
    assert_eq!(issuer.origin.requests().len(), 2);
    assert_eq!(status(&gateway, tokens.right()), 200);
}

#[test]
fn keys_stay_while_their_source_is_down() {
    let Some(tokens) = tokens() else { return };
    let (address, reserved) = closed_port();
    let origin = Origin::saying("hello");
    let keys = format!("jwks_url = 'http://{address}/'");
    let setup = || {
        set_up_with(&origin, &format!("{keys}\nalgorithms = ['RS256']\nrefresh = '1s'"))
            .set_more("policies.users", "refresh_min = '1s'")
    };
    let gateway = setup().start();
    let refused = ask(&gateway, tokens.right());
    assert_eq!((refused.status, refused.field("retry-after")), (503, "5"));
    assert_eq!(gateway.get("/").status, 401);
    until("it to be said", || gateway.log().contains("requests with a token get 503"));

    let issuer = Issuer::on(reserved, tokens.text("first"));
    until("keys to be there", || status(&gateway, tokens.right()) == 200);

    issuer.fail();
    let failed = gateway.metric(FAILED);
    until("a fetch to fail", || gateway.metric(FAILED) > failed);
    assert_eq!(status(&gateway, tokens.right()), 200);
    until("it to be said", || {
        gateway.log().contains("it answered 500; the keys it had stay in use")
    });
    // They stay as well when something else about the policy changes.
    gateway.reload(setup().set_more("policies.users", "leeway = '5s'"));
    until("every worker to know", || gateway.log().contains("configuration reloaded"));
    assert_eq!(status(&gateway, tokens.right()), 200);
    for nonsense in ["", "{", "[]", r#"{"keys": 1}"#, r#"{"keys": []}"#, "{\"keys\": [{}, 7]}"] {
        issuer.publish(nonsense);
        let failed = gateway.metric(FAILED);
        until("a fetch to fail", || gateway.metric(FAILED) > failed);
        assert_eq!(status(&gateway, tokens.right()), 200);
    }
    issuer.publish(tokens.text("second"));
    until("other keys to count", || status(&gateway, tokens.text("next")) == 200);
}

#[test]
fn keys_that_are_required_are_there_or_nothing_starts() {
    let Some(tokens) = tokens() else { return };
    let (address, reserved) = closed_port();
    let origin = Origin::saying("hello");
    let lines = format!(
        "jwks_url = 'http://{address}/'\nalgorithms = ['ES256']\nrequired = true\n\
         issuer = 'https://id.example.com/'"
    );
    let file = Temporary::new(&format!(
        "listeners = [{{ address = '127.0.0.1:0', policies = ['users'] }}]
        routes = [{{ respond = {{}} }}]
        [policies.users]\nkind = 'jwt'\n{lines}"
    ));
    let run = Command::new(binary()).arg("run").arg("--config").arg(&file.0).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("policies.users: cannot fetch http://"), "{said}");
    assert!(said.contains("and required is true: "), "{said}");
    let _issuer = Issuer::on(reserved, tokens.text("first"));
    let gateway = set_up_with(&origin, &lines).start();
    let right = tokens.made["right"]["ES256"].as_str().unwrap();
    assert_eq!(status(&gateway, right), 200);
    // Nor does a configuration count that asks for others.
    let (nobody, _reserved) = closed_port();
    let other = lines.replace(&address.to_string(), &nobody.to_string());
    gateway.reload(set_up_with(&origin, &other));
    assert_eq!(gateway.metric("gateway_reloads_total{result=\"refused\"}"), 1.0);
    assert_eq!(status(&gateway, right), 200);
}

#[test]
fn what_is_no_set_is_asked_for_again_soon() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new("{}"));
    let gateway = strict(&origin, &issuer.keys().replace("'1h'", "'1s'")).start();
    until("it to fail twice", || gateway.metric(FAILED) >= 2.0);
    issuer.publish(tokens.text("first"));
    until("it to be right", || gateway.metric(FETCHED) >= 1.0);
    assert_eq!(status(&gateway, tokens.right()), 200);
}

#[test]
fn keys_count_for_as_long_as_their_source_says() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new(tokens.text("first")));
    let publish = |name: &str| {
        let lasting = "\r\nCache-Control: public, max-age=1\r\n";
        *issuer.answer.lock().unwrap() = found(tokens.text(name)).replacen("\r\n", lasting, 1);
    };
    publish("first");
    let keys = issuer.keys().replace("'1h'", "'1s'");
    let gateway = strict(&origin, &format!("{keys}\nrefresh = '7d'")).start();
    assert_eq!(status(&gateway, tokens.right()), 200);
    publish("second");
    // Nobody has to ask for it. One fetch may have been on its way.
    let fetched = gateway.metric(FETCHED);
    until("two more fetches", || gateway.metric(FETCHED) >= fetched + 2.0);
    assert_eq!(status(&gateway, tokens.right()), 401);
    assert_eq!(status(&gateway, tokens.text("next")), 200);
}

#[test]
fn keys_are_fetched_by_tls_from_who_can_prove_it() {
    let Some(tokens) = tokens() else { return };
    let (origin, issuer) = (Origin::saying("hello"), Issuer::new(tokens.text("first")));
    let files = crate::tls::Files::new();
    let secure = crate::tls::secured(&issuer.origin, &[files.server(&["localhost"])]).start();
    let port = secure.address().port();
    let ca = files.path("ca.pem");
    let from = |host: &str| {
        let url = format!("jwks_url = 'https://{host}:{port}/k?v=1'\njwks_ca = {ca:?}");
        strict(&origin, &url).start()
    };
    let gateway = from("localhost");
    assert_eq!(status(&gateway, tokens.right()), 200);
    assert_eq!(issuer.origin.request().target, "/k?v=1");
    let gateway = from("127.0.0.1");
    assert_eq!(status(&gateway, tokens.right()), 503);
    until("it to be said", || gateway.log().contains("TLS: "));
}

#[test]
fn a_file_of_keys_counts_when_it_changes() {
    let Some(tokens) = tokens() else { return };
    let origin = Origin::saying("hello");
    let file = Temporary::new(tokens.text("first"));
    let gateway = strict(&origin, &format!("jwks_file = {:?}", file.0)).start();
    assert_eq!(
        (status(&gateway, tokens.right()), status(&gateway, tokens.text("next"))),
        (200, 401)
    );
    put(&file.0, "{}");
    gateway.wait_for_metric("gateway_file_reloads_total{result=\"refused\"}", 1.0);
    assert_eq!(status(&gateway, tokens.right()), 200);
    put(&file.0, tokens.text("second"));
    until("the other key to count", || status(&gateway, tokens.text("next")) == 200);
    assert_eq!(status(&gateway, tokens.right()), 401);
    // What has no name may be meant by any token that names none.
    put(&file.0, tokens.text("nameless"));
    let nameless = tokens.made["right"]["no kid"].as_str().unwrap();
    until("the first key to count", || status(&gateway, nameless) == 200);
    assert_eq!(status(&gateway, tokens.right()), 401);
}

#[test]
fn a_secret_verifies_only_what_is_signed_by_it() {
    let Some(tokens) = tokens() else { return };
    let origin = Origin::saying("hello");
    let file = Temporary::new(&format!("{}\n", tokens.text("secret")));
    let lines = format!(
        "secret_file = {:?}\nalgorithms = ['HS256']\nissuer = 'https://id.example.com/'",
        file.0
    );
    let gateway = set_up_with(&origin, &lines).start();
    assert_eq!(status(&gateway, tokens.text("HS256")), 200);
    for token in [tokens.right(), tokens.text("HS512"), tokens.text("HS256 by another")] {
        assert_eq!(status(&gateway, token), 401);
    }
    assert!(tokens.all("wrong").all(|(_, token)| status(&gateway, token) == 401));
}

#[test]
fn a_token_may_be_elsewhere_and_of_a_type() {
    let Some(tokens) = tokens() else { return };
    let (origin, file) = (Origin::saying("hello"), Temporary::new(tokens.text("first")));
    let lines = format!(
        "jwks_file = {:?}\nalgorithms = ['RS256']\ntype = 'application/AT+jwt'\n\
         from = ['header:X-Token', 'cookie:session']\nidentity = '/realm_access/roles/1'\n\
         identity_field = 'X-User'",
        file.0
    );
    let gateway = set_up_with(&origin, &lines).set("access_log", "format = 'json'").start();
    let ask = |field: String| {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        gateway.client().send(head).response().status
    };
    let token = tokens.text("access");
    assert_eq!(ask(format!("X-Token: {token}")), 200);
    assert_eq!(ask(format!("Cookie: a=b; session={token}")), 200);
    assert_eq!(ask(format!("Authorization: Bearer {token}")), 401);
    assert_eq!(ask(format!("X-Token: {}", tokens.right())), 401);
    let requests = origin.requests();
    assert!(requests.iter().all(|request| request.field("x-user") == "staff"));
    assert_eq!(requests[0].fields.one("x-token"), None);
    assert_eq!(requests[1].fields.all("cookie"), ["a=b"]);
    assert!(!gateway.stop().contains(token));
}

#[test]
fn each_tenant_has_its_own_rate() {
    let Some(tokens) = tokens() else { return };
    let (origin, file) = (Origin::saying("hello"), Temporary::new(tokens.text("first")));
    let gateway =
        set_up_with(&origin, &format!("jwks_file = {:?}\nalgorithms = ['RS256']", file.0))
            .listener("policies = ['users', 'each']")
            .set("policies.each", "kind = 'rate_limit'\nkey = 'claim:tenant'\nlimits = ['2/h']")
            .start();
    let (alice, bob, again) = (tokens.right(), tokens.text("bob"), tokens.text("access"));
    let statuses = [alice, again, alice, bob, bob, bob].map(|token| status(&gateway, token));
    assert_eq!(statuses, [200, 200, 429, 200, 200, 429]);
}
