//! **Read this first.** One request, from its head to its log line: a straight list of steps with
//! one exit.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::connection::{Connection, Next};
use super::prologue::Peer;
use super::{Listener, Route, Shared, record, route};
use crate::action::compose::{Asking, Compose};
use crate::action::forward::{Forward, Forwarded};
use crate::action::mirror::Mirror;
use crate::action::{Action, Fallback};
use crate::exchange::error::Denial;
use crate::exchange::responder::{self, Content, Responder};
use crate::exchange::{Context, Error, Identity, Request, request_id, template};
use crate::http::forward::Client;
use crate::http::forwarded;
use crate::http::framing::Framing;
use crate::http::head::{Method, RequestHead, Version, is_persistent};
use crate::http::{Reject, upgrade};
use crate::net::{Deadline, Reader, rt};
use crate::policy::Verdict;
use crate::routing::PathPattern;
use crate::telemetry::access_log::Entry;
use crate::telemetry::metrics;

/// Serves one request whose head is complete.
pub(super) async fn serve(
    shared: &Rc<Shared>,
    connection: &mut Connection,
    head: &RequestHead,
    framing: Framing,
) -> Next {
    let resources = &shared.resources;
    let begun = Instant::now();
    let in_flight = record::InFlight::new(shared);
    let context = Context::default();
    if matches!(framing, Framing::Empty | Framing::Length(0)) {
        context.request_read.set(true);
    } else {
        context.body.replace(connection.take_body(head.len, resources));
    }
    let Connection { stream, buffer, peer, listener, requests, .. } = connection;
    let bytes = buffer.filled();
    let believed = believed(shared, *listener, peer, head, bytes);
    // The port of a client behind a proxy is not known.
    let source = believed.as_ref().map_or(peer.source, |client| (client.address, 0).into());
    let banned = shared.sources.is_banned(source.ip());
    let direct = source.ip() == peer.socket.ip();
    let made = resources.request_ids.make();
    let scheme = if stream.is_secure() { "https" } else { "http" };
    let identity = Identity::default();
    let request = Request {
        head,
        bytes,
        framing,
        persistent: is_persistent(head.version, &head.fields, bytes)
            && *requests < resources.limits.requests_per_connection
            && !(banned && direct),
        upgrade: upgrade::is_handshake(head, bytes, framing),
        client: Client {
            chain: believed.as_ref().map_or(&peer.address, |client| &client.chain),
            scheme: believed.as_ref().and_then(|client| client.scheme).unwrap_or(scheme),
            host: believed.as_ref().and_then(|client| client.host.as_deref()),
            trusted: believed.is_some(),
            request_id: request_id::given(&head.fields, bytes).unwrap_or(&made),
            certificate: peer.certificate.as_ref().map_or(b"", |certificate| &certificate.lines),
        },
        received: begun,
        route: "",
        identity: &identity,
        source,
        destination: peer.destination,
        certificate: peer.certificate.as_deref(),
    };
    let mut responder = Some(Responder::new(&mut stream.writer, &request, resources));

    let listener = shared.listener(*listener);
    let result = match banned {
        true => Err(Error::Denied(Denial::Banned)),
        false => {
            answer(shared, listener, &request, &mut stream.reader, &mut responder, &context).await
        }
    };
    let (next, error, surplus) = match result {
        Ok(Forwarded { persistent, surplus }) => {
            (next(persistent, &context), context.fell_back.get(), surplus)
        }
        Err(error) => {
            shared.note_offence(error, source, peer.socket);
            let next = fail(shared, &request, responder, &context, error).await;
            (next, Some(error), BytesMut::new())
        }
    };

    let duration = begun.elapsed();
    record::count(shared, context.status.get(), duration);
    let bodies = (context.bytes_in.get(), context.bytes_out.get());
    record::traffic(shared, source, context.status.get(), bodies);
    if !banned {
        shared.note_status(context.status.get(), source, peer.socket);
    }
    let logged = context.logged_query.take().map(|query| with_query(&request, &query));
    let (reason, observed) = (context.reason.take(), context.observed.take());
    shared.log(|| Entry {
        observed: &observed,
        target: logged.as_deref().unwrap_or_else(|| head.target_text.of(bytes)),
        error: error.map(|error| reason.as_deref().unwrap_or(error.message())),
        ..record::entry(shared, &request, &context, duration)
    });
    drop(in_flight);
    connection.advance(head.len, &surplus);
    next
}

