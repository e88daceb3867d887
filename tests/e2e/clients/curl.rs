//! curl.

use std::fs::File;

use super::{run_with, succeeded, text_of};
use crate::harness::{After, Broken, Exchange, Gateway, Origin, pattern, set_up, unique_path};

const SIZE: usize = 2_000_000;

/// A file of the pattern that goes away with it.
struct Upload(String);

impl Upload {
    fn new() -> Self {
        let path = unique_path("bin");
        std::fs::write(&path, pattern(SIZE)).unwrap();
        Self(path.to_str().unwrap().to_owned())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn uploads() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let url = format!("http://{}", gateway.address());
    let upload = Upload::new();
    let data = format!("@{}", upload.0);
    for how in [
        &["--data-binary", &data, "-H", "Expect:"][..],
        &["--data-binary", &data, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
        &["-T", &upload.0],
        &["-T", "-"],
        &["-T", "-", "-H", "Expect: 100-continue"],
        &["--http1.0", "--data-binary", &data],
        &["--http1.0", "-T", &upload.0],
    ] {
        let arguments = [&["-sSf", "-m", "20", &url], how].concat();
        let Some(output) = run_with("curl", &arguments, File::open(&upload.0).unwrap()) else {
            return;
        };
        succeeded(&output);
        assert!(output.stdout == pattern(SIZE), "{how:?}");
    }
}

#[test]
fn downloads() {
    let origin = Origin::start(|exchange| match exchange.request.fields.one("range") {
        Some("bytes=10-19") => exchange.answer(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-19/20\r\n\
             Content-Length: 10\r\n\r\n0123456789",
        ),
        None if exchange.request.method == "HEAD" => {
            exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
        }
        _ => exchange.answer(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
    });
    let gateway = Gateway::in_front_of(&origin);
    let url = format!("http://{}/", gateway.address());
    for version in ["--http1.1", "--http1.0"] {
        let get =
            |how: &[&str]| text_of("curl", &[&["-sS", "-m", "20", version, &url], how].concat());
        let Some(text) = get(&[]) else { return };
        assert_eq!(text, "hello", "whole, trailers or not");
        assert_eq!(get(&["-r", "10-19"]).unwrap(), "0123456789");
        let head = get(&["-I"]).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        assert!(head.contains("content-length: 12345\r\n"), "{head}");
    }
}

#[test]
fn one_connection_for_two_urls() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let url = |path| format!("http://{}{path}", gateway.address());
    let count = ["-w", "%{num_connects} "];
    let urls = [&url("/bytes/0"), &url("/bytes/0?chunked"), &url("/bytes/0")];
    let arguments: Vec<_> =
        ["-sS"].into_iter().chain(count).chain(urls.map(String::as_str)).collect();
    let Some(text) = text_of("curl", &arguments) else { return };
    assert_eq!(text, "1 0 0 ");
    assert_eq!(gateway.metric("gateway_connections_accepted_total"), 1.0);
}

/// Without having read a byte of the body.
fn refuse(exchange: &mut Exchange, status: &str) -> Result<After, Broken> {
    let fields = "Connection: close\r\nContent-Length: 0\r\n";
    exchange.send(format!("HTTP/1.1 {status}\r\n{fields}\r\n"))?;
    Ok(After::Close)
}

#[test]
fn expect_100_continue() {
    let origin = Origin::start(|exchange| {
        let expects = exchange.request.fields.has("expect");
        match exchange.request.target.as_str() {
            "/continue" if expects => exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?,
            "/too-large" => return refuse(exchange, "413 Content Too Large"),
            "/unexpected" if expects => return refuse(exchange, "417 Expectation Failed"),
            _ => {}
        }
        let length = exchange.body()?.len().to_string();
        let size = length.len();
        exchange.answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{length}"))
    });
    let gateway = set_up().to(&[origin.address]).start();
    let upload = Upload::new();
    let send = |target: &str, how: &[&str]| {
        let url = format!("http://{}{target}", gateway.address());
        // It would go on without a 100 after a second; by then it would be too late here.
        let patient = ["-sS", "-m", "20", "--expect100-timeout", "60"];
        let shown = ["-w", " %{http_code} %{size_upload}"];
        text_of("curl", &[&patient[..], &shown, &["-T", &upload.0, &url], how].concat())
    };
    let Some(text) = send("/continue", &[]) else { return };
    assert_eq!(text, format!("{SIZE} 200 {SIZE}"));
    assert_eq!(send("/too-large", &[]).unwrap(), " 413 0");
    assert_eq!(send("/unexpected", &[]).unwrap(), " 417 0");
    assert!(send("/continue", &["-H", "Expect: a-miracle"]).unwrap().contains(" 417 "));
    // Without having been asked, the origin's refusal still reaches a client that sends.
    let refused = send("/too-large", &["-H", "Expect:"]).unwrap();
    assert!(refused.contains(" 413 "), "{refused}");
    gateway.client().expect_alive();
}
