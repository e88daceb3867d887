//! Endpoints that share the load, refuse, die and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::harness::{After, Broken, Gate, Gateway, Origin, closed_port, set_up, until};

#[test]
fn endpoints_take_turns() {
    let [one, two] = ["one", "two"].map(Origin::saying);
    let gateway = set_up()
        .upstream("main", &[one.address, two.address])
        .upstream_line("balance = 'round_robin'")
        .route("upstream = 'main'")
        .start();
    let mut client = gateway.client();
    let answers: Vec<String> = (0..10).map(|_| client.get("/").text()).collect();
    assert_eq!(one.requests().len(), 5, "{answers:?}");
    assert_eq!(two.requests().len(), 5, "{answers:?}");
    assert!(answers.windows(2).all(|pair| pair[0] != pair[1]), "{answers:?}");
}

#[test]
fn one_that_refuses_costs_no_request() {
    let origin = Origin::saying("alive");
    let (dead, _held) = closed_port();
    let gateway = set_up().to(&[dead, origin.address]).start();
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "alive");
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.response().text(), "alive");
    }
    assert_eq!(origin.requests().len(), 20);
}

/// Answers, then closes without a word, as servers do with idle connections. The close comes with
/// the next request, which is when it is hardest to notice.
fn closes_on_the_second_request() -> Origin {
    Origin::start(|exchange| {
        exchange.body()?;
        match exchange.nth {
            0 => exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            _ => Ok(After::Close),
        }
    })
}

#[test]
fn a_kept_connection_that_died_is_replaced_unnoticed() {
    let origin = closes_on_the_second_request();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "hello");
    }
    let retries = "gateway_upstream_retries_total{upstream=\"main\"}";
    assert_eq!(gateway.metric(retries), 4.0);
}

#[test]
fn what_may_have_been_done_is_not_done_twice() {
    let origin = closes_on_the_second_request();
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "hello");
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response().status, 502);
    assert_eq!(origin.requests().len(), 2);
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn a_connection_closed_while_idle_is_not_used() {
    let origin = Origin::scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", After::Close);
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "hi");
    origin.wait_for("the end of its connection", |seen| seen.ended == 1);
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response().text(), "hi");
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_cut_response_is_seen_to_be_cut() {
    let bodies =
        ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"];
    for body in bodies {
        for after in [After::Close, After::Reset] {
            let origin = Origin::start(move |exchange| {
                exchange.send_alone(format!("HTTP/1.1 200 OK\r\n{body}"))?;
                Ok(after)
            });
            let gateway = Gateway::in_front_of(&origin);
            let mut client = gateway.client();
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            let broken = client.try_response().unwrap_err();
            assert_eq!(broken, Broken::Cut(b"hello".to_vec()), "{body:?} {after:?}");

            let mut old = gateway.client();
            old.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n");
            let broken = old.try_response().unwrap_err();
            assert!(matches!(broken, Broken::Cut(_) | Broken::Reset), "{broken:?}");
        }
    }
}

#[test]
fn an_origin_may_answer_before_it_has_read_everything() {
    let origin = Origin::start(|exchange| {
        exchange.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
        exchange.wait_for_close();
        Ok(After::Close)
    });
    let gateway = set_up().to(&[origin.address]).set("limits", "body_bytes = '1GiB'").start();
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
    client.half_close().expect_gone();
    assert_eq!(origin.completed(), 0);
}

fn balanced(origins: &[&Origin], lines: &str) -> Gateway {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let setup = set_up().upstream("main", &addresses).upstream_line(lines);
    setup.route("upstream = 'main'").start()
}

/// Of three one closes without an answer, resets, or refuses, for as long as the load lasts.
#[test]
fn one_of_three_that_dies_costs_idempotent_clients_nothing() {
    for how in ["closes", "resets", "refuses", "talks nonsense"] {
        let [one, two] = ["one", "two"].map(Origin::saying);
        let dying = Origin::start(move |exchange| {
            exchange.body()?;
            match how {
                "closes" => Ok(After::Close),
                "resets" => Ok(After::Reset),
                _ => exchange.answer("what?\r\n\r\n"),
            }
        });
        let (dead, _held) = closed_port();
        let third = if how == "refuses" { dead } else { dying.address };
        let gateway = set_up()
            .upstream("main", &[one.address, third, two.address])
            .upstream_line("ejection = { failures = 3, duration = '1h' }")
            .route("upstream = 'main'")
            .start();
        let mut failed = 0;
        std::thread::scope(|scope| {
            let load = || {
                let mut client = gateway.client();
                let statuses = (0..50).map(|_| client.get("/").status);
                statuses.filter(|status| *status != 200).count()
            };
            let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
            failed += loads.into_iter().map(|load| load.join().unwrap()).sum::<usize>();
        });
        // An answer that is no HTTP may have been acted on, and is not asked for again.
        let most = if how == "talks nonsense" { 6 } else { 0 };
        assert!(failed <= most, "{how}: {failed} of 200 failed");
        let ejections = "gateway_upstream_ejections_total{upstream=\"main\"}";
        assert_eq!(gateway.metric(ejections), 1.0, "{how}");
        until("it to be said", || gateway.log().contains("failed too often, not asked for 3600s"));
        let asked = dying.requests().len();
        assert!(asked <= 8, "{how}: still asked, {asked} times");
    }
}

