//! Passes a request on to an endpoint and its response back.
//!
//! A request without a body, or whose body came along with its head, goes out in one write, and the
//! response is read after it. Otherwise upload and response run side by side, because an endpoint
//! may answer before it has read everything.

use std::cell::Cell;
use std::io;
use std::mem;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};

use super::relay::Body;
use super::response::{Ended, Response};
use super::rewrite::Rewritten;
use super::tunnel::{self, tunnel};
use crate::exchange::context::add;
use crate::exchange::{Context, Error, Request, Resources, Responder, Side};
use crate::http::forward::{self, RequestShape};
use crate::net::stream::Watcher;
use crate::net::{Buffer, Deadline, Reader, Writer, proxy_protocol, rt};
use crate::telemetry::metrics;
use crate::upstream::{Attempts, Lease, Upstream};

/// What a chunk's size, its line ends and the last chunk add to a part of a body.
const CODING_BYTES_MAX: usize = 32;

/// How a forwarded exchange left the client's connection.
#[derive(Debug)]
pub struct Forwarded {
    /// Whether the response promised the client that its connection stays open.
    pub persistent: bool,
    /// Bytes of the next request that were read with the end of this one's body.
    pub surplus: BytesMut,
}

/// Answers with what an upstream answers.
pub struct Forward<'a> {
    /// What the worker lends.
    pub resources: &'a Resources,
    /// Who is asked.
    pub upstream: &'a Upstream,
    /// The most the request's body may have.
    pub body_bytes_max: u64,
    /// What the request is called instead.
    pub rewritten: Rewritten,
}

