//! Sources before the binary: how many connections they may have open, and what lists make of them,
//! with the kernel program and without it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::connections::PATIENCE;
use crate::netns::{GATEWAY_V4, GATEWAY_V6, Namespace, Net, client_v4, client_v6};
use crate::served::Served;
use crate::{PORT, load, settings};

/// With the program on the clients' interface, and on one they do not come by.
pub const EVERYWHERE: [&str; 2] = ["gw0", "lo"];

pub fn net() -> Option<Net> {
    load(&settings(1, true))?;
    Net::new()
}

pub fn config(interface: &str, xdp: &str) -> String {
    let mode = if interface == "lo" { "generic" } else { "native" };
    format!(
        r#"
        listeners = [{{ address = "{GATEWAY_V4}:{PORT}" }}, {{ address = "[{GATEWAY_V6}]:{PORT}" }}]
        [xdp]
        interfaces = ["{interface}"]
        mode = "{mode}"
        required = true
        {xdp}
        "#
    )
}

/// A connection that the gateway has answered on, or `None` where it has let nobody in.
pub fn connect(from: &Namespace, source: IpAddr, patience: Duration) -> Option<Socket> {
    let target = match source {
        IpAddr::V4(_) => SocketAddr::new(GATEWAY_V4, PORT),
        IpAddr::V6(_) => SocketAddr::new(GATEWAY_V6, PORT),
    };
    from.run(|| {
        let mut socket =
            Socket::new(Domain::for_address(target), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("bind");
        match socket.connect_timeout(&target.into(), patience) {
            Err(error) if error.kind() == ErrorKind::TimedOut => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            result => result.expect("connect"),
        }
        ask(&mut socket).then_some(socket)
    })
}

/// Whether a request is answered.
pub fn ask(socket: &mut Socket) -> bool {
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    if socket.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").is_err() {
        return false;
    }
    let mut answer = [0; 512];
    match socket.read(&mut answer) {
        Ok(read) => answer[..read].starts_with(b"HTTP/1.1 200"),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("{error}"),
    }
}

/// Long enough for a handshake; the first retransmission comes after a second.
pub const AT_ONCE: Duration = Duration::from_millis(700);

#[test]
fn a_source_may_have_so_many_open() {
    let Some(net) = net() else {
        return;
    };
    for interface in EVERYWHERE {
        let served =
            Served::start(&net.gateway, &config(interface, "enforce = true\nconnections_max = 3"));
        for [source, neighbour, other] in [
            [client_v4(2), client_v4(2), client_v4(3)],
            [client_v6(1, 2), client_v6(1, 3), client_v6(2, 2)],
        ] {
            let open = |source| connect(&net.clients, source, AT_ONCE);
            let mut held: Vec<_> =
                (0..3).map(|_| open(source).expect("within the limit")).collect();
            assert!(open(neighbour).is_none(), "{interface}: a fourth");
            assert!(open(other).is_some(), "{interface}: another source");
            held.pop();
            served.wait_until("its place is free", || open(neighbour).is_some());
            drop(held);
        }
        let dropped = served.packets("drop", "connections_max");
        let refused = served.metric(
            "gateway_source_connections_refused_total{verdict=\"refuse\",reason=\"connections_max\"}",
        );
        // What the kernel drops never comes to be accepted.
        let expected = if interface == "lo" { (false, true) } else { (true, false) };
        assert_eq!((dropped > 0, refused > 0), expected, "{dropped} dropped, {refused} refused");
    }
}

#[test]
fn observing_counts_who_has_too_many() {
    let Some(net) = net() else {
        return;
    };
    let xdp = "enforce = [\"rate\", \"deny\"]\nconnections_max = 1";
    for interface in EVERYWHERE {
        let served = Served::start(&net.gateway, &config(interface, xdp));
        let open = || connect(&net.clients, client_v4(2), AT_ONCE).expect("it is let in");
        let _held = [open(), open(), open()];
        let accepted = served.metric(
            "gateway_source_connections_refused_total{verdict=\"observe\",reason=\"connections_max\"}",
        );
        assert_eq!(accepted, 2, "{interface}");
        let observed = served.packets("observe", "connections_max");
        assert_eq!(observed, if interface == "lo" { 0 } else { 2 });
    }
}

