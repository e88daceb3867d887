//! How policies' questions reach upstreams.

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;

use super::Shared;
use crate::action::call::{Answer, Call, Wanted};
use crate::exchange::Error;
use crate::exchange::inquiry::{Inquiry, Reply, Upstreams};
use crate::http::forward::{self, RequestShape};
use crate::http::framing::Framing;
use crate::http::head::Method;
use crate::net::Deadline;

impl Upstreams for Shared {
    fn ask<'a>(&'a self, inquiry: Inquiry<'a>) -> LocalBoxFuture<'a, Result<Reply, Error>> {
        Box::pin(async move {
            let Inquiry { request, target, edits, body_bytes_max, timeout, .. } = inquiry;
            let upstream = self.upstreams.iter().find(|known| *known.name == *inquiry.upstream);
            let upstream = upstream.ok_or(Error::Unavailable)?;
            let shape = RequestShape {
                framing: Framing::Empty,
                method: Some(b"GET"),
                path: Some(target),
                query: Some(b""),
                ..RequestShape::default()
            };
            let (head, bytes, client) = (request.head, request.bytes, request.client);
            let head = forward::request(BytesMut::new(), head, bytes, shape, client, edits);
            let call = Call {
                resources: &self.resources,
                upstream,
                method: Method::Get,
                head: head.map_err(Error::Rejected)?,
                body: b"",
                point: upstream.affinity().and_then(|affinity| affinity.point(request)),
                announced: request.destination.map(|destination| (request.source, destination)),
                wanted: Wanted::Whole(body_bytes_max),
                until: Deadline::after(timeout),
            };
            let Answer { head, bytes, body } = call.run().await?;
            Ok(Reply { head, bytes, body })
        })
    }
}