impl Forward<'_> {
    /// Forwards `request`. The client's `reader` gives the rest of its body. `responder` is used up
    /// as soon as a response begins: if it is still there after a failure, the client can be told.
    ///
    /// # Errors
    /// Whatever ended the exchange before its response was whole.
    pub async fn answer(
        &self,
        request: &Request<'_>,
        reader: &mut Reader,
        responder: &mut Option<Responder<'_>>,
        context: &Context,
    ) -> Result<Forwarded, Error> {
        let Self { resources, body_bytes_max, .. } = *self;
        let body = Body::new(request.framing, request.framing);
        let surplus = BytesMut::new();
        let rewritten = &self.rewritten;
        let mut upload = Upload {
            resources,
            request,
            context,
            rewritten,
            body,
            body_bytes_max,
            timeout_field: self.upstream.timeout_field(),
            head_len: 0,
            surplus,
        };
        let mut out = upload.begin(reader)?;
        let result = self.tries(&mut out, &mut upload, reader, responder).await;
        resources.buffers.give(out);
        let persistent = result?;
        Ok(Forwarded { persistent, surplus: upload.surplus })
    }

    /// Tries a kept connection, once more a fresh one if that was dead, and other endpoints if one fails
    /// while the request may be sent again. Returns whether the client was told that its connection
    /// stays open.
    async fn tries(
        &self,
        out: &mut Buffer,
        upload: &mut Upload<'_, '_>,
        reader: &mut Reader,
        responder: &mut Option<Responder<'_>>,
    ) -> Result<bool, Error> {
        let Self { resources, upstream, .. } = *self;
        let Upload { request, context, .. } = *upload;
        let point = upstream.affinity().and_then(|affinity| affinity.point(request));
        // Only what may be processed twice may be sent twice (RFC 9110 §9.2.2), and only what is still
        // here can be.
        let replayable = upload.body.is_done() && request.head.method.is_idempotent();
        let mut attempts = upstream.attempts(point, context.deadline.get());
        let (mut fresh, mut failure) = (false, None);
        loop {
            let lease = attempts.checkout(fresh).await;
            let mut lease = lease.map_err(|error| failure.unwrap_or(error))?;
            context.endpoint.set(Some(lease.address()));
            self.announce(&mut lease, request).await?;
            let mut sent_at = None;
            if let Some(delay) = attempts.hedge_after().filter(|_| replayable) {
                // Boxed, as few upstreams ask for it.
                (lease, sent_at) =
                    Box::pin(self.hedge(&mut attempts, lease, delay, request, out)).await;
                context.endpoint.set(Some(lease.address()));
            }
            let sent = match sent_at {
                Some(_) => Ok(true),
                None => self.send(&mut lease, out).await,
            };
            let head_by = Cell::new(Deadline::NEVER);
            let refuses = |status| replayable && attempts.refuses(status);
            let metrics = upstream.metrics();
            let (head_by, refuses) = (&head_by, &refuses);
            let response = Response { resources, request, context, metrics, head_by, refuses };
            let may_be_stale = replayable && lease.is_reused();
            let ended = match sent {
                Ok(sent) => {
                    let sending = Sending { sent, sent_at, may_be_stale };
                    exchange(&mut lease, upload, &response, reader, responder, sending).await
                }
                Err(error) => Err(error),
            };
            if let Some(latency) = context.upstream_duration.take() {
                attempts.answered(&lease, latency, context.upstream_status.get());
                context.upstream_duration.set(Some(latency));
            }
            match ended {
                Ok(Ended { tunnel: Some(writer), .. }) => {
                    let sent_ahead = request.bytes.get(request.head.len..).unwrap_or_default();
                    let address = request.source.ip();
                    let client = tunnel::Client { reader, writer, sent_ahead, address };
                    // Boxed, as few exchanges become one.
                    Box::pin(tunnel(resources, client, &mut lease.stream, context)).await?;
                    return Ok(false);
                }
                Ok(ended) => {
                    // A connection announced as one client's is no other's.
                    let announced = upstream.proxy_protocol().is_some();
                    if ended.reusable && !announced && !resources.draining.get() {
                        lease.release();
                    }
                    return Ok(ended.persistent);
                }
                Err(Error::Stale) if !fresh => fresh = true,
                // Its retry has been counted.
                Err(Error::Refused) => {
                    if let Some(time) = context.retry_after.take() {
                        attempts.pause(&lease, time);
                    }
                    attempts.leave_out(&lease);
                    (fresh, failure) = (false, Some(Error::Refused));
                }
                Err(error) => {
                    // Who has not answered in the time a route allows is slow, whatever the time.
                    let slow = error == Error::OutOfTime && context.request_read.get();
                    if error.side() == Side::Upstream || slow {
                        attempts.failed(&lease);
                    }
                    let silent = responder.as_ref().is_some_and(Responder::is_silent);
                    let unanswered = error == Error::UpstreamGone && silent;
                    if !replayable || !unanswered || !attempts.take_retry() {
                        return Err(error);
                    }
                    attempts.leave_out(&lease);
                    (fresh, failure) = (true, Some(error));
                }
            }
            context.upstream_duration.set(None);
            upstream.metrics().retries.add(1);
            if upstream.timeout_field().is_some() {
                upload.retell(out)?;
            }
        }
    }

    /// Sends the request, or what has come of it; false when the endpoint takes no more, which may still
    /// have answered before.
    async fn send(&self, lease: &mut Lease, out: &mut Buffer) -> Result<bool, Error> {
        match lease.stream.writer.write_all(out, self.resources.timeouts.body).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Error::ResponseTimeout),
            sent => Ok(sent.is_ok()),
        }
    }

    /// Sends the request, and to another endpoint, too, if the first does not begin to answer in time.
    /// Returns who begins first, and when it was sent, if it could be.
    async fn hedge(
        &self,
        attempts: &mut Attempts<'_>,
        mut first: Lease,
        delay: Duration,
        request: &Request<'_>,
        out: &mut Buffer,
    ) -> (Lease, Option<Instant>) {
        let gap = self.resources.timeouts.body;
        if first.stream.writer.write_all(out, gap).await.is_err() {
            return (first, None);
        }
        let begun = Instant::now();
        if rt::timeout(delay, first.stream.reader.readable()).await.is_some()
            || !attempts.take_retry()
        {
            return (first, Some(begun));
        }
        attempts.leave_out(&first);
        let Ok(mut second) = attempts.checkout(false).await else { return (first, Some(begun)) };
        if self.announce(&mut second, request).await.is_err()
            || second.stream.writer.write_all(out, gap).await.is_err()
        {
            return (first, Some(begun));
        }
        let sent = Instant::now();
        self.upstream.metrics().hedges.add(1);
        let either = {
            let one = pin!(first.stream.reader.readable());
            let other = pin!(second.stream.reader.readable());
            let answer = rt::timeout(self.resources.timeouts.response, select(one, other)).await;
            matches!(answer, Some(Either::Right(_)))
        };
        match either {
            true => {
                attempts.overtaken(&first, begun.elapsed());
                (second, Some(sent))
            }
            false => (first, Some(begun)),
        }
    }

    /// Says whose connection it is, to an upstream that wants to know (the PROXY protocol).
    async fn announce(&self, lease: &mut Lease, request: &Request<'_>) -> Result<(), Error> {
        let (Some(version), Some(destination)) =
            (self.upstream.proxy_protocol(), request.destination)
        else {
            return Ok(());
        };
        let header = proxy_protocol::encode(version, request.source, destination);
        let mut header = Buffer::from(BytesMut::from(header.as_slice()));
        let gap = self.resources.timeouts.body;
        lease.stream.writer.write_all(&mut header, gap).await.map_err(|_| Error::UpstreamGone)
    }
}