#[test]
fn lists_and_limits_change_by_reload_and_connections_live_on() {
    let Some(net) = net() else {
        return;
    };
    for interface in EVERYWHERE {
        let with = |lists: &str| config(interface, &format!("enforce = true\n{lists}"));
        let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
        let served = Served::start(&net.gateway, &with(""));
        let mut before = open(2).expect("nobody is denied");

        let file = served.path("deny.txt");
        fs::write(&file, "# the clients\n10.77.0.0/24 until=2999-01-01 # all\n").expect("a file");
        let lists = "deny = [\"file:FOLDER/deny.txt\"]\nallow = [\"10.77.0.3 # but this one\"]";
        served.reload(&with(lists));
        assert!(open(2).is_none(), "{interface}: denied");
        assert!(open(3).is_some(), "{interface}: allowed");
        assert!(ask(&mut before), "an established connection is none of the list's business");

        fs::write(&file, "10.77.0.3\n").expect("a file");
        served.reload(&with("deny = [\"file:FOLDER/deny.txt\"]\nconnections_max = 2"));
        assert!(open(3).is_none(), "{interface}: denied now");
        // The one from before still counts.
        let second = open(2).expect("allowed again");
        assert!(open(2).is_none(), "{interface}: a third");
        drop(second);
        served.stop();
    }
}

#[test]
fn a_network_and_a_listener_may_have_limits_of_their_own() {
    let Some(net) = net() else {
        return;
    };
    let classes = "[xdp.classes.more]\nconnections_max = 2\nnetworks = [\"10.77.0.3\"]\n\
                   [xdp.classes.listener]\nconnections_max = 3";
    for interface in EVERYWHERE {
        let xdp = format!("enforce = true\nconnections_max = 1\n{classes}");
        let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
        let opened = |last| (0..5).map_while(|_| open(last)).collect::<Vec<_>>().len();
        let plain = config(interface, &xdp);
        let served = Served::start(&net.gateway, &plain);
        assert_eq!((opened(2), opened(3)), (1, 2), "{interface}: by network");
        served.reload(&plain.replace("\" }", "\", class = \"listener\" }"));
        served.wait_until("the connections are gone", || {
            served.metric("gateway_connections_open") == 0
        });
        assert_eq!((opened(2), opened(3)), (3, 2), "{interface}: by listener");
    }
}

#[test]
fn where_the_program_cannot_be_attached_all_but_the_rate_is_kept_at_accept() {
    let Some(net) = net() else {
        return;
    };
    let xdp = "enforce = true\nconnections_max = 3\nconnection_burst = 1\nconnection_rate = \"1/m\"
               deny = [\"10.77.0.4\"]";
    let config = config("gone0", xdp).replace("required = true", "required = false");
    let served = Served::start(&net.gateway, &config);
    let said = served.log();
    assert!(said.contains("no interface named \"gone0\""), "{said}");
    assert!(said.contains("serving WITHOUT a limit of new connections"), "{said}");

    let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
    let mut held: Vec<_> = (0..3).map(|_| open(2).expect("within the limit")).collect();
    assert!(open(2).is_none(), "a fourth");
    held.pop();
    served.wait_until("its place is free", || open(2).is_some());
    assert!(open(4).is_none(), "denied");
    assert!(served.ask(&["ban", "10.77.0.3"]).0);
    assert!(open(3).is_none(), "banned");
    let refused = |reason| {
        let name = "gateway_source_connections_refused_total";
        served.metric(&format!("{name}{{verdict=\"refuse\",reason=\"{reason}\"}}"))
    };
    for reason in ["connections_max", "denied", "banned"] {
        assert!(refused(reason) > 0, "{reason}");
    }
}
