//! Heads and bodies.

use bytes::BytesMut;
use divan::{Bencher, black_box};

use gateway::http::chunked::Decoder;
use gateway::http::edits::Edits;
use gateway::http::encode::DateCache;
use gateway::http::forward::{self, Client, RequestShape, ResponseShape};
use gateway::http::framing::{self, Framing};
use gateway::http::head::{Method, RequestHead, ResponseHead, Version};
use gateway::http::parse::{self, HeadLimits, Scan};

const LIMITS: HeadLimits =
    HeadLimits { bytes: 16 << 10, start_line: 8 << 10, fields: 100, underscores: false };

const SMALL: &str = "GET / HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: wrk\r\n\r\n";
const BROWSER: &str = "GET /shop/items/4711?sort=price&page=2 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    Sec-CH-UA: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    Sec-CH-UA-Mobile: ?0\r\n\
    Sec-CH-UA-Platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/shop/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: de-DE,de;q=0.9,en;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 512\r\nCache-Control: no-store\r\n\
    Vary: Accept-Encoding\r\n\r\n";

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
enum Sender {
    Tool,
    Browser,
}

impl Sender {
    fn text(self) -> &'static str {
        match self {
            Self::Tool => SMALL,
            Self::Browser => BROWSER,
        }
    }
}

fn request_head(text: &str) -> RequestHead {
    let mut head = RequestHead::default();
    assert!(parse::request(text.as_bytes(), &mut Scan::default(), LIMITS, &mut head).unwrap());
    head
}

fn response_head() -> ResponseHead {
    let mut head = ResponseHead::default();
    let bytes = RESPONSE.as_bytes();
    assert!(parse::response(bytes, &mut Scan::default(), LIMITS, &mut head).unwrap());
    head
}

#[divan::bench(args = [Sender::Tool, Sender::Browser])]
fn parse_request(bencher: Bencher<'_, '_>, sender: Sender) {
    let text = sender.text();
    let mut head = RequestHead::default();
    bencher.bench_local(|| {
        let bytes = black_box(text.as_bytes());
        let whole = parse::request(bytes, &mut Scan::default(), LIMITS, &mut head);
        whole.and_then(|_| framing::request(&head, bytes))
    });
}

#[divan::bench]
fn parse_response(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    bencher.bench_local(|| {
        let bytes = black_box(RESPONSE.as_bytes());
        let whole = parse::response(bytes, &mut Scan::default(), LIMITS, &mut head);
        whole.and_then(|_| framing::response(Method::Get, &head, bytes))
    });
}

#[divan::bench(args = [Sender::Tool, Sender::Browser])]
fn forward_request(bencher: Bencher<'_, '_>, sender: Sender) {
    let bytes = sender.text().as_bytes();
    let head = request_head(sender.text());
    let client = Client {
        chain: "203.0.113.195",
        scheme: "http",
        host: None,
        trusted: false,
        request_id: b"0123456789abcdef0123456789abcdef",
        certificate: b"",
    };
    let edits = Edits::default();
    let mut memory = BytesMut::with_capacity(16 << 10);
    bencher.bench_local(|| {
        let out = std::mem::take(&mut memory);
        let shape = RequestShape::default();
        let sent = forward::request(out, black_box(&head), bytes, shape, client, &edits);
        memory = sent.expect("a head that may pass").into_bytes();
    });
}

#[divan::bench]
fn encode_response(bencher: Bencher<'_, '_>) {
    let (head, bytes) = (response_head(), RESPONSE.as_bytes());
    let shape = ResponseShape { framing: Framing::Length(512), persistent: true };
    let request = (Method::Get, Version::Http11);
    let mut dates = DateCache::default();
    let date = *dates.at(std::time::SystemTime::now());
    let edits = Edits::default();
    let mut out = BytesMut::with_capacity(16 << 10);
    bencher.bench_local(|| {
        forward::response(&mut out, black_box(&head), bytes, shape, request, &date, &edits);
    });
}

/// 64 KiB of body, in chunks of so many bytes.
#[divan::bench(args = [16, 1 << 10, 16 << 10])]
fn decode_chunked(bencher: Bencher<'_, '_>, size: usize) {
    let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let body = (chunk.repeat((64 << 10) / size) + "0\r\n\r\n").into_bytes();
    bencher
        .counter(divan::counter::BytesCount::new(64usize << 10))
        .with_inputs(|| body.clone())
        .bench_local_refs(|body| Decoder::default().decode(body));
}
