//! What each policy adds to a request: what its row has more than that of `none`, which is what the request and its
//! context take to be made. `cargo xtask bench-policies` makes a table of it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use divan::{Bencher, black_box};
use futures_util::future::LocalBoxFuture;

use gateway::config::{Config, Overrides, load};
use gateway::exchange::inquiry::{Inquiry, Reply, Upstreams};
use gateway::exchange::{Context, Error, Identity, Request};
use gateway::http::forward::Client;
use gateway::http::framing;
use gateway::http::head::{RequestHead, ResponseHead};
use gateway::http::parse::{self, HeadLimits, Scan};
use gateway::net::rt::{self, Driver};
use gateway::policy::{Named, Parts, Policy, Verdict};
use gateway::telemetry::metrics;
use gateway::tls::ClientCertificate;

const HEAD: &str = "GET /shop/items/4711?sort=price&page=2 HTTP/1.1\r\nHost: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/130.0\r\nAccept: */*\r\n\
    Origin: https://app.example.com\r\n";

/// What shows who somebody is, for policies that ask.
const TOKEN: &str = include_str!("../../../config/examples/token.txt");
const KEY: &str = "alice-and-nobody-else";
/// Of alice, with the password in config/examples/passwords.toml.
const PASSWORD: &str = "YWxpY2U6b3Blbi1zZXNhbWU=";

const KEYS: &str = "kind = 'api_key'\n\
    keys.alice = '00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984'";
const TOKENS: &str =
    "kind = 'jwt'\nalgorithms = ['ES256']\njwks_file = 'config/examples/keys.json'";

/// Those that ask somebody, or work something out, are measured with what they remember of the first request, but for
/// `jwt_first`, which has seen none.
const POLICIES: [(&str, &str); 18] = [
    ("none", "kind = 'hsts'"),
    ("access", "kind = 'access'\ndeny_files = ['config/examples/networks.txt']"),
    ("any", "kind = 'any'\nof = ['keys', 'tokens']"),
    ("api_key", KEYS),
    ("basic", "kind = 'basic'\nfile = 'config/examples/passwords.txt'"),
    ("client_certificate", "kind = 'client_certificate'"),
    ("concurrency", "kind = 'concurrency'\nlimit = 100"),
    ("cookies", "kind = 'cookies'"),
    ("cors", "kind = 'cors'\norigins = ['https://app.example.com']"),
    (
        "forward_auth",
        "kind = 'forward_auth'\nupstream = 'none'\npath = '/'\n\
         cache = { key = 'cookie:session', ttl = '5m' }",
    ),
    ("headers", "kind = 'headers'\nrequest.set = { X-Client = '{client}' }"),
    ("hsts", "kind = 'hsts'"),
    ("jwt", TOKENS),
    ("jwt_first", TOKENS),
    ("rate_limit", "kind = 'rate_limit'\nlimits = ['60000/s']"),
    ("rate_limit_silent", "kind = 'rate_limit'\nlimits = ['60000/s']\nfields = false"),
    ("rules", "kind = 'rules'\nrules = [{ name = 'a', path = 'passwd', query = 'jndi:' }]"),
    ("security_headers", "kind = 'security_headers'"),
];

/// From one request to the next.
const PERIOD: Duration = Duration::from_micros(20);

/// What a request is asked by.
enum Asked {
    Nobody,
    One(Rc<dyn Policy>),
    /// The one at a position, which is made of the others.
    Named(Named, usize),
}

impl Asked {
    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        match self {
            Self::Nobody => Verdict::Continue,
            Self::One(policy) => policy.request(request, context),
            Self::Named(all, position) => all.ask(*position, request, context).unwrap(),
        }
    }
}

/// Lets everybody pass.
struct Service;

impl Upstreams for Service {
    fn ask<'a>(&'a self, _: Inquiry<'a>) -> LocalBoxFuture<'a, Result<Reply, Error>> {
        let text = b"HTTP/1.1 204 No Content\r\n\r\n";
        let limits = HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: false };
        let mut head = ResponseHead::default();
        parse::response(text, &mut Scan::default(), limits, &mut head).unwrap();
        let reply = Reply { head, bytes: text.as_slice().into(), body: Ok(Vec::new()) };
        Box::pin(std::future::ready(Ok(reply)))
    }
}

