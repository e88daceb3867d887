//! Lets in whom a service of your own lets in, which is asked about each request: by a GET with the request's
//! fields, to which it answers 2xx or what the client is to be told.

mod known;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use known::{Cache, Known};

use super::caller::NAME_BYTES_MAX;
use super::{Build, Parts, Policy, Verdict, headers};
use crate::document::section::Section;
use crate::document::units::{bytes, duration};
use crate::document::value::Kind;
use crate::document::values::{once, text, word};
use crate::exchange::error::Denial;
use crate::exchange::inquiry::{Inquiry, LEFT_OUT, Reply, Upstreams};
use crate::exchange::{Context, Error, Request};
use crate::http::edits::Edits;
use crate::http::head::values_of;

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const BODY_BYTES: RangeInclusive<u64> = 0..=1 << 20;
/// Bytes of fields that are remembered of one answer.
const REMEMBERED_BYTES_MAX: usize = 4 << 10;

/// What of an answer that lets nobody in the client is told, beside status and body.
const TOLD: [&str; 7] = [
    "cache-control",
    "location",
    "proxy-authenticate",
    "retry-after",
    "set-cookie",
    "vary",
    "www-authenticate",
];

/// Whom, and about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    upstream: String,
    path: String,
    timeout: Duration,
    /// Fields of the answer that the origin gets, and clients cannot send.
    copy: Vec<Bytes>,
    /// Fields of the answer that the client gets.
    tell: Vec<Bytes>,
    /// The field of the answer that says who the client is.
    identity: Option<Bytes>,
    /// Whether requests pass when nobody answers.
    passes_unanswered: bool,
    body_bytes_max: usize,
    cache: Option<Cache>,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let hint = "write the name of an upstream";
        let upstream = table.required("upstream", hint, |kind| Ok(text(kind)?.to_owned()));
        Self {
            upstream: upstream.unwrap_or_default(),
            path: table.value("path", "/".to_owned(), target),
            timeout: table.value("timeout", Duration::from_secs(5), duration(TIMEOUT)),
            copy: fields(table, "copy"),
            tell: fields(table, "tell"),
            identity: table.optional("identity", |kind| headers::name(text(kind)?, false)),
            passes_unanswered: table.value(
                "unanswered",
                false,
                word(&[("refuse", false), ("pass", true)]),
            ),
            body_bytes_max: table.value("body_bytes", 64 << 10, bytes(BODY_BYTES)),
            cache: table.has("cache").then(|| table.table("cache", Cache::read)),
        }
    }
}

/// Names of fields.
fn fields(table: &mut Section<'_>, key: &'static str) -> Vec<Bytes> {
    if !table.has(key) {
        return Vec::new();
    }
    let mut seen = std::collections::HashSet::new();
    table.list(key, "write [\"x-user\"]", |kind| {
        let name = headers::name(text(kind)?, key == "copy")?;
        once(&mut seen, name.to_ascii_lowercase(), kind)?;
        Ok(name)
    })
}

/// A path with a query, if it has one.
fn target(kind: &Kind) -> Result<String, String> {
    let text = text(kind)?;
    let is_plain = text.bytes().all(|byte| (b'!'..=b'~').contains(&byte) && byte != b'#');
    match text.starts_with('/') && is_plain {
        true => Ok(text.to_owned()),
        false => Err("must be a path such as \"/verify\"".to_owned()),
    }
}

impl Build for Settings {
    fn upstream(&self) -> Option<&str> {
        Some(&self.upstream)
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let name = parts.name.to_owned();
        Rc::new(ForwardAuth { name, settings: self.clone(), known: RefCell::default() })
    }
}

/// A worker's part in it.
struct ForwardAuth {
    name: String,
    settings: Settings,
    known: RefCell<Known>,
}

/// What the service says of a client that it lets in.
#[derive(Clone, Debug, Default)]
struct Passed {
    /// For the origin.
    copied: Vec<(Bytes, Bytes)>,
    /// For the client.
    told: Vec<(Bytes, Bytes)>,
    identity: Option<String>,
}

