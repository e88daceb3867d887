//! An endpoint's response on its way to the client.

use std::cell::Cell;
use std::io;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;

use super::relay::Body;
use crate::exchange::context::add;
use crate::exchange::{Context, Error, Request, Resources, Responder, ResponseWriter};
use crate::http::Reject;
use crate::http::forward::{self, ResponseShape};
use crate::http::framing::{self, Framing};
use crate::http::head::{ResponseHead, Version, is_persistent, values_of};
use crate::http::parse::{self, HeadLimits, Scan};
use crate::http::upgrade;
use crate::net::{Buffer, Deadline, Reader};
use crate::telemetry::metrics;

/// Interim responses taken for one request; more is an endpoint gone wrong.
const INTERIM_MAX: usize = 16;

/// How an exchange with an endpoint ended.
#[derive(Debug)]
pub(super) struct Ended<'w> {
    /// Whether the endpoint's connection may serve another.
    pub reusable: bool,
    /// Whether the client was told that its connection stays open.
    pub persistent: bool,
    /// The client's side of a tunnel, if the endpoint has agreed to one.
    pub tunnel: Option<ResponseWriter<'w>>,
}

/// Reads one response and passes it on.
pub(super) struct Response<'a, 'r> {
    pub resources: &'a Resources,
    pub request: &'a Request<'r>,
    pub context: &'a Context,
    pub metrics: &'a metrics::Upstream,
    /// Until when the head must have come; changes when an upload ends while it is awaited.
    pub head_by: &'a Cell<Deadline>,
    /// Whether an answer with this status is as good as none: another endpoint will be asked.
    pub refuses: &'a dyn Fn(u16) -> bool,
}

