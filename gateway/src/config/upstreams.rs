//! `[upstreams.NAME]`: groups of endpoints, and how one of them is chosen.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{COUNT, TIMEOUT};
use super::routes::{affinity, token};
use super::tls;
use super::values::endpoint;
use crate::document::problem::shown;
use crate::document::section::Section;
use crate::document::units::{duration, percent};
use crate::document::value::Kind;
use crate::document::values::{boolean, check_name, integer, once, text, word};
use crate::http::target;
use crate::net::proxy_protocol;
use crate::upstream::balance::Balance;
use crate::upstream::load::Ejection;
use crate::upstream::{EndpointSpec, Pending, Probe, Retry, Spec};

const ENDPOINTS_HINT: &str = "write [\"127.0.0.1:9000\"]";
const ADDRESS_HINT: &str = "write \"127.0.0.1:9000\"";
const HASH_ON_HINT: &str = "write what requests that belong together have in common: \"client\"";

const STATUSES_HINT: &str = "write [502, 503, 504]";

/// Zero is no slow start.
const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// More often would be an attack.
const PROBE_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(3600);

const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// What `upstreams.NAME.proxy_protocol` may be.
const PROXY_PROTOCOL_OUT: [(&str, Option<proxy_protocol::Version>); 3] = [
    ("off", None),
    ("v1", Some(proxy_protocol::Version::V1)),
    ("v2", Some(proxy_protocol::Version::V2)),
];

/// What `balance` may be.
const BALANCES: [(&str, Option<Balance>); 4] = [
    ("p2c", Some(Balance::P2c)),
    ("round_robin", Some(Balance::RoundRobin)),
    ("least_connections", Some(Balance::LeastConnections)),
    ("consistent_hash", None),
];

/// `workers` share what is given for the machine.
pub(super) fn read(root: &mut Section<'_>, workers: usize) -> Vec<Spec> {
    let mut upstreams = Vec::new();
    root.named_tables("upstreams", |name, table| {
        if let Err(message) = check_name(name) {
            table.reject(message);
        }
        let tls = table.has("tls").then(|| table.table("tls", tls::towards_endpoints));
        upstreams.push(Spec {
            name: name.to_owned(),
            endpoints: endpoints(table),
            balance: balance(table),
            ejection: table.table("ejection", ejection),
            retry: table.table("retry", retry),
            hedge: table.optional("hedge", percent(50..=99)),
            timeout_field: table
                .optional("timeout_field", |kind| token(text(kind)?).map(str::to_owned)),
            connections_max: table.value("connections_max", None, |kind| cap(kind, workers)),
            pending: table.table("pending", pending),
            slow_start: table.value("slow_start", Duration::ZERO, duration(SLOW_START)),
            health: table.has("health").then(|| table.table("health", probe)),
            idle_connections: table.value("idle_connections", 64, integer(0..=10_000)),
            idle_timeout: table.value("idle_timeout", IDLE_TIMEOUT_DEFAULT, duration(TIMEOUT)),
            proxy_protocol: table.value("proxy_protocol", None, |kind| {
                match word(&PROXY_PROTOCOL_OUT)(kind)? {
                    Some(_) if tls.is_some() => Err("cannot be had together with tls".to_owned()),
                    version => Ok(version),
                }
            }),
            tls,
        });
    });
    upstreams
}

fn endpoints(table: &mut Section<'_>) -> Vec<EndpointSpec> {
    let seen = RefCell::new(HashSet::new());
    let address = |kind: &_| {
        let endpoint = endpoint(kind)?;
        once(&mut seen.borrow_mut(), (endpoint.host.clone(), endpoint.port), kind)?;
        Ok(endpoint)
    };
    table.list_or_tables("endpoints", ENDPOINTS_HINT, address, |table| {
        let endpoint = table.required("address", ADDRESS_HINT, address);
        let weight = table.value("weight", 1, integer(1..=1000));
        let backup = table.value("backup", false, boolean);
        endpoint.map(|endpoint| EndpointSpec { weight, backup, ..endpoint })
    })
}

fn balance(table: &mut Section<'_>) -> Balance {
    let balance = table.value("balance", Some(Balance::default()), word(&BALANCES));
    match balance {
        Some(balance) => {
            table.reject_value("hash_on", "says nothing without balance = \"consistent_hash\"");
            balance
        }
        None => {
            let affinity = table.required("hash_on", HASH_ON_HINT, affinity);
            affinity.map(Balance::ConsistentHash).unwrap_or_default()
        }
    }
}

fn ejection(table: &mut Section<'_>) -> Ejection {
    let default = Ejection::default();
    Ejection {
        failures: table.value("failures", default.failures, integer(0..=1000)),
        failure_share: table.value("failure_share", default.failure_share, percent(0..=100)),
        statuses: match table.has("statuses") {
            true => table.list("statuses", STATUSES_HINT, integer(400..=599)),
            false => default.statuses,
        },
        duration: table.value("duration", default.duration, duration(TIMEOUT)),
        share_max: table.value("share_max", default.share_max, percent(0..=100)),
    }
}

fn retry(table: &mut Section<'_>) -> Retry {
    let default = Retry::default();
    Retry {
        attempts: table.value("attempts", default.attempts, integer(0..=10)),
        budget: table.value("budget", default.budget, percent(0..=100)),
        statuses: match table.has("statuses") {
            true => table.list("statuses", STATUSES_HINT, integer(400..=599)),
            false => default.statuses,
        },
    }
}

/// `"none"`, or at least one for each worker.
fn cap(kind: &Kind, workers: usize) -> Result<Option<usize>, String> {
    if kind.is_text("none") {
        return Ok(None);
    }
    let cap = integer(COUNT)(kind)
        .map_err(|_| format!("must be \"none\" or a whole number, 1 to {}", COUNT.end()))?;
    match cap >= workers {
        true => Ok(Some(cap)),
        false => Err(format!("is shared by {workers} workers, each of which needs at least 1")),
    }
}

fn pending(table: &mut Section<'_>) -> Pending {
    let default = Pending::default();
    Pending {
        max: table.value("max", default.max, integer(0..=1_000_000)),
        timeout: table.value("timeout", default.timeout, duration(TIMEOUT)),
    }
}

fn probe(table: &mut Section<'_>) -> Probe {
    let path = table.optional("path", |kind| match text(kind)? {
        path if is_request_path(path) => Ok(path.to_owned()),
        other => Err(format!("{} is no path: write \"/healthz\"", shown(other))),
    });
    if path.is_none() {
        for key in ["host", "statuses"] {
            table.reject_value(key, "says nothing without path");
        }
    }
    let interval = table.value("interval", Duration::from_secs(5), duration(PROBE_INTERVAL));
    Probe {
        path,
        host: table.optional("host", |kind| {
            let host = text(kind)?;
            target::host(host.as_bytes()).map_err(|_| format!("{} is no host", shown(host)))?;
            Ok(host.to_owned())
        }),
        statuses: table.value("statuses", (200, 299), statuses),
        interval,
        timeout: table.value("timeout", Duration::from_secs(2), duration(PROBE_INTERVAL)),
        rise: table.value("rise", 2, integer(1..=100)),
        fall: table.value("fall", 3, integer(1..=100)),
    }
}

fn is_request_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// `"200"` or `"200-399"`.
fn statuses(kind: &Kind) -> Result<(u16, u16), String> {
    let text = text(kind)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse().ok().filter(|status| (200..=599).contains(status));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("{} are no statuses: write \"200-299\"", shown(text))),
    }
}
