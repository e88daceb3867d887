//! The files under `config/`: all of them are right, and the reference says the truth.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use gateway::config::{Error, Overrides, load};
use gateway::xdp::CAPABILITIES;
use toml::{Table, Value};

use super::{CPUS, enter_repository, load_bytes, toml_files};

#[test]
fn all_are_right() {
    enter_repository();
    for file in [toml_files("config"), toml_files("config/examples")].concat() {
        load(Some(&file), &Overrides::default(), &CPUS).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// What it lacks would be missed at start, and what it has for nothing is an attacker's.
#[test]
fn the_systemd_unit_has_just_the_rights_that_are_needed() {
    enter_repository();
    let unit = fs::read_to_string("config/gateway.service").unwrap();
    let needed: BTreeSet<_> =
        CAPABILITIES.iter().map(|(_, name)| *name).chain(["CAP_NET_BIND_SERVICE"]).collect();
    for setting in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
        let line = unit.lines().find_map(|line| line.strip_prefix(setting)).unwrap();
        assert_eq!(line.split(' ').collect::<BTreeSet<_>>(), needed, "{setting}");
    }
}

#[test]
fn systemd_understands_the_unit() {
    enter_repository();
    let unit = fs::read_to_string("config/gateway.service").unwrap();
    let folder = std::env::temp_dir().join(format!("gateway-unit-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("gateway.service");
    fs::write(&file, unit.replace("/usr/local/bin/gateway", env!("CARGO_BIN_EXE_gateway")))
        .unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&file).output();
    fs::remove_dir_all(folder).unwrap();
    match verified {
        Ok(verified) => {
            let said = String::from_utf8_lossy(&verified.stderr);
            assert!(verified.status.success() && !said.contains("gateway.service"), "{said}");
        }
        Err(error) => eprintln!("skipped: no systemd-analyze ({error})"),
    }
}

/// Keys without a default stand in the reference as `#key = value`.
fn reference_with_every_key() -> String {
    let text = fs::read_to_string("config/reference.toml").unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(char::is_alphabetic) => format!("{key}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Whoever protects a port begins with this one.
#[test]
fn the_example_of_the_kernel_program_explains_every_key_about_it() {
    enter_repository();
    let reference: Table = reference_with_every_key().parse().unwrap();
    let example = fs::read_to_string("config/examples/xdp.toml").unwrap();
    let written: BTreeSet<_> = example
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key.trim_start_matches('#'))
        .collect();
    let of = |path: &[&str]| {
        let table = path.iter().fold(&reference, |table, name| table[*name].as_table().unwrap());
        table.iter().filter(|(_, value)| !value.is_table()).map(|(key, _)| key.clone())
    };
    let keys = of(&["xdp"])
        .chain(of(&["xdp", "classes", "partners"]))
        .chain(of(&["bans"]))
        .chain(of(&["bans", "weights"]))
        .chain(["class".to_owned()]);
    let missing: Vec<_> = keys.filter(|key| !written.contains(key.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new());
}

/// A key no table has makes the check list those it has; they must be the reference's own.
#[test]
fn the_reference_has_every_key_and_no_other() {
    enter_repository();
    let mut reference: Table = reference_with_every_key().parse().unwrap();
    load_bytes(reference.to_string().as_bytes(), &Overrides::default()).unwrap();

    let mut written = BTreeSet::new();
    add_stray_keys("", &mut reference, &mut written);
    let Err(Error::Wrong { problems, .. }) =
        load_bytes(reference.to_string().as_bytes(), &Overrides::default())
    else {
        panic!("stray keys pass");
    };
    let known: BTreeSet<_> = problems
        .iter()
        .flat_map(|problem| {
            let table = problem.key.strip_suffix(STRAY).unwrap();
            let (_, keys) = problem.message.trim_end_matches(')').split_once("(have: ").unwrap();
            keys.split(", ").map(move |key| format!("{table}{key}"))
        })
        .map(|key| without_positions(&key))
        .collect();
    let written: BTreeSet<_> = written.iter().map(|key| without_positions(key)).collect();
    assert_eq!(written, known, "left: config/reference.toml, right: what the check accepts");
}

/// Elements of an array are tables of one kind, of which each may have other keys.
fn without_positions(key: &str) -> String {
    // Nor need all upstreams have the same keys.
    let key = match key.strip_prefix("upstreams.").and_then(|rest| rest.split_once('.')) {
        Some((_, rest)) => format!("upstreams.*.{rest}"),
        None => key.to_owned(),
    };
    // Nor all policies that take tokens.
    let tokens = ["policies.partners.", "policies.machines."];
    let key = match tokens.iter().find_map(|policy| key.strip_prefix(policy)) {
        Some(rest) => format!("policies.users.{rest}"),
        None => key,
    };
    let key = match key.split_once(".parts.") {
        Some((route, part)) => {
            let key = part.split_once('.').map_or("", |(_, key)| key);
            format!("{route}.parts.*.{key}")
        }
        None => key,
    };
    key.chars().filter(|c| !c.is_ascii_digit() || !key.contains('[')).collect()
}

const STRAY: &str = "stray-key-far-from-any-other";

/// Adds [`STRAY`] to every table but those that hold others by name.
fn add_stray_keys(path: &str, table: &mut Table, written: &mut BTreeSet<String>) {
    for (key, value) in table.iter_mut() {
        written.insert(format!("{path}{key}"));
        match value {
            Value::Table(tables)
                if key == "parts"
                    || path.is_empty()
                        && ["policies", "tls", "upstreams"].contains(&key.as_str())
                    || path == "xdp." && key == "classes" =>
            {
                for (name, table) in tables.iter_mut() {
                    let table = table.as_table_mut().unwrap();
                    add_stray_keys(&format!("{path}{key}.{name}."), table, written);
                }
            }
            // Whose keys are names of clients' choosing.
            Value::Table(_)
                if [
                    "add",
                    "header",
                    "claim_fields",
                    "claims",
                    "headers",
                    "keys",
                    "merge",
                    "overrides",
                    "query",
                    "set",
                ]
                .contains(&key.as_str()) => {}
            Value::Table(table) => add_stray_keys(&format!("{path}{key}."), table, written),
            Value::Array(elements) => {
                for (position, element) in elements.iter_mut().enumerate() {
                    if let Value::Table(table) = element {
                        add_stray_keys(&format!("{path}{key}[{position}]."), table, written);
                    }
                }
            }
            _ => {}
        }
    }
    table.insert(STRAY.to_owned(), Value::Boolean(true));
}

/// What the reference writes out is what leaving it out means.
#[test]
fn the_reference_has_the_defaults() {
    enter_repository();
    let required = r#"
        listeners = [{ address = "0.0.0.0:8080" }]
        upstreams.example.endpoints = ["127.0.0.1:9000", "[::1]:9000", "example.internal:9000"]
        upstreams.sharded.endpoints = ["127.0.0.1:9000", "[::1]:9000"]
        upstreams.sharded.balance = "consistent_hash"
        upstreams.sharded.hash_on = "client"
        routes = [
            { upstream = "example" },
            { path = "/canary/*", split = [{ upstream = "example", weight = 9 }, { upstream = "example" }] },
            { path = "~/orders/(?<id>[0-9]+)", upstream = "example" },
            { path = "~/page/(?<id>[0-9]+)", compose = {
                merge = { order = "{part:order}", customer = { name = "{part:customer.name}" } },
                parts = {
                    order = { upstream = "example", path = "/orders/{path:id}" },
                    customer = { upstream = "example", path = "/customers/{part:order.customer}", optional = true },
                },
            } },
            { path = "/hello", respond = { body = "Hello {client}\n" } },
            { path = "/old/*", redirect = { to = "https://{host}/new{query}" } },
        ]
        xdp.interfaces = ["eth0"]
        xdp.classes.partners = {}
        bans = {}
        policies.example.kind = "hsts"
        policies.known_clients.kind = "client_certificate"
        policies.per_client = { kind = "rate_limit", limits = ["100/s", { rate = "1000/m", burst = 200 }] }
        policies.fields.kind = "headers"
        policies.fields.request = { remove = ["X-Debug"], set = { X-Request-Start = "{request_id}" }, add = { X-Via = "gateway" } }
        policies.fields.response = { remove = ["Server"], set = { X-Served-By = "gateway" }, add = { Vary = "Accept" } }
        policies.browsers.kind = "security_headers"
        policies.other_sites = { kind = "cors", origins = ["https://app.example.com", "https://*.example.com"] }
        policies.cookies.kind = "cookies"
        policies.let_in = { kind = "access", methods = ["GET", "POST"] }
        policies.programs = { kind = "api_key", keys = { alice = "00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984" } }
        policies.staff = { kind = "basic", file = "config/examples/passwords.txt" }
        policies.users = { kind = "jwt", algorithms = ["RS256"], jwks_url = "https://id.example.com/.well-known/jwks.json" }
        policies.partners = { kind = "jwt", algorithms = ["ES256"], jwks_file = "config/examples/keys.json" }
        policies.machines = { kind = "jwt", algorithms = ["HS256"], secret_file = "config/examples/secret.txt" }
        policies.session = { kind = "forward_auth", upstream = "example" }
        policies.known = { kind = "any", of = ["programs", "users"] }
        policies.patches = { kind = "rules", rules = [{ name = "log4shell", path = "^/", query = "jndi:", header = { user-agent = "jndi:" } }] }
        policies.in_flight = { kind = "concurrency", limit = 100 }
        [[tls.example.certificates]]
        chain = "target/certs/server.pem"
        key = "target/certs/server.key"
    "#;
    assert_eq!(
        load(Some(Path::new("config/reference.toml")), &Overrides::default(), &CPUS).unwrap(),
        load_bytes(required.as_bytes(), &Overrides::default()).unwrap()
    );
}
