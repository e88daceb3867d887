//! The configuration from outside: files that are wrong, each with the exact messages it gets,
//! and the files we ship, which must be right.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test config` writes the messages anew; read the difference.

#![cfg(test)]

mod hostile;
mod shipped;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gateway::config::{Config, Error, Overrides, load};
use gateway::xdp;

const CPUS: [usize; 4] = [0, 1, 2, 3];

/// Paths are relative to the repository, so that messages are the same on every machine.
fn enter_repository() {
    static CERTIFICATES: OnceLock<()> = OnceLock::new();
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
    // What `cargo xtask certs` does, for the examples that use them.
    CERTIFICATES.get_or_init(|| certs::write_examples(Path::new("target/certs")).unwrap());
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(!files.is_empty(), "no files in {folder}");
    files
}

/// Loads `text` from a file of its own.
fn load_bytes(bytes: &[u8], overrides: &Overrides) -> Result<Config, Error> {
    let name =
        format!("gateway-config-{}-{:?}.toml", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, bytes).unwrap();
    let loaded = load(Some(&path), overrides, &CPUS);
    fs::remove_file(&path).unwrap();
    loaded
}

#[track_caller]
fn expect_snapshot(error: &Error, snapshot: &Path) {
    assert_eq!(error.exit_code(), 2);
    let messages = format!("{error}\n");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(snapshot, messages).unwrap();
    } else {
        assert_eq!(messages, fs::read_to_string(snapshot).unwrap(), "{}", snapshot.display());
    }
}

#[test]
fn every_wrong_file_gets_its_messages() {
    enter_repository();
    for file in toml_files("tests/config") {
        let error = load(Some(&file), &Overrides::default(), &CPUS).unwrap_err();
        expect_snapshot(&error, &file.with_extension("stderr"));
    }
}

#[test]
fn an_unreadable_file_is_one_line() {
    enter_repository();
    for (path, message) in [
        ("tests/config/absent.toml", "No such file or directory (os error 2)"),
        ("tests", "Is a directory (os error 21)"),
        ("/dev/zero", "larger than 64 MiB"),
    ] {
        let error = load(Some(Path::new(path)), &Overrides::default(), &CPUS).unwrap_err();
        assert_eq!(error.to_string(), format!("{path}: {message}"));
        assert_eq!(error.exit_code(), 1);
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn two_flags_are_enough() {
    let flags = Overrides {
        listen: vec![address("127.0.0.1:8080"), address("[::1]:8080")],
        upstream: vec!["127.0.0.1:9000".to_owned(), "localhost:9001".to_owned()],
        ..Overrides::default()
    };
    let config = load(None, &flags, &CPUS).unwrap();
    let same = r#"
        listeners = [{ address = "127.0.0.1:8080" }, { address = "[::1]:8080" }]
        upstreams.default.endpoints = ["127.0.0.1:9000", "localhost:9001"]
        routes = [{ path = "/*", upstream = "default" }]
    "#;
    assert_eq!(config, load_bytes(same.as_bytes(), &Overrides::default()).unwrap());
    assert_eq!(config.cores, CPUS);
}

#[test]
fn without_flags_and_file_it_says_what_to_give() {
    let error = load(None, &Overrides::default(), &CPUS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "listeners: missing: write [[listeners]] with an address, or give --listen\n\
         routes: missing: write [[routes]] with an upstream, or give --upstream"
    );
}

/// Every flag, over a file where what it replaces is wrong: a flag wins before the file is asked.
#[test]
fn flags_win_over_the_file() {
    let file = r#"
        runtime = { cores = 99, driver = "kqueue" }
        admin.address = "nowhere"
        access_log = { format = "xml", path = "/log" }
        listeners = 1
        upstreams = 2
        routes = 3
        [xdp]
        interfaces = []
        mode = "fast"
        enforce = false
        connection_rate = 0
        connection_burst = 0
        connections_max = "many"
        object = ""
    "#;
    let flags = Overrides {
        cores: Some("2-3".to_owned()),
        driver: Some("epoll".to_owned()),
        listen: vec![address("127.0.0.1:1")],
        upstream: vec!["127.0.0.1:2".to_owned()],
        admin: Some("off".to_owned()),
        access_log: Some("combined".to_owned()),
        xdp_interfaces: vec!["lo".to_owned()],
        xdp_mode: Some(xdp::Mode::Auto),
        xdp_enforce: true,
        conn_rate: Some("30/m".to_owned()),
        conn_burst: Some(7),
        conn_max: Some(8),
        xdp_object: Some("a.o".into()),
    };
    let same = r#"
        runtime = { cores = "2-3", driver = "epoll" }
        admin.address = "off"
        access_log = { format = "combined", path = "-" }
        listeners = [{ address = "127.0.0.1:1" }]
        upstreams.default.endpoints = ["127.0.0.1:2"]
        routes = [{ upstream = "default" }]
        [xdp]
        interfaces = ["lo"]
        mode = "auto"
        enforce = true
        required = true
        connection_rate = 0.5
        connection_burst = 7
        connections_max = 8
        object = "a.o"
    "#;
    assert_eq!(
        load_bytes(file.as_bytes(), &flags).unwrap(),
        load_bytes(same.as_bytes(), &Overrides::default()).unwrap()
    );
}

#[test]
fn a_wrong_flag_is_named() {
    enter_repository();
    let flags = Overrides {
        cores: Some("9".to_owned()),
        listen: vec![address("127.0.0.1:1"), address("127.0.0.1:1")],
        upstream: vec!["http://a:1".to_owned()],
        admin: Some("127.0.0.1".to_owned()),
        access_log: Some("xml".to_owned()),
        conn_rate: Some("0".to_owned()),
        conn_burst: Some(0),
        conn_max: Some(0),
        ..Overrides::default()
    };
    expect_snapshot(
        &load(None, &flags, &CPUS).unwrap_err(),
        Path::new("tests/config/flags.stderr"),
    );
}
