//! The program on a veth between two namespaces: what clients see, and what is left behind.

use std::net::SocketAddr;

use gateway::xdp::{CAPABILITIES, Error, Hook, Mode, occupant};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::connections::Connections;
use crate::netns::{GATEWAY_V4, GATEWAY_V6, INTERFACE, Net, client_v4, client_v6};
use crate::running::{BURST, Holder, Kind, settings_here, wait_until_clean};
use crate::served::Served;
use crate::sources::config;
use crate::{PORT, load, settings};

const TARGET_V4: SocketAddr = SocketAddr::new(GATEWAY_V4, PORT);
const TARGET_V6: SocketAddr = SocketAddr::new(GATEWAY_V6, PORT);
const MANY: usize = 3 * BURST as usize;

/// `None` where this machine does not permit it and the test is to be skipped.
fn net() -> Option<Net> {
    load(&settings(1, true))?;
    Net::new()
}

#[test]
fn one_source_is_limited_and_another_is_not() {
    let Some(net) = net() else {
        return;
    };
    for kind in Kind::all() {
        let gateway = kind.start(&net.gateway, true);
        let greedy = Connections::open(&net.clients, client_v4(2), TARGET_V4, MANY);
        greedy.wait_for(BURST as usize);
        let modest = Connections::open(&net.clients, client_v4(3), TARGET_V4, BURST as usize);
        modest.wait_for(BURST as usize);

        assert!(greedy.established() < MANY, "{kind:?}: nothing above the burst was held back");
        let dropped = gateway.packets("drop", "over_limit");
        assert!(dropped >= (MANY - greedy.established()) as u64, "{kind:?}: {dropped} dropped");
        assert_eq!(gateway.packets("observe", "over_limit"), 0);
        // No SYN is admitted that the limit does not count.
        let admitted = gateway.packets("pass", "within_limit");
        assert!(
            admitted >= 2 * u64::from(BURST) && admitted < (MANY + modest.established()) as u64
        );
    }
}

#[test]
fn addresses_of_one_ipv6_64_share_a_limit() {
    let Some(net) = net() else {
        return;
    };
    for kind in Kind::all() {
        let gateway = kind.start(&net.gateway, true);
        let open = |subnet, last| {
            Connections::open(&net.clients, client_v6(subnet, last), TARGET_V6, BURST as usize)
        };
        let shared = [open(1, 2), open(1, 3), open(1, 4)];
        shared[0].wait_for(BURST as usize);
        let apart = open(2, 2);
        apart.wait_for(BURST as usize);

        let established: usize = shared.iter().map(Connections::established).sum();
        assert!(established < MANY, "{kind:?}: each address had a limit of its own");
        assert!(gateway.packets("drop", "over_limit") >= (MANY - established) as u64);
    }
}

#[test]
fn observing_drops_nothing_and_counts_the_same() {
    let Some(net) = net() else {
        return;
    };
    for kind in Kind::all() {
        let gateway = kind.start(&net.gateway, false);
        let greedy = Connections::open(&net.clients, client_v4(2), TARGET_V4, MANY);
        greedy.wait_for(MANY);

        let within = gateway.packets("pass", "within_limit");
        let over = gateway.packets("observe", "over_limit");
        assert_eq!(within + over, MANY as u64, "{kind:?}");
        assert!(within >= u64::from(BURST) && over > 0, "{kind:?}: {within} within, {over} over");
        assert_eq!(gateway.packets("drop", "over_limit"), 0);
    }
}

#[test]
fn the_interface_is_clean_afterwards() {
    let Some(net) = net() else {
        return;
    };
    for kind in Kind::all() {
        let gateway = kind.start(&net.gateway, true);
        let occupied = net.gateway.run(|| occupant(INTERFACE).expect("rtnetlink"));
        assert_eq!(occupied.expect("a program").hook, Some(Hook::Native));
        gateway.stop();
        wait_until_clean(&net.gateway, INTERFACE);
    }
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let Some(net) = net() else {
        return;
    };
    let holder = Holder::start(&net.gateway);
    assert!(net.gateway.run(|| occupant(INTERFACE).expect("rtnetlink")).is_some());
    holder.kill();
    wait_until_clean(&net.gateway, INTERFACE);
    for kind in Kind::all() {
        // Dropping it kills the binary.
        drop(kind.start(&net.gateway, true));
        wait_until_clean(&net.gateway, INTERFACE);
    }
}