fn configured(name: &str) -> Config {
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
    let (_, lines) = POLICIES.into_iter().find(|(known, _)| *known == name).unwrap();
    let others = match name {
        "any" => format!("[policies.keys]\n{KEYS}\n[policies.tokens]\n{TOKENS}\n"),
        _ => String::new(),
    };
    let text = format!(
        "listeners = [{{ address = '127.0.0.1:0' }}]\nroutes = [{{ respond = {{}} }}]\n\
         upstreams.none.endpoints = ['127.0.0.1:9']\n[policies.bench]\n{lines}\n{others}"
    );
    let file = std::env::temp_dir().join(format!("gateway-bench-{}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let config = load(Some(&file), &Overrides::default(), &[0]).unwrap();
    std::fs::remove_file(&file).unwrap();
    config
}

#[divan::bench(args = POLICIES.map(|(name, _)| name))]
fn policy(bencher: Bencher<'_, '_>, name: &str) {
    let config = configured(name);
    let worker = metrics::Worker::new();
    let policies =
        config.policies.iter().map(|one| (&*one.name, &one.settings, one.settings.shared()));
    let position = config.policies.iter().position(|one| one.name == "bench").unwrap();
    let settings = &config.policies.get(position).unwrap().settings;
    let one = || {
        settings.build(&Parts {
            name: "bench",
            shared: settings.shared(),
            counters: worker.policy("bench"),
            metrics: &worker,
            members: &[],
        })
    };
    let policy = match settings.members() {
        _ if name == "none" => Asked::Nobody,
        [] => Asked::One(one()),
        _ => Asked::Named(Named::new(policies, &worker), position),
    };
    let shown = match name {
        "api_key" => format!("X-Api-Key: {KEY}\r\n"),
        "any" | "jwt" | "jwt_first" => format!("Authorization: Bearer {}\r\n", TOKEN.trim()),
        "basic" => format!("Authorization: Basic {PASSWORD}\r\n"),
        "forward_auth" => "Cookie: session=4711\r\n".to_owned(),
        _ => String::new(),
    };
    let text = format!("{HEAD}{shown}\r\n");
    let bytes = text.as_bytes();
    let mut head = RequestHead::default();
    let limits = HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: false };
    parse::request(bytes, &mut Scan::default(), limits, &mut head).unwrap();
    let identity = Identity::default();
    let certificate = ClientCertificate {
        subject: "CN=alice".to_owned(),
        names: vec!["email:alice@example.com".to_owned()],
        fingerprint: "00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984".to_owned(),
        lines: Box::default(),
    };
    // A client that keeps to its limits.
    let (begun, requests) = (Instant::now(), Cell::new(0));
    let request = || Request {
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
        received: begun + PERIOD * requests.replace(requests.get() + 1),
        route: "www.example.com/shop/*",
        identity: &identity,
        source: SocketAddr::from(([198, 18, 0, 1], 50_000)),
        destination: None,
        certificate: Some(&certificate),
    };
    let (first, context) = (request(), Context::default());
    if let (Verdict::Wait, Asked::One(policy)) = (policy.request(&first, &context), &policy) {
        let waited = rt::run(Driver::Epoll, policy.wait(&first, &context, &Service)).unwrap();
        assert_eq!(waited, Verdict::Continue, "{name}");
    }
    let second = policy.request(&request(), &Context::default());
    assert_eq!(second, Verdict::Continue, "{name}");
    if name == "jwt_first" {
        return bencher.with_inputs(one).bench_local_refs(|policy| {
            let context = Context::default();
            black_box(policy.request(black_box(&request()), &context))
        });
    }
    bencher.bench_local(|| {
        let context = Context::default();
        black_box(policy.request(black_box(&request()), &context))
    });
}
