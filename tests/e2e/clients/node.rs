//! Node's clients: undici, the package, and the fetch built in.

use super::{run, script, skip, text_of};
use crate::harness::{Gateway, Origin};

#[test]
fn undici() {
    let Some(found) = run("node", &["-e", "require('undici')"]) else { return };
    if !found.status.success() {
        return skip("undici, Debian's node-undici");
    }
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    text_of("node", &[&script("undici.js"), &gateway.address().to_string()]).unwrap();
    // It closes one after HEAD, against servers that send a body all the same, and leaves another.
    assert_eq!(gateway.metric("gateway_connections_accepted_total"), 3.0);
    gateway.wait_for_metric("gateway_connections_open", 0.0);
}

#[test]
fn fetch() {
    let Some(found) = text_of("node", &["-p", "typeof fetch"]) else { return };
    if found.trim() != "function" {
        return println!("skipped: this node has no fetch");
    }
    let origin = Origin::echo();
    let gateway = Gateway::in_front_of(&origin);
    text_of("node", &[&script("fetch.js"), &gateway.address().to_string()]).unwrap();
}