/// What a trusted proxy says about the client.
fn believed(
    shared: &Shared,
    listener: usize,
    peer: &Peer,
    head: &RequestHead,
    bytes: &[u8],
) -> Option<forwarded::Client> {
    let listener = &shared.listener(listener)?.trust;
    let sender = peer.source.ip().to_canonical();
    let source = listener.forwarded_field;
    let trusts = |address| listener.trusts(address);
    listener.trusts(sender).then(|| forwarded::client(&head.fields, bytes, source, sender, trusts))
}

/// Finds the route and lets its action answer, unless a policy does.
async fn answer(
    shared: &Rc<Shared>,
    listener: Option<&Listener>,
    request: &Request<'_>,
    reader: &mut Reader,
    responder: &mut Option<Responder<'_>>,
    context: &Context,
) -> Result<Forwarded, Error> {
    let Request { head, bytes, .. } = *request;
    if let Some(listener) = listener {
        let verdict = match listener.policies.request(request, reader, context, &**shared).await {
            Verdict::Continue => redirect(listener, request, context)?,
            verdict => verdict,
        };
        if let Some(status) = passed(verdict)? {
            return answer_for_policy(shared, status, request, responder, context).await;
        }
    }
    // RFC 9110 §9.3.7: `*` asks about the server as a whole, which for a client is the gateway.
    if head.target.path(bytes) == b"*" {
        return answer_self(shared, 200, None, request, responder, context).await;
    }
    let route = route::find(shared, request, context)?;
    if let Some(ambiguity) = head.target.ambiguities.beyond(route.allow_in_path) {
        return Err(Error::Rejected(Reject::Malformed(ambiguity.reason())));
    }
    let request = &Request { route: &route.name, ..*request };
    let verdict = route.policies.request(request, reader, context, &**shared).await;
    if let Some(status) = passed(verdict)? {
        return answer_for_policy(shared, status, request, responder, context).await;
    }
    // RFC 9110 §7.6.2: the last recipient answers, whatever lies behind it.
    if head.max_forwards == Some(0) {
        return answer_self(shared, 200, None, request, responder, context).await;
    }
    if let Framing::Length(length) = request.framing
        && length > route.body_bytes_max(context)
    {
        return Err(Error::BodyTooLarge);
    }
    if let Some(timeout) = route.timeout {
        context.deadline.set(Deadline::after(timeout));
    }
    let split = match &route.action {
        Action::Forward(split) => split,
        Action::Compose(compose) => {
            // Boxed, as few routes do it.
            let content = compose_answer(shared, route, compose, request, reader, context);
            let content = Some(Box::pin(content).await?);
            return answer_self(shared, 200, content, request, responder, context).await;
        }
        Action::Respond(respond) => {
            let content = respond.content(request, context, &route.path);
            return answer_self(shared, respond.status, content, request, responder, context).await;
        }
        Action::Redirect(redirect) => {
            let status = redirect.begin(request, &route.path, context);
            return answer_self(shared, status, None, request, responder, context).await;
        }
    };
    if let Some(mirror) = &route.mirror {
        send_copy(shared, route, mirror, request, context);
    }
    let index = route::choose(split, shared, request, context).ok_or(Error::NoRoute)?;
    let forwarded = match forward(shared, route, index, request, context) {
        Ok(forward) => forward.answer(request, reader, responder, context).await,
        Err(error) => Err(error),
    };
    let (Err(error), Some(fallback)) = (&forwarded, &route.fallback) else { return forwarded };
    let silent = responder.as_ref().is_some_and(Responder::is_silent);
    if !silent || !error.may_fall_back() {
        return forwarded;
    }
    match fallback {
        Fallback::Respond(respond) => {
            context.fell_back.set(Some(*error));
            let content = respond.content(request, context, &route.path);
            answer_self(shared, respond.status, content, request, responder, context).await
        }
        Fallback::Forward(index) if may_ask_another(request, *error) => {
            context.fell_back.set(Some(*error));
            // Boxed, as it is seldom needed.
            let forward = forward(shared, route, *index, request, context)?;
            Box::pin(forward.answer(request, reader, responder, context)).await
        }
        Fallback::Forward(_) => forwarded,
    }
}

