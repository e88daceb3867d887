//! What the gateway says by itself, and in which form.

use crate::harness::{Gateway, Origin, Response, set_up, unique_path};

fn not_found(gateway: &Gateway, fields: &str) -> Response {
    let mut client = gateway.client();
    client.send(format!("GET /no/such HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    client.response()
}

/// A route for `/only`, so that everything else is not found.
fn gateway(pages: &str) -> Gateway {
    let origin = Origin::saying("hello");
    set_up()
        .set("pages", pages)
        .upstream("main", &[origin.address])
        .route("path = '/only/*'\nupstream = 'main'")
        .start()
}

#[test]
fn an_answer_is_text_or_json_by_accept() {
    let gateway = gateway("");
    for accept in ["", "Accept: */*\r\n", "Accept: text/html, application/json;q=0.5\r\n"] {
        let response = not_found(&gateway, accept);
        assert_eq!(response.field("content-type"), "text/plain; charset=utf-8");
        assert_eq!(response.text(), "404 Not Found\n");
        assert!(!response.fields.has("server"), "no word of what runs here");
    }
    let response = not_found(&gateway, "Accept: application/json\r\nX-Request-Id: id-1\r\n");
    assert_eq!(response.field("content-type"), "application/problem+json");
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["status"], 404);
    assert_eq!(body["title"], "Not Found");
    assert_eq!(body["request_id"], "id-1");
}

#[test]
fn pages_take_the_place_of_the_gateways_words() {
    let folder = unique_path("pages");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("404.html"), "<p>Gone fishing").unwrap();
    std::fs::write(folder.join("400.json"), "{}").unwrap();
    let gateway = gateway(&format!("folder = {folder:?}"));
    std::fs::remove_dir_all(folder).unwrap();
    let response = not_found(&gateway, "");
    assert_eq!(response.field("content-type"), "text/html; charset=utf-8");
    assert_eq!((response.status, response.text().as_str()), (404, "<p>Gone fishing"));
    let response = not_found(&gateway, "Accept: application/json\r\n");
    assert_eq!(response.field("content-type"), "application/problem+json");
    let response = gateway.get("/only//b");
    assert_eq!((response.status, response.text().as_str()), (400, "400 Bad Request\n"));
}

#[test]
fn the_log_names_who_breaks_the_rules() {
    let gateway = gateway("");
    for _ in 0..3 {
        gateway.client().send("nonsense\r\n\r\n").response();
    }
    assert_eq!(gateway.metric("gateway_offences_total{offence=\"malformed\"}"), 3.0);
    assert_eq!(gateway.metric("gateway_offences_unreported_total"), 0.0);
    let log = gateway.stop();
    assert!(log.contains("offences: 127.0.0.1: malformed 3"), "{log}");
}
