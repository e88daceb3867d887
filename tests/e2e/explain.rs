//! What `gateway explain` says of the examples.

use std::process::Command;

use crate::examples::make_certificates;
use crate::harness::binary;

#[track_caller]
fn says(example: &str, arguments: &[&str], expected: &[&str]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    make_certificates();
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
    let blocked = "rule not from config/examples/networks.txt";
    let patches = "rule log4shell, traversal, union-select (only counted)";
    says(
        "access",
        &["GET", "http://localhost:8080/admin/x", "-H", "User-Agent: ${jndi:ldap://x}"],
        &[
            listener,
            "policy blocked: lets it pass",
            blocked,
            "policy patches: 403, rule patches:log4shell",
            patches,
        ],
    );
    says(
        "access",
        &["GET", "http://localhost:8080/admin/x", "--from", "192.0.2.7"],
        &[listener, "policy blocked: 403, address not let in", blocked],
    );
    let json = "rule methods GET, HEAD, POST; with x-tenant; bodies of application/json; bodies of \
                64KiB at most";
    let before = [
        listener,
        "policy blocked: lets it pass",
        blocked,
        "policy patches: lets it pass",
        patches,
        "route routes[1] /api/*",
    ];
    let rest = [
        "policy json: lets it pass",
        json,
        "limits a body of 64KiB at most",
        "upstream app: p2c among 127.0.0.1:9000",
    ];
    let url = "http://localhost:8080/api/x";
    says("access", &["GET", url, "-H", "X-Tenant: a"], &[&before[..], &rest].concat());
    let rest = ["policy json: 405, method not let in", json, "answer allow: GET, HEAD, POST"];
    says("access", &["PUT", url], &[&before[..], &rest].concat());
}

#[test]
fn which_limits() {
    let names = ["\"per_client 10/s\"", "\"per_client 300/m\""];
    let [fast, slow] = names;
    says(
        "limits",
        &["GET", "http://localhost:8080/search"],
        &[
            "listener 127.0.0.1:8080",
            "policy per_client: lets it pass",
            "rule 10/s after 20 and 300/m after 300, by client",
            &format!("answer ratelimit-policy: {fast};q=20;w=2, {slow};q=300;w=60"),
            &format!("answer ratelimit: {fast};r=19;t=1, {slow};r=299;t=1"),
            "route routes[0] /search",
            "policy strict: lets it pass",
            "rule 1/s after 1, by client and route, which is only counted",
            "policy search: lets it pass",
            "rule 4 in flight, by route, 8 more wait for 2s",
            "limits a body of 10MiB at most",
            "upstream app: p2c among 127.0.0.1:9000",
        ],
    );
}

#[test]
fn what_browsers_are_told() {
    let before = [
        "listener 127.0.0.1:8080",
        "policy security_headers: lets it pass",
        "answer x-content-type-options: nosniff",
        "answer referrer-policy: strict-origin-when-cross-origin",
        "answer x-frame-options: SAMEORIGIN",
        "answer content-security-policy: frame-ancestors 'self'",
        "answer cross-origin-opener-policy: same-origin-allow-popups",
        "answer permissions-policy: camera=(), geolocation=(), microphone=()",
        "policy cookies: lets it pass",
        "rule cookies of answers get SameSite=Lax; HttpOnly; Secure over HTTPS only",
        "policy public: lets it pass",
        "request X-Client: 127.0.0.1",
        "request X-Route: localhost/api/x",
        "answer without Server",
        "answer without X-Powered-By",
        "route routes[0] /api/*",
    ];
    let rest = [
        "policy pages: answers 204",
        "rule pages of https://app.example.com or https://*.shop.example.com; \
         methods: GET, PUT, DELETE; headers: authorization, content-type",
        "answer without access-control-allow-private-network",
        "answer without access-control-expose-headers",
        "answer vary: Origin",
        "answer access-control-allow-origin: https://app.example.com",
        "answer access-control-allow-credentials: true",
        "answer access-control-allow-methods: GET, PUT, DELETE",
        "answer access-control-allow-headers: authorization, content-type",
        "answer access-control-max-age: 600",
        "answer vary: Access-Control-Request-Method, Access-Control-Request-Headers",
    ];
    let origin = "Origin: https://app.example.com";
    let method = "Access-Control-Request-Method: PUT";
    says(
        "browsers",
        &["OPTIONS", "http://localhost:8080/api/x", "-H", origin, "-H", method],
        &[&before[..], &rest].concat(),
    );
}

#[test]
fn who_is_asked_about_it() {
    says(
        "forward_auth",
        &["GET", "http://localhost:8080/orders"],
        &[
            "listener 127.0.0.1:8080",
            "route routes[0] /orders",
            "policy session: takes its time, and then lets it pass or not",
            "rule GET /verify of sessions in 5s, else 503, or what it said of late",
            "request without x-user",
            "limits a body of 10MiB at most",
            "answer 200, by routes[0].respond",
        ],
    );
}

