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
        let limits = HeadLimits { bytes: 4096, start_line: 1024, fields: 50, underscores: true };
        let mut head = crate::http::head::ResponseHead::default();
        let complete = parse::response(text.as_bytes(), &mut Scan::default(), limits, &mut head);
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
    let policy = policy("copy = ['x-user', 'x-group']\nidentity = 'x-user'\ntell = ['x-hello']");
    let service = Service::new(
        "HTTP/1.1 204 No\nX-User: alice\nx-group: a\nx-group: b\nx-hello: 1\nx-else: 1",
    );
    let forged = Asker::new("POST", "/a?b").field("X-USER", "root").field("x_user", "root");
    let (verdict, origin, client) = ask(&*policy, &service, &forged);
    assert_eq!(verdict, Verdict::Continue);
    assert_eq!(origin, "alice|x-user: alice\nx-group: a\nx-group: b\n");
    assert_eq!(client, "x-hello: 1\n");
    let asked = service.asked.borrow();
    let expected = "accept-encoding: identity\nx-forwarded-method: POST\nx-forwarded-uri: /a?b\n";
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
