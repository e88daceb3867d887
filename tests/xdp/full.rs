//! As many bans as there may be, and one more: somebody gives way, and it is said who.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;

use gateway::admission::unix_now;
use gateway_ebpf::abi::BANS_MAX;
use serde_json::Value;

use crate::bans::offend;
use crate::netns::client_v4;
use crate::served::Served;
use crate::sources::{AT_ONCE, EVERYWHERE, config, connect, net};

/// The bans of so many addresses from 11.0.0.0 on, the first of which ends first.
fn bans(count: u32, until: u64) -> String {
    let mut json = String::from("[");
    for number in 0..count {
        let network = Ipv4Addr::from_bits(0x0b00_0000 + number);
        let (comma, until) = (if number > 0 { "," } else { "" }, until + u64::from(number));
        write!(json, "{comma}{{\"network\":\"{network}\",\"until\":{until}}}").expect("a string");
    }
    json + "]"
}

const BANS: &str = "
    [bans]
    enforce = true
    threshold = 1
    durations = [\"1m\"]
";

#[test]
fn one_ban_too_many_takes_the_place_of_the_one_that_ends_first_and_says_so() {
    let Some(net) = net() else { return };
    for interface in EVERYWHERE {
        let served = Served::start(&net.gateway, &config(interface, BANS));
        let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
        let import = |json: String| {
            let file = served.path("bans.json");
            fs::write(&file, json).expect("a file");
            served.ask(&["bans", "--import", file.to_str().expect("a path")])
        };
        // All but one, and a client.
        let (ok, said) = import(bans(BANS_MAX - 1, unix_now() + 3600));
        assert!(ok && !said.contains("no longer"), "{interface}: {said}");
        assert!(served.ask(&["ban", "10.77.0.2", "--for", "2d"]).0);
        let held = || served.metric("gateway_bans_held");
        let given_up = || served.metric("gateway_bans_given_up_total");
        assert_eq!((held(), given_up()), (BANS_MAX.into(), 0));

        let (ok, said) = served.ask(&["ban", "10.77.0.3", "--for", "2d"]);
        let gives_way =
            "10.77.0.3/32: banned, and 11.0.0.0/32 no longer: there are too many bans\n";
        assert!(ok && said == gives_way, "{interface}: {said}");
        assert!(served.log().contains("no longer banned: 11.0.0.0/32, "), "{interface}");
        assert_eq!((held(), given_up()), (BANS_MAX.into(), 1));
        assert!(open(2).is_none() && open(3).is_none(), "{interface}: both are banned");
        let dropped = served.packets("drop", "banned");
        assert_eq!(dropped >= 2, interface == "gw0", "{interface}: by the kernel, where it can");

        // What would end before all others does not come to be.
        let mut offender = open(4).expect("not banned");
        assert_eq!(offend(&mut offender, "GET\r\n\r\n"), "HTTP/1.1 400 Bad Request");
        let refused = || served.metric("gateway_bans_total{verdict=\"no_room\"}");
        served.wait_until("it is told", || refused() == 1);
        assert!(
            served.log().contains("cannot ban 10.77.0.4/32 for 60s (malformed): there are 65536")
        );
        assert!(open(4).is_some(), "{interface}: its offences are answered, and that is all");
        let (ok, said) = served.ask(&["ban", "10.77.0.4", "--for", "1m"]);
        assert!(!ok && said.contains("put networks on a deny list"), "{interface}: {said}");

        if interface == "gw0" {
            let (ok, json) = served.ask(&["bans", "--json"]);
            let bans: Value = serde_json::from_str(&json).expect("JSON");
            assert!(ok && bans.as_array().is_some_and(|bans| bans.len() == BANS_MAX as usize));
        }
        assert!(open(2).is_none() && open(3).is_none(), "{interface}: still");
    }
}
