//! What `gateway explain` says of the examples.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::binary;

#[track_caller]
fn says(example: &str, arguments: &[&str], expected: &[&str]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    static CERTIFICATES: OnceLock<()> = OnceLock::new();
    let certificates = Path::new(folder).join("target/certs");
    CERTIFICATES.get_or_init(|| certs::write_examples(&certificates).unwrap());
    let config = format!("config/examples/{example}.toml");
    let output = Command::new(binary())
        .current_dir(folder)
        .args(["explain", "--config", &config])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let said: Vec<_> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(said, expected);
}

#[test]
fn which_policies_and_what_they_say() {
    let listener = "listener 127.0.0.1:8080";
    says(
        "access",
        &["GET", "http://localhost:8080/admin/x", "-H", "User-Agent: ${jndi:ldap://x}"],
        &[listener, "policy blocked: lets it pass", "policy patches: 403, rule patches:log4shell"],
    );
    says(
        "access",
        &["GET", "http://localhost:8080/admin/x", "--from", "192.0.2.7"],
        &[listener, "policy blocked: 403, address not let in"],
    );
    says(
        "limits",
        &["GET", "http://localhost:8080/hello"],
        &[
            listener,
            "policy per_client: lets it pass",
            "route routes[1] /hello",
            "limits a body of 10MiB at most",
            "answer 200, by routes[1].respond",
        ],
    );
}

#[test]
fn who_shows_which_key() {
    let listener = "listener 127.0.0.1:8080";
    let url = "http://localhost:8080/hello";
    says("keys", &["GET", url], &[listener, "policy keys: 401, no credentials"]);
    says(
        "keys",
        &["GET", url, "-H", "Authorization: Bearer alice"],
        &[listener, "policy keys: 401, wrong credentials"],
    );
    says(
        "keys",
        &["GET", url, "-H", "Authorization: Bearer bobs-new-key"],
        &[
            listener,
            "policy keys: lets it pass",
            "policy per_key: lets it pass",
            "route routes[1] /hello",
            "limits a body of 10MiB at most",
            "answer 200, by routes[1].respond",
        ],
    );
}

#[test]
fn who_shows_a_password() {
    let listener = "listener 127.0.0.1:8080";
    let url = "http://localhost:8080/hello";
    says("passwords", &["GET", url], &[listener, "policy staff: 401, no credentials"]);
    says(
        "passwords",
        &["GET", url, "-H", "Authorization: Basic YWxpY2U6b3Blbi1zZXNhbWU="],
        &[
            listener,
            "policy staff: takes its time, and then lets it pass or not",
            "route routes[1] /hello",
            "limits a body of 10MiB at most",
            "answer 200, by routes[1].respond",
        ],
    );
}

#[test]
fn who_shows_a_token() {
    let listener = "listener 127.0.0.1:8080";
    let url = "http://localhost:8080/hello";
    let token = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/examples/token.txt");
    let token = std::fs::read_to_string(token).unwrap();
    let field = format!("Authorization: Bearer {}", token.trim());
    says("tokens", &["GET", url], &[listener, "policy users: 401, no credentials"]);
    says(
        "tokens",
        &["GET", url, "-H", &field],
        &[
            listener,
            "policy users: lets it pass",
            "policy per_user: lets it pass",
            "route routes[1] /hello",
            "limits a body of 10MiB at most",
            "answer 200, by routes[1].respond",
        ],
    );
    let expired = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjIwMjYtMDEiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUuY29tLyIsImF1ZCI6Im9yZGVycyIsInN1YiI6ImFsaWNlIiwiZXhwIjoxNzY3MjI1NjAwLCJzY29wZSI6Im9yZGVyczpyZWFkIn0.RWBPP2SVIropSI9lfTE62fa-xY5PARap5T-HAm20XQdy7F6T582xnSss98D1aYMqZ7gXtSUMconj_OTSa5UjbQ";
    for (field, said) in [
        (&field[..field.len() - 1], "malformed token"),
        (&field.replace('.', ".A"), "token's signature is wrong"),
        (&format!("Authorization: Bearer {expired}"), "token has expired"),
    ] {
        says(
            "tokens",
            &["GET", url, "-H", field],
            &[listener, &format!("policy users: 401, {said}")],
        );
    }
}

#[test]
fn who_is_known_to_which() {
    let listener = "listener 127.0.0.1:8080";
    let url = "http://localhost:8080/hello";
    let (keys, people) = ("one of programs: 401", "one of people: 401");
    says(
        "either",
        &["GET", url, "-H", "X-Api-Key: typo"],
        &[
            listener,
            &format!("{keys}, wrong credentials"),
            &format!("{people}, no credentials"),
            "policy known: 401, wrong credentials",
        ],
    );
    says(
        "either",
        &["GET", url, "-H", "X-Api-Key: bobs-new-key"],
        &[
            listener,
            "one of programs: lets it pass",
            &format!("{people}, no credentials"),
            "policy known: lets it pass",
            "policy per_caller: lets it pass",
            "route routes[0] /hello",
            "limits a body of 10MiB at most",
            "answer 200, by routes[0].respond",
        ],
    );
}