impl Policy for ForwardAuth {
    fn rule(&self, _: &Request<'_>) -> String {
        let Settings { upstream, path, timeout, passes_unanswered, cache, .. } = &self.settings;
        let otherwise = if *passes_unanswered { "it passes" } else { "503" };
        let cached = if cache.is_some() { ", or what it said of late" } else { "" };
        format!("GET {path} of {upstream} in {timeout:?}, else {otherwise}{cached}")
    }

    fn strip(&self, _: &Request<'_>, context: &Context) {
        let mut edits = context.request_edits.borrow_mut();
        for name in &self.settings.copy {
            edits.remove(name.clone());
        }
        if let Some(name) = &self.settings.identity {
            edits.remove_received(name.clone());
        }
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        self.strip(request, context);
        let known = self.settings.cache.as_ref().and_then(|cache| {
            let key = cache.key(request, &context.request_edits.borrow())?;
            self.known.borrow().find(&key, cache.entries, request.received)
        });
        match known {
            Some(passed) => passed.let_in(request, context),
            None => Verdict::Wait,
        }
    }

    fn wait<'a>(
        &'a self,
        request: &'a Request<'_>,
        context: &'a Context,
        upstreams: &'a dyn Upstreams,
    ) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(async move {
            let edits = question(request, &context.request_edits.borrow());
            let Settings { upstream, path, body_bytes_max, timeout, .. } = &self.settings;
            let inquiry = Inquiry {
                upstream,
                request,
                target: path.as_bytes(),
                edits: &edits,
                body_bytes_max: *body_bytes_max,
                timeout: *timeout,
            };
            match upstreams.ask(inquiry).await {
                Ok(reply) if (200..300).contains(&reply.head.status) => {
                    let passed = Rc::new(self.settings.passed(&reply));
                    self.remember(request, context, &passed);
                    passed.let_in(request, context)
                }
                Ok(reply) if (300..500).contains(&reply.head.status) => told(reply, context),
                Ok(reply) => self.unanswered(Error::Answered(reply.head.status), context),
                Err(error @ Error::Rejected(_)) => Verdict::Refuse(error),
                Err(error) => self.unanswered(error, context),
            }
        })
    }
}

impl ForwardAuth {
    fn remember(&self, request: &Request<'_>, context: &Context, passed: &Rc<Passed>) {
        let Some(cache) = &self.settings.cache else { return };
        let fits = passed.copied.iter().map(|(_, value)| value.len()).sum::<usize>()
            <= REMEMBERED_BYTES_MAX;
        // What a client is told once, as a new cookie, another is not told.
        if !fits || !passed.told.is_empty() {
            return;
        }
        let key = cache.key(request, &context.request_edits.borrow());
        let Some(key) = key else { return };
        let until = request.received + cache.ttl;
        self.known.borrow_mut().add(key, cache.entries, until, Rc::clone(passed));
    }

    /// Nobody has said whether the client may come in. Who has said what cannot be understood may have
    /// said no.
    fn unanswered(&self, error: Error, context: &Context) -> Verdict {
        if self.settings.passes_unanswered && !matches!(error, Error::BadResponse(_)) {
            return Verdict::Continue;
        }
        let reason = format!("{}: {}", self.name, error.message());
        context.reason.replace(Some(reason.into()));
        Verdict::Refuse(Error::Denied(Denial::Unanswered))
    }
}

/// What is asked: what the origin would be, as far as it is known by now. What this policy says nobody tells
/// the service, as [`Policy::strip`] has removed it.
fn question(request: &Request<'_>, edits: &Edits) -> Edits {
    let Request { head, bytes, .. } = *request;
    let method = Bytes::copy_from_slice(head.method_name.of(bytes));
    let query = edits.query().unwrap_or_else(|| head.target.query.of(bytes));
    let uri = [head.target.path(bytes), query].concat();
    let mut edits = edits.clone();
    for name in LEFT_OUT {
        edits.remove(Bytes::from_static(name.as_bytes()));
    }
    // What it says is told to a client that may have asked for another coding, or none.
    edits.set(Bytes::from_static(b"accept-encoding"), Bytes::from_static(b"identity"));
    edits.set(Bytes::from_static(b"x-forwarded-method"), method);
    edits.set(Bytes::from_static(b"x-forwarded-uri"), uri.into());
    edits
}

