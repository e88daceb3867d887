//! Endpoints that are asked whether they are well, and those that are given no more than they can take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::harness::{After, Gate, Origin, closed_port, set_up, until};

/// Says its name, and whether it is well.
fn origin(name: &str) -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let (name, is_well) = (name.to_owned(), Arc::clone(&well));
    let origin = Origin::start(move |exchange| {
        let length = name.len();
        let answer = match exchange.request.target.as_str() {
            "/healthz" if is_well.load(SeqCst) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "/healthz" => "HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"),
        };
        exchange.answer(answer)
    });
    (origin, well)
}

const OFTEN: &str = "health = { path = '/healthz', interval = '50ms', rise = 1, fall = 2 }";

#[test]
fn who_is_not_well_is_not_asked() {
    let [(one, one_well), (two, two_well)] = ["one", "two"].map(origin);
    let endpoints = [one.address, two.address];
    let setup = || {
        let setup = set_up().upstream("main", &endpoints).upstream_line("balance = 'round_robin'");
        setup.route("upstream = 'main'").workers(2)
    };
    let gateway = setup().upstream_line(OFTEN).start();
    let mut client = gateway.client();
    let up = |origin: &Origin| {
        let (address, series) = (origin.address, "gateway_upstream_endpoint_up");
        format!("{series}{{upstream=\"main\",endpoint=\"{address}\"}}")
    };
    assert_eq!(gateway.metric(&up(&one)), 1.0);

    one_well.store(false, SeqCst);
    gateway.wait_for_metric(&up(&one), 0.0);
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "two");
    }
    let shown = gateway.admin("/upstreams").text();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["main"][0]["up"], false, "{shown}");
    assert_eq!(shown["main"][1]["up"], true, "{shown}");

    two_well.store(false, SeqCst);
    gateway.wait_for_metric(&up(&two), 0.0);
    let refused = client.get("/");
    assert_eq!((refused.status, refused.field("retry-after")), (503, "5"));

    one_well.store(true, SeqCst);
    gateway.wait_for_metric(&up(&one), 1.0);
    assert_eq!(client.get("/").text(), "one");

    // What nobody looks at any more does not stay down.
    gateway.reload(setup());
    until("both to be asked", || client.get("/").text() == "two");
    let log = gateway.stop();
    assert!(log.contains("down: it answered 500"), "{log}");
}

#[test]
fn without_a_path_a_connection_is_enough() {
    let origin = Origin::saying("here");
    let (dead, _held) = closed_port();
    let gateway = set_up()
        .upstream("main", &[dead, origin.address])
        .upstream_line("health = { interval = '50ms', fall = 1 }")
        .route("upstream = 'main'")
        .start();
    let series = "gateway_upstream_endpoint_up{upstream=\"main\"";
    gateway.wait_for_metric(series, 1.0);
    let failures = "gateway_upstream_connect_failures_total";
    let before = gateway.metric(failures);
    let mut client = gateway.client();
    (0..10).for_each(|_| assert_eq!(client.get("/").text(), "here"));
    assert_eq!(gateway.metric(failures), before);
}

/// Answers when the gate is open, and knows how many it has had to answer at once.
fn busy() -> (Origin, Gate, Arc<AtomicUsize>) {
    let (gate, most) = (Gate::default(), Arc::<AtomicUsize>::default());
    let (opened, seen, now) = (gate.clone(), Arc::clone(&most), AtomicUsize::new(0));
    let origin = Origin::start(move |exchange| {
        seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        opened.wait();
        now.fetch_sub(1, SeqCst);
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")?;
        Ok(After::Keep)
    });
    (origin, gate, most)
}

#[test]
fn an_endpoint_gets_no_more_than_it_may_have() {
    let (origin, gate, most) = busy();
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .upstream_line("connections_max = 2\npending = { max = 3, timeout = '1m' }")
        .route("upstream = 'main'")
        .start();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..5).map(|_| scope.spawn(|| gateway.get("/").status)).collect();
        gateway.wait_for_metric("gateway_upstream_requests_pending", 3.0);
        until("both at the origin", || most.load(SeqCst) == 2);
        // One more is one too many.
        let refused = gateway.get("/");
        assert_eq!((refused.status, refused.field("retry-after")), (503, "1"));
        gate.open();
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
    });
    assert_eq!(most.load(SeqCst), 2);
    assert_eq!(gateway.metric("gateway_upstream_requests_pending"), 0.0);
    assert_eq!(gateway.metric("gateway_upstream_overflows_total"), 1.0);
}

#[test]
fn nobody_waits_for_a_place_for_ever() {
    let (origin, gate, _) = busy();
    let gateway = set_up()
        .upstream("main", &[origin.address])
        .upstream_line("connections_max = 1\npending = { timeout = '50ms' }")
        .route("upstream = 'main'")
        .start();
    thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/").status);
        origin.wait_for("the first", |seen| seen.requests.len() == 1);
        assert_eq!(gateway.get("/").status, 503);
        gate.open();
        assert_eq!(first.join().unwrap(), 200);
    });
    assert_eq!(gateway.get("/").status, 200);
}
