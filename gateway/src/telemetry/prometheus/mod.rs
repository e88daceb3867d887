//! The counters as Prometheus reads them (text exposition format 0.0.4), all workers summed.

mod page;
mod sources;
mod upstreams;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics::{Deadline, Offence, Policy, Worker};
use crate::tls::Failure;
use page::{Kind, Page};
pub use sources::{BanCounts, KernelCounter, ListHits};
pub use upstreams::Endpoint;

/// What the answer's `Content-Type` says.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric there is, in the order written.
pub const NAMES: [&str; 58] = [
    "gateway_build_info",
    "gateway_start_time_seconds",
    "gateway_workers",
    "gateway_reloads_total",
    "gateway_file_reloads_total",
    "gateway_key_fetches_total",
    "gateway_connections_accepted_total",
    "gateway_connections_refused_total",
    "gateway_connections_reaped_total",
    "gateway_connections_open",
    "gateway_requests_in_flight",
    "gateway_tunnels_open",
    "gateway_requests_rejected_total",
    "gateway_offences_unreported_total",
    "gateway_panics_total",
    "gateway_responses_total",
    "gateway_request_duration_seconds",
    "gateway_downstream_bytes_total",
    "gateway_tunnel_bytes_total",
    "gateway_deadlines_total",
    "gateway_offences_total",
    "gateway_tls_handshakes_total",
    "gateway_tls_handshake_failures_total",
    "gateway_tls_handshakes_open",
    "gateway_tls_certificate_expiry_seconds",
    "gateway_access_log_lines_dropped_total",
    "gateway_policy_requests_total",
    "gateway_identity_requests_total",
    "gateway_source_connections_refused_total",
    "gateway_source_connections_uncounted_total",
    "gateway_bans_total",
    "gateway_bans_given_up_total",
    "gateway_bans_held",
    "gateway_upstream_requests_total",
    "gateway_upstream_connections_total",
    "gateway_upstream_connections_idle",
    "gateway_upstream_connect_failures_total",
    "gateway_upstream_failures_total",
    "gateway_upstream_retries_total",
    "gateway_upstream_hedges_total",
    "gateway_upstream_mirrors_total",
    "gateway_upstream_mirrors_skipped_total",
    "gateway_upstream_ejections_total",
    "gateway_upstream_requests_pending",
    "gateway_upstream_overflows_total",
    "gateway_upstream_response_duration_seconds",
    "gateway_upstream_endpoint_up",
    "gateway_upstream_endpoint_ejected",
    "gateway_upstream_endpoint_requests_total",
    "gateway_upstream_endpoint_requests_in_flight",
    "gateway_upstream_endpoint_failures_total",
    "gateway_xdp_packets_total",
    "gateway_xdp_list_hits",
    "gateway_xdp_attached",
    "gateway_xdp_flood",
    "gateway_xdp_events_lost_total",
    "process_open_fds",
    "process_max_fds",
];

/// All that one answer is made of.
#[derive(Debug)]
pub struct Scrape<'a> {
    /// Every worker's counters.
    pub workers: &'a [&'a Worker],
    /// Configurations that took the place of another, and that were refused.
    pub reloads: (u64, u64),
    /// Changes of files that TLS is set up from: applied, and refused.
    pub file_reloads: (u64, u64),
    /// Key sets of tokens fetched, and those that could not be.
    pub key_fetches: (u64, u64),
    /// The certificates in use, and the Unix time each ends at.
    pub certificates: &'a [(String, i64)],
    /// The endpoints there are.
    pub endpoints: &'a [Endpoint],
    /// The kernel program's counters; none without a program.
    pub kernel: &'a [KernelCounter],
    /// Packets that its lists have decided.
    pub lists: &'a [ListHits],
    /// The interfaces the kernel program was attached to, each with whether it still is.
    pub interfaces: &'a [(&'a str, bool)],
    /// Whether there is a flood, and samples that were lost, if there is such a program.
    pub flood: Option<(bool, u64)>,
    /// Connections that the table of sources had no room to count.
    pub sources_uncounted: u64,
    /// What has become of bans.
    pub bans: BanCounts,
    /// Access log lines the output did not take.
    pub access_log_lines_lost: u64,
    /// When the process started.
    pub started: SystemTime,
    /// Descriptors the process has open, if that can be found out.
    pub open_fds: Option<u64>,
    /// Descriptors it may have.
    pub max_fds: u64,
}