/// How a try began.
#[derive(Clone, Copy, Debug)]
struct Sending {
    /// Whether the request, as far as it has come, has been taken.
    sent: bool,
    /// Since when the endpoint has it, if not just now.
    sent_at: Option<Instant>,
    /// Whether the connection may have died unseen.
    may_be_stale: bool,
}

/// One try on one connection, to which the request has been sent.
async fn exchange<'w>(
    lease: &mut Lease,
    upload: &mut Upload<'_, '_>,
    response: &Response<'_, '_>,
    reader: &mut Reader,
    responder: &mut Option<Responder<'w>>,
    sending: Sending,
) -> Result<Ended<'w>, Error> {
    let Upload { resources, context, .. } = *upload;
    let Sending { sent, sent_at, may_be_stale } = sending;
    let sent_at_once = upload.body.is_done();
    let stream = &mut lease.stream;
    let request_sent = || {
        context.sent_at.set(Some(sent_at.unwrap_or_else(Instant::now)));
        let by = Deadline::after(resources.timeouts.response).min(context.deadline.get());
        response.head_by.set(by);
        by
    };
    let (client, endpoint) = (reader.watcher(), stream.reader.watcher());
    let responding = pin!(response.relay(&mut stream.reader, responder));
    if sent_at_once || !sent {
        request_sent();
        let watch = client.watch(&endpoint);
        let ended = responding.await;
        drop(watch);
        return match ended {
            Ok(ended) => Ok(Ended { reusable: ended.reusable && sent, ..ended }),
            Err(Error::UpstreamGone) if may_be_stale && !client.is_broken() => Err(Error::Stale),
            Err(error) => Err(blame(error, &client)),
        };
    }

    // Boxed, because most requests never come here and every connection's task would hold room
    // for it.
    let uploading = Box::pin(upload.run(reader, &mut stream.writer));
    match select(uploading, responding).await {
        Either::Left((uploaded @ (Ok(()) | Err(Error::UpstreamGone)), responding)) => {
            let by = request_sent();
            if context.status.get() == 0 {
                endpoint.arm(by);
            }
            let watch = client.watch(&endpoint);
            let ended = responding.await;
            drop(watch);
            match ended {
                Ok(ended) => Ok(Ended { reusable: ended.reusable && uploaded.is_ok(), ..ended }),
                Err(error) => Err(blame(error, &client)),
            }
        }
        Either::Left((Err(error), _)) => Err(error),
        // The upload is dropped half done, so neither connection can be used again.
        Either::Right((ended, _)) => {
            ended.map(|ended| Ended { reusable: false, persistent: false, ..ended })
        }
    }
}

/// An endpoint whose connection was shut down because the client had gone is not to blame.
fn blame(error: Error, client: &Watcher) -> Error {
    if error.side() == Side::Upstream && client.is_broken() { Error::ClientGone } else { error }
}

/// A request on its way out.
struct Upload<'a, 'r> {
    resources: &'a Resources,
    request: &'a Request<'r>,
    context: &'a Context,
    rewritten: &'a Rewritten,
    body: Body,
    body_bytes_max: u64,
    /// The field in which the endpoint is told how long it has, if it is.
    timeout_field: Option<&'a str>,
    /// Bytes of the head for the endpoint.
    head_len: usize,
    /// Bytes of the next request that were read with the end of this one.
    surplus: BytesMut,
}

impl Upload<'_, '_> {
    /// The head for the origin, with as much of the body behind it as has come.
    fn begin(&mut self, reader: &mut Reader) -> Result<Buffer, Error> {
        let Self { resources, context, .. } = *self;
        let mut out = Buffer::from(self.head(resources.buffers.take().into())?);
        if !self.body.is_done() {
            let mut came = context.body.take();
            self.recode(&mut came)?;
            // It has the room of the client's head before it.
            if came.prepend(out.filled()) {
                mem::swap(&mut came, &mut out);
            } else {
                out.append(came.filled());
            }
            resources.buffers.give(came);
            self.append_ready(&mut out, reader)?;
        }
        context.request_read.set(self.body.is_done());
        Ok(out)
    }

