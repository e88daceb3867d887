//! Who asks too often, and who asks too much at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{After, Client, Gate, Gateway, Origin, Setup, set_up, until};

const SLOW: &str = "kind = 'rate_limit'\nlimits = [{ rate = '1/h', burst = 200 }]";

fn limited(origin: &Origin, policy: &str) -> Setup {
    set_up()
        .upstream("main", &[origin.address])
        .route("upstream = 'main'\npolicies = ['limit']")
        .set("policies.limit", policy)
}

fn counted(gateway: &Gateway, verdict: &str) -> f64 {
    let series = format!("gateway_policy_requests_total{{policy=\"limit\",verdict=\"{verdict}\"}}");
    gateway.metric(&series)
}

/// So slow a rate that none comes back while the test runs: the count depends on no clock.
#[test]
fn all_workers_count_together_and_exactly() {
    let origin = Origin::saying("hello");
    for workers in [1, 2] {
        let gateway = limited(&origin, SLOW).workers(workers).start();
        let accepted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    for _ in 0..50 {
                        match client.get("/").status {
                            200 => drop(accepted.fetch_add(1, Ordering::Relaxed)),
                            status => assert_eq!(status, 429),
                        }
                    }
                });
            }
        });
        assert_eq!(accepted.into_inner(), 200);
        assert_eq!((counted(&gateway, "passed"), counted(&gateway, "refused")), (200.0, 200.0));
        assert_eq!(gateway.metric("gateway_offences_total{offence=\"rate_limit\"}"), 200.0);
    }
}

/// What one client has seen of a limit.
struct Seen {
    accepted: usize,
    /// When it first asked, when it was first told no, and when it had its last answer.
    asked: Instant,
    refused: Option<Instant>,
    ended: Instant,
    /// When it last asked in vain.
    in_vain: Instant,
}

/// Asks as fast as it can for a while, and then until it is refused.
fn press(gateway: &Gateway, time: Duration) -> Seen {
    let mut client = gateway.client();
    let asked = Instant::now();
    let mut seen = Seen { accepted: 0, asked, refused: None, ended: asked, in_vain: asked };
    loop {
        let before = Instant::now();
        let status = client.get("/").status;
        seen.ended = Instant::now();
        match status {
            200 => seen.accepted += 1,
            status => {
                assert_eq!(status, 429);
                seen.refused.get_or_insert(seen.ended);
                seen.in_vain = before;
                if asked.elapsed() > time {
                    return seen;
                }
            }
        }
    }
}