/// A metric without labels that is one number of each worker.
type WorkerRow = (&'static str, Kind, &'static str, fn(&Worker) -> u64);

const WORKER_ROWS: [WorkerRow; 9] = [
    (
        "gateway_connections_accepted_total",
        Kind::Counter,
        "Client connections accepted.",
        |worker| worker.connections_accepted.value(),
    ),
    (
        "gateway_connections_refused_total",
        Kind::Counter,
        "Client connections refused because a cap was reached.",
        |worker| worker.connections_refused.value(),
    ),
    (
        "gateway_connections_reaped_total",
        Kind::Counter,
        "Idle client connections closed early, because the cap was near.",
        |worker| worker.connections_reaped.value(),
    ),
    ("gateway_connections_open", Kind::Gauge, "Client connections open now.", |worker| {
        worker.connections_open.value()
    }),
    ("gateway_requests_in_flight", Kind::Gauge, "Requests being answered now.", |worker| {
        worker.requests_in_flight.value()
    }),
    ("gateway_tunnels_open", Kind::Gauge, "Connections that have become a WebSocket.", |worker| {
        worker.tunnels_open.value()
    }),
    (
        "gateway_requests_rejected_total",
        Kind::Counter,
        "Requests refused by the HTTP parser.",
        |worker| worker.requests_rejected.value(),
    ),
    (
        "gateway_offences_unreported_total",
        Kind::Counter,
        "Offences that were counted but came too fast to be written down.",
        |worker| worker.offences_unreported.value(),
    ),
    (
        "gateway_panics_total",
        Kind::Counter,
        "Connections lost to a mistake in the gateway itself.",
        |worker| worker.panics.value(),
    ),
];

/// Writes everything. Metrics come in the order of [`NAMES`].
pub fn render(scrape: &Scrape<'_>) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    process_start(&mut page, scrape);
    for (name, kind, help, value) in WORKER_ROWS {
        page.family(name, kind, help);
        page.sample(name, &[], sum(scrape.workers, value));
    }
    requests(&mut page, scrape);
    policies(&mut page, scrape);
    identities(&mut page, scrape);
    sources::workers(&mut page, scrape);
    upstreams::upstreams(&mut page, scrape);
    upstreams::endpoints(&mut page, scrape);
    sources::kernel(&mut page, scrape);
    descriptors(&mut page, scrape);
    page.0
}

