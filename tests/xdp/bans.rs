//! Bans: from a broken rule or a command to a drop in the kernel, or to 403 behind a proxy.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;

use gateway::admission::unix_now;
use gateway::xdp::Ban;
use gateway_ebpf::verdict::{Action, Reason};
use serde_json::Value;
use socket2::Socket;

use crate::connections::PATIENCE;
use crate::limiter::repeat;
use crate::netns::{Net, client_v4, client_v6};
use crate::packets::{syn_from_ipv4, syn_from_ipv6};
use crate::served::Served;
use crate::sources::{AT_ONCE, EVERYWHERE, config, connect, net};
use crate::{load, packets, settings};

#[test]
fn the_kernel_drops_a_banned_source_until_the_ban_ends() {
    let Some(program) = load(&settings(1000, true)) else {
        return;
    };
    let counts = program.counts().expect("counts");
    let source = |text: &str| counts.source(text.parse().expect("an address"));
    let frame = syn_from_ipv4([192, 0, 2, 1]);
    let neighbour = syn_from_ipv6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
    let ban = Ban { until: unix_now() + 2, level: 3, reason: 7, hits: 0, in_kernel: true };
    program.ban(source("192.0.2.1"), ban).expect("a ban");
    program.ban(source("2001:db8::1"), ban).expect("a ban");

    repeat(&program, &frame, 10);
    repeat(&program, &neighbour, 5);
    repeat(&program, &syn_from_ipv4([192, 0, 2, 2]), 1);
    let banned = |program| packets(program, Action::Drop, Reason::Banned);
    let within = |program| packets(program, Action::Pass, Reason::WithinLimit);
    assert_eq!((banned(&program), within(&program)), (15, 1));

    let bans = program.bans().expect("bans");
    let (_, told) = bans.iter().find(|(of, _)| *of == source("192.0.2.1")).expect("the ban");
    assert_eq!((told.hits, told.level, told.reason), (10, 3, 7));
    assert!(told.until.abs_diff(ban.until) <= 1);

    // Nobody ends it but the kernel's clock.
    while within(&program) == 1 {
        repeat(&program, &frame, 1);
    }
    assert!(unix_now() + 1 >= ban.until);

    let forever = Ban { until: unix_now() + 3600, ..ban };
    program.ban(source("192.0.2.1"), forever).expect("a ban");
    let before = within(&program);
    repeat(&program, &frame, 1);
    program.unban(source("192.0.2.1")).expect("no ban");
    program.unban(source("192.0.2.1")).expect("still none");
    repeat(&program, &frame, 1);
    assert_eq!(within(&program), before + 1);
}

#[test]
fn bans_by_hand_come_and_go() {
    let Some(net) = net() else {
        return;
    };
    for interface in EVERYWHERE {
        let served = Served::start(&net.gateway, &config(interface, "allow = [\"10.77.0.3\"]"));
        let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
        let mode = fs::metadata(served.path("admin.sock")).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let nobody = (true, "nobody is banned\n".to_owned());
        assert_eq!(served.ask(&["bans"]), nobody);

        let mut before = open(2).expect("not banned yet");
        let (ok, said) = served.ask(&["ban", "10.77.0.2", "--for", "10m", "--reason", "a test"]);
        assert!(ok && said == "10.77.0.2/32: banned\n", "{said}");
        assert!(open(2).is_none(), "{interface}: banned");
        before.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let ended = before.read(&mut [0; 1]).expect("an end");
        assert_eq!(ended, 0, "{interface}: what it has open ends, too");
        assert!(open(4).is_some());

        let (_, json) = served.ask(&["bans", "--json"]);
        let bans: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (&bans[0]["network"], &bans[0]["reason"]),
            (&"10.77.0.2/32".into(), &"a test".into())
        );
        assert!((590..=600).contains(&bans[0]["seconds"].as_u64().expect("a number")));
        assert_eq!(bans[0]["drops"].as_u64() > Some(0), interface == "gw0", "{bans}");

        let (ok, said) = served.ask(&["unban", "10.77.0.2", "10.77.0.4"]);
        assert!(!ok && said.contains("10.77.0.2/32: no longer banned"), "{said}");
        assert!(said.contains("10.77.0.4/32 is not banned"), "{said}");
        assert!(open(2).is_some(), "{interface}: no longer banned");

        let (ok, said) = served.ask(&["ban", "10.77.0.3"]);
        assert!(!ok && said.contains("is allowed: 10.77.0.3/32 (xdp.allow)"), "{said}");
        // A network around an allowed one is banned but for that.
        assert!(served.ask(&["ban", "10.77.0.0/24", "--for", "1h"]).0);
        served.wait_until("the network is banned", || open(4).is_none());
        assert!(open(3).is_some(), "{interface}: allowed");
        assert!(served.ask(&["unban", "10.77.0.0/24"]).0);
        served.wait_until("the network is no longer banned", || open(4).is_some());

        // What was told can be read again.
        let file = served.path("bans.json");
        fs::write(&file, json).expect("a file");
        assert!(served.ask(&["bans", "--import", file.to_str().expect("a path")]).0);
        assert!(open(2).is_none(), "{interface}: banned again");
        served.stop();
    }
}