    /// The head for the origin.
    fn head(&mut self, memory: BytesMut) -> Result<BytesMut, Error> {
        let Request { head, bytes, framing, client, upgrade, .. } = *self.request;
        if let Some(name) = self.timeout_field {
            self.tell_timeout(name);
        }
        let shape = RequestShape {
            framing,
            upgrade,
            path: self.rewritten.path.as_deref(),
            host: self.rewritten.host.as_deref(),
            ..RequestShape::default()
        };
        let edits = self.context.request_edits.borrow();
        let out = forward::request(memory, head, bytes, shape, client, &edits);
        let out = out.map_err(Error::Rejected)?.into_bytes();
        self.head_len = out.len();
        Ok(out)
    }

    /// Says how long the exchange may still take. Whatever the client says of that is its own affair.
    fn tell_timeout(&self, name: &str) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let mut edits = self.context.request_edits.borrow_mut();
        match self.context.deadline.get() {
            Deadline::NEVER => edits.remove(name),
            deadline => edits.set(name, deadline.left().as_millis().to_string().into()),
        }
    }

    /// The same request with the time that is left by now.
    fn retell(&mut self, out: &mut Buffer) -> Result<(), Error> {
        let head_before = self.head_len;
        let mut next = self.head(BytesMut::new())?;
        next.extend_from_slice(out.filled().get(head_before..).unwrap_or_default());
        *out = Buffer::from(next);
        Ok(())
    }

    /// Adds what of the body can be read at once, so that a small one leaves in one write and needs
    /// nobody to look after it.
    fn append_ready(&mut self, out: &mut Buffer, reader: &mut Reader) -> Result<(), Error> {
        while !self.body.is_done() {
            let room = out.spare().saturating_sub(CODING_BYTES_MAX);
            let max = self.body.wanted().min(room);
            let count = match max {
                0 => 0,
                max if self.body.is_plain() => {
                    let count = reader.read_now(out, max);
                    self.body.pass(count);
                    self.count(count)?;
                    count
                }
                max => self.append_recoded(out, reader, max)?,
            };
            if count == 0 {
                break;
            }
            self.resources.metrics.downstream_bytes_in.add(count as u64);
        }
        Ok(())
    }

    /// Adds what can be read at once of a body that is framed anew; how many bytes were read.
    fn append_recoded(
        &mut self,
        out: &mut Buffer,
        reader: &mut Reader,
        max: usize,
    ) -> Result<usize, Error> {
        let mut part = self.resources.buffers.take();
        let count = reader.read_now(&mut part, max);
        if count > 0 {
            self.recode(&mut part)?;
            out.append(part.filled());
        }
        self.resources.buffers.give(part);
        Ok(count)
    }

    fn recode(&mut self, buffer: &mut Buffer) -> Result<(), Error> {
        let count = self.body.recode(buffer, &mut self.surplus).map_err(Error::Rejected)?;
        self.count(count)
    }

    fn count(&self, count: usize) -> Result<(), Error> {
        add(&self.context.bytes_in, count);
        if self.context.bytes_in.get() > self.body_bytes_max {
            return Err(Error::BodyTooLarge);
        }
        Ok(())
    }

    /// Sends the rest of the body. `UpstreamGone` when the endpoint takes no more, which may mean that it answers.
    async fn run(&mut self, reader: &mut Reader, writer: &mut Writer) -> Result<(), Error> {
        let gap = self.resources.timeouts.body;
        let mut pace = self.resources.pace();
        let mut buffer = self.resources.buffers.take();
        while !self.body.is_done() {
            buffer.clear();
            let begun = Deadline::now();
            let until = Deadline::after(pace.allowance()).min(self.context.deadline.get());
            match reader.read(&mut buffer, self.body.wanted(), until).await {
                Ok(count) if count > 0 => {
                    pace.record(begun.elapsed(), count);
                    self.resources.metrics.downstream_bytes_in.add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    self.context.in_time()?;
                    self.resources.metrics.deadline(metrics::Deadline::RequestBody);
                    return Err(Error::BodyTimeout);
                }
                _ => return Err(Error::ClientGone),
            }
            self.recode(&mut buffer)?;
            writer.write_all(&mut buffer, gap).await.map_err(|_| Error::UpstreamGone)?;
        }
        self.context.request_read.set(true);
        self.resources.buffers.give(buffer);
        Ok(())
    }
}