#[test]
fn what_is_not_idempotent_is_sent_once() {
    let [one, two] = ["one", "two"].map(Origin::saying);
    let dying = Origin::start(|exchange| {
        exchange.body()?;
        Ok(After::Close)
    });
    let gateway = balanced(&[&one, &dying, &two], "balance = 'round_robin'");
    let mut client = gateway.client();
    let mut failed = 0;
    for _ in 0..60 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let status = client.response_to("POST").status;
        assert!(status == 200 || status == 502, "{status}");
        failed += usize::from(status == 502);
    }
    assert_eq!(failed, dying.requests().len(), "each that was on the wire, and no other");
    assert_eq!(failed, 5, "until it was ejected");
    assert_eq!(one.requests().len() + two.requests().len(), 55);
}

#[test]
fn retries_end_with_their_budget() {
    let dying = Origin::start(|exchange| {
        exchange.body()?;
        Ok(After::Close)
    });
    let gateway =
        balanced(&[&dying], "retry = { attempts = 3, budget = '10%' }\nejection.failures = 0");
    let mut client = gateway.client();
    for _ in 0..100 {
        assert_eq!(client.get("/").status, 502);
    }
    // Ten to begin with, and ten for a hundred requests.
    let tries = dying.requests().len();
    assert!((118..=121).contains(&tries), "{tries}");
}

#[test]
fn an_ejected_endpoint_comes_back() {
    let well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let shared = well.clone();
    let other = Origin::saying("other");
    let sick = Origin::start(move |exchange| {
        exchange.body()?;
        match shared.load(std::sync::atomic::Ordering::Relaxed) {
            true => exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"),
            false => Ok(After::Close),
        }
    });
    let lines = "balance = 'round_robin'\nejection = { failures = 1, duration = '100ms' }";
    let gateway = balanced(&[&sick, &other], lines);
    let mut client = gateway.client();
    while gateway.metric("gateway_upstream_ejections_total{upstream=\"main\"}") < 1.0 {
        assert_eq!(client.get("/").text(), "other");
    }
    well.store(true, std::sync::atomic::Ordering::Relaxed);
    until("it to be asked again", || client.get("/").text() == "well");
}

#[test]
fn weights_and_backups() {
    let origins = ["heavy", "light", "backup"].map(Origin::saying);
    let [heavy, light, backup] = origins.each_ref().map(|origin| origin.address);
    let (dead, _held) = closed_port();
    let upstreams = |first| {
        let endpoints = format!(
            "endpoints = [{{ address = '{first}', weight = 3 }}, '{light}', \
             {{ address = '{backup}', backup = true }}]"
        );
        format!("{endpoints}\nbalance = 'round_robin'")
    };
    let start = |first: std::net::SocketAddr| {
        set_up().set("upstreams.main", &upstreams(first)).route("upstream = 'main'").start()
    };
    let gateway = start(heavy);
    let mut client = gateway.client();
    let said: Vec<_> = (0..40).map(|_| client.get("/").text()).collect();
    let count = |name: &str| said.iter().filter(|said| *said == name).count();
    assert_eq!((count("heavy"), count("light"), count("backup")), (30, 10, 0));

    // Without the others it is asked.
    let endpoints = format!("endpoints = ['{dead}', {{ address = '{backup}', backup = true }}]");
    let gateway = set_up().set("upstreams.main", &endpoints).route("upstream = 'main'").start();
    assert_eq!(gateway.get("/").text(), "backup");
}

#[test]
fn the_same_clients_find_the_same_endpoint() {
    let origins = ["a", "b", "c", "d"].map(Origin::saying);
    let all: Vec<_> = origins.iter().collect();
    let lines = "balance = 'consistent_hash'\nhash_on = 'header:x-user'";
    let ask = |gateway: &Gateway, user: usize| {
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"));
        client.response().text()
    };
    let whole = balanced(&all, lines);
    let first: Vec<_> = (0..60).map(|user| ask(&whole, user)).collect();
    assert_eq!(first, (0..60).map(|user| ask(&whole, user)).collect::<Vec<_>>());
    for origin in ["a", "b", "c", "d"] {
        assert!(first.iter().any(|said| said == origin), "{first:?}");
    }
    // Another machine, without the last: only its own move.
    let smaller = balanced(&all[..3], lines);
    for (user, before) in first.iter().enumerate() {
        let now = ask(&smaller, user);
        assert!(now == *before || before == "d", "{user}: {before} to {now}");
    }
}

/// What a client has been told, if only on the way, is not said again by another.
#[test]
fn an_endpoint_that_has_begun_to_answer_has_no_second() {
    let origin = Origin::start(|exchange| {
        exchange.body()?;
        exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
        Ok(After::Close)
    });
    let gateway = Gateway::in_front_of(&origin);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.interim(), 103);
    assert_eq!(client.response().status, 502);
    assert_eq!(origin.requests().len(), 1);
}

