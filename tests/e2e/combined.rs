//! Who may come in: whom one of several policies knows.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Gateway, Origin, Response, Setup, set_up};

/// The key, the password and the token of the examples.
const KEY: &str = "X-Api-Key: bobs-new-key";

fn password(credentials: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(credentials))
}

fn token() -> String {
    let token = fs::read_to_string(example("token.txt")).unwrap();
    format!("Authorization: Bearer {}", token.trim())
}

fn example(name: &str) -> String {
    format!("{}/../config/examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn three(origin: &Origin) -> Setup {
    let (keys, passwords, set) =
        (example("keys.txt"), example("passwords.txt"), example("keys.json"));
    set_up()
        .to(&[origin.address])
        .listener("policies = ['known']")
        .set("policies.known", "kind = 'any'\nof = ['keys', 'staff', 'users']")
        .set("policies.keys", &format!("kind = 'api_key'\nfile = {keys:?}"))
        .set_more("policies.keys", "identity_field = 'X-Key'")
        .set("policies.staff", &format!("kind = 'basic'\nfile = {passwords:?}\nrealm = 'staff'"))
        .set_more("policies.staff", "identity_field = 'X-Staff'")
        .set(
            "policies.users",
            &format!("kind = 'jwt'\njwks_file = {set:?}\nalgorithms = ['ES256']"),
        )
        .set_more(
            "policies.users",
            "identity_field = 'X-User'\nclaim_fields = { email = 'X-Email' }",
        )
}

fn ask(gateway: &Gateway, fields: &[&str]) -> Response {
    let spoofed = "X-Key: root\r\nX-Staff: root\r\nX-User: root\r\nX-Email: root";
    let fields = fields.join("\r\n");
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{spoofed}\r\n{fields}\r\n\r\n");
    gateway.client().send(head).response()
}

#[test]
fn whom_one_of_them_knows_is_let_in_by_that_name_alone() {
    let origin = Origin::saying("hello");
    let gateway = three(&origin).set("access_log", "format = 'json'").start();
    let (right, wrong, token) = (password("bob:correct-horse"), password("bob:x"), token());
    for (fields, expected) in [
        (&[KEY][..], ("x-key", "bob")),
        (&[&right], ("x-staff", "bob")),
        (&[&token], ("x-user", "alice")),
        // What does not count is nothing to the origin either.
        (&["X-Api-Key: typo", &right], ("x-staff", "bob")),
        (&["X-Api-Key: typo", &token], ("x-user", "alice")),
        (&[KEY, &wrong], ("x-key", "bob")),
        (&[KEY, &token], ("x-key", "bob")),
    ] {
        let response = ask(&gateway, fields);
        assert_eq!((response.status, response.fields.one("www-authenticate")), (200, None));
        let request = origin.requests().pop().unwrap();
        let told: Vec<_> = ["x-key", "x-staff", "x-user"]
            .into_iter()
            .filter_map(|name| Some((name, request.fields.one(name)?)))
            .collect();
        assert_eq!(told, [expected], "{fields:?}");
        let email = (expected.0 == "x-user").then_some("alice@example.com");
        assert_eq!(request.fields.one("x-email"), email);
        assert_eq!(request.fields.one("authorization"), None);
        assert_eq!(request.fields.one("x-api-key"), None);
    }
    let passed = |policy: &str| {
        let series = "gateway_policy_requests_total{policy=";
        gateway.metric(&format!("{series}\"{policy}\",verdict=\"passed\"}}"))
    };
    assert_eq!(["keys", "staff", "users", "known"].map(passed), [3.0, 2.0, 2.0, 7.0]);
    assert_eq!(gateway.metric("gateway_offences_total{offence=\"credentials\"}"), 0.0);
    let log = gateway.stop();
    assert_eq!(log.matches(r#""identity":"alice""#).count(), 2, "{log}");
    assert!(!log.contains("\"error\":\""), "{log}");
}

#[test]
fn whom_none_of_them_knows_is_told_what_each_wants() {
    let origin = Origin::saying("hello");
    let gateway = three(&origin).start();
    let challenges = [
        "ApiKey realm=\"gateway\", in=\"header\", name=\"x-api-key\"",
        "Basic realm=\"staff\", charset=\"UTF-8\"",
        "Bearer realm=\"gateway\"",
    ];
    let offences = "gateway_offences_total{offence=\"credentials\"}";
    let nothing = ask(&gateway, &[]);
    assert_eq!(
        (nothing.status, nothing.fields.all("www-authenticate")),
        (401, challenges.to_vec())
    );
    assert_eq!(gateway.metric(offences), 0.0);
    let wrong = password("bob:x");
    for fields in [&["X-Api-Key: typo"][..], &[&wrong], &["X-Api-Key: typo", &wrong]] {
        let refused = ask(&gateway, fields);
        assert_eq!(refused.status, 401);
        assert_eq!(refused.fields.all("www-authenticate"), challenges);
    }
    assert_eq!(gateway.metric(offences), 3.0);
    let forged = ask(&gateway, &[&token()[..200]]);
    assert_eq!(forged.fields.all("www-authenticate")[..2], challenges[..2]);
    assert!(forged.fields.all("www-authenticate")[2].contains("error=\"invalid_token\""));
    assert!(origin.requests().is_empty());
}

#[test]
fn who_is_known_and_may_not_is_told_so() {
    let origin = Origin::saying("hello");
    let gateway = three(&origin).set_more("policies.users", "scopes = ['orders:write']").start();
    let refused = ask(&gateway, &[&token()]);
    assert_eq!(refused.status, 403);
    let asked = refused.fields.all("www-authenticate");
    assert!(asked.iter().any(|one| one.contains("error=\"insufficient_scope\"")), "{asked:?}");
    assert_eq!(ask(&gateway, &[&token(), KEY]).status, 200);
}

#[test]
fn all_of_several_is_a_list_of_them() {
    let origin = Origin::saying("hello");
    let gateway = three(&origin).listener("policies = ['users', 'keys']").start();
    assert_eq!(ask(&gateway, &[&token()]).status, 401);
    assert_eq!(ask(&gateway, &[KEY]).status, 401);
    assert_eq!(ask(&gateway, &[KEY, &token()]).status, 200);
    let request = origin.request();
    assert_eq!((request.field("x-user"), request.field("x-key")), ("alice", "bob"));
}

#[test]
fn some_of_several_may_have_to_know_whom_they_let_in_together() {
    let origin = Origin::saying("hello");
    let gateway = three(&origin)
        .set("policies.known", "kind = 'any'\nof = [['keys', 'users'], 'staff']")
        .set_more("policies.keys", "metrics = true")
        .set_more("policies.staff", "metrics = true")
        .set("access_log", "format = 'json'")
        .start();
    let (password, token) = (password("bob:correct-horse"), token());
    for (fields, told) in [
        (&[KEY, &token][..], Some([Some("bob"), None, Some("alice")])),
        (&[&password], Some([None, Some("bob"), None])),
        (&[KEY, &password], Some([None, Some("bob"), None])),
        (&[KEY], None),
        (&[&token], None),
    ] {
        let before = origin.requests().len();
        let status = ask(&gateway, fields).status;
        let served = origin.requests().get(before).cloned();
        let names = served
            .as_ref()
            .map(|served| ["x-key", "x-staff", "x-user"].map(|name| served.fields.one(name)));
        assert_eq!((status == 200, names), (told.is_some(), told), "{fields:?}");
        if let Some(served) = &served {
            assert_eq!(served.fields.one("authorization"), None);
            assert_eq!(served.fields.one("x-api-key"), None);
        }
    }
    // Whoever has not let in together with the others has not let in.
    let counted = ["keys", "staff"].map(|policy| {
        let labels = format!("policy=\"{policy}\",identity=\"bob\"");
        gateway.metric(&format!("gateway_identity_requests_total{{{labels}}}"))
    });
    assert_eq!(counted, [1.0, 2.0]);
    let log = gateway.stop();
    assert_eq!(log.matches(r#""identity":"bob""#).count(), 3, "{log}");
}
