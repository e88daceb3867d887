//! Connections that the program answers itself: by resets, and by SYN cookies.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use gateway::xdp::{Mode, Xdp};
use gateway_ebpf::flood;
use gateway_ebpf::verdict::{Action, Reason};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Socket, Type};

use crate::connections::PATIENCE;
use crate::netns::{GATEWAY_V4, GATEWAY_V6, INTERFACE, Namespace, Net, client_v4, client_v6};
use crate::running::wait_until_clean;
use crate::traffic::{Syns, invented};
use crate::{PORT, Setup, packets, settings};

/// What the clients' end of a veth must run, so that a driver's answers reach it.
pub fn nothing(inside: &Namespace) -> Xdp {
    let setup = settings(1, false).on("cl0", Mode::Native);
    inside.run(|| Xdp::attach(&setup.xdp, &setup.sources, &[], 1024).expect("attach"))
}

fn attach(net: &Net, setup: Setup, mode: Mode) -> Xdp {
    wait_until_clean(&net.gateway, INTERFACE);
    net.gateway.run(|| setup.on(INTERFACE, mode).attach().expect("attach"))
}

/// Says what it is told, one connection after the other, until the test's process ends.
fn echo(inside: &Namespace, address: IpAddr) {
    let listener = inside.run(|| TcpListener::bind((address, PORT)).expect("listen"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            thread::spawn(move || {
                let mut word = [0; 5];
                while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
            });
        }
    });
}

fn connect(net: &Net, from: IpAddr, to: IpAddr) -> std::io::Result<TcpStream> {
    net.clients.run(|| {
        let to = SocketAddr::new(to, PORT);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(socket.into())
    })
}

fn says_hello(mut stream: &TcpStream) {
    let mut word = [0; 5];
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"hello").expect("write");
    stream.read_exact(&mut word).expect("read");
    assert_eq!(&word, b"hello");
}

pub fn sysctl(inside: &Namespace, name: &str, value: &str) {
    // Which namespace's it is depends on the thread that opens it.
    inside.run(|| fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("a sysctl"));
}

/// A counter of the kernel's TCP.
fn tcp_counter(inside: &Namespace, name: &str) -> u64 {
    let text = inside.run(|| fs::read_to_string("/proc/thread-self/net/netstat").expect("netstat"));
    let mut lines = text.lines();
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(found, _)| *found == name).expect("a counter").1.parse().expect("a number")
}

#[test]
fn over_the_limit_is_reset_at_once() {
    for mode in [Mode::Native, Mode::Generic] {
        let Some(net) = Net::new() else { return };
        let _nothing = nothing(&net.clients);
        let mut setup = settings(2, true);
        setup.class().resets = true;
        let xdp = attach(&net, setup, mode);
        for (gateway, client) in [(GATEWAY_V4, client_v4(2)), (GATEWAY_V6, client_v6(1, 2))] {
            echo(&net.gateway, gateway);
            for _ in 0..2 {
                says_hello(&connect(&net, client, gateway).expect("within the limit"));
            }
            let error = connect(&net, client, gateway).expect_err("over the limit");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{mode:?}");
        }
        assert_eq!(packets(xdp.program(), Action::Reset, Reason::OverLimit), 2);
    }
}

#[test]
fn everybody_connects_by_a_cookie() {
    for mode in [Mode::Native, Mode::Generic] {
        let Some(net) = Net::new() else { return };
        let _nothing = nothing(&net.clients);
        let mut setup = settings(1000, true);
        (setup.sources.flood, setup.sources.enforce_cookies) = (flood::ALWAYS, true);
        let xdp = attach(&net, setup, mode);
        sysctl(&net.gateway, "tcp_syncookies", "2");
        for (gateway, client) in [(GATEWAY_V4, client_v4(2)), (GATEWAY_V6, client_v6(1, 2))] {
            echo(&net.gateway, gateway);
            let streams: Vec<_> =
                (0..10).map(|_| connect(&net, client, gateway).expect("connect")).collect();
            streams.iter().for_each(says_hello);
        }
        assert_eq!(packets(xdp.program(), Action::Cookie, Reason::Flood), 20, "{mode:?}");
        assert_eq!(tcp_counter(&net.gateway, "SyncookiesSent"), 0, "the kernel makes none");
        assert_eq!(
            tcp_counter(&net.gateway, "SyncookiesRecv"),
            20,
            "and takes those of the program"
        );
    }
}

