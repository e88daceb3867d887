//! A request of the gateway's own to an upstream, whose answer is read whole.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::relay::Body;
use crate::exchange::{Error, Resources, Side};
use crate::http::Reject;
use crate::http::forward::UpstreamHead;
use crate::http::framing::{self, Framing};
use crate::http::head::{Method, ResponseHead, is_persistent};
use crate::http::parse::{self, HeadLimits, Scan};
use crate::net::{Buffer, Deadline, Reader, proxy_protocol};
use crate::upstream::{Lease, Upstream};

/// Interim responses taken for one request.
const INTERIM_MAX: usize = 16;

/// Nothing of it has gone to a client, who can still be told.
const BROKEN_OFF: Error = Error::BadResponse(Reject::Malformed("upstream broke off its answer"));

/// A request that nobody but the gateway waits for.
pub struct Call<'a> {
    /// What the worker lends.
    pub resources: &'a Resources,
    /// Who is asked.
    pub upstream: &'a Upstream,
    /// What its head says.
    pub method: Method,
    /// Its head.
    pub head: UpstreamHead,
    /// Its body, whose length the head tells.
    pub body: &'a [u8],
    /// Where it belongs among all numbers, if it belongs to others.
    pub point: Option<u64>,
    /// Whose connection it is and where that went, for upstreams that want to know.
    pub announced: Option<(SocketAddr, SocketAddr)>,
    /// What of the answer's body is wanted.
    pub wanted: Wanted,
    /// When all of it has to be over.
    pub until: Deadline,
}

/// What of an answer's body is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it, which may have so many bytes.
    Whole(usize),
    /// Nothing, but the connection is to serve another request.
    Nothing,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The head, of [`Self::bytes`].
    pub head: ResponseHead,
    /// What the head was parsed from.
    pub bytes: BytesMut,
    /// The body, decoded, if it came whole, in time and within its bounds.
    pub body: Result<Vec<u8>, Error>,
}

/// One try.
struct Tried {
    answer: Answer,
    latency: Duration,
    reusable: bool,
}

