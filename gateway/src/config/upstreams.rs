//! `[upstreams.NAME]`: groups of endpoints, and how one of them is chosen.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use super::check::TIMEOUT;
use super::routes::affinity;
use super::tls;
use super::values::endpoint;
use crate::document::section::Section;
use crate::document::units::{duration, percent};
use crate::document::values::{boolean, check_name, integer, once, word};
use crate::net::proxy_protocol;
use crate::upstream::balance::Balance;
use crate::upstream::load::Ejection;
use crate::upstream::{EndpointSpec, Retry, Spec};

const ENDPOINTS_HINT: &str = "write [\"127.0.0.1:9000\"]";
const ADDRESS_HINT: &str = "write \"127.0.0.1:9000\"";
const HASH_ON_HINT: &str = "write what requests that belong together have in common: \"client\"";

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

pub(super) fn read(root: &mut Section<'_>) -> Vec<Spec> {
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
        duration: table.value("duration", default.duration, duration(TIMEOUT)),
        share_max: table.value("share_max", default.share_max, percent(0..=100)),
    }
}

fn retry(table: &mut Section<'_>) -> Retry {
    let default = Retry::default();
    Retry {
        attempts: table.value("attempts", default.attempts, integer(0..=10)),
        budget: table.value("budget", default.budget, percent(0..=100)),
    }
}
