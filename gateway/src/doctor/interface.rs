//! One interface: what it is, and where the kernel program can run on it.

use super::machine::Machine;
use super::{Finding, Wanted};
use crate::sys;
use crate::xdp::{self, Features, Mode};

/// Packets up to this long fit a buffer with room for a program on most drivers, with pages of 4 KiB.
const MTU_MAX: u64 = 3_498;

/// `ARPHRD_LOOPBACK` of linux/if_arp.h.
const LOOPBACK: u64 = 772;

pub(super) fn look(machine: &Machine, interface: &str, wanted: &Wanted) -> Vec<Finding> {
    let topic = format!("interface {interface}");
    let folder = format!("sys/class/net/{interface}");
    let features = match xdp::features(interface) {
        Ok(features) => features,
        Err(error) => {
            let fix = "`ip link` lists those there are";
            return vec![Finding::fail(&topic, "there", error.to_string(), fix)];
        }
    };
    let mut findings = vec![kind(machine, &folder, &topic)];
    findings.push(native(machine, &folder, &topic, features, wanted));
    findings.extend(mtu(machine, &folder, &topic, features, wanted));
    findings.extend(merging(interface, &topic, wanted));
    findings.extend(occupant(interface, &topic));
    findings.extend(queues(machine, &folder, &topic));
    findings.extend(answers(machine, &folder, &topic, wanted));
    findings
}

/// What it is, and whether another one is the right one.
fn kind(machine: &Machine, folder: &str, topic: &str) -> Finding {
    const CHECK: &str = "kind";
    let uevent = machine.read(&format!("{folder}/uevent")).unwrap_or_default();
    let kind = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).unwrap_or_default();
    let below = machine.entries(folder).into_iter();
    let below: Vec<_> =
        below.filter_map(|name| Some(name.strip_prefix("lower_")?.to_owned())).collect();
    let below = below.join(", ");
    if let Some(master) = machine.link(&format!("{folder}/master"))
        && machine.exists(&format!("sys/class/net/{master}/bonding"))
    {
        let found = format!("belongs to the bond {master}");
        return Finding::fail(
            topic,
            CHECK,
            found,
            &format!("name {master}: the program goes to all its members"),
        );
    }
    if machine.exists(&format!("{folder}/bonding")) {
        let found = format!("a bond of {below}, whose members must all run programs natively");
        return Finding::ok(topic, CHECK, found);
    }
    if kind == "vlan" {
        let found =
            format!("a VLAN on {below}, where packets come later than they could be dropped");
        let fix = format!(
            "name {below}: the program reads past two tags, and its limits count for all VLANs of it"
        );
        return Finding::warn(topic, CHECK, found, &fix);
    }
    if !below.is_empty() {
        let found = format!("stands on {below}, where packets come in earlier");
        return Finding::warn(topic, CHECK, found, &format!("name {below}"));
    }
    if machine.number(&format!("{folder}/type")) == Some(LOOPBACK) {
        return Finding::ok(topic, CHECK, "the loopback: its addresses are always allowed");
    }
    let driver = machine.link(&format!("{folder}/device/driver"));
    let state = machine.read(&format!("{folder}/operstate")).unwrap_or_default();
    let driver = driver.map_or("without a card".to_owned(), |driver| format!("driver {driver}"));
    match state.as_str() {
        "down" => Finding::warn(topic, CHECK, format!("{driver}, down"), "`ip link set up`"),
        _ => Finding::ok(topic, CHECK, driver),
    }
}

/// Whether its driver runs programs.
fn native(
    machine: &Machine,
    folder: &str,
    topic: &str,
    features: Option<Features>,
    wanted: &Wanted,
) -> Finding {
    const CHECK: &str = "native mode";
    match features {
        _ if wanted.mode == Mode::Generic => {
            Finding::ok(topic, CHECK, "not asked for: xdp.mode is \"generic\"")
        }
        Some(Features { native: true, .. }) => Finding::ok(topic, CHECK, "the driver can"),
        Some(_) => Finding::fail_if(
            wanted.mode == Mode::Native,
            topic,
            CHECK,
            "the driver cannot: the program runs later, in the stack, at a multiple of the cost"
                .to_owned(),
            "xdp.mode = \"generic\" or \"auto\", or a card whose driver can",
        ),
        None => {
            let driver = machine.link(&format!("{folder}/device/driver")).unwrap_or_default();
            Finding::warn(
                topic,
                CHECK,
                format!("this kernel does not tell what the driver {driver} can (6.3 does)"),
                "xdp.mode = \"auto\" tries, and says what it has got",
            )
        }
    }
}