/// Breaks a rule; what the gateway answers.
pub fn offend(socket: &mut Socket, head: &str) -> String {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.write_all(head.as_bytes()).expect("write");
    let mut answer = [0; 512];
    let read = socket.read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

const BANS: &str = "
    [bans]
    enforce = true
    threshold = 3
    durations = [\"1h\", \"2h\"]
    [bans.weights]
    head_too_large = 0
";

fn with_bans<'a>(net: &'a Net, interface: &str, bans: &str, listener: &str) -> Served<'a> {
    let config = config(interface, bans).replace("\" }", &format!("\"{listener} }}"));
    Served::start(&net.gateway, &config)
}

#[test]
fn who_breaks_rules_is_banned_by_the_kernel() {
    let Some(net) = net() else {
        return;
    };
    for interface in EVERYWHERE {
        let served = with_bans(&net, interface, BANS, "");
        for (source, other, network) in [
            (client_v4(2), client_v4(3), "10.77.0.2/32"),
            (client_v6(1, 2), client_v6(2, 2), "fd77:0:0:1::/64"),
        ] {
            for _ in 0..3 {
                let mut socket = connect(&net.clients, source, AT_ONCE).expect("not banned yet");
                assert_eq!(offend(&mut socket, "GET\r\n\r\n"), "HTTP/1.1 400 Bad Request");
            }
            served.wait_until("it is banned", || served.ask(&["bans"]).1.contains(network));
            assert!(connect(&net.clients, source, AT_ONCE).is_none(), "{interface}: {source}");
            assert!(connect(&net.clients, other, AT_ONCE).is_some(), "{interface}: {other}");
        }
        let said = served.ask(&["bans"]).1;
        assert!(said.contains("malformed") && said.contains("no. 1"), "{said}");
        assert_eq!(served.metric("gateway_bans_total{verdict=\"ban\"}"), 2);
        assert_eq!(served.metric("gateway_bans_held"), 2);
        let dropped = served.packets("drop", "banned");
        assert_eq!(dropped > 0, interface == "gw0", "{interface}: {dropped}");
    }
}

#[test]
fn observing_bans_nobody() {
    let Some(net) = net() else {
        return;
    };
    let bans = BANS.replace("enforce = true", "enforce = false");
    let served = with_bans(&net, "gw0", &bans, "");
    for _ in 0..3 {
        let mut socket = connect(&net.clients, client_v4(2), AT_ONCE).expect("nobody is banned");
        offend(&mut socket, "GET\r\n\r\n");
    }
    let observed = || served.metric("gateway_bans_total{verdict=\"observe\"}");
    served.wait_until("it is told", || observed() == 1);
    assert!(connect(&net.clients, client_v4(2), AT_ONCE).is_some());
    assert_eq!(served.ask(&["bans"]).1, "nobody is banned\n");
}

#[test]
fn behind_a_proxy_a_client_is_banned_and_the_proxy_is_not() {
    let Some(net) = net() else {
        return;
    };
    let bans = BANS.replace("head_too_large = 0", "client_error = 1");
    let served = with_bans(&net, "gw0", &bans, ", trusted_proxies = [\"10.77.0.4\"]");
    let mut proxy = connect(&net.clients, client_v4(4), AT_ONCE).expect("the proxy");
    let get = |client: &str, path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")
    };
    for _ in 0..3 {
        let answer = offend(&mut proxy, &get("192.0.2.9", "/guessed"));
        assert_eq!(answer, "HTTP/1.1 404 Not Found");
    }
    served.wait_until("the client is banned", || served.ask(&["bans"]).1.contains("192.0.2.9/32"));
    assert!(served.ask(&["bans"]).1.contains("workers"), "{}", served.ask(&["bans"]).1);
    assert_eq!(offend(&mut proxy, &get("192.0.2.9", "/hello")), "HTTP/1.1 403 Forbidden");
    // Others come by the same connection.
    assert_eq!(offend(&mut proxy, &get("192.0.2.8", "/hello")), "HTTP/1.1 200 OK");
}
