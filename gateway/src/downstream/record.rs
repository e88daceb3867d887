//! What is taken down of requests: counters, traffic by source, and the entries of the access log.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::Shared;
use super::connection::Connection;
use crate::exchange::{Context, Error, Request};
use crate::http::head::{Version, values};
use crate::http::headers::Name;
use crate::telemetry::access_log::Entry;

/// Takes down a connection that is closed without a word.
pub(super) fn refusal(shared: &Rc<Shared>, connection: &Connection, error: Error) {
    shared.resources.metrics.requests_rejected.add(1);
    let client = connection.peer.source;
    shared.note_offence(error, client, connection.peer.socket);
    shared.log(|| Entry { error: Some(error.message()), ..unknown(client) });
}

/// Counts a request that has ended, whatever its outcome.
pub(super) fn count(shared: &Shared, status: u16, duration: Duration) {
    let metrics = &shared.resources.metrics;
    if let Some(counter) = metrics.responses.get(usize::from(status)) {
        counter.add(1);
    }
    // How long a tunnel lives says nothing about how fast requests are answered.
    if status != 101 {
        metrics.request_duration.record(duration);
    }
}

/// Counts a request for its source, while somebody looks; `bytes` of its body and of the answer's.
pub(super) fn traffic(shared: &Shared, client: SocketAddr, status: u16, bytes: (u64, u64)) {
    if !shared.traffic.is_watched() {
        return;
    }
    shared.traffic.note(shared.sources.source(client.ip()), |tally| {
        tally.requests += 1;
        tally.client_errors += u64::from((400..500).contains(&status));
        tally.bytes_in += bytes.0;
        tally.bytes_out += bytes.1;
    });
}

/// What the access log says of an exchange.
pub(super) fn entry<'a>(
    shared: &'a Shared,
    request: &Request<'a>,
    context: &'a Context,
    duration: Duration,
) -> Entry<'a> {
    let Request { head, bytes, .. } = *request;
    let upstream = context.upstream.get().and_then(|index| shared.upstreams.get(index));
    Entry {
        method: head.method_name.of(bytes),
        host: head.authority.map(|authority| authority.of(bytes)).unwrap_or_default(),
        user_agent: values(&head.fields, bytes, Name::UserAgent).next().unwrap_or_default(),
        referer: values(&head.fields, bytes, Name::Referer).next().unwrap_or_default(),
        version_minor: u8::from(head.version == Version::Http11),
        status: context.status.get(),
        bytes_in: context.bytes_in.get(),
        bytes_out: context.bytes_out.get(),
        duration,
        upstream: upstream.map(|upstream| &*upstream.name),
        endpoint: context.endpoint.get(),
        upstream_duration: context.upstream_duration.get(),
        identity: request.identity(),
        request_id: request.client.request_id,
        ..unknown(request.source)
    }
}

/// What it says of a client whose request could not be read.
pub(super) fn unknown(client: SocketAddr) -> Entry<'static> {
    Entry {
        time: SystemTime::now(),
        client,
        method: b"",
        target: b"",
        host: b"",
        user_agent: b"",
        referer: b"",
        version_minor: 1,
        status: 0,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::ZERO,
        upstream: None,
        endpoint: None,
        upstream_duration: None,
        identity: "",
        request_id: b"",
        error: None,
        observed: "",
    }
}

/// Counts a request as in flight, also when its task ends by a panic.
pub(super) struct InFlight<'a>(&'a Shared);

impl<'a> InFlight<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        shared.resources.metrics.requests_in_flight.add(1);
        shared.resources.deadlines.request_begun();
        Self(shared)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.resources.metrics.requests_in_flight.sub(1);
        self.0.resources.deadlines.request_ended();
    }
}