/// Large packets take several buffers, which not every driver hands to a program.
fn mtu(
    machine: &Machine,
    folder: &str,
    topic: &str,
    features: Option<Features>,
    wanted: &Wanted,
) -> Option<Finding> {
    const CHECK: &str = "MTU";
    let mtu = machine.number(&format!("{folder}/mtu"))?;
    let native = wanted.mode != Mode::Generic && features.is_none_or(|features| features.native);
    if mtu <= MTU_MAX || !native || features.is_some_and(|features| features.frags) {
        return Some(Finding::ok(topic, CHECK, mtu.to_string()));
    }
    Some(Finding::warn(
        topic,
        CHECK,
        format!("{mtu}: the driver may refuse a program with packets that take several buffers"),
        &format!("an MTU of at most {MTU_MAX}, or xdp.mode = \"auto\""),
    ))
}

fn merging(interface: &str, topic: &str, wanted: &Wanted) -> Option<Finding> {
    const CHECK: &str = "LRO";
    match sys::merges_received(interface) {
        Ok(true) if wanted.mode != Mode::Generic => Some(Finding::warn(
            topic,
            CHECK,
            "on: the card merges packets before a program sees them, and most drivers refuse one",
            &format!("ethtool -K {interface} lro off"),
        )),
        Ok(_) => Some(Finding::ok(topic, CHECK, "off")),
        // Not every driver has heard of it.
        Err(_) => None,
    }
}

/// Another program in the way.
fn occupant(interface: &str, topic: &str) -> Option<Finding> {
    const CHECK: &str = "other programs";
    match xdp::occupant(interface) {
        Ok(None) => Some(Finding::ok(topic, CHECK, "none")),
        Ok(Some(occupant)) => {
            let found = occupant.describe();
            Some(match found.contains("\"gateway") {
                true => Finding::ok(topic, CHECK, format!("a gateway's: {found}")),
                false => Finding::fail(
                    topic,
                    CHECK,
                    found,
                    &format!(
                        "detach it, such as by `ip link set {interface} xdp off`, or leave {interface} out"
                    ),
                ),
            })
        }
        Err(error) => Some(Finding::warn(topic, CHECK, error.to_string(), "look by `ip link`")),
    }
}

/// What the program answers itself goes back by the driver, for which a veth's other end must be ready.
fn answers(machine: &Machine, folder: &str, topic: &str, wanted: &Wanted) -> Option<Finding> {
    let own = machine.number(&format!("{folder}/ifindex"))?;
    let other = machine.number(&format!("{folder}/iflink"))?;
    let is_veth = own != other && !machine.exists(&format!("{folder}/device"));
    (is_veth && wanted.answers && wanted.mode != Mode::Generic).then(|| {
        Finding::warn(
            topic,
            "answers",
            "one end of a veth: SYN cookies and resets get through if the other end has GRO or a program of its own",
            "`ethtool -K … gro on` at the other end",
        )
    })
}

