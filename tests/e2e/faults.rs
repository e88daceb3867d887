//! One endpoint of three goes wrong while requests come: what clients notice of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::harness::{After, Gate, Gateway, Origin, set_up};

const CLIENTS: usize = 4;
const REQUESTS: usize = 60;

/// Does as `wrong` does while it is told to, and counts how often; otherwise answers.
fn endpoint(
    wrong: impl Fn(&mut crate::harness::Exchange) -> Result<After, crate::harness::Broken>
    + Send
    + Sync
    + 'static,
) -> (Origin, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (is_wrong, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (told, counted) = (Arc::clone(&is_wrong), Arc::clone(&count));
    let origin = Origin::start(move |exchange| {
        exchange.body()?;
        if told.load(SeqCst) {
            counted.fetch_add(1, SeqCst);
            return wrong(exchange);
        }
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    (origin, is_wrong, count)
}

/// What clients get who all ask at once, while the endpoint goes wrong after a third of their requests.
fn load(gateway: &Gateway, is_wrong: &AtomicBool, request: &str) -> Vec<u16> {
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        let client = || {
            let mut client = gateway.client();
            let statuses = (0..REQUESTS).map(|_| {
                if asked.fetch_add(1, SeqCst) == CLIENTS * REQUESTS / 3 {
                    is_wrong.store(true, SeqCst);
                }
                let response = client.send(request).response();
                if response.says_close() {
                    client = gateway.client();
                }
                response.status
            });
            statuses.collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi";

fn among_three(faulty: &Origin, lines: &str) -> (Gateway, [Origin; 2]) {
    let others = ["one", "two"].map(Origin::saying);
    let gateway = set_up()
        .set("timeouts", "response = '500ms'")
        .upstream("main", &[others[0].address, faulty.address, others[1].address])
        .upstream_line(&format!("balance = 'round_robin'\n{lines}"))
        .route("upstream = 'main'")
        .start();
    (gateway, others)
}

const EJECTION: &str = "ejection = { failures = 3, duration = '1h' }";

#[test]
fn who_dies_under_load_costs_idempotent_requests_nothing() {
    for how in [After::Close, After::Reset] {
        let (faulty, is_wrong, count) = endpoint(move |_| Ok(how));
        let (gateway, _others) = among_three(&faulty, EJECTION);
        let got = load(&gateway, &is_wrong, GET);
        assert!(got.iter().all(|status| *status == 200), "{how:?}: {got:?}");
        assert!(count.load(SeqCst) > 0);

        let (faulty, is_wrong, count) = endpoint(move |_| Ok(how));
        let (gateway, _others) = among_three(&faulty, EJECTION);
        let got = load(&gateway, &is_wrong, POST);
        let failed = got.iter().filter(|status| **status != 200).count();
        assert_eq!(failed, count.load(SeqCst), "{how:?}: those on the wire, and no other: {got:?}");
        assert!(failed <= 3 + CLIENTS, "{how:?}: {got:?}");
    }
}

#[test]
fn who_hangs_costs_those_who_wait_for_it() {
    let gate = Gate::default();
    let opened = gate.clone();
    let (faulty, is_wrong, count) = endpoint(move |_| {
        opened.wait();
        Ok(After::Close)
    });
    let (gateway, _others) = among_three(&faulty, EJECTION);
    let got = load(&gateway, &is_wrong, GET);
    let failed: Vec<_> = got.iter().filter(|status| **status != 200).collect();
    assert!(failed.iter().all(|status| **status == 504), "{got:?}");
    assert_eq!(failed.len(), count.load(SeqCst), "{got:?}");
    assert!(failed.len() <= 3 + CLIENTS, "{got:?}");
    gate.open();
}

#[test]
fn who_talks_nonsense_costs_those_who_hear_it() {
    let (faulty, is_wrong, count) = endpoint(|exchange| exchange.answer("what?\r\n\r\n"));
    let (gateway, _others) = among_three(&faulty, EJECTION);
    let got = load(&gateway, &is_wrong, GET);
    let failed: Vec<_> = got.iter().filter(|status| **status != 200).collect();
    assert!(failed.iter().all(|status| **status == 502), "{got:?}");
    assert_eq!(failed.len(), count.load(SeqCst), "{got:?}");
    assert!(failed.len() <= 3 + CLIENTS, "{got:?}");
}

#[test]
fn who_comes_and_goes_costs_idempotent_requests_nothing() {
    let turns = AtomicUsize::new(0);
    // Ten requests are lost, ten are answered.
    let (faulty, is_wrong, _) = endpoint(move |exchange| match turns.fetch_add(1, SeqCst) % 20 {
        0..10 => Ok(After::Reset),
        _ => exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    });
    let lines = "ejection = { failures = 3, duration = '1ms' }\n\
                 retry = { attempts = 2, budget = '100%' }";
    let (gateway, _others) = among_three(&faulty, lines);
    for _ in 0..3 {
        let got = load(&gateway, &is_wrong, GET);
        assert!(got.iter().all(|status| *status == 200), "{got:?}");
    }
    let ejections = gateway.metric("gateway_upstream_ejections_total");
    assert!(ejections > 1.0, "{ejections}");
}

#[test]
fn who_is_slow_loses_its_share_and_nobody_an_answer() {
    let (faulty, is_wrong, count) = endpoint(|exchange| {
        thread::sleep(std::time::Duration::from_millis(30));
        exchange.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let (gateway, others) = among_three(&faulty, "");
    let by_turns = load(&gateway, &is_wrong, GET);
    assert!(by_turns.iter().all(|status| *status == 200));
    let slow_by_turns = count.swap(0, SeqCst);
    drop(others);

    is_wrong.store(false, SeqCst);
    let others = ["one", "two"].map(Origin::saying);
    let gateway = set_up().to(&[others[0].address, faulty.address, others[1].address]).start();
    let by_choice = load(&gateway, &is_wrong, GET);
    assert!(by_choice.iter().all(|status| *status == 200));
    assert!(count.load(SeqCst) < slow_by_turns, "{} of {slow_by_turns}", count.load(SeqCst));
}