#[test]
fn a_driver_without_native_mode_is_an_error_that_names_generic() {
    let Some(net) = net() else {
        return;
    };
    let on_lo = |mode| net.gateway.run(|| settings(BURST, true).on("lo", mode).attach());
    let occupant = || net.gateway.run(|| occupant("lo").expect("rtnetlink"));

    let error = on_lo(Mode::Native).expect_err("lo has no driver");
    assert!(matches!(error, Error::Refused { hook: Hook::Native, .. }), "{error:?}");
    assert!(error.to_string().contains("--xdp-mode generic"), "{error}");
    assert_eq!(occupant(), None);

    for mode in [Mode::Generic, Mode::Auto] {
        let xdp = on_lo(mode).expect("attach");
        assert_eq!(xdp.attachments()[0].hook, Hook::Generic);
        assert_eq!(occupant().expect("a program").hook, Some(Hook::Generic));
        xdp.detach();
        wait_until_clean(&net.gateway, "lo");
    }
}

#[test]
fn auto_is_native_where_the_driver_can() {
    let Some(net) = net() else {
        return;
    };
    net.gateway.ip(&format!("link set {INTERFACE} mtu 9000"));
    net.gateway.run(|| {
        let xdp = settings_here(true).on(INTERFACE, Mode::Auto).attach().expect("attach");
        let [attachment] = xdp.attachments() else {
            panic!("one interface, {:?}", xdp.attachments());
        };
        assert_eq!((attachment.interface.as_str(), attachment.hook), (INTERFACE, Hook::Native));
        // A veth of this MTU takes nothing but the entry point for packets in several buffers.
        assert!(attachment.frags);
    });
}

#[test]
fn a_taken_hook_names_its_owner() {
    let Some(net) = net() else {
        return;
    };
    net.gateway.run(|| {
        let _first = settings_here(true).attach().expect("attach");
        for mode in [Mode::Native, Mode::Auto, Mode::Generic] {
            let again = settings_here(true).on(INTERFACE, mode);
            let error = again.attach().expect_err("the hook is taken");
            let text = error.to_string();
            assert!(text.contains("gw0 is taken by program \"gateway_frags\" (id "), "{text}");
        }
    });
}

#[test]
fn all_interfaces_or_none() {
    let Some(net) = net() else {
        return;
    };
    net.gateway.run(|| {
        let mut settings = settings_here(true);
        settings.xdp.interfaces.push("nowhere0".to_owned());
        let error = settings.attach().expect_err("there is no such interface");
        let text = error.to_string();
        assert!(text.contains("no interface named \"nowhere0\""), "{text}");
    });
    wait_until_clean(&net.gateway, INTERFACE);
}

#[test]
fn a_missing_capability_is_named() {
    let Some(net) = net() else {
        return;
    };
    for (missing, name) in [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ] {
        // Rights belong to the thread, and this one ends with the closure.
        net.gateway.run(|| {
            let now = capabilities(None).expect("capget");
            // CAP_SYS_ADMIN stands for all of them.
            let effective = now.effective - missing - CapabilitySet::SYS_ADMIN;
            let fewer = CapabilitySets { effective, ..now };
            set_capabilities(None, fewer).expect("capset");
            let error = settings_here(true).attach().expect_err("not permitted");
            let text = error.to_string();
            assert!(text.contains(&format!("(missing: {name})")), "{text}");
        });
    }
}

#[test]
fn no_thread_keeps_the_rights_to_attach() {
    let Some(net) = net() else {
        return;
    };
    let attached = config(INTERFACE, "");
    let not_attached = config("gone0", "").replace("required = true", "required = false");
    for config in [attached, not_attached] {
        let served = Served::start(&net.gateway, &config);
        let held = CapabilitySet::from_bits_retain(served.capabilities());
        // What else it has here is root's.
        assert!(held.contains(CapabilitySet::NET_BIND_SERVICE), "{held:?}");
        let kept =
            CAPABILITIES.map(|(right, _)| right).into_iter().filter(|right| held.contains(*right));
        assert_eq!(kept.collect::<Vec<_>>(), []);
    }
}

#[test]
fn an_object_that_is_none_is_named() {
    let attach = |object: &str| {
        let mut setup = settings(1, true);
        setup.xdp.object = Some(object.into());
        setup.attach().expect_err("no object").to_string()
    };
    let text = attach("Cargo.toml");
    assert!(text.starts_with("Cargo.toml cannot be loaded: "), "{text}");
    let text = attach("/no/such/object");
    assert!(text.contains("No such file"), "{text}");
}