#[test]
fn which_route_and_why_not_another() {
    let listener = "listener 127.0.0.1:8080";
    let limits = "limits a body of 10MiB at most";
    says(
        "canary",
        &["GET", "http://localhost:8080/orders/7"],
        &[
            listener,
            "not routes[1] /orders/*: header x-version does not fit",
            "route routes[0] /orders/*",
            limits,
            "upstream orders-v1, 90 of 100: p2c among 127.0.0.1:9001",
            "upstream orders-v2, 10 of 100: p2c among 127.0.0.1:9002",
        ],
    );
    says(
        "canary",
        &["GET", "http://localhost:8080/orders/7", "-H", "X-Version: 2"],
        &[
            listener,
            "route routes[1] /orders/*",
            limits,
            "upstream orders-v2: p2c among 127.0.0.1:9002",
        ],
    );
    says(
        "canary",
        &["PUT", "http://localhost:8080/shop/order/7"],
        &[
            listener,
            "not routes[2] ~/shop/order/(?<id>[0-9]+): method is another",
            "route none: 405, with Allow",
        ],
    );
    says(
        "canary",
        &["GET", "http://localhost:8080/shop/order/7"],
        &[
            listener,
            "route routes[2] ~/shop/order/(?<id>[0-9]+)",
            limits,
            "answer 301, to /orders/7",
        ],
    );
    says("canary", &["GET", "http://localhost:8080/"], &[listener, "route none: 404"]);
    says(
        "canary",
        &["G T", "http://localhost:8080/"],
        &[listener, "answer 400: invalid start line"],
    );
}

#[test]
fn what_an_answer_is_made_of() {
    says(
        "compose",
        &["GET", "http://localhost:8080/pages/orders/7"],
        &[
            "listener 127.0.0.1:8080",
            "route routes[0] ~/pages/orders/(?<id>[0-9]+)",
            "limits a body of 10MiB at most",
            "part customer: GET /customers/{part:order.customer} of services in 5s, after order",
            "part hours: GET /hours of services in 500ms, or null",
            "part order: GET /orders/7 of services in 5s",
            "timeout 3s for the whole exchange",
        ],
    );
    says(
        "failover",
        &["GET", "http://localhost:8080/"],
        &[
            "listener 127.0.0.1:8080",
            "route routes[0] /*",
            "limits a body of 10MiB at most",
            "upstream app: least_connections among 127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003, \
             127.0.0.1:9004",
            "health GET / every 2s: down after 3 that fail, up after 2",
            "connections 200 to each endpoint at most, 1024 more wait for 1s",
            "timeout 30s for the whole exchange",
            "fallback 503, by routes[0].fallback",
        ],
    );
}

#[test]
fn listeners_and_policies() {
    let listener = "listener 127.0.0.1:8443 with tls \"public\"";
    let hsts = "policy hsts: lets it pass";
    says(
        "mtls",
        &["GET", "https://localhost:8443/internal/"],
        &[
            listener,
            hsts,
            "route routes[0] /internal/*",
            "policy staff: 403, no client certificate",
        ],
    );
    says(
        "mtls",
        &["GET", "https://localhost:8443/a//b"],
        &[
            listener,
            hsts,
            "route routes[1] /*",
            "answer 400: empty segment in the path; allow_in_path of the route would take it",
        ],
    );
    says(
        "mtls",
        &["GET", "http://localhost:8080/"],
        &["listener 127.0.0.1:8080", "redirect 308 to HTTPS at port 8443"],
    );
    says("mtls", &["GET", "http://localhost:8443/"], &["listener 127.0.0.1:8443 speaks TLS: 400"]);
}

#[test]
fn what_becomes_of_a_connection() {
    let ask = |from: &str, source: &str, ends: bool| {
        let rest = [
            "route routes[0] /*",
            "limits a body of 1MiB at most",
            "upstream app: p2c among 10.0.0.11:8000, 10.0.0.12:8000, 10.0.0.13:8000",
        ];
        let rest = if ends { &rest[..0] } else { &rest[..] };
        let expected = [&["listener 0.0.0.0:80", source], rest].concat();
        says("xdp", &["GET", "http://localhost/", "--from", from], &expected);
    };
    let denied = "source 203.0.113.9: denied by 203.0.113.0/24 (xdp.deny, they only ever scan)";
    ask("203.0.113.9", denied, true);
    ask("127.0.0.1", "source 127.0.0.1: allowed by 127.0.0.0/8 (loopback)", false);
    ask("192.0.2.1", "source 192.0.2.1: 50/s new connections after 200; 100 open at once", false);
    ask(
        "198.51.100.1",
        "source 198.51.100.1: 50/s new connections after 200; 1000 open at once of class \"offices\" by \
         198.51.100.0/24 (xdp.classes.offices.networks)",
        false,
    );
}
