//! Clients that show certificates, and those that do not.

use certs::{Authority, Duration, Pair};

use super::{Files, python, secured};
use crate::clients::text_of;
use crate::harness::{Gateway, Origin, Setup, set_up, until};

impl Files {
    fn client(&self, name: &str, pair: &Pair) -> String {
        pair.write(&self.folder, name).unwrap();
        self.path(name)
    }

    fn text(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.join(name), text).unwrap();
        self.path(name)
    }
}

/// A listener that asks for certificates, `auth` being whether they must be there.
fn asking(origin: &Origin, files: &Files, auth: &str, more: &str) -> Setup {
    let settings =
        format!("client_auth = '{auth}'\nclient_ca = {:?}\n{more}", files.path("ca.pem"));
    secured(origin, &[files.server(&["localhost"])]).set_more("tls.main", &settings)
}

fn failures(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("gateway_tls_handshake_failures_total{{reason=\"{reason}\"}}"))
}

#[test]
fn who_may_come_in() {
    let (origin, files) = (Origin::echo(), Files::new());
    let days = Duration::days(30);
    let between = files.authority.intermediate("Between").unwrap();
    let deep = between.intermediate("Deep").unwrap().intermediate("Deeper").unwrap();
    let other = Authority::new("Test authority").unwrap();
    let good = files.client("good", &files.authority.client("good").unwrap());
    let behind = files.client("behind", &between.client("behind").unwrap());
    let too_deep = files.client("deep", &deep.client("deep").unwrap());
    let over = files.authority.client_with("over", &[], Duration::hours(-1)).unwrap();
    let over = files.client("over", &over);
    let wrong = files.client("wrong", &other.client("wrong").unwrap());
    let taken_back = files.authority.client("taken back").unwrap();
    let server = files.client("server", &files.authority.server(&["a.example"]).unwrap());
    let lists =
        files.authority.revoke(&[&taken_back], days).unwrap() + &between.revoke(&[], days).unwrap();
    let lists = files.text("lists.crl", &lists);
    let taken_back = files.client("taken_back", &taken_back);

    for (auth, nobody12, nobody13) in
        [("required", "alert", "certificate required"), ("optional", "served", "served")]
    {
        let more = format!("client_crls = [{lists:?}]\nclient_depth = 1");
        let gateway = asking(&origin, &files, auth, &more).start();
        let mut table = format!("1.2 - {nobody12}\n1.3 - {nobody13}\n");
        for version in ["1.2", "1.3"] {
            for (pair, expected) in [
                (&good, "served"),
                (&behind, "served"),
                (&too_deep, "alert"),
                (&over, "alert certificate expired"),
                (&wrong, "alert"),
                (&taken_back, "alert certificate revoked"),
                (&server, "alert"),
            ] {
                table += &format!("{version} {pair} {expected}\n");
            }
        }
        if !python("mutual", &gateway, &files, &[&table]) {
            return;
        }
        let refused = if auth == "required" { 2.0 } else { 0.0 };
        assert_eq!(failures(&gateway, "no_certificate"), refused);
        assert_eq!(failures(&gateway, "certificate_expired"), 2.0);
        assert_eq!(failures(&gateway, "certificate_revoked"), 2.0);
        assert_eq!(failures(&gateway, "certificate_untrusted"), 6.0);
        let offences = "gateway_offences_total{offence=\"certificate\"}";
        assert_eq!(gateway.metric(offences), refused + 10.0);
        gateway.stop();
    }
}