/// Says its name, and to `/busy` that it cannot, for an hour.
fn sometimes_busy(name: &str) -> Origin {
    let name = name.to_owned();
    Origin::start(move |exchange| {
        let length = name.len();
        exchange.body()?;
        match exchange.request.target.as_str() {
            "/busy" => exchange
                .answer("HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 4\r\n\r\nbusy"),
            _ => exchange
                .answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}")),
        }
    })
}

#[test]
fn an_answer_that_is_as_good_as_none_is_asked_for_elsewhere() {
    let (busy, other) = (sometimes_busy("busy"), Origin::saying("other"));
    let setup = |lines: &str| {
        let setup = set_up().upstream("main", &[busy.address, other.address]);
        let setup = setup.upstream_line("balance = 'round_robin'").upstream_line(lines);
        setup.route("upstream = 'main'").start()
    };
    let gateway = setup("retry = { statuses = [503] }");
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_eq!(client.get("/busy").text(), "other");
    }
    // It asked to be left alone, and is.
    assert_eq!(busy.requests().len(), 1);
    assert_eq!(client.get("/").text(), "other");
    // What may not be sent twice gets what it got.
    let gateway = setup("retry = { statuses = [503] }");
    let mut client = gateway.client();
    let mut posted: Vec<u16> = (0..2)
        .map(|_| {
            client.send("POST /busy HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
            client.response().status
        })
        .collect();
    posted.sort_unstable();
    assert_eq!(posted, [200, 503]);
    // The last answer is passed on, whatever it is.
    let gateway = setup("retry = { statuses = [503], attempts = 0 }");
    let mut client = gateway.client();
    let got: Vec<_> = (0..2).map(|_| client.get("/busy").text()).collect();
    assert!(got.contains(&"busy".to_owned()), "{got:?}");
}

#[test]
fn a_route_has_its_time_whatever_is_tried() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::start(move |exchange| {
        if exchange.request.target == "/slow" {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")?;
        }
        opened.wait();
        Ok(After::Close)
    });
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .upstream_line("timeout_field = 'X-Timeout-Ms'")
        .route("upstream = 'main'\ntimeout = '1s'")
        .start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nX-Timeout-Ms: 99999\r\n\r\n");
    assert_eq!(client.response().status, 504);
    let told: u64 = origin.request().field("x-timeout-ms").parse().unwrap();
    assert!((1..=1000).contains(&told), "{told}");
    // A response that has begun is cut, and does not look whole.
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.try_response().is_err());
    assert_eq!(gateway.metric("gateway_deadlines_total{deadline=\"request\"}"), 2.0);
    gate.open();
}

#[test]
fn a_fallback_answers_where_the_upstream_does_not() {
    let (dead, _held) = closed_port();
    let spare = Origin::saying("spare");
    let log = "format = 'json'";
    let gateway = set_up()
        .set("access_log", log)
        .upstream("main", &[dead])
        .upstream("spare", &[spare.address])
        .route("path = '/one/*'\nupstream = 'main'\nfallback = { upstream = 'spare' }")
        .route(
            "path = '/two/*'\nupstream = 'main'\n\
             fallback = { respond = { status = 200, body = 'sorry, {path}' } }",
        )
        .start();
    let mut client = gateway.client();
    assert_eq!(client.get("/one/").text(), "spare");
    assert_eq!(client.get("/two/x").text(), "sorry, /two/x");
    let post =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
    // Its body has been read; the gateway does not pretend otherwise.
    assert_eq!(client.send(post("/one/")).response().status, 503);
    assert_eq!(client.send(post("/two/")).response().text(), "sorry, /two/");
    let log = gateway.stop();
    let fell_back = |line: &&str| line.contains("\"status\":200") && line.contains("no endpoint");
    assert_eq!(log.lines().filter(fell_back).count(), 3, "{log}");
}

/// Answers at once, until it is told to wait for ever.
fn tardy() -> (Origin, Arc<AtomicBool>, Gate) {
    let (waits, gate) = (Arc::new(AtomicBool::new(false)), Gate::default());
    let (told, opened) = (Arc::clone(&waits), gate.clone());
    let origin = Origin::start(move |exchange| {
        if told.load(SeqCst) {
            opened.wait();
        }
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntardy")
    });
    (origin, waits, gate)
}

#[test]
fn who_takes_long_is_overtaken_by_another() {
    let ((tardy, waits, gate), prompt) = (tardy(), Origin::saying("prompt"));
    let gateway = set_up()
        .upstream("main", &[tardy.address, prompt.address])
        .upstream_line("balance = 'round_robin'\nhedge = '95%'\nretry = { budget = '100%' }")
        .route("upstream = 'main'")
        .start();
    let mut client = gateway.client();
    // How long an answer takes has to be known first.
    (0..100).for_each(|_| assert_eq!(client.get("/").status, 200));
    waits.store(true, SeqCst);
    for _ in 0..6 {
        assert_eq!(client.get("/").text(), "prompt");
    }
    assert!(gateway.metric("gateway_upstream_hedges_total") >= 3.0);
    gate.open();
}
