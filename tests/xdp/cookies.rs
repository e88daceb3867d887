//! SYN cookies that are made without looking for sockets: whoever has a connection must not get one.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::PORT;
use crate::answers::{nothing, sysctl};
use crate::connections::PATIENCE;
use crate::netns::{GATEWAY_V4, GATEWAY_V6, INTERFACE, Net, client_v4, client_v6};
use crate::served::Served;
use crate::sources::{config, net};

/// Where a client has its connections come from.
const FROM: u16 = 40_000;

/// Asks for something over a connection that the gateway ends, and waits for its end. It stays in TIME_WAIT, so
/// that a cookie for the same ports would leave the client waiting.
fn ask(net: &Net, source: IpAddr, port: u16) -> std::io::Result<String> {
    let to = if source.is_ipv4() { GATEWAY_V4 } else { GATEWAY_V6 };
    net.clients.run(|| {
        let to = SocketAddr::new(to, PORT);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(source, port).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

#[test]
fn who_has_had_a_connection_gets_the_next_from_the_same_port() {
    let Some(net) = net() else { return };
    let _nothing = nothing(&net.clients);
    sysctl(&net.gateway, "tcp_syncookies", "2");
    let config = config(INTERFACE, "enforce = true\nsyn_cookies = \"on\"");
    let mut served = Served::start(&net.gateway, &config);
    let hello = |source, port| {
        let answer = ask(&net, source, port).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert!(answer.ends_with("hello\n"), "{source}: {answer}");
    };
    let clients = [client_v4(2), client_v6(1, 2)];
    // By a listener that has just made a cookie for a stranger, and makes the next ones without being asked.
    let mut ports = FROM + 1..;
    let mut after_strangers = |source| {
        let stranger = if source == clients[0] { client_v4(3) } else { client_v6(2, 2) };
        ports.by_ref().take(2).for_each(|port| hello(stranger, port));
        hello(source, FROM);
    };
    clients.into_iter().for_each(&mut after_strangers);
    assert_eq!((served.packets("cookie", "flood"), served.packets("pass", "within_limit")), (6, 0));
    for _ in 0..3 {
        clients.into_iter().for_each(&mut after_strangers);
    }
    let (cookies, passed) =
        (served.packets("cookie", "flood"), served.packets("pass", "within_limit"));
    assert_eq!((cookies, passed), (6 + 3 * 4, 3 * 2), "the kernel knows of an end");

    // The next gateway has accepted none of them.
    served = served.stop().restart(&config);
    clients.into_iter().for_each(&mut after_strangers);
    assert_eq!((served.packets("cookie", "flood"), served.packets("pass", "within_limit")), (4, 2));
}
