//! What each policy adds to a request.

use std::net::SocketAddr;
use std::time::Instant;

use divan::{Bencher, black_box};

use gateway::config::{Overrides, load};
use gateway::exchange::{Context, Identity, Request};
use gateway::http::forward::Client;
use gateway::http::framing;
use gateway::http::head::RequestHead;
use gateway::http::parse::{self, HeadLimits, Scan};
use gateway::policy::Parts;
use gateway::telemetry::metrics;

const HEAD: &str = "GET /shop/items/4711?sort=price&page=2 HTTP/1.1\r\nHost: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/130.0\r\nAccept: */*\r\n\
    Origin: https://app.example.com\r\n";

/// What shows who somebody is, for policies that ask.
const TOKEN: &str = include_str!("../../../config/examples/token.txt");
const KEY: &str = "alice-and-nobody-else";

const POLICIES: [(&str, &str); 12] = [
    (
        "api_key",
        "kind = 'api_key'\nkeys.alice = '00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984'",
    ),
    ("access", "kind = 'access'\ndeny_files = ['config/examples/networks.txt']"),
    ("concurrency", "kind = 'concurrency'\nlimit = 100"),
    ("cookies", "kind = 'cookies'"),
    ("cors", "kind = 'cors'\norigins = ['https://app.example.com']"),
    ("headers", "kind = 'headers'\nrequest.set = { X-Client = '{client}' }"),
    ("hsts", "kind = 'hsts'"),
    // Remembered: the signature was verified for the first request.
    ("jwt", "kind = 'jwt'\nalgorithms = ['ES256']\njwks_file = 'config/examples/keys.json'"),
    ("rate_limit", "kind = 'rate_limit'\nlimits = ['1000/s']"),
    ("rate_limit_silent", "kind = 'rate_limit'\nlimits = ['60000/s']\nfields = false"),
    ("rules", "kind = 'rules'\nrules = [{ name = 'a', path = 'passwd', query = 'jndi:' }]"),
    ("security_headers", "kind = 'security_headers'"),
];

#[divan::bench(args = POLICIES.map(|(name, _)| name))]
fn policy(bencher: Bencher<'_, '_>, name: &str) {
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
    let (_, lines) = POLICIES.into_iter().find(|(known, _)| *known == name).unwrap();
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:0' }}]\nroutes = [{{ respond = {{}} }}]\n\
         [policies.bench]\n{lines}\n"
    );
    let file = std::env::temp_dir().join(format!("gateway-bench-{}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let config = load(Some(&file), &Overrides::default(), &[0]).unwrap();
    std::fs::remove_file(&file).unwrap();
    let worker = metrics::Worker::new();
    let settings = &config.policies.first().unwrap().settings;
    let parts = Parts {
        name: "bench",
        shared: settings.shared(),
        counters: worker.policy("bench"),
        metrics: &worker,
        members: &[],
    };
    let policy = settings.build(&parts);

    let shown = match name {
        "api_key" => format!("X-Api-Key: {KEY}\r\n"),
        "jwt" => format!("Authorization: Bearer {}\r\n", TOKEN.trim()),
        _ => String::new(),
    };
    let text = format!("{HEAD}{shown}\r\n");
    let bytes = text.as_bytes();
    let mut head = RequestHead::default();
    let limits = HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: false };
    parse::request(bytes, &mut Scan::default(), limits, &mut head).unwrap();
    let identity = Identity::default();
    bencher.bench_local(|| {
        let request = Request {
            head: &head,
            bytes,
            framing: framing::request(&head, bytes).unwrap(),
            persistent: true,
            upgrade: false,
            client: Client {
                chain: "192.0.2.1",
                scheme: "https",
                host: None,
                trusted: false,
                request_id: b"0123456789abcdef0123456789abcdef",
                certificate: b"",
            },
            received: Instant::now(),
            route: "www.example.com/shop/*",
            identity: &identity,
            source: SocketAddr::from(([192, 0, 2, 1], 50_000)),
            destination: None,
            certificate: None,
        };
        let context = Context::default();
        black_box(policy.request(black_box(&request), &context))
    });
}
