//! Sends a share of requests to another upstream, too, and throws its answers away. The client never
//! notices: nothing waits for it, and when there is too much of it, it does not happen.

#![expect(clippy::disallowed_types, reason = "counters are read by the control thread")]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::call::{Call, Wanted};
use super::rewrite::Rewritten;
use crate::exchange::affinity::point;
use crate::exchange::{Context, Request, Resources};
use crate::http::forward::{self, RequestShape, UpstreamHead};
use crate::http::framing::Framing;
use crate::http::head::Method;
use crate::net::Deadline;
use crate::telemetry::metrics;
use crate::upstream::Upstream;

/// Copies a worker sends to an upstream at once.
const AT_ONCE_MAX: u64 = 128;

/// Where copies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Position of the upstream.
    pub upstream: usize,
    /// Of how many requests, percent.
    pub share: u32,
}

/// A copy of a request, which lives on its own.
pub struct Copy {
    method: Method,
    head: UpstreamHead,
    body: Bytes,
    point: Option<u64>,
    announced: Option<(std::net::SocketAddr, std::net::SocketAddr)>,
    _counted: Counted,
}

impl Mirror {
    /// The copy of a request, if it is one of those that are copied. What has a body is copied only if the
    /// body came whole with the head, because the client's connection is read once.
    pub fn copy(
        &self,
        request: &Request<'_>,
        rewritten: &Rewritten,
        resources: &Resources,
        upstream: &Upstream,
        context: &Context,
    ) -> Option<Copy> {
        let drawn = point(&resources.request_ids.make());
        let is_drawn = (u128::from(drawn) * 100) >> 64 < u128::from(self.share);
        if !is_drawn || request.upgrade {
            return None;
        }
        let Request { head, bytes, framing, client, .. } = *request;
        let came = context.body.borrow();
        let body = match framing {
            Framing::Empty => Some(&[][..]),
            Framing::Length(length) => {
                usize::try_from(length).ok().and_then(|length| came.filled().get(..length))
            }
            Framing::Chunked | Framing::Close => None,
        };
        let counted = Counted::new(upstream);
        let (Some(body), Some(counted)) = (body, counted) else {
            upstream.metrics().mirrors_skipped.add(1);
            return None;
        };
        let shape = RequestShape {
            framing,
            path: rewritten.path.as_deref(),
            host: rewritten.host.as_deref(),
            ..RequestShape::default()
        };
        let edits = context.request_edits.borrow();
        let out = forward::request(BytesMut::new(), head, bytes, shape, client, &edits);
        Some(Copy {
            method: head.method,
            // What cannot be passed on is refused where the client hears of it.
            head: out.ok()?,
            body: Bytes::copy_from_slice(body),
            point: upstream.affinity().and_then(|affinity| affinity.point(request)),
            announced: request.destination.map(|destination| (request.source, destination)),
            _counted: counted,
        })
    }
}

impl Copy {
    /// Sends it, and reads what comes.
    pub async fn send(self, resources: &Resources, upstream: &Upstream) {
        let call = Call {
            resources,
            upstream,
            method: self.method,
            head: self.head,
            body: &self.body,
            point: self.point,
            announced: self.announced,
            wanted: Wanted::Nothing,
            until: Deadline::after(resources.timeouts.response),
        };
        if let Err(error) = call.run().await.and_then(|answer| answer.body) {
            tracing::debug!(upstream = &*upstream.name, "mirror: {}", error.message());
        }
    }
}

/// One of those that are sent at once.
struct Counted(Arc<metrics::Upstream>);

impl Counted {
    /// `None` when there are too many.
    fn new(upstream: &Upstream) -> Option<Self> {
        let metrics = upstream.shared_metrics();
        (metrics.mirrors_in_flight.value() < AT_ONCE_MAX).then(|| {
            metrics.mirrors.add(1);
            metrics.mirrors_in_flight.add(1);
            Self(Arc::clone(metrics))
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.mirrors_in_flight.sub(1);
    }
}