impl Response<'_, '_> {
    /// Relays the response that `reader` gives. `responder` is left alone until its head is good.
    pub async fn relay<'w>(
        &self,
        reader: &mut Reader,
        responder: &mut Option<Responder<'w>>,
    ) -> Result<Ended<'w>, Error> {
        let mut buffer = self.resources.buffers.take();
        let mut head = self.resources.response_heads.take();
        let result = self.run(reader, responder, &mut buffer, &mut head).await;
        self.resources.response_heads.give(head);
        self.resources.buffers.give(buffer);
        result
    }

    async fn run<'w>(
        &self,
        reader: &mut Reader,
        responder: &mut Option<Responder<'w>>,
        buffer: &mut Buffer,
        head: &mut ResponseHead,
    ) -> Result<Ended<'w>, Error> {
        self.final_head(reader, responder, buffer, head).await?;
        self.context.upstream_status.set(head.status);
        if responder.as_ref().is_some_and(Responder::is_silent) && (self.refuses)(head.status) {
            let after = values_of(&head.fields, buffer.filled(), "retry-after").next();
            self.context.retry_after.set(after.and_then(retry_after));
            return Err(Error::Refused);
        }
        if let Some(sent) = self.context.sent_at.get() {
            let waited = sent.elapsed();
            self.context.upstream_duration.set(Some(waited));
            self.metrics.response_duration.record(waited);
        }
        if head.status == 101 {
            // Boxed, as few connections become a tunnel.
            return Box::pin(self.switch(responder, buffer, head)).await;
        }
        let method = self.request.head.method;
        let framing =
            framing::response(method, head, buffer.filled()).map_err(Error::BadResponse)?;
        let reusable =
            framing != Framing::Close && is_persistent(head.version, &head.fields, buffer.filled());
        let shape = self.shape(framing);

        let mut out = BytesMut::from(self.resources.buffers.take());
        if let Some(responder) = responder {
            responder.encode(&mut out, head, buffer.filled(), shape, self.context);
        }
        buffer.consume(head.len);
        let mut body = Body::new(framing, shape.framing);
        let mut surplus = BytesMut::new();
        let first = body.recode(buffer, &mut surplus).map_err(Error::BadResponse)?;
        add(&self.context.bytes_out, first);
        let Some(responder) = responder.take() else { return Err(Error::ClientGone) };
        let mut writer = responder.start(head.status, self.context);
        let mut out = Buffer::from(out);
        if !buffer.prepend(out.filled()) {
            writer.write(&mut out).await?;
        }
        if body.is_done() && !shape.persistent {
            writer.last();
        }
        self.resources.buffers.give(out);
        writer.write(buffer).await?;
        self.rest(reader, &mut writer, &mut body, buffer, &mut surplus).await?;
        let reusable = reusable && surplus.is_empty();
        Ok(Ended { reusable, persistent: shape.persistent, tunnel: None })
    }

    /// Passes on the response that makes the connection a tunnel, and what came behind it.
    async fn switch<'w>(
        &self,
        responder: &mut Option<Responder<'w>>,
        buffer: &mut Buffer,
        head: &ResponseHead,
    ) -> Result<Ended<'w>, Error> {
        let Some(responder) = responder.take() else { return Err(Error::ClientGone) };
        let mut out = BytesMut::from(self.resources.buffers.take());
        forward::switching_response(
            &mut out,
            head,
            buffer.filled(),
            &self.context.response_edits.borrow(),
        );
        buffer.consume(head.len);
        add(&self.context.bytes_out, buffer.len());
        self.resources.metrics.tunnel_bytes_out.add(buffer.len() as u64);
        let mut writer = responder.start(head.status, self.context);
        let mut out = Buffer::from(out);
        out.append(buffer.filled());
        writer.write(&mut out).await?;
        self.resources.buffers.give(out);
        Ok(Ended { reusable: false, persistent: false, tunnel: Some(writer) })
    }

    /// Reads up to and including the final head, passing interim responses on.
    async fn final_head(
        &self,
        reader: &mut Reader,
        responder: &mut Option<Responder<'_>>,
        buffer: &mut Buffer,
        head: &mut ResponseHead,
    ) -> Result<(), Error> {
        // What an origin calls its fields is its own business.
        let limits = HeadLimits { underscores: true, ..self.resources.head_limits() };
        let mut scan = Scan::default();
        let mut interim = 0;
        loop {
            let complete = parse::response(buffer.filled(), &mut scan, limits, head)
                .map_err(Error::BadResponse)?;
            match head.status {
                _ if !complete => {
                    buffer.compact();
                    self.more_of_head(reader, buffer, interim == 0).await?;
                }
                101 if self.request.upgrade && upgrade::is_acceptance(head, buffer.filled()) => {
                    return Ok(());
                }
                // RFC 9110 §15.2.2: an answer to an Upgrade that nobody asked for.
                101 => return Err(Error::BadResponse(Reject::Malformed("unasked-for upgrade"))),
                100..=199 if interim == INTERIM_MAX => {
                    return Err(Error::BadResponse(Reject::Malformed(
                        "too many interim responses",
                    )));
                }
                100..=199 => {
                    interim += 1;
                    if let Some(responder) = responder {
                        // Boxed, as few responses have one.
                        Box::pin(responder.interim(head, buffer.filled(), self.context)).await?;
                    }
                    buffer.consume(head.len);
                    scan = Scan::default();
                }
                _ => return Ok(()),
            }
        }
    }

    async fn more_of_head(
        &self,
        reader: &mut Reader,
        buffer: &mut Buffer,
        first: bool,
    ) -> Result<(), Error> {
        match reader.read(buffer, usize::MAX, self.head_by.get()).await {
            Ok(count) if count > 0 => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.in_time()?;
                self.resources.metrics.deadline(metrics::Deadline::Response);
                Err(Error::ResponseTimeout)
            }
            _ if buffer.is_empty() && first => Err(Error::UpstreamGone),
            _ => Err(Error::BadResponse(Reject::Malformed("upstream broke off its head"))),
        }
    }

    /// Whether the exchange may take longer.
    fn in_time(&self) -> Result<(), Error> {
        self.context.in_time().inspect_err(|_| {
            self.resources.metrics.deadline(metrics::Deadline::Request);
        })
    }

    /// How the client gets the response. Chunked where the length is not known, but not to a client
    /// of HTTP/1.0, which sees the end by the connection's (RFC 9112 §6.1).
    fn shape(&self, framing: Framing) -> ResponseShape {
        let framing = match (framing, self.request.head.version) {
            (Framing::Chunked | Framing::Close, Version::Http10) => Framing::Close,
            (Framing::Chunked | Framing::Close, Version::Http11) => Framing::Chunked,
            (framing, _) => framing,
        };
        let persistent = self.request.persistent
            && self.context.request_read.get()
            && framing != Framing::Close
            && !self.resources.draining.get();
        ResponseShape { framing, persistent }
    }

    /// Passes on what of the body did not come with the head.
    async fn rest(
        &self,
        reader: &mut Reader,
        writer: &mut ResponseWriter<'_>,
        body: &mut Body,
        buffer: &mut Buffer,
        surplus: &mut BytesMut,
    ) -> Result<(), Error> {
        while !body.is_done() {
            buffer.clear();
            let until = Deadline::after(self.resources.timeouts.body);
            let until = until.min(self.context.deadline.get());
            match reader.read(buffer, body.wanted(), until).await {
                Ok(0) if body.end(buffer) => {}
                Ok(0) => return Err(Error::ResponseCut),
                Ok(_) => {
                    let count = body.recode(buffer, surplus).map_err(|_| Error::ResponseCut)?;
                    add(&self.context.bytes_out, count);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    self.in_time()?;
                    self.resources.metrics.deadline(metrics::Deadline::ResponseBody);
                    return Err(Error::ResponseStalled);
                }
                Err(_) => return Err(Error::ResponseCut),
            }
            writer.write(buffer).await?;
        }
        Ok(())
    }
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(value: &[u8]) -> Option<Duration> {
    let text = str::from_utf8(value).ok()?;
    let seconds = text.parse().map(Duration::from_secs).ok();
    seconds.or_else(|| httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok())
}