#[test]
fn who_shows_which_key() {
    let listener = "listener 127.0.0.1:8080";
    let url = "http://localhost:8080/hello";
    let keys = "rule one of 3 keys as header:x-api-key or bearer";
    let asked = [
        "answer www-authenticate: ApiKey realm=\"gateway\", in=\"header\", name=\"x-api-key\"",
        "answer www-authenticate: Bearer realm=\"gateway\"",
    ];
    let before = [listener, "policy keys: 401, no credentials", keys, "request without x-user"];
    says("keys", &["GET", url], &[&before[..], &asked].concat());
    let stripped = ["request without x-user", "request without authorization"];
    let before = [listener, "policy keys: 401, wrong credentials", keys];
    says(
        "keys",
        &["GET", url, "-H", "Authorization: Bearer alice"],
        &[&before[..], &stripped, &asked].concat(),
    );
    says(
        "keys",
        &["GET", url, "-H", "X-Api-Key: alice-and-nobody-else"],
        &[
            listener,
            "policy keys: lets it pass",
            keys,
            "request without x-api-key",
            "request x-user: alice",
            "policy per_key: lets it pass",
            "rule 100/s after 100 and 100000/h after 100000, by identity, of alice",
            "answer ratelimit-policy: \"per_key 100/s\";q=100;w=1, \
             \"per_key 100000/h\";q=100000;w=3600",
            "answer ratelimit: \"per_key 100/s\";r=99;t=1, \"per_key 100000/h\";r=99999;t=1",
            "route routes[1] /hello",
            "limits a body of 10MiB at most",
            "answer 200, by routes[1].respond",
        ],
    );
    says(
        "keys",
        &["GET", url, "-H", "Authorization: Bearer bobs-new-key"],
        &[
            listener,
            "policy keys: lets it pass",
            keys,
            "request without authorization",
            "request x-user: bob",
            "policy per_key: lets it pass",
            "rule 10/s after 10, by identity",
            "answer ratelimit-policy: \"per_key\";q=10;w=1",
            "answer ratelimit: \"per_key\";r=9;t=1",
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
    let file = "rule the password of one of 2 in config/examples/passwords.txt";
    let unnamed = "request without x-user";
    let asked = "answer www-authenticate: Basic realm=\"staff\", charset=\"UTF-8\"";
    says(
        "passwords",
        &["GET", url],
        &[listener, "policy staff: 401, no credentials", file, unnamed, asked],
    );
    says(
        "passwords",
        &["GET", url, "-H", "Authorization: Basic YWxpY2U6b3Blbi1zZXNhbWU="],
        &[
            listener,
            "policy staff: takes its time, and then lets it pass or not",
            file,
            unnamed,
            "request without authorization",
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
    let rule = "rule a token as bearer, signed by ES256; its sub is who it is";
    let [user, email] = ["request without x-user", "request without x-email"];
    let asked = "answer www-authenticate: Bearer realm=\"gateway\"";
    says(
        "tokens",
        &["GET", url],
        &[listener, "policy users: 401, no credentials", rule, user, email, asked],
    );
    says(
        "tokens",
        &["GET", url, "-H", &field],
        &[
            listener,
            "policy users: lets it pass",
            rule,
            "request without authorization",
            "request x-email: alice@example.com",
            "request x-user: alice",
            "policy per_user: lets it pass",
            "rule 10/s after 10, by identity",
            "answer ratelimit-policy: \"per_user\";q=10;w=1",
            "answer ratelimit: \"per_user\";r=9;t=1",
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
            &[
                listener,
                &format!("policy users: 401, {said}"),
                rule,
                user,
                email,
                "request without authorization",
                &format!("{asked}, error=\"invalid_token\", error_description=\"{said}\""),
            ],
        );
    }
}

#[test]
fn who_is_known_to_which() {
    let listener = "listener 127.0.0.1:8080";
    let url = "http://localhost:8080/hello";
    let (keys, people) = ("one of programs: 401", "one of people: 401");
    let key = "rule one of 2 keys as header:x-api-key";
    let token = "rule a token as bearer, signed by ES256; its sub is who it is";
    let without = "request without x-api-key";
    let [ask_key, ask_token] = [
        "answer www-authenticate: ApiKey realm=\"gateway\", in=\"header\", name=\"x-api-key\"",
        "answer www-authenticate: Bearer realm=\"gateway\"",
    ];
    says(
        "either",
        &["GET", url, "-H", "X-Api-Key: typo"],
        &[
            listener,
            &format!("{keys}, wrong credentials"),
            key,
            without,
            ask_key,
            &format!("{people}, no credentials"),
            token,
            ask_token,
            "policy known: 401, wrong credentials",
            ask_key,
            ask_token,
        ],
    );
    says(
        "either",
        &["GET", url, "-H", "X-Api-Key: bobs-new-key"],
        &[
            listener,
            "one of programs: lets it pass",
            key,
            without,
            &format!("{people}, no credentials"),
            token,
            ask_token,
            "policy known: lets it pass",
            without,
            "policy per_caller: lets it pass",
            "rule 10/s after 10, by identity",
            "answer ratelimit-policy: \"per_caller\";q=10;w=1",
            "answer ratelimit: \"per_caller\";r=9;t=1",
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
    let told = "answer strict-transport-security: max-age=31536000";
    let route = "route routes[0] /internal/*";
    let rule = "rule the certificate of CN=example client";
    says(
        "mtls",
        &["GET", "https://localhost:8443/internal/"],
        &[listener, hsts, told, route, "policy staff: 403, no client certificate", rule],
    );
    says(
        "mtls",
        &["GET", "https://localhost:8443/internal/", "--client-cert", "target/certs/client.pem"],
        &[
            listener,
            hsts,
            told,
            route,
            "policy staff: lets it pass",
            rule,
            "limits a body of 10MiB at most",
            "upstream internal: p2c among 127.0.0.1:9443",
        ],
    );
    says(
        "mtls",
        &["GET", "https://localhost:8443/a//b"],
        &[
            listener,
            hsts,
            told,
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