/// Makes one answer of several.
async fn compose_answer(
    shared: &Shared,
    route: &Route,
    compose: &Compose,
    request: &Request<'_>,
    reader: &Reader,
    context: &Context,
) -> Result<Content<'static>, Error> {
    if !matches!(request.head.method, Method::Get | Method::Head) {
        let (name, value) = (Bytes::from_static(b"allow"), Bytes::from_static(b"GET, HEAD"));
        context.response_edits.borrow_mut().set(name, value);
        return Err(Error::MethodNotAllowed);
    }
    let asking = Asking {
        resources: &shared.resources,
        upstreams: &shared.upstreams,
        request,
        pattern: route.path.pattern(),
        allow_in_path: route.allow_in_path,
        context,
    };
    compose.content(&asking, reader.watcher()).await
}

/// Sends a copy of the request to another upstream, if it is one of those that are copied. Nobody waits for
/// what comes of it.
fn send_copy(
    shared: &Rc<Shared>,
    route: &Route,
    mirror: &Mirror,
    request: &Request<'_>,
    context: &Context,
) {
    let upstream = shared.upstreams.get(mirror.upstream).map(Rc::clone);
    let (Some(upstream), Ok(rewritten)) = (upstream, route.rewrite(request, context)) else {
        return;
    };
    let copy = mirror.copy(request, &rewritten, &shared.resources, &upstream, context);
    let Some(copy) = copy else { return };
    let shared = Rc::clone(shared);
    rt::spawn(async move { copy.send(&shared.resources, &upstream).await }, || {});
}

/// Lets an upstream answer.
fn forward<'a>(
    shared: &'a Shared,
    route: &Route,
    index: usize,
    request: &Request<'_>,
    context: &Context,
) -> Result<Forward<'a>, Error> {
    context.upstream.set(Some(index));
    let upstream = shared.upstreams.get(index).ok_or(Error::NoRoute)?;
    let (resources, body_bytes_max) = (&shared.resources, route.body_bytes_max(context));
    let rewritten = route.rewrite(request, context)?;
    Ok(Forward { resources, upstream, body_bytes_max, rewritten })
}

/// Whether a request that came to nothing may be sent elsewhere: what has been read of a body is gone, and
/// what may have been done is not done twice.
fn may_ask_another(request: &Request<'_>, error: Error) -> bool {
    matches!(request.framing, Framing::Empty | Framing::Length(0))
        && (request.head.method.is_idempotent() || error.is_unsent())
}

/// What policies make of a request: the status they answer it with, if they do.
fn passed(verdict: Verdict) -> Result<Option<u16>, Error> {
    match verdict {
        Verdict::Continue | Verdict::Wait => Ok(None),
        Verdict::Answer(status) => Ok(Some(status)),
        Verdict::Refuse(error) => Err(error),
    }
}

/// Sends who speaks plain HTTP to HTTPS, on listeners that are there for it. A proxy in front may have
/// spoken HTTPS already.
fn redirect(
    listener: &Listener,
    request: &Request<'_>,
    context: &Context,
) -> Result<Verdict, Error> {
    let redirect = listener.redirect.as_ref().filter(|_| request.client.scheme == "http");
    let Some(redirect) = redirect else { return Ok(Verdict::Continue) };
    if template::host(request).is_empty() {
        return Err(Error::Rejected(Reject::Malformed("no host to redirect to")));
    }
    let any = PathPattern::Prefix(String::new());
    Ok(Verdict::Answer(redirect.begin(request, &any, context)))
}