/// What one CPU receives, no other does.
fn queues(machine: &Machine, folder: &str, topic: &str) -> Option<Finding> {
    const CHECK: &str = "receive queues";
    let entries = machine.entries(&format!("{folder}/queues"));
    let queues = entries.iter().filter(|name| name.starts_with("rx-")).count();
    let online = machine.entries("sys/devices/system/cpu");
    let is_cpu = |name: &&String| {
        name.strip_prefix("cpu").is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let cpus = online.iter().filter(is_cpu).count();
    let found = format!("{queues}, for {cpus} CPUs");
    match queues {
        0 => None,
        1 if cpus > 2 && machine.exists(&format!("{folder}/device")) => Some(Finding::warn(
            topic,
            CHECK,
            found,
            "ethtool -L, where the card has more; one CPU receives everything",
        )),
        _ => Some(Finding::ok(topic, CHECK, found)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::machine::tests::Made;
    use super::*;

    const BY_DRIVER: Option<Features> = Some(Features { native: true, frags: false });

    fn wanted(mode: Mode) -> Wanted {
        Wanted {
            interfaces: Vec::new(),
            mode,
            kernel: true,
            answers: false,
            cookies: false,
            pin: "/sys/fs/bpf".into(),
            keeps: false,
            config: None,
        }
    }

    #[track_caller]
    fn is(files: &[(&str, &str)], interface: &str, status: Status, says: &str) {
        let made = Made::of(files);
        let found = kind(&made.0, &format!("sys/class/net/{interface}"), "it");
        assert_eq!(found.status, status, "{found:?}");
        assert!(format!("{found:?}").contains(says), "{found:?}");
    }

    #[test]
    fn what_stands_on_others_is_told_where_to_go() {
        is(
            &[
                ("sys/class/net/eth0.7/uevent", "DEVTYPE=vlan\nINTERFACE=eth0.7"),
                ("sys/class/net/eth0.7/lower_eth0", "-> ../eth0"),
            ],
            "eth0.7",
            Status::Warn,
            "name eth0:",
        );
        let bond = [
            ("sys/class/net/bond0/bonding/slaves", "eth0 eth1"),
            ("sys/class/net/bond0/lower_eth0", "-> ../eth0"),
            ("sys/class/net/bond0/lower_eth1", "-> ../eth1"),
            ("sys/class/net/eth0/master", "-> ../bond0"),
        ];
        is(&bond, "bond0", Status::Ok, "eth0, eth1");
        is(&bond, "eth0", Status::Fail, "name bond0");
        is(
            &[
                ("sys/class/net/br0/uevent", "DEVTYPE=bridge"),
                ("sys/class/net/br0/lower_eth0", "-> ../eth0"),
            ],
            "br0",
            Status::Warn,
            "name eth0",
        );
        is(&[("sys/class/net/lo/type", "772")], "lo", Status::Ok, "loopback");
        is(
            &[("sys/class/net/eth0/device/driver", "-> ../../drivers/ice")],
            "eth0",
            Status::Ok,
            "driver ice",
        );
    }

    #[test]
    fn answers_through_a_veth_are_told() {
        let made = Made::of(&[
            ("sys/class/net/eth0/ifindex", "2"),
            ("sys/class/net/eth0/iflink", "7"),
            ("sys/class/net/eth1/ifindex", "3"),
            ("sys/class/net/eth1/iflink", "3"),
        ]);
        let answering = Wanted { answers: true, ..wanted(Mode::Auto) };
        let tells = |interface: &str, wanted: &Wanted| {
            answers(&made.0, &format!("sys/class/net/{interface}"), "it", wanted).is_some()
        };
        assert!(tells("eth0", &answering) && !tells("eth1", &answering));
        assert!(!tells("eth0", &wanted(Mode::Auto)));
    }

    #[test]
    fn large_packets_and_drivers_that_cannot_are_told() {
        let made = Made::of(&[("sys/class/net/eth0/mtu", "9000")]);
        let folder = "sys/class/net/eth0";
        let auto = wanted(Mode::Auto);
        let mtu = |features, wanted: &Wanted| {
            mtu(&made.0, folder, "it", features, wanted).unwrap().status
        };
        assert_eq!(mtu(BY_DRIVER, &auto), Status::Warn);
        assert_eq!(mtu(Some(Features { native: true, frags: true }), &auto), Status::Ok);
        assert_eq!(mtu(BY_DRIVER, &wanted(Mode::Generic)), Status::Ok);

        let cannot = Some(Features { native: false, frags: false });
        let native =
            |features, wanted: &Wanted| native(&made.0, folder, "it", features, wanted).status;
        assert_eq!(native(BY_DRIVER, &auto), Status::Ok);
        assert_eq!(native(cannot, &auto), Status::Warn);
        assert_eq!(native(cannot, &wanted(Mode::Native)), Status::Fail);
        assert_eq!(native(None, &auto), Status::Warn);
    }
}
