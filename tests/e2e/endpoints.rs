//! Endpoints that share the load, refuse, die and come back.

use crate::harness::{After, Broken, Gateway, Origin, closed_port, set_up};

#[test]
fn endpoints_take_turns() {
    let [one, two] = ["one", "two"].map(Origin::saying);
    let gateway = set_up().to(&[one.address, two.address]).start();
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
