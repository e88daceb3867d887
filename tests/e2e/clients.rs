//! Clients nobody here wrote.

use std::process::{Command, Output};

use crate::harness::{Gateway, Origin, pattern, unique_path};

/// Runs a program. `None` when it is not there, which only CI does not forgive.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{program}: {error}; see cargo xtask setup");
            println!("skipped: {program}: {error}");
            None
        }
    }
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn curl() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let url = format!("http://{}", gateway.address());
    let Some(output) = run("curl", &["-sS", &format!("{url}/bytes/100000?chunked")]) else {
        return;
    };
    assert!(output.stdout == pattern(100_000));

    let file = unique_path("bin");
    std::fs::write(&file, pattern(1_000_000)).unwrap();
    let data = format!("@{}", file.display());
    let path = file.to_str().unwrap();
    for how in [
        &["--data-binary", &data, "-H", "Expect:"][..],
        &["--data-binary", &data, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
        &["-T", path],
        &["--http1.0", "--data-binary", &data],
    ] {
        let output = run("curl", &[&["-sSf", "-m", "20", &url], how].concat()).unwrap();
        succeeded(&output);
        assert!(output.stdout == pattern(1_000_000), "{how:?}");
    }
    let output = run("curl", &["-sSI", &url]).unwrap();
    assert!(succeeded(&output).starts_with("HTTP/1.1 200 OK\r\n"));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn python_http_client() {
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    let script = "
import http.client, sys
c = http.client.HTTPConnection(sys.argv[1], timeout=20)
for size in (0, 1, 100000):
    c.request('POST', '/', body=b'x' * size)
    assert c.getresponse().read() == b'x' * size
    c.request('PUT', '/?chunked', body=iter([b'y' * 1000] * 50), encode_chunked=True,
              headers={'Transfer-Encoding': 'chunked'})
    assert c.getresponse().read() == b'y' * 50000
c.request('HEAD', '/bytes/5')
r = c.getresponse()
assert (r.status, r.read(), r.getheader('content-length')) == (200, b'', '5')
c.request('GET', '/bytes/5')
assert len(c.getresponse().read()) == 5
";
    let address = gateway.address().to_string();
    let Some(output) = run("python3", &["-c", script, &address]) else { return };
    succeeded(&output);
    assert_eq!(gateway.metric("gateway_connections_accepted_total"), 1.0);
}

#[test]
fn ab() {
    let origin = Origin::saying("hello");
    let gateway = Gateway::in_front_of(&origin);
    let url = format!("http://{}/", gateway.address());
    for keep_alive in [&["-k"][..], &[]] {
        let arguments = [&["-q", "-n", "2000", "-c", "20", &url], keep_alive].concat();
        // ab takes options before the address only.
        let arguments = [&arguments[6..], &arguments[..6]].concat();
        let Some(output) = run("ab", &arguments) else { return };
        let text = succeeded(&output);
        let count = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(2)?.parse::<usize>().ok()
        };
        assert_eq!(count("Complete requests:"), Some(2000), "{text}");
        assert_eq!(count("Failed requests:"), Some(0), "{text}");
        assert!(!text.contains("Non-2xx"), "{text}");
    }
}