#[test]
fn who_has_names_and_no_subject_is_known_by_the_first() {
    let (origin, files) = (Origin::echo(), Files::new());
    let uris = ["spiffe://example/orders", "spiffe://example/billing"];
    let pair = files.authority.client_with("", &uris, Duration::days(1)).unwrap();
    let pair = files.client("workload", &pair);
    let values = "request.set = { X-Subject = '<{certificate_subject}>', X-Names = '{certificate_names}', \
                  X-Fingerprint = '{certificate_fingerprint}', X-Identity = '{identity}' }";
    let gateway = asking(&origin, &files, "optional", "")
        .listener("tls = 'main'\npolicies = ['fields']")
        .set("policies.fields", "kind = 'headers'")
        .set_more("policies.fields", values)
        .set("access_log", "format = 'json'")
        .start();
    let url = format!("https://localhost:{}/", gateway.address().port());
    let (ca, chain, key) = (files.path("ca.pem"), format!("{pair}.pem"), format!("{pair}.key"));
    let shown = ["--cert", &chain, "--key", &key];
    for certificate in [&shown[..], &[]] {
        let curl = ["-sS", "-o", "/dev/null", "--cacert", &ca, &url];
        let Some(said) = text_of("curl", &[certificate, &curl].concat()) else { return };
        assert_eq!(said, "");
    }
    let [known, unknown] = &origin.requests()[..] else { panic!("two requests") };
    assert_eq!(known.field("x-identity"), "URI:spiffe://example/orders");
    assert_eq!(known.field("x-names"), "URI:spiffe://example/orders,URI:spiffe://example/billing");
    assert_eq!(known.field("x-subject"), "<>");
    let der = "openssl x509 -in \"$0\" -outform DER | sha256sum | cut -c-64";
    assert_eq!(known.field("x-fingerprint"), text_of("sh", &["-c", der, &chain]).unwrap().trim());
    for name in ["x-identity", "x-names", "x-fingerprint"] {
        assert_eq!(unknown.field(name), "", "{name}");
    }
    let log = gateway.stop();
    assert_eq!(log.matches(r#""identity":"URI:spiffe://example/orders""#).count(), 1, "{log}");
}

#[test]
fn origins_are_told_who_it_is_and_believe_nobody_else() {
    let (origin, files) = (Origin::echo(), Files::new());
    let uris = ["spiffe://example/orders"];
    let pair = files.authority.client_with("Orders, \"Ltd\"", &uris, Duration::days(1)).unwrap();
    let pair = files.client("orders", &pair);
    let fields = "client_fields = ['client-cert', 'client-cert-chain', 'x-client-cert-subject', \
                  'x-client-cert-names', 'x-client-cert-fingerprint']";
    let log = "format = 'json'";
    let gateway = asking(&origin, &files, "optional", fields).set("access_log", log).start();
    let url = format!("https://localhost:{}/", gateway.address().port());
    let ca = files.path("ca.pem");
    let spoofed = ["-H", "Client-Cert: :YQ==:", "-H", "X-CLIENT-CERT-Subject: CN=root"];
    let (chain, key) = (format!("{pair}.pem"), format!("{pair}.key"));
    let shown = ["--cert", &chain, "--key", &key];
    for certificate in [&shown[..], &[]] {
        let curl = ["-sS", "-o", "/dev/null", "--cacert", &ca, &url];
        let Some(said) = text_of("curl", &[certificate, &spoofed, &curl].concat()) else { return };
        assert_eq!(said, "");
    }
    let [known, unknown] = &origin.requests()[..] else { panic!("two requests") };
    assert_eq!(known.field("x-client-cert-subject"), "CN=Orders\\, \\\"Ltd\\\"");
    assert_eq!(known.field("x-client-cert-names"), "URI:spiffe://example/orders");
    let der = "openssl x509 -in \"$0\" -outform DER";
    let base64 = text_of("sh", &["-c", &format!("{der} | base64 -w0"), &chain]).unwrap();
    assert_eq!(known.field("client-cert"), format!(":{base64}:"));
    let authority = text_of("sh", &["-c", &format!("{der} | base64 -w0"), &ca]).unwrap();
    assert_eq!(known.field("client-cert-chain"), format!(":{authority}:"));
    let digest = text_of("sh", &["-c", &format!("{der} | sha256sum | cut -c-64"), &chain]).unwrap();
    assert_eq!(known.field("x-client-cert-fingerprint"), digest.trim());
    for name in ["client-cert", "client-cert-chain", "x-client-cert-subject"] {
        assert_eq!(unknown.fields.one(name), None);
    }
    let log = gateway.stop();
    assert!(log.contains(r#""identity":"CN=Orders\\, \\\"Ltd\\\"""#), "{log}");

    let plain = set_up().to(&[origin.address]).start();
    plain.client().send("GET / HTTP/1.1\r\nHost: a\r\nClient-Cert-Chain: x\r\n\r\n").response();
    assert_eq!(origin.requests()[2].fields.one("client-cert-chain"), None);
}

#[test]
fn a_route_may_want_a_certificate_where_the_listener_does_not() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = asking(&origin, &files, "optional", "")
        .route("path = '/known'\nupstream = 'main'\npolicies = ['client_certificate']")
        .route("path = '/orders'\nupstream = 'main'\npolicies = ['orders']")
        .set(
            "policies.orders",
            "kind = 'client_certificate'\nallow = ['CN=orders', 'URI:a:orders']",
        )
        .start();
    let authority = &files.authority;
    let uri = authority.client_with("other", &["a:orders"], Duration::days(1)).unwrap();
    let pairs = [
        None,
        Some(files.client("orders", &authority.client("orders").unwrap())),
        Some(files.client("uri", &uri)),
        Some(files.client("other", &authority.client("other").unwrap())),
    ];
    let expected = ["200 403 403 ", "200 200 200 ", "200 200 200 ", "200 200 403 "];
    let url = format!("https://localhost:{}", gateway.address().port());
    let ca = files.path("ca.pem");
    for (pair, expected) in pairs.iter().zip(expected) {
        let files = pair.iter().flat_map(|pair| {
            ["--cert".to_owned(), format!("{pair}.pem"), "--key".to_owned(), format!("{pair}.key")]
        });
        let files: Vec<String> = files.collect();
        let mut curl: Vec<&str> = files.iter().map(String::as_str).collect();
        let target = format!("{url}/{{,known,orders}}");
        curl.extend(["-sS", "-w", "%{http_code} ", "-o", "/dev/null", "--cacert", &ca, &target]);
        let Some(statuses) = text_of("curl", &curl) else { return };
        assert_eq!(statuses, expected, "{pair:?}");
    }
    let offences = "gateway_offences_total{offence=\"certificate\"}";
    assert_eq!(gateway.metric(offences), 3.0);
}

/// Its session is known to the gateway, but no session outlives what it was made with.
#[test]
fn a_certificate_that_expires_ends_its_sessions() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = asking(&origin, &files, "required", "").workers(2).start();
    let short = files.authority.client_with("short", &[], Duration::seconds(4)).unwrap();
    let short = files.client("short", &short);
    if python("taken_up", &gateway, &files, &[&short]) {
        assert_eq!(failures(&gateway, "certificate_expired"), 1.0);
        assert_eq!(gateway.metric("gateway_tls_handshakes_total{kind=\"full\"}"), 1.0);
    }
}

#[test]
fn a_new_revocation_list_counts_without_a_reload() {
    let (origin, files) = (Origin::echo(), Files::new());
    let pair = files.authority.client("client").unwrap();
    let days = Duration::days(30);
    let list = files.text("list.crl", &files.authority.revoke(&[], days).unwrap());
    let more = format!("client_crls = [{list:?}]");
    let gateway = asking(&origin, &files, "required", &more).workers(2).start();
    let shown = files.client("client", &pair);
    if !python("mutual", &gateway, &files, &[&format!("1.3 {shown} served")]) {
        return;
    }
    files.text("list.crl", &files.authority.revoke(&[&pair], days).unwrap());
    gateway.wait_for_metric("gateway_file_reloads_total{result=\"applied\"}", 1.0);
    let refused = format!("1.3 {shown} alert certificate revoked");
    python("mutual", &gateway, &files, &[&refused]);

    // One that is over says nothing about anybody.
    let over = files.authority.revoke(&[], Duration::minutes(-1)).unwrap();
    files.text("list.crl", &over);
    gateway.wait_for_metric("gateway_file_reloads_total{result=\"applied\"}", 2.0);
    python("mutual", &gateway, &files, &[&format!("1.3 {shown} alert")]);
    assert_eq!(failures(&gateway, "certificate_untrusted"), 1.0);
}

/// A ticket of a listener that asks for nothing opens none that does.
#[test]
fn a_session_is_taken_up_only_where_it_was_made() {
    let (origin, files) = (Origin::echo(), Files::new());
    let shown = files.client("client", &files.authority.client("client").unwrap());
    let gateway = secured(&origin, &[files.server(&["localhost"])]).start();
    let (ca, ticket) = (files.path("ca.pem"), files.path("session"));
    let connect = |gateway: &Gateway, how: &[&str]| {
        let address = gateway.address().to_string();
        let base = ["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", &ca];
        // TLS 1.3's ticket comes with the answer.
        let ask = "printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' | \
                   timeout 20 openssl \"$0\" \"$@\" -ign_eof 2>&1 || true";
        text_of("sh", &[&["-c", ask], &base[..], how].concat())
    };
    let Some(said) = connect(&gateway, &["-sess_out", &ticket]) else { return };
    assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
    assert!(connect(&gateway, &["-sess_in", &ticket]).unwrap().contains("Reused, TLS"));

    gateway.reload(asking(&origin, &files, "required", ""));
    until("the listener to ask", || !connect(&gateway, &[]).unwrap().contains("HTTP/1.1 200 OK"));
    assert!(connect(&gateway, &["-sess_in", &ticket]).unwrap().contains("certificate required"));
    let (chain, key) = (format!("{shown}.pem"), format!("{shown}.key"));
    let own = ["-cert", &chain, "-key", &key];
    assert!(connect(&gateway, &own).unwrap().contains("HTTP/1.1 200 OK"));
}

#[test]
fn node_shows_its_certificate() {
    let (origin, files) = (Origin::echo(), Files::new());
    let gateway = asking(&origin, &files, "required", "").workers(2).start();
    let shown = files.client("client", &files.authority.client("client").unwrap());
    let script = format!("{}/../tests/e2e/tls/https.js", env!("CARGO_MANIFEST_DIR"));
    let port = gateway.address().port().to_string();
    let (ca, chain, key) = (files.path("ca.pem"), format!("{shown}.pem"), format!("{shown}.key"));
    let Some(seen) = text_of("node", &[&script, &port, &ca, &chain, &key]) else { return };
    let each = |how| format!("true TLSv1.3 200 5 {how}\n");
    assert_eq!(seen, each("new") + &each("kept") + &each("new") + &each("resumed"));
}
