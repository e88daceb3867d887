//! Reloads under traffic: no packet is decided by half of what was and half of what is to be.

use std::fs;
use std::net::SocketAddr;

use crate::PORT;
use crate::netns::{GATEWAY_V4, INTERFACE, client_v4};
use crate::served::Served;
use crate::sources::{AT_ONCE, config, connect, net};
use crate::traffic::{Load, Passed, Syns, lost};

/// Lists that all let 10.77.0.3 in and keep 10.77.0.4 out, each by another entry: what is denied and
/// what is allowed.
const LISTS: [(&str, &str); 4] = [
    ("10.77.0.4", "10.77.0.3"),
    ("10.77.0.0/24", "10.77.0.2/31"),
    ("10.77.0.4/30\n10.0.0.0/8", "10.77.0.3 # again"),
    ("0.0.0.0/0", "10.77.0.0/30"),
];

#[test]
fn while_lists_are_swapped_nobody_denied_gets_in_and_nobody_allowed_is_kept_out() {
    const RELOADS: usize = 16;
    let Some(net) = net() else { return };
    // Who is not found on a list is over the limit at once.
    let plain = "enforce = true\nconnection_burst = 1\nconnection_rate = \"1/m\"\n";
    let lists = "deny = [\"file:FOLDER/deny\"]\nallow = [\"file:FOLDER/allow\"]";
    let served = Served::start(&net.gateway, &config(INTERFACE, plain));
    let listed = config(INTERFACE, &[plain, lists].concat());
    let swap = |number: usize| {
        let (deny, allow) = LISTS[number % LISTS.len()];
        // Of other lengths, so that an entry is never where it was.
        let others = |of: u8| {
            let networks = (0..50 * (number % 3)).map(|last| format!("\n172.{of}.{last}.0/24"));
            networks.collect::<String>()
        };
        fs::write(served.path("deny"), deny.to_owned() + &others(16)).expect("a file");
        fs::write(served.path("allow"), allow.to_owned() + &others(17)).expect("a file");
        served.reload(&listed);
    };
    swap(0);
    let denied = Passed::of(client_v4(4), &net.gateway);
    let traffic = Load::start(&net.clients, |syns, _| {
        [3, 4].iter().for_each(|last| syns.send_many(client_v4(*last), 1));
    });
    for number in 1..=RELOADS {
        traffic.await_more(100);
        swap(number);
    }
    let sent = traffic.end();
    let both = || (served.packets("drop", "denied"), served.packets("pass", "allowed"));
    let is_over = || both().0 + both().1 + lost(&net.clients) >= 2 * sent;
    served.wait_until("all are decided", is_over);
    let (dropped, passed) = both();
    assert!(dropped <= sent && passed <= sent, "{dropped} and {passed} of {sent} each");
    assert_eq!(denied.count(), 0);
    for (verdict, reason) in [("drop", "over_limit"), ("pass", "within_limit")] {
        assert_eq!(served.packets(verdict, reason), 0, "{verdict} {reason}");
    }
}

#[test]
fn a_port_is_limited_from_the_reload_that_adds_it_to_the_one_that_removes_it() {
    const OTHER: u16 = PORT + 1;
    let Some(net) = net() else { return };
    let one = config(INTERFACE, "enforce = true\nconnection_burst = 3\nconnection_rate = \"1/m\"");
    let both = one.replace(
        "listeners = [",
        &format!("listeners = [{{ address = \"{GATEWAY_V4}:{OTHER}\" }}, "),
    );
    let served = Served::start(&net.gateway, &one);
    let passed = Passed::of(client_v4(2), &net.gateway);
    let syns = Syns::from(&net.clients);
    let send = |count| {
        (0..count).for_each(|_| syns.send(client_v4(2), SocketAddr::new(GATEWAY_V4, OTHER)))
    };
    let await_passed = |count| served.wait_until("they get past", || passed.count() == count);
    let dropped = || served.packets("drop", "over_limit");

    send(10);
    await_passed(10);
    served.reload(&both);
    send(10);
    served.wait_until("the port is limited", || dropped() == 7);
    assert_eq!(passed.count(), 10 + 3);
    // One allowance for both.
    assert!(connect(&net.clients, client_v4(2), AT_ONCE).is_none());
    let before = dropped();
    served.reload(&one);
    send(10);
    await_passed(10 + 3 + 10);
    assert_eq!(dropped(), before);
}