/// From the first request to the last, `burst + rate * T` are let in. Clients know T only to within what
/// an answer takes: between the first refusal and the last all that came was used, and nothing was let in behind the
/// last answer.
#[test]
fn a_rate_is_kept_to_a_hundredth_by_clients_that_stay() {
    const RATE: f64 = 100.0;
    const BURST: f64 = 200.0;
    let origin = Origin::saying("hello");
    let policy = "kind = 'rate_limit'\nlimits = [{ rate = '100/s', burst = 200 }]";
    for (workers, clients) in [(1, 1), (1, 8), (2, 8)] {
        let gateway = limited(&origin, policy)
            .set("limits", "requests_per_connection = 1000000000")
            .workers(workers)
            .start();
        let seen: Vec<Seen> = thread::scope(|scope| {
            let pressing: Vec<_> = (0..clients)
                .map(|_| scope.spawn(|| press(&gateway, Duration::from_secs(2))))
                .collect();
            pressing.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let accepted: usize = seen.iter().map(|seen| seen.accepted).sum();
        let first_asked = seen.iter().map(|seen| seen.asked).min().unwrap();
        let refused = seen.iter().filter_map(|seen| seen.refused).min().unwrap();
        let ended = seen.iter().map(|seen| seen.ended).max().unwrap();
        let in_vain = seen.iter().map(|seen| seen.in_vain).max().unwrap();
        let right = |time: Duration| BURST + RATE * time.as_secs_f64();
        let least = right(in_vain - refused) * 0.99;
        let most = right(ended - first_asked) * 1.01;
        let accepted = accepted as f64;
        assert!(
            (least..=most).contains(&accepted),
            "{workers} workers, {clients} clients: {accepted}, not {least} to {most}"
        );
    }
}

#[test]
fn a_reload_forgives_nobody() {
    let origin = Origin::saying("hello");
    let two = "kind = 'rate_limit'\nlimits = [{ rate = '1/h', burst = 2 }]";
    let gateway = limited(&origin, two).start();
    let ask = || gateway.get("/").status;
    assert_eq!([ask(), ask(), ask()], [200, 200, 429]);
    gateway.reload(limited(&origin, two).set("timeouts", "response = '59s'"));
    assert_eq!(ask(), 429);
    let three = two.replace("burst = 2", "burst = 3");
    gateway.reload(limited(&origin, &three));
    until("the new limit to count", || ask() == 200);
}

/// Keys with limits of their own, whichever worker is asked, over a reload that changes something else.
#[test]
fn names_have_their_own_limits() {
    let origin = Origin::saying("hello");
    let keys = "kind = 'api_key'\n\
        keys.alice = '00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984'\n\
        keys.bob = '0dcd466e13eeb74ad8442bb1e22ab8cb2869dccd0572c89fd8e0565bd5dc8939'";
    let limit = "kind = 'rate_limit'\nkey = 'identity'\nlimits = ['2/h']\n\
        overrides = { alice = [{ rate = '1/h', burst = 40 }] }";
    let setup = || {
        set_up()
            .upstream("main", &[origin.address])
            .route("upstream = 'main'\npolicies = ['keys', 'limit']")
            .set("policies.keys", keys)
            .set("policies.limit", limit)
            .workers(2)
    };
    let gateway = setup().start();
    let ask = |who: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {who}-and-nobody-else\r\n\r\n");
        gateway.client().send(head).response()
    };
    let passes = |who: &str, times: usize| (0..times).filter(|_| ask(who).status == 200).count();
    assert_eq!(passes("alice", 30), 30);
    assert_eq!(ask("alice").field("ratelimit-policy"), "\"limit\";q=40;w=144000");
    assert_eq!(ask("bob").field("ratelimit-policy"), "\"limit\";q=2;w=3600");
    gateway.reload(setup().set("timeouts", "response = '59s'"));
    assert_eq!((passes("alice", 5), passes("bob", 5)), (5, 1));
    // One more name forgives no other.
    let more = limit.replace("}] }", "}], carol = ['5/h'] }");
    gateway.reload(setup().set("policies.limit", &more));
    assert_eq!((passes("alice", 20), passes("bob", 5)), (4, 0));
}

/// What a policy tells the origin about a client is not for the client to say, also not to a limit.
#[test]
fn fields_that_policies_set_are_counted_as_they_set_them() {
    let origin = Origin::saying("hello");
    let digest = "00baafe56c18cc4b71c8538b205e799b4ac5a0ed2db5ad482414a20cfa369984";
    let keys =
        format!("kind = 'api_key'\nkeys = {{ alice = '{digest}' }}\nidentity_field = 'x-user'");
    let limit =
        "kind = 'rate_limit'\nkey = 'header:x-user'\nlimits = [{ rate = '1/h', burst = 2 }]";
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .route("upstream = 'main'\npolicies = ['keys', 'limit']")
        .set("policies.keys", &keys)
        .set("policies.limit", limit)
        .start();
    let ask = |user: &str| {
        let fields = format!("X-Api-Key: alice-and-nobody-else\r\nX-User: {user}\r\n");
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        gateway.client().send(head).response().status
    };
    assert_eq!(["one", "two", "three"].map(ask), [200, 200, 429]);
}

#[test]
fn who_is_refused_is_told_when_to_come_back() {
    let origin = Origin::saying("hello");
    let policy = "kind = 'rate_limit'\nlimits = [{ rate = '1/h', burst = 1 }]";
    let gateway = limited(&origin, policy).start();
    let mut client = gateway.client();
    let first = client.get("/");
    assert_eq!(first.field("ratelimit-policy"), "\"limit\";q=1;w=3600");
    assert_eq!(first.field("ratelimit"), "\"limit\";r=0;t=3600");
    let refused = client.get("/");
    assert_eq!(refused.status, 429);
    let after: u64 = refused.field("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&after), "{after}");
    client.expect_alive();
    let quiet = format!("{policy}\nfields = false\nobserve = true");
    gateway.reload(limited(&origin, &quiet));
    until("it to observe only", || client.get("/").status == 200);
    assert_eq!(client.get("/").fields.one("ratelimit"), None);
    assert!(counted(&gateway, "observed") >= 1.0);
}

/// Answers once the gate opens.
fn held(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::start(move |exchange| {
        if exchange.request.target == "/held" {
            gate.wait();
        }
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")?;
        exchange.answer("ok").map(|_| After::Keep)
    })
}

fn ask(gateway: &Gateway, target: &str) -> Client {
    let mut client = gateway.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

#[test]
fn who_has_too_many_in_flight_is_refused() {
    let gate = Gate::default();
    let origin = held(&gate);
    let gateway = limited(&origin, "kind = 'concurrency'\nlimit = 2").workers(2).start();
    let mut first: Vec<_> = (0..2).map(|_| ask(&gateway, "/held")).collect();
    origin.wait_for("two requests", |seen| seen.requests.len() == 2);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.field("retry-after")), (429, "1"));
    gate.open();
    for client in &mut first {
        assert_eq!(client.response().text(), "ok");
    }
    until("a place to be free", || gateway.get("/").status == 200);
}

#[test]
fn a_few_wait_for_their_turn() {
    let gate = Gate::default();
    let origin = held(&gate);
    let policy = "kind = 'concurrency'\nlimit = 1\nqueue = 2\nwait = '300s'";
    let gateway = limited(&origin, policy).workers(2).start();
    let mut first = ask(&gateway, "/held");
    origin.wait_for("a request", |seen| seen.requests.len() == 1);
    let mut waiting: Vec<_> = (0..2).map(|_| ask(&gateway, "/")).collect();
    until("the queue to be full", || gateway.metric("gateway_requests_in_flight") == 3.0);
    assert_eq!(gateway.get("/").status, 429);
    assert_eq!(origin.requests().len(), 1);
    gate.open();
    assert_eq!(first.response().text(), "ok");
    for client in &mut waiting {
        assert_eq!(client.response().text(), "ok");
    }
}

#[test]
fn waiting_ends_with_its_time_with_the_client_and_with_the_gateway() {
    let gate = Gate::default();
    let origin = held(&gate);
    let policy = "kind = 'concurrency'\nlimit = 1\nqueue = 1\nwait = '50ms'";
    let gateway = limited(&origin, policy).start();
    let first = ask(&gateway, "/held");
    origin.wait_for("a request", |seen| seen.requests.len() == 1);
    assert_eq!(ask(&gateway, "/").response().status, 429);

    gate.open();
    drop(first);

    let gate = Gate::default();
    let origin = held(&gate);
    let gateway = limited(&origin, &policy.replace("50ms", "300s")).start();
    let mut first = ask(&gateway, "/held");
    origin.wait_for("a request", |seen| seen.requests.len() == 1);
    let mut leaves = ask(&gateway, "/");
    until("it to wait", || gateway.metric("gateway_requests_in_flight") == 2.0);
    let reset = socket2::SockRef::from(&*leaves.stream()).set_linger(Some(Duration::ZERO));
    reset.unwrap();
    drop(leaves);
    until("nobody to wait", || gateway.metric("gateway_requests_in_flight") == 1.0);

    // Who waits when the gateway is told to end is answered.
    let mut waits = ask(&gateway, "/");
    until("it to wait", || gateway.metric("gateway_requests_in_flight") == 2.0);
    gateway.signal(Signal::TERM);
    gate.open();
    assert_eq!(waits.response().text(), "ok");
    assert_eq!(first.response().text(), "ok");
    gateway.wait_for_success();
}
