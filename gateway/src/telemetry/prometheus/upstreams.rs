//! What is told of upstreams and of their endpoints.

#![expect(clippy::disallowed_types, reason = "workers share their counters with control")]

use std::net::SocketAddr;
use std::sync::Arc;

use super::Scrape;
use super::page::{Kind, Page};
use crate::telemetry::metrics::Upstream;

/// What is known of one endpoint, all workers summed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The upstream's name.
    pub upstream: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The host it was configured by.
    pub host: String,
    /// Whether probes find it well; true where there are none.
    pub up: bool,
    /// Workers that do not ask it for a while.
    pub ejected: u64,
    /// Requests it was given.
    pub requests: u64,
    /// Those it has not answered yet.
    pub requests_in_flight: u64,
    /// Times it failed.
    pub failures: u64,
}

/// A metric labelled by upstream that is one number of each worker's row for it.
type UpstreamRow = (&'static str, Kind, &'static str, fn(&Upstream) -> u64);

const UPSTREAM_ROWS: [UpstreamRow; 12] = [
    (
        "gateway_upstream_requests_total",
        Kind::Counter,
        "Requests sent to an upstream, tries included.",
        |upstream| upstream.requests.value(),
    ),
    (
        "gateway_upstream_connections_total",
        Kind::Counter,
        "Connections opened to an upstream.",
        |upstream| upstream.connections.value(),
    ),
    (
        "gateway_upstream_connections_idle",
        Kind::Gauge,
        "Connections kept for the next request.",
        |upstream| upstream.connections_idle.value(),
    ),
    (
        "gateway_upstream_connect_failures_total",
        Kind::Counter,
        "Attempts to connect that failed.",
        |upstream| upstream.connect_failures.value(),
    ),
    (
        "gateway_upstream_failures_total",
        Kind::Counter,
        "Requests that failed after a connection stood.",
        |upstream| upstream.failures.value(),
    ),
    (
        "gateway_upstream_retries_total",
        Kind::Counter,
        "Requests sent again, to a fresh connection or another endpoint.",
        |upstream| upstream.retries.value(),
    ),
    (
        "gateway_upstream_hedges_total",
        Kind::Counter,
        "Requests that another endpoint was asked, too, because the first took long.",
        |upstream| upstream.hedges.value(),
    ),
    (
        "gateway_upstream_mirrors_total",
        Kind::Counter,
        "Copies of requests sent to an upstream whose answers nobody gets.",
        |upstream| upstream.mirrors.value(),
    ),
    (
        "gateway_upstream_mirrors_skipped_total",
        Kind::Counter,
        "Requests not copied: too many copies at once, or a body that had not come whole.",
        |upstream| upstream.mirrors_skipped.value(),
    ),
    (
        "gateway_upstream_ejections_total",
        Kind::Counter,
        "Times an endpoint failed too often and was not asked for a while.",
        |upstream| upstream.ejections.value(),
    ),
    (
        "gateway_upstream_requests_pending",
        Kind::Gauge,
        "Requests that wait until an endpoint may be given one more.",
        |upstream| upstream.pending.value(),
    ),
    (
        "gateway_upstream_overflows_total",
        Kind::Counter,
        "Requests that could not wait, or for too long.",
        |upstream| upstream.overflows.value(),
    ),
];

pub(super) fn upstreams(page: &mut Page, scrape: &Scrape<'_>) {
    let mut upstreams: Vec<(String, Vec<Arc<Upstream>>)> = Vec::new();
    for (name, counters) in scrape.workers.iter().flat_map(|worker| worker.upstreams()) {
        match upstreams.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(counters),
            None => upstreams.push((name, vec![counters])),
        }
    }
    for (name, kind, help, value) in UPSTREAM_ROWS {
        page.family(name, kind, help);
        for (upstream, rows) in &upstreams {
            let sum = rows.iter().map(|row| value(row)).sum::<u64>();
            page.sample(name, &[("upstream", upstream)], sum);
        }
    }
    let name = "gateway_upstream_response_duration_seconds";
    page.family(name, Kind::Histogram, "From a request sent to its response's head.");
    for (upstream, rows) in &upstreams {
        let rows = rows.iter().map(|row| &row.response_duration);
        page.histogram(name, Some(("upstream", upstream)), rows);
    }
}

pub(super) fn endpoints(page: &mut Page, scrape: &Scrape<'_>) {
    type Row = (&'static str, Kind, &'static str, fn(&Endpoint) -> u64);
    const ROWS: [Row; 5] = [
        (
            "gateway_upstream_endpoint_up",
            Kind::Gauge,
            "Whether probes find an endpoint well (1, also without probes) or not (0).",
            |endpoint| endpoint.up.into(),
        ),
        (
            "gateway_upstream_endpoint_ejected",
            Kind::Gauge,
            "Workers that do not ask an endpoint for a while, because it failed.",
            |endpoint| endpoint.ejected,
        ),
        (
            "gateway_upstream_endpoint_requests_total",
            Kind::Counter,
            "Requests sent to an endpoint, tries included.",
            |endpoint| endpoint.requests,
        ),
        (
            "gateway_upstream_endpoint_requests_in_flight",
            Kind::Gauge,
            "Requests an endpoint has not answered yet.",
            |endpoint| endpoint.requests_in_flight,
        ),
        (
            "gateway_upstream_endpoint_failures_total",
            Kind::Counter,
            "Times an endpoint could not be reached or did not answer as it should.",
            |endpoint| endpoint.failures,
        ),
    ];
    for (name, kind, help, value) in ROWS {
        page.family(name, kind, help);
        for endpoint in scrape.endpoints {
            let address = endpoint.address.to_string();
            let labels = [("upstream", &*endpoint.upstream), ("endpoint", &*address)];
            page.sample(name, &labels, value(endpoint));
        }
    }
}