impl Call<'_> {
    /// Asks, also another endpoint if one fails and the method is idempotent, within the budget of the
    /// upstream. May be dropped.
    ///
    /// # Errors
    /// When no answer's head came whole and in time.
    pub async fn run(mut self) -> Result<Answer, Error> {
        let mut out = std::mem::take(&mut self.head).into_bytes();
        out.extend_from_slice(self.body);
        let mut out = Buffer::from(out);
        let mut attempts = self.upstream.attempts(self.point, self.until);
        let (mut fresh, mut failure) = (false, None);
        let replayable = self.method.is_idempotent();
        loop {
            let lease = attempts.checkout(fresh).await;
            let mut lease = lease.map_err(|error| failure.unwrap_or(error))?;
            let may_be_stale = replayable && lease.is_reused() && !fresh;
            match self.once(&mut lease, &mut out).await {
                Ok(Tried { answer, latency, reusable }) => {
                    let status = answer.head.status;
                    match &answer.body {
                        Err(error) if error.side() == Side::Upstream => attempts.failed(&lease),
                        _ => attempts.answered(&lease, latency, status),
                    }
                    if replayable && attempts.refuses(status) {
                        attempts.leave_out(&lease);
                        (fresh, failure) = (false, Some(Error::Refused));
                    } else {
                        if reusable && !self.resources.draining.get() {
                            lease.release();
                        }
                        return Ok(answer);
                    }
                }
                Err(Error::UpstreamGone) if may_be_stale => fresh = true,
                Err(error) => {
                    if error.side() == Side::Upstream {
                        attempts.failed(&lease);
                    }
                    let again = replayable && error == Error::UpstreamGone;
                    if !again || !attempts.take_retry() {
                        return Err(error);
                    }
                    attempts.leave_out(&lease);
                    (fresh, failure) = (true, Some(error));
                }
            }
            self.upstream.metrics().retries.add(1);
        }
    }

    async fn once(&self, lease: &mut Lease, out: &mut Buffer) -> Result<Tried, Error> {
        let gap = self.resources.timeouts.body;
        let gone = |_: io::Error| Error::UpstreamGone;
        let announced = self.upstream.proxy_protocol().zip(self.announced);
        if let Some((version, (source, destination))) = announced {
            let header = proxy_protocol::encode(version, source, destination);
            let mut header = Buffer::from(BytesMut::from(header.as_slice()));
            lease.stream.writer.write_all(&mut header, gap).await.map_err(gone)?;
        }
        lease.stream.writer.write_all(out, gap).await.map_err(gone)?;
        let begun = Instant::now();
        let mut buffer = self.resources.buffers.take();
        let mut head = ResponseHead::default();
        let reader = &mut lease.stream.reader;
        self.read_head(reader, &mut buffer, &mut head).await?;
        let latency = begun.elapsed();
        self.upstream.metrics().response_duration.record(latency);
        let bytes = BytesMut::from(buffer.filled().get(..head.len).unwrap_or_default());
        let framing = framing::response(self.method, &head, &bytes).map_err(Error::BadResponse)?;
        let persistent =
            framing != Framing::Close && is_persistent(head.version, &head.fields, &bytes);
        buffer.consume(head.len);
        let (body, clean) = match self.read_body(reader, &mut buffer, framing).await {
            Ok((body, clean)) => (Ok(body), clean),
            Err(error) => (Err(error), false),
        };
        self.resources.buffers.give(buffer);
        let reusable = persistent && clean && announced.is_none();
        Ok(Tried { answer: Answer { head, bytes, body }, latency, reusable })
    }

    async fn read_head(
        &self,
        reader: &mut Reader,
        buffer: &mut Buffer,
        head: &mut ResponseHead,
    ) -> Result<(), Error> {
        let limits = HeadLimits { underscores: true, ..self.resources.head_limits() };
        let until = Deadline::after(self.resources.timeouts.response).min(self.until);
        let (mut scan, mut interim) = (Scan::default(), 0);
        loop {
            let complete = parse::response(buffer.filled(), &mut scan, limits, head)
                .map_err(Error::BadResponse)?;
            match head.status {
                _ if !complete => {
                    buffer.compact();
                    match reader.read(buffer, usize::MAX, until).await {
                        Ok(count) if count > 0 => {}
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                            return Err(Error::ResponseTimeout);
                        }
                        _ if buffer.is_empty() && interim == 0 => return Err(Error::UpstreamGone),
                        _ => return Err(BROKEN_OFF),
                    }
                }
                // RFC 9110 §15.2.2: an answer to an Upgrade that nobody asked for.
                101 => return Err(Error::BadResponse(Reject::Malformed("unasked-for upgrade"))),
                100..=199 if interim < INTERIM_MAX => {
                    interim += 1;
                    buffer.consume(head.len);
                    scan = Scan::default();
                }
                100..=199 => {
                    let reason = "too many interim responses";
                    return Err(Error::BadResponse(Reject::Malformed(reason)));
                }
                _ => return Ok(()),
            }
        }
    }

    /// The body, and whether nothing came behind it.
    async fn read_body(
        &self,
        reader: &mut Reader,
        buffer: &mut Buffer,
        framing: Framing,
    ) -> Result<(Vec<u8>, bool), Error> {
        // What is framed by the connection's end is not framed at all.
        let mut body = Body::new(framing, Framing::Close);
        let (mut whole, mut surplus) = (Vec::new(), BytesMut::new());
        loop {
            body.recode(buffer, &mut surplus).map_err(Error::BadResponse)?;
            match self.wanted {
                Wanted::Whole(max) if whole.len() + buffer.len() > max => {
                    return Err(Error::AnswerTooLarge);
                }
                Wanted::Whole(_) => whole.extend_from_slice(buffer.filled()),
                Wanted::Nothing => {}
            }
            buffer.clear();
            if body.is_done() {
                return Ok((whole, surplus.is_empty()));
            }
            let until = Deadline::after(self.resources.timeouts.body).min(self.until);
            match reader.read(buffer, body.wanted(), until).await {
                Ok(0) if body.end(buffer) => {}
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Error::ResponseTimeout);
                }
                _ => return Err(BROKEN_OFF),
            }
        }
    }
}
