//! `gateway top` where the kernel decides: who would be dropped, who is, and who is banned.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use gateway::admission::unix_now;
use serde_json::Value;

use crate::PORT;
use crate::connections::Connections;
use crate::netns::{GATEWAY_V4, Net, client_v4};
use crate::served::Served;
use crate::sources::{config, net};

/// What is seen while a source opens connections, more of them than it may.
fn see(net: &Net, served: &Served<'_>, source: IpAddr) -> Value {
    let target = SocketAddr::new(GATEWAY_V4, PORT);
    let said = thread::scope(|scope| {
        let top = scope.spawn(|| served.ask(&["top", "--once", "--json"]));
        while !top.is_finished() {
            drop(Connections::open(&net.clients, source, target, 20));
            thread::yield_now();
        }
        top.join().expect("it ends")
    });
    assert!(said.0, "{}", said.1);
    serde_json::from_str(&said.1).expect("JSON")
}

/// `(new, dropped, would be)`, each per second, and the end of its ban.
fn of(report: &Value, source: IpAddr) -> (f64, f64, f64, Option<u64>) {
    let shown = report["shown"].as_array().expect("an array");
    let source = Value::from(source.to_string());
    let doings = shown.iter().find(|doings| doings["source"] == source);
    let doings = doings.unwrap_or_else(|| panic!("{source} is not there: {report}"));
    let number = |name: &str| doings[name].as_f64().expect("a number");
    let until = doings["banned_until"].as_u64();
    (number("connections_new"), number("drops"), number("would_drop"), until)
}

#[test]
fn who_would_be_dropped_who_is_and_who_is_banned() {
    let Some(net) = net() else {
        return;
    };
    let limits = "connection_rate = 20\nconnection_burst = 1\n";
    let served = Served::start(&net.gateway, &config("gw0", limits));
    let report = see(&net, &served, client_v4(2));
    let (new, drops, would, until) = of(&report, client_v4(2));
    assert!(new > 0.0 && drops == 0.0 && would > 0.0 && until.is_none(), "{report}");

    served.reload(&config("gw0", &format!("{limits}enforce = true\n")));
    // Some of the first second may have been before.
    see(&net, &served, client_v4(2));
    let report = see(&net, &served, client_v4(2));
    let (_, drops, would, until) = of(&report, client_v4(2));
    assert!(drops > 0.0 && would == 0.0 && until.is_none(), "{report}");

    assert!(served.ask(&["ban", "10.77.0.4", "--for", "1h"]).0);
    let report = see(&net, &served, client_v4(4));
    let (new, drops, _, until) = of(&report, client_v4(4));
    assert!(new == 0.0 && drops > 0.0, "{report}");
    assert!(until.is_some_and(|until| until > unix_now()), "{report}");

    // Who is banned is shown also when nothing comes from there.
    assert!(served.ask(&["ban", "192.0.2.0/24", "192.0.2.9", "--for", "2h"]).0);
    let said = served.ask(&["top", "--once", "--sort", "banned"]).1;
    let first: Vec<_> =
        said.lines().skip(2).take(3).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(first, ["192.0.2.0/24", "192.0.2.9", "10.77.0.4"], "{said}");
    served.stop();
}