/// Answers what goes no further.
async fn answer_self(
    shared: &Shared,
    status: u16,
    content: Option<Content<'_>>,
    request: &Request<'_>,
    responder: &mut Option<Responder<'_>>,
    context: &Context,
) -> Result<Forwarded, Error> {
    let persistent = may_persist(shared, request, context);
    if let Some(responder) = responder.take() {
        responder.answer(status, content, persistent, request, context).await?;
    }
    Ok(Forwarded { persistent, surplus: BytesMut::new() })
}

/// The same with what a policy has to say, if it does.
async fn answer_for_policy(
    shared: &Shared,
    status: u16,
    request: &Request<'_>,
    responder: &mut Option<Responder<'_>>,
    context: &Context,
) -> Result<Forwarded, Error> {
    let said = context.content.take();
    let content =
        said.as_ref().map(|(content_type, body)| Content { content_type, body: body.clone() });
    answer_self(shared, status, content, request, responder, context).await
}

/// Whether a connection may stay open after an answer of the gateway's own: what is left of a
/// request that was not read to its end cannot be told from the next one.
fn may_persist(shared: &Shared, request: &Request<'_>, context: &Context) -> bool {
    request.persistent && context.request_read.get() && !shared.resources.draining.get()
}

fn next(persistent: bool, context: &Context) -> Next {
    match (persistent, context.request_read.get()) {
        (true, true) => Next::Keep,
        (false, true) => Next::Close,
        (_, false) => Next::Linger,
    }
}

/// Tells the client what went wrong, if a response has not begun and somebody is there to be told.
async fn fail(
    shared: &Shared,
    request: &Request<'_>,
    responder: Option<Responder<'_>>,
    context: &Context,
    error: Error,
) -> Next {
    if error == Error::ClientStalled {
        shared.resources.metrics.deadline(metrics::Deadline::ResponseWrite);
    }
    // What it did not take would stay in the kernel for as long as it likes to take it.
    if error == Error::ClientStalled {
        return Next::Reset;
    }
    let (Some(responder), Some(status)) = (responder, error.status()) else {
        // A client of HTTP/1.0 may be told the end of a body by the end of the connection.
        let looks_whole = request.head.version == Version::Http10 && context.status.get() != 0;
        return if looks_whole { Next::Reset } else { Next::Close };
    };
    let persistent = may_persist(shared, request, context) && !matches!(error, Error::Rejected(_));
    if let Some(seconds) = error.retry_after() {
        let name = Bytes::from_static(b"retry-after");
        context.response_edits.borrow_mut().set(name, seconds.into());
    }
    match responder.answer(status, None, persistent, request, context).await {
        Ok(()) => next(persistent, context),
        Err(_) => Next::Close,
    }
}

/// Answers what never became a request: a head that was refused, or did not come in time.
pub(super) async fn refuse(shared: &Rc<Shared>, connection: &mut Connection, error: Error) -> Next {
    let resources = &shared.resources;
    shared.note_offence(error, connection.peer.source, connection.peer.socket);
    let Some(status) = error.status() else { return Next::Close };
    resources.metrics.requests_rejected.add(1);
    let sent = responder::refuse(&mut connection.stream.writer, resources, status).await;
    record::count(shared, status, Duration::ZERO);
    let client = connection.peer.source;
    record::traffic(shared, client, status, (0, 0));
    shared.log(|| Entry { status, error: Some(error.message()), ..record::unknown(client) });
    if sent.is_ok() { Next::Linger } else { Next::Close }
}

/// What a client asked for, with another query.
fn with_query(request: &Request<'_>, query: &[u8]) -> Vec<u8> {
    let Request { head, bytes, .. } = *request;
    let text = head.target_text.of(bytes);
    let own = head.target.query.of(bytes);
    [text.strip_suffix(own).unwrap_or(text), query].concat()
}