impl Settings {
    /// What an answer says of a client that may come in.
    fn passed(&self, Reply { head, bytes, .. }: &Reply) -> Passed {
        let all = |names: &[Bytes]| {
            let mut found = Vec::new();
            for name in names {
                let text = str::from_utf8(name).unwrap_or_default();
                let values = values_of(&head.fields, bytes, text);
                found.extend(values.map(|value| (name.clone(), Bytes::copy_from_slice(value))));
            }
            found
        };
        let identity = self.identity.as_ref().and_then(|name| {
            let name = str::from_utf8(name).ok()?;
            let value = values_of(&head.fields, bytes, name).next()?;
            str::from_utf8(value).ok().filter(|name| is_name(name)).map(str::to_owned)
        });
        Passed { copied: all(&self.copy), told: all(&self.tell), identity }
    }
}

/// It stands in log lines.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl Passed {
    fn let_in(&self, request: &Request<'_>, context: &Context) -> Verdict {
        if let Some(name) = &self.identity {
            request.identity.set(name);
        }
        let mut edits = context.request_edits.borrow_mut();
        for (name, value) in &self.copied {
            edits.add(name.clone(), value.clone());
        }
        let mut edits = context.response_edits.borrow_mut();
        for (name, value) in &self.told {
            edits.add(name.clone(), value.clone());
        }
        Verdict::Continue
    }
}

