//! Interfaces that go down, come up again, and go away, while a gateway runs.

use std::net::{IpAddr, Ipv4Addr};

use crate::netns::{INTERFACE, Namespace, Net, client_v4};
use crate::running::wait_until_clean;
use crate::served::Served;
use crate::sources::{AT_ONCE, config, connect, net};
use crate::traffic::{Passed, Syns};

const LIMITS: &str = "enforce = true\nconnection_rate = \"1/m\"\nconnection_burst = 10";

/// The gateway's end of another veth, [`join_again`].
pub const SECOND: &str = "gw1";
pub const SECOND_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 1));

/// Joins the namespaces by a second veth.
pub fn join_again(net: &Net) {
    let (gateway, clients) = (&net.gateway, &net.clients);
    clients.ip(&format!("link add cl1 type veth peer name {SECOND} netns {}", gateway.path()));
    gateway.ip(&format!("address add {SECOND_V4}/24 dev {SECOND}"));
    clients.ip("address add 10.79.0.2/24 dev cl1");
    gateway.ip(&format!("link set {SECOND} up"));
    clients.ip("link set cl1 up");
}

fn set(inside: &Namespace, interface: &str, state: &str) {
    inside.ip(&format!("link set {interface} {state}"));
}

#[test]
fn limits_hold_once_an_interface_is_up_again() {
    let Some(net) = net() else { return };
    let served = Served::start(&net.gateway, &config(INTERFACE, LIMITS));
    let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
    assert!((0..10).all(|_| open(2).is_some()));
    assert!(served.ask(&["ban", "10.77.0.4", "--for", "10m"]).0);

    set(&net.gateway, INTERFACE, "down");
    assert!(open(3).is_none(), "nobody can come");
    set(&net.gateway, INTERFACE, "up");
    served.wait_until("it carries again", || open(3).is_some());
    assert!(open(2).is_none(), "what it has used up is known");
    assert!(open(4).is_none(), "it is still banned");
    assert_eq!(served.metric("gateway_xdp_attached{interface=\"gw0\"}"), 1);
}

#[test]
fn an_interface_that_is_made_anew_is_told_of_and_the_others_go_on() {
    let Some(net) = net() else { return };
    join_again(&net);
    let both = config(INTERFACE, LIMITS).replace("\"gw0\"", "\"gw0\", \"gw1\"");
    let served = Served::start(&net.gateway, &both);
    let attached =
        |name: &str| served.metric(&format!("gateway_xdp_attached{{interface=\"{name}\"}}")) == 1;
    assert!(attached(INTERFACE) && attached(SECOND));
    assert!(!served.log().contains("any more"));

    net.gateway.ip("link delete gw1");
    assert!(!attached(SECOND) && attached(INTERFACE));
    let told = || served.log().matches("xdp: NOT on gw1 any more").count();
    assert_eq!(told(), 1);
    join_again(&net);
    assert!(!attached(SECOND), "one of the same name");
    assert_eq!(told(), 1, "once is enough");
    let said = served.ask(&["xdp", "status"]).1;
    assert!(said.contains("gw0: native mode\ngw1: NOT attached any more"), "{said}");

    let passed = Passed::of(client_v4(2), &net.gateway);
    Syns::from(&net.clients).send_many(client_v4(2), 30);
    served.wait_until("all are decided", || served.packets("drop", "over_limit") == 20);
    assert_eq!(passed.count(), 10);

    // A restart is what it takes.
    let served = served.kill();
    wait_until_clean(&net.gateway, SECOND);
    let served = served.restart(&both);
    assert_eq!(served.metric("gateway_xdp_attached{interface=\"gw1\"}"), 1);
}
