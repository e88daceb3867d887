//! No file, however broken, may do more than be refused.

use std::fs;

use gateway::config::{Error, Overrides};

use super::{enter_repository, load_bytes, toml_files};

/// Whatever is wrong is told line by line, and nothing in a file can write to the terminal.
#[track_caller]
fn survive(bytes: &[u8]) {
    match load_bytes(bytes, &Overrides::default()) {
        Ok(_) => {}
        Err(Error::Unreadable { cause, .. }) => panic!("{cause}"),
        Err(error @ Error::Wrong { .. }) => {
            let Error::Wrong { problems, .. } = &error else { return };
            let text = error.to_string();
            assert_eq!(text.lines().count(), problems.len(), "{text}");
            assert!(!text.chars().any(|char| char.is_control() && char != '\n'), "{text:?}");
        }
    }
}

#[test]
fn every_beginning_of_a_good_file() {
    enter_repository();
    let file = fs::read("config/gateway.toml").unwrap();
    (0..file.len()).for_each(|end| survive(file.get(..end).unwrap()));
}

/// What TOML, units and patterns are made of, and what they are not.
const BYTES: &[u8] = b"\"'[]{}=.,#\n\r\0\x1b\xff-_019az \\u+/*:";

/// Bytes changed, dropped and doubled in all the files there are.
#[test]
fn mutated_files() {
    enter_repository();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % bound as u64).unwrap()
    };
    for file in
        [toml_files("config"), toml_files("config/examples"), toml_files("tests/config")].concat()
    {
        for _ in 0..200 {
            let mut bytes = fs::read(&file).unwrap();
            for _ in 0..=below(8) {
                let at = below(bytes.len() + 1);
                let byte = *BYTES.get(below(BYTES.len())).unwrap();
                match (below(3), bytes.get_mut(at)) {
                    (0, Some(place)) => *place = byte,
                    (1, Some(_)) => drop(bytes.remove(at)),
                    _ => bytes.insert(at, byte),
                }
            }
            survive(&bytes);
        }
    }
}

#[test]
fn depth_and_size() {
    survive("[".repeat(100_000).as_bytes());
    survive(format!("a = {}", "[".repeat(100_000)).as_bytes());
    survive(format!("a = {}", "{a=".repeat(100_000)).as_bytes());
    survive(format!("{}a = 1", "a.".repeat(100_000)).as_bytes());
    survive(format!("[{}a]", "a.".repeat(100_000)).as_bytes());
    survive(format!("{} = 1", "k".repeat(1_000_000)).as_bytes());
    survive(format!("runtime.cores = \"{}\"", "0,".repeat(1_000_000)).as_bytes());
    survive("[[routes]]\nupstream = \"a\"\n".repeat(20_000).as_bytes());
    survive("[[listeners]]\naddress = \"1.1.1.1:1\"\n".repeat(20_000).as_bytes());
    survive((0..20_000).map(|key| format!("k{key} = 1\n")).collect::<String>().as_bytes());
}

/// What a terminal would obey, in every place a message may repeat.
#[test]
fn controls_in_every_value() {
    for (before, after) in [
        ("\"", "\" = 1"),
        ("runtime.cores = \"", "\""),
        ("timeouts.head = \"", "\""),
        ("xdp = { interfaces = [\"", "\"] }"),
        ("xdp.connection_rate = \"", "\""),
        ("access_log.format = \"", "\""),
        ("listeners = [{ address = \"", "\" }]"),
        ("listeners = [{ address = \":", "\" }]"),
        ("listeners = [{ address = \"127.0.0.1:", "\" }]"),
        ("upstreams.api.endpoints = [\"", ":80\"]"),
        ("upstreams.\"", "\" = {}\nroutes = [{ upstream = \"api\" }]"),
        ("routes = [{ upstream = \"", "\" }]"),
        ("routes = [{ host = \"", "\" }]"),
        ("routes = [{ path = \"", "\" }]"),
    ] {
        for control in ["\\u001b[2J", "\\n", "\\u0000", "\\u009b"] {
            survive(format!("{before}{control}{after}").as_bytes());
        }
    }
}