/// The client gets the answer in place of its own.
fn told(reply: Reply, context: &Context) -> Verdict {
    let Reply { head, bytes, body } = reply;
    // One that did not come whole is none: the status counts all the same.
    let body = body.unwrap_or_default();
    let mut edits = context.response_edits.borrow_mut();
    for name in TOLD {
        for value in values_of(&head.fields, &bytes, name) {
            let name = Bytes::from_static(name.as_bytes());
            edits.add(name, Bytes::copy_from_slice(value));
        }
    }
    let content_type = values_of(&head.fields, &bytes, "content-type").next();
    if let Some(content_type) = content_type.and_then(|value| str::from_utf8(value).ok())
        && !body.is_empty()
    {
        context.content.replace(Some((content_type.to_owned(), body)));
    }
    Verdict::Answer(head.status)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Asker, build, settings};
    use super::*;
    use crate::http::parse::{self, HeadLimits, Scan};

    /// Says the same to everybody, and remembers what it was asked.
    struct Service {
        says: &'static str,
        asked: RefCell<Vec<String>>,
    }

    impl Service {
        fn new(says: &'static str) -> Self {
            Self { says, asked: RefCell::default() }
        }
    }

    impl Upstreams for Service {
        fn ask<'a>(&'a self, inquiry: Inquiry<'a>) -> LocalBoxFuture<'a, Result<Reply, Error>> {
            let mut edits = bytes::BytesMut::new();
            inquiry.edits.write(&mut edits);
            self.asked.borrow_mut().push(String::from_utf8(edits.to_vec()).unwrap());
            let (head, body) = self.says.split_once("\n\n").unwrap_or((self.says, ""));
            let text = head.replace('\n', "\r\n") + "\r\n\r\n";
            let limits =
                HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: true };
            let mut head = crate::http::head::ResponseHead::default();
            let complete =
                parse::response(text.as_bytes(), &mut Scan::default(), limits, &mut head);
            let reply = Reply { head, bytes: text.as_bytes().into(), body: Ok(body.into()) };
            Box::pin(std::future::ready(match complete {
                Ok(true) => Ok(reply),
                _ => Err(Error::UpstreamGone),
            }))
        }
    }

    /// What becomes of a request, and what its origin and its client are told.
    fn ask(policy: &dyn Policy, service: &Service, asker: &Asker) -> (Verdict, String, String) {
        asker.ask(|request, context| {
            let verdict = match policy.request(request, context) {
                Verdict::Wait => {
                    let waiting = policy.wait(request, context, service);
                    futures_util::FutureExt::now_or_never(waiting).unwrap()
                }
                verdict => verdict,
            };
            let lines = |edits: &RefCell<Edits>| {
                let mut out = bytes::BytesMut::new();
                edits.borrow().write(&mut out);
                String::from_utf8(out.to_vec()).unwrap().replace("\r\n", "\n")
            };
            let who = request.identity();
            let origin = format!("{who}|{}", lines(&context.request_edits));
            (verdict, origin, lines(&context.response_edits))
        })
    }

    fn policy(lines: &str) -> Rc<dyn Policy> {
        let lines = format!("upstream = 'auth'\n{lines}");
        build("p", &settings(&lines, Settings::read).unwrap())
    }

    #[test]
    fn who_is_let_in_is_what_the_service_says() {
        let policy =
            policy("copy = ['x-user', 'x-group']\nidentity = 'x-user'\ntell = ['x-hello']");
        let service = Service::new(
            "HTTP/1.1 204 No\nX-User: alice\nx-group: a\nx-group: b\nx-hello: 1\nx-else: 1",
        );
        let forged = Asker::new("POST", "/a?b").field("X-USER", "root").field("x_user", "root");
        let (verdict, origin, client) = ask(&*policy, &service, &forged);
        assert_eq!(verdict, Verdict::Continue);
        assert_eq!(origin, "alice|x-user: alice\nx-group: a\nx-group: b\n");
        assert_eq!(client, "x-hello: 1\n");
        let asked = service.asked.borrow();
        let expected =
            "accept-encoding: identity\nx-forwarded-method: POST\nx-forwarded-uri: /a?b\n";
        assert_eq!(*asked, [expected.replace('\n', "\r\n")]);
    }

    #[test]
    fn what_the_service_does_not_say_nobody_says() {
        let policy = policy("copy = ['x-user']");
        let service = Service::new("HTTP/1.1 200 OK");
        forged_is_gone(&*policy, &service);
        fn forged_is_gone(policy: &dyn Policy, service: &Service) {
            Asker::get("/").field("X-User", "root").ask(|request, context| {
                assert_eq!(policy.request(request, context), Verdict::Wait);
                let waiting = policy.wait(request, context, service);
                let verdict = futures_util::FutureExt::now_or_never(waiting).unwrap();
                assert_eq!(verdict, Verdict::Continue);
                assert!(context.request_edits.borrow().removes(b"x-user"));
            });
        }
    }

    #[test]
    fn whoever_is_not_let_in_is_told_what_the_service_says() {
        let policy = policy("");
        let service = Service::new(
            "HTTP/1.1 302 Found\nlocation: /login\nset-cookie: a=b\nx-else: 1\nserver: s\n\nhello",
        );
        let (verdict, _, client) = ask(&*policy, &service, &Asker::get("/"));
        assert_eq!(verdict, Verdict::Answer(302));
        assert_eq!(client, "location: /login\nset-cookie: a=b\n");
    }

    #[test]
    fn nobody_comes_in_unanswered_unless_that_is_wanted() {
        for says in ["HTTP/1.1 500 No", "HTTP/1.1 304", "nothing"] {
            let service = Service::new(says);
            let asker = Asker::get("/");
            let refused = ask(&*policy(""), &service, &asker).0;
            let passed = ask(&*policy("unanswered = 'pass'"), &service, &asker).0;
            if says.contains("304") {
                assert_eq!(refused, Verdict::Answer(304));
                continue;
            }
            assert_eq!(refused, Verdict::Refuse(Error::Denied(Denial::Unanswered)), "{says}");
            assert_eq!(passed, Verdict::Continue, "{says}");
        }
    }

    #[test]
    fn answers_are_remembered_by_what_they_are_about() {
        let policy = policy("copy = ['x-user']\ncache = { key = 'cookie:s', ttl = '10s' }");
        let service = Service::new("HTTP/1.1 200 OK\nx-user: alice");
        let alice = Asker::get("/a").field("Cookie", "s=alice; t=1");
        let asked = |asker: &Asker| {
            let (verdict, origin, _) = ask(&*policy, &service, asker);
            assert_eq!((verdict, &*origin), (Verdict::Continue, "|x-user: alice\n"));
            service.asked.borrow().len()
        };
        assert_eq!((asked(&alice), asked(&alice), asked(&alice.later(9))), (1, 1, 1));
        assert_eq!(asked(&alice.later(11)), 2, "no longer");
        assert_eq!(asked(&Asker::get("/b").field("Cookie", "s=alice")), 3, "another path");
        assert_eq!(asked(&Asker::new("POST", "/a").field("Cookie", "s=alice")), 4);
        assert_eq!(asked(&Asker::get("/a").field("Cookie", "s=bob")), 5, "another client");
        assert_eq!((asked(&Asker::get("/a")), asked(&Asker::get("/a"))), (6, 7), "nobody");
    }

    #[test]
    fn answers_are_remembered_with_all_that_the_service_is_told() {
        let service = Service::new("HTTP/1.1 200 OK");
        let alice = || Asker::get("/a").field("Cookie", "s=alice");
        for (anywhere, others) in [(false, 6), (true, 5)] {
            let lines = format!("cache = {{ key = 'cookie:s', anywhere = {anywhere} }}");
            let policy = policy(&lines);
            let asked = |asker: &Asker, user: &'static str| {
                asker.ask(|request, context| {
                    let (name, user) =
                        (Bytes::from_static(b"x-user"), Bytes::from_static(user.as_bytes()));
                    context.request_edits.borrow_mut().set(name, user);
                    if policy.request(request, context) == Verdict::Wait {
                        let waiting = policy.wait(request, context, &service);
                        let verdict = futures_util::FutureExt::now_or_never(waiting).unwrap();
                        assert_eq!(verdict, Verdict::Continue);
                    }
                });
            };
            let before = service.asked.borrow().len();
            for (asker, user) in [
                (alice(), "one"),
                (alice(), "two"),
                (alice().from("192.0.2.2"), "one"),
                (alice().certificate("CN=a"), "one"),
                (alice().certificate("CN=b"), "one"),
                // These are about what is asked for.
                (alice().for_host("a.example"), "one"),
                (alice().for_host("b.example"), "one"),
            ] {
                asked(&asker, user);
                asked(&asker, user);
            }
            assert_eq!(service.asked.borrow().len() - before, others, "anywhere: {anywhere}");
        }
    }

    #[test]
    fn only_who_is_let_in_is_remembered() {
        let lines = "tell = ['set-cookie']\ncache = { key = 'cookie:s', anywhere = true }";
        for says in ["HTTP/1.1 401 No", "HTTP/1.1 200 OK\nset-cookie: s=other", "HTTP/1.1 500"] {
            let (policy, service) = (policy(lines), Service::new(says));
            let alice = Asker::get("/").field("Cookie", "s=alice");
            for _ in 0..2 {
                let _ = ask(&*policy, &service, &alice);
            }
            assert_eq!(service.asked.borrow().len(), 2, "{says}");
        }
        let (policy, service) = (policy(lines), Service::new("HTTP/1.1 200 OK"));
        for path in ["/a", "/b"] {
            let asker = Asker::get(path).field("Cookie", "s=alice");
            let _ = ask(&*policy, &service, &asker);
        }
        assert_eq!(service.asked.borrow().len(), 1, "it is the same anywhere");
    }

    #[test]
    fn wrong_settings_are_told() {
        for (lines, expected) in [
            ("path = 'verify'", "must be a path"),
            ("copy = ['a b']", "copy"),
            ("copy = ['x-a', 'X-A']", "copy"),
            ("copy = ['connection']", "copy"),
            ("cache = { ttl = '1s' }", "write where a request says whose it is"),
            ("unanswered = 'maybe'", "unanswered"),
        ] {
            let lines = format!("upstream = 'auth'\n{lines}");
            let wrong = settings(&lines, Settings::read).unwrap_err().join("\n");
            assert!(wrong.contains(expected), "{lines}: {wrong}");
        }
    }
}