/// Sends SYNs of invented sources.
fn flood(net: &Net, count: u32) {
    let syns = Syns::from(&net.clients);
    (0..count).for_each(|number| syns.send_many(invented(number), 1));
}

#[test]
fn cookies_begin_and_end_with_a_flood() {
    let Some(net) = Net::new() else { return };
    let _nothing = nothing(&net.clients);
    let mut setup = settings(1000, true);
    (setup.sources.flood, setup.sources.enforce_cookies) = (500, true);
    let xdp = attach(&net, setup, Mode::Native);
    sysctl(&net.gateway, "tcp_syncookies", "2");
    echo(&net.gateway, GATEWAY_V4);
    // Each CPU counts for itself, and what this thread sends is received by its own.
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("run on CPU 0");

    says_hello(&connect(&net, client_v4(2), GATEWAY_V4).expect("before"));
    assert_eq!(packets(xdp.program(), Action::Cookie, Reason::Flood), 0);
    assert!(!xdp.program().is_flooded().expect("the floods"));

    flood(&net, 5000);
    assert!(xdp.program().is_flooded().expect("the floods"));
    let cookies = packets(xdp.program(), Action::Cookie, Reason::Flood);
    assert!(cookies > 3000, "{cookies}");
    for _ in 0..10 {
        says_hello(&connect(&net, client_v4(2), GATEWAY_V4).expect("meanwhile"));
    }

    let begun = Instant::now();
    while xdp.program().is_flooded().expect("the floods") {
        assert!(begun.elapsed() < PATIENCE, "there still is a flood");
        thread::sleep(Duration::from_millis(50));
    }
    let cookies = packets(xdp.program(), Action::Cookie, Reason::Flood);
    says_hello(&connect(&net, client_v4(2), GATEWAY_V4).expect("afterwards"));
    assert_eq!(packets(xdp.program(), Action::Cookie, Reason::Flood), cookies);
}

#[test]
fn a_flood_changes_nobodys_limit() {
    let Some(net) = Net::new() else { return };
    let _nothing = nothing(&net.clients);
    let mut setup = settings(2, true);
    (setup.sources.flood, setup.sources.enforce_cookies) = (flood::ALWAYS, true);
    (setup.class().resets, setup.class().connection_rate) = (true, 1.0);
    let xdp = attach(&net, setup, Mode::Native);
    sysctl(&net.gateway, "tcp_syncookies", "2");
    echo(&net.gateway, GATEWAY_V4);
    let try_to = |client| connect(&net, client_v4(client), GATEWAY_V4);
    let refused = || packets(xdp.program(), Action::Reset, Reason::OverLimit);
    for client in [2, 3] {
        let (begun, before) = (Instant::now(), refused());
        (0..2).for_each(|_| says_hello(&try_to(client).expect("within the limit")));
        // Of who has been refused once no cookie is made any more before it is known whether there will be one.
        while refused() < before + 4 {
            let _ = try_to(client);
            assert!(begun.elapsed() < PATIENCE, "it is not held to its limit");
        }
        // It is not refused for longer than it deserves, and others never were.
        let stream = loop {
            match try_to(client) {
                Ok(stream) => break stream,
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            }
            assert!(begun.elapsed() < PATIENCE, "it stays refused");
        };
        says_hello(&stream);
    }
}

#[test]
fn a_flood_is_observed_before_it_is_answered() {
    let Some(net) = Net::new() else { return };
    let mut setup = settings(1000, false);
    setup.sources.flood = flood::ALWAYS;
    let xdp = attach(&net, setup, Mode::Native);
    echo(&net.gateway, GATEWAY_V4);
    says_hello(&connect(&net, client_v4(2), GATEWAY_V4).expect("connect"));
    assert_eq!(packets(xdp.program(), Action::Observe, Reason::Flood), 1);
}