fn process_start(page: &mut Page, scrape: &Scrape<'_>) {
    page.family("gateway_build_info", Kind::Gauge, "Always 1; the label says what runs.");
    page.sample("gateway_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let started = scrape.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.family("gateway_start_time_seconds", Kind::Gauge, "Unix time the gateway started at.");
    page.sample("gateway_start_time_seconds", &[], started.as_millis() as f64 / 1000.0);
    page.family("gateway_workers", Kind::Gauge, "Worker threads, one to a core.");
    page.sample("gateway_workers", &[], scrape.workers.len());
    let name = "gateway_reloads_total";
    page.family(name, Kind::Counter, "Changed configurations, by what became of them.");
    page.sample(name, &[("result", "applied")], scrape.reloads.0);
    page.sample(name, &[("result", "refused")], scrape.reloads.1);

    let name = "gateway_file_reloads_total";
    page.family(name, Kind::Counter, "Changes of files that TLS and policies read.");
    page.sample(name, &[("result", "applied")], scrape.file_reloads.0);
    page.sample(name, &[("result", "refused")], scrape.file_reloads.1);

    let name = "gateway_key_fetches_total";
    page.family(name, Kind::Counter, "Fetches of keys that tokens are verified by.");
    page.sample(name, &[("result", "fetched")], scrape.key_fetches.0);
    page.sample(name, &[("result", "failed")], scrape.key_fetches.1);
}

fn requests(page: &mut Page, scrape: &Scrape<'_>) {
    let workers = scrape.workers;
    let name = "gateway_responses_total";
    page.family(
        name,
        Kind::Counter,
        "Finished requests by status; none: the client got no answer.",
    );
    for code in 0..600 {
        let count =
            sum(workers, |worker| worker.responses.get(code).map_or(0, |count| count.value()));
        if count > 0 {
            let label = if code == 0 { "none".to_owned() } else { code.to_string() };
            page.sample(name, &[("code", &label)], count);
        }
    }

    let name = "gateway_request_duration_seconds";
    page.family(name, Kind::Histogram, "From a request's head to the end of its response.");
    page.histogram(name, None, workers.iter().map(|worker| &worker.request_duration));

    let name = "gateway_downstream_bytes_total";
    page.family(name, Kind::Counter, "Bytes read from (in) and written to (out) clients.");
    let bytes_in = sum(workers, |worker| worker.downstream_bytes_in.value());
    let bytes_out = sum(workers, |worker| worker.downstream_bytes_out.value());
    page.sample(name, &[("direction", "in")], bytes_in);
    page.sample(name, &[("direction", "out")], bytes_out);

    let name = "gateway_tunnel_bytes_total";
    page.family(name, Kind::Counter, "Bytes carried by tunnels from (in) and to (out) clients.");
    page.sample(
        name,
        &[("direction", "in")],
        sum(workers, |worker| worker.tunnel_bytes_in.value()),
    );
    let bytes_out = sum(workers, |worker| worker.tunnel_bytes_out.value());
    page.sample(name, &[("direction", "out")], bytes_out);

    let name = "gateway_deadlines_total";
    page.family(name, Kind::Counter, "Deadlines that passed.");
    for (index, label) in Deadline::LABELS.iter().enumerate() {
        let count =
            sum(workers, |worker| worker.deadlines.get(index).map_or(0, |count| count.value()));
        page.sample(name, &[("deadline", label)], count);
    }

    let name = "gateway_offences_total";
    page.family(name, Kind::Counter, "Rules broken by clients.");
    for (index, label) in Offence::LABELS.iter().enumerate() {
        let count =
            sum(workers, |worker| worker.offences.get(index).map_or(0, |count| count.value()));
        page.sample(name, &[("offence", label)], count);
    }

    tls(page, scrape);

    let name = "gateway_access_log_lines_dropped_total";
    page.family(name, Kind::Counter, "Access log lines lost, and why.");
    let queue_full = sum(workers, |worker| worker.access_log_dropped.value());
    page.sample(name, &[("reason", "queue_full")], queue_full);
    page.sample(name, &[("reason", "write_failed")], scrape.access_log_lines_lost);
}

fn tls(page: &mut Page, scrape: &Scrape<'_>) {
    let workers = scrape.workers;
    let name = "gateway_tls_handshakes_total";
    page.family(name, Kind::Counter, "TLS handshakes that made a connection.");
    let full = sum(workers, |worker| worker.handshakes_full.value());
    page.sample(name, &[("kind", "full")], full);
    let resumed = sum(workers, |worker| worker.handshakes_resumed.value());
    page.sample(name, &[("kind", "resumed")], resumed);

    let name = "gateway_tls_handshake_failures_total";
    page.family(name, Kind::Counter, "TLS handshakes that failed.");
    for (index, label) in Failure::LABELS.iter().enumerate() {
        let count = |worker: &Worker| worker.handshake_failures.get(index).map_or(0, |n| n.value());
        page.sample(name, &[("reason", label)], sum(workers, count));
    }

    let name = "gateway_tls_handshakes_open";
    page.family(name, Kind::Gauge, "TLS handshakes going on.");
    page.sample(name, &[], sum(workers, |worker| worker.handshakes_open.value()));

    let name = "gateway_tls_certificate_expiry_seconds";
    page.family(name, Kind::Gauge, "Unix time at which a certificate ends.");
    for (certificate, not_after) in scrape.certificates {
        page.sample(name, &[("certificate", certificate)], not_after);
    }
}

/// What policies made of requests, by policy.
type PolicyRow = (&'static str, fn(&Policy) -> u64);

const POLICY_ROWS: [PolicyRow; 5] = [
    ("passed", |policy| policy.passed.value()),
    ("answered", |policy| policy.answered.value()),
    ("refused", |policy| policy.refused.value()),
    ("observed", |policy| policy.observed.value()),
    ("shared", |policy| policy.shared.value()),
];

fn policies(page: &mut Page, scrape: &Scrape<'_>) {
    let mut policies: BTreeMap<String, [u64; POLICY_ROWS.len()]> = BTreeMap::new();
    for (name, counters) in scrape.workers.iter().flat_map(|worker| worker.policies()) {
        let sums = policies.entry(name).or_default();
        for (sum, (_, value)) in sums.iter_mut().zip(POLICY_ROWS) {
            *sum += value(&counters);
        }
    }
    let name = "gateway_policy_requests_total";
    page.family(name, Kind::Counter, "Requests by what a policy made of them.");
    for (policy, sums) in &policies {
        for ((verdict, _), sum) in POLICY_ROWS.iter().zip(sums) {
            page.sample(name, &[("policy", policy), ("verdict", verdict)], sum);
        }
    }
}

/// Who was let in, where policies have been told to count that.
fn identities(page: &mut Page, scrape: &Scrape<'_>) {
    let name = "gateway_identity_requests_total";
    page.family(name, Kind::Counter, "Requests by whom a policy found their client to be.");
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (policy, names) in scrape.workers.iter().flat_map(|worker| worker.requests_by_identity()) {
        for (identity, counter) in names {
            *sums.entry((policy.clone(), identity)).or_default() += counter.value();
        }
    }
    for ((policy, identity), sum) in &sums {
        page.sample(name, &[("policy", policy), ("identity", identity)], sum);
    }
}

/// The two names every Prometheus client library uses, so that existing dashboards find them.
fn descriptors(page: &mut Page, scrape: &Scrape<'_>) {
    if let Some(open) = scrape.open_fds {
        page.family("process_open_fds", Kind::Gauge, "Descriptors open now.");
        page.sample("process_open_fds", &[], open);
    }
    page.family("process_max_fds", Kind::Gauge, "Descriptors the process may open.");
    page.sample("process_max_fds", &[], scrape.max_fds);
}

fn sum(workers: &[&Worker], value: impl Fn(&Worker) -> u64) -> u64 {
    workers.iter().map(|worker| value(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn page(workers: &[&Worker], upstreams: &[&str]) -> String {
        for (worker, name) in workers.iter().flat_map(|w| upstreams.iter().map(move |n| (w, n))) {
            worker.upstream(name);
        }
        let endpoint = Endpoint {
            upstream: "orders".to_owned(),
            address: "192.0.2.1:80".parse().unwrap(),
            host: "orders.test".to_owned(),
            up: true,
            ejected: 1,
            requests: 2,
            requests_in_flight: 3,
            failures: 4,
        };
        render(&Scrape {
            endpoints: &[endpoint],
            certificates: &[("a.pem".to_owned(), 1_800_000_000)],
            workers,
            reloads: (0, 0),
            file_reloads: (0, 0),
            kernel: &[KernelCounter {
                interface: "eth0".to_owned(),
                verdict: "drop",
                reason: "rate",
                packets: 7,
            }],
            lists: &[ListHits {
                list: "deny".to_owned(),
                origin: "deny.txt".to_owned(),
                packets: 9,
            }],
            interfaces: &[("eth0", true)],
            flood: Some((true, 3)),
            key_fetches: (0, 0),
            sources_uncounted: 3,
            bans: BanCounts { made: 4, observed: 5, refused: 6, given_up: 7, held: 8 },
            access_log_lines_lost: 2,
            started: UNIX_EPOCH + Duration::from_millis(1_795_417_510_250),
            open_fds: Some(12),
            max_fds: 1024,
        })
    }

    #[track_caller]
    fn assert_has(page: &str, line: &str) {
        assert!(page.lines().any(|have| have == line), "{line} is not in\n{page}");
    }

    #[test]
    fn names_lists_every_metric_and_each_has_help_and_type() {
        let page = page(&[&Worker::new()], &["orders"]);
        let names = |prefix: &str| -> Vec<String> {
            page.lines()
                .filter_map(|line| line.strip_prefix(prefix))
                .map(|rest| rest.split(' ').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names("# TYPE "), NAMES);
        assert_eq!(names("# HELP "), NAMES);
    }

    #[test]
    fn workers_are_summed() {
        let (a, b) = (Worker::new(), Worker::new());
        a.connections_accepted.add(2);
        b.connections_accepted.add(3);
        a.responses[200].add(4);
        b.responses[200].add(1);
        b.responses[0].add(1);
        b.upstream("users").requests.add(9);
        b.deadline(Deadline::Connect);
        a.access_log_dropped.add(1);

        let page = page(&[&a, &b], &["orders", "users"]);

        assert_has(&page, "gateway_workers 2");
        assert_has(&page, "gateway_connections_accepted_total 5");
        assert_has(&page, "gateway_responses_total{code=\"200\"} 5");
        assert_has(&page, "gateway_responses_total{code=\"none\"} 1");
        assert!(!page.contains("code=\"404\""));
        assert_has(&page, "gateway_upstream_requests_total{upstream=\"orders\"} 0");
        assert_has(&page, "gateway_upstream_requests_total{upstream=\"users\"} 9");
        assert_has(&page, "gateway_deadlines_total{deadline=\"connect\"} 1");
        assert_has(&page, "gateway_access_log_lines_dropped_total{reason=\"queue_full\"} 1");
        assert_has(&page, "gateway_access_log_lines_dropped_total{reason=\"write_failed\"} 2");
        assert_has(
            &page,
            "gateway_xdp_packets_total{interface=\"eth0\",verdict=\"drop\",reason=\"rate\"} 7",
        );
        assert_has(&page, "gateway_xdp_flood 1");
        assert_has(&page, "gateway_xdp_events_lost_total 3");
        assert_has(&page, "gateway_start_time_seconds 1795417510.25");
        assert_has(&page, "process_open_fds 12");
    }

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let (a, b) = (Worker::new(), Worker::new());
        a.request_duration.record(Duration::from_micros(250));
        b.request_duration.record(Duration::from_micros(251));
        b.request_duration.record(Duration::from_secs(60));
        b.upstream("orders").response_duration.record(Duration::from_millis(1));

        let page = page(&[&a, &b], &["orders"]);

        let name = "gateway_request_duration_seconds";
        assert_has(&page, &format!("{name}_bucket{{le=\"0.00025\"}} 1"));
        assert_has(&page, &format!("{name}_bucket{{le=\"0.0005\"}} 2"));
        assert_has(&page, &format!("{name}_bucket{{le=\"30\"}} 2"));
        assert_has(&page, &format!("{name}_bucket{{le=\"+Inf\"}} 3"));
        assert_has(&page, &format!("{name}_sum 60.000501"));
        assert_has(&page, &format!("{name}_count 3"));
        let name = "gateway_upstream_response_duration_seconds";
        assert_has(&page, &format!("{name}_bucket{{upstream=\"orders\",le=\"0.001\"}} 1"));
        assert_has(&page, &format!("{name}_count{{upstream=\"orders\"}} 1"));
    }

    #[test]
    fn labels_are_escaped() {
        let page = page(&[&Worker::new()], &["a\"b\\c\nd"]);
        assert_has(&page, "gateway_upstream_requests_total{upstream=\"a\\\"b\\\\c\\nd\"} 0");
    }
}
