//! What outlives the gateway when it is to be kept: limits, lists and bans, through a crash, an upgrade and
//! another layout of the maps.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use gateway::admission::unix_now;
use gateway::xdp::{CAPABILITIES, Error, detach, occupant};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use serde_json::{Value, json};

use crate::bans::offend;
use crate::netns::{INTERFACE, Net, client_v4};
use crate::running::{settings_here, wait_until_clean};
use crate::served::Served;
use crate::sources::{AT_ONCE, config, connect, net};
use crate::{load, settings};

/// A folder in a bpffs of this test's own, removed with the value.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let root = PathBuf::from(format!("/run/gateway-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).expect("a folder in /run");
        let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&root).status();
        assert!(status.expect("run mount").success(), "a bpffs of its own");
        Self(root.join("gateway"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        while detach(&self.0).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            // What has the folder locked is ending, or a child that a test starts, which will let go of it.
            thread::yield_now();
        }
        if let Some(root) = self.0.parent() {
            let _ = Command::new("umount").arg(root).status();
            let _ = fs::remove_dir(root);
        }
    }
}

pub fn keeping(folder: &Folder, xdp: &str) -> String {
    let pin = folder.0.display();
    config(INTERFACE, &format!("on_exit = \"keep\"\npin = \"{pin}\"\nenforce = true\n{xdp}"))
}

/// The program on an interface of the gateway's.
pub fn program_on(net: &Net, interface: &str) -> Option<u32> {
    net.gateway.run(|| occupant(interface).expect("rtnetlink")).map(|occupant| occupant.program)
}

#[test]
fn a_crash_ends_no_limit_and_no_ban_and_the_next_gateway_takes_over() {
    let Some(net) = net() else {
        return;
    };
    let folder = Folder::new("crash");
    let limits = "connection_rate = \"1/m\"\nconnection_burst = 60\ndeny = [\"10.77.0.4\"]";
    let config = keeping(&folder, limits);
    let served = Served::start(&net.gateway, &config);
    let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
    // Uses up what it may; 3 will need much of it while it is waited for, on a busy machine.
    assert!((0..60).all(|_| open(2).is_some()) && open(2).is_none());
    assert!(served.ask(&["ban", "10.77.0.3", "--for", "10m"]).0);
    let before = program_on(&net, INTERFACE).expect("a program");

    let ended = served.kill();
    assert_eq!(program_on(&net, INTERFACE), Some(before), "it is still there");
    for last in 2..=4 {
        assert!(open(last).is_none(), "{last}: nobody serves, and the kernel drops");
    }

    let served = ended.restart(&config);
    let after = program_on(&net, INTERFACE).expect("a program");
    assert_ne!(after, before, "another program in the same place");
    assert!(open(2).is_none(), "what it has used up is known");
    assert!(open(3).is_none(), "it is still banned");
    assert!(open(4).is_none(), "it is still denied");
    let said = served.ask(&["bans"]).1;
    assert!(said.contains("10.77.0.3/32") && said.contains("by hand"), "{said}");
    assert!(served.ask(&["unban", "10.77.0.3"]).0);
    assert!(open(3).is_some(), "an adopted ban can be ended");

    assert!(served.ask(&["ban", "10.77.0.0/28"]).0);
    served.wait_until("the network is banned", || open(3).is_none());
    let served = served.kill().restart(&config);
    assert!(open(3).is_none(), "its network is still banned");
    assert!(served.ask(&["unban", "10.77.0.0/28"]).0);
    served.wait_until("it is no longer banned", || open(3).is_some());
    let after = program_on(&net, INTERFACE).expect("a program");

    let (removed, said) = detach_by_command(&folder);
    assert!(!removed && said.contains("a gateway that runs keeps it: end that first"), "{said}");
    assert_eq!(program_on(&net, INTERFACE), Some(after), "nobody takes it from one that runs");
    // A clean end keeps it, too, until somebody removes it.
    served.stop();
    assert_eq!(program_on(&net, INTERFACE), Some(after));
    let (removed, said) = detach_by_command(&folder);
    assert!(removed && said.contains("1 interfaces"), "{said}");
    wait_until_clean(&net.gateway, INTERFACE);
    assert!(!folder.0.exists());
}

/// Whether `gateway xdp detach` was done, and what it said.
fn detach_by_command(folder: &Folder) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    let output = command.args(["xdp", "detach", "--pin"]).arg(&folder.0).output();
    let output = output.expect("run gateway");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("text"))
}

#[test]
fn an_attach_that_fails_leaves_nothing_that_nobody_controls() {
    let Some(net) = net() else {
        return;
    };
    let folder = Folder::new("failed");
    let keeping = |interfaces: &str| {
        let config = keeping(&folder, "").replace("required = true", "required = false");
        config.replace("\"gw0\"", interfaces)
    };
    let served = Served::start(&net.gateway, &keeping("\"gw0\", \"gone0\""));
    let said = served.log();
    assert!(said.contains("serving WITHOUT a limit"), "{said}");
    assert!(!said.contains("has left its program"), "{said}");
    wait_until_clean(&net.gateway, INTERFACE);

    // What was kept before stays, but never unsaid.
    let served = served.stop().restart(&keeping("\"gw0\""));
    let before = program_on(&net, INTERFACE).expect("a program");
    let served = served.kill().restart(&keeping("\"gone0\""));
    assert_eq!(program_on(&net, INTERFACE), Some(before));
    let said = served.log();
    assert!(said.contains("has left its program on gw0: its limits"), "{said}");
    let (removed, said) = detach_by_command(&folder);
    assert!(removed, "nobody that runs keeps it: {said}");
    wait_until_clean(&net.gateway, INTERFACE);
}

/// What config/gateway.service has with User=root: no right to look past permissions, for one.
#[test]
fn the_rights_of_the_systemd_unit_are_enough_to_keep_it() {
    let Some(net) = net() else {
        return;
    };
    let folder = Folder::new("rights");
    // Rights belong to the thread, and this one ends with the closure.
    net.gateway.run(|| {
        let rights =
            CAPABILITIES.iter().fold(CapabilitySet::empty(), |all, (right, _)| all | *right);
        let sets = CapabilitySets {
            effective: rights,
            permitted: rights,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).expect("capset");
        let mut keeping = settings_here(true);
        keeping.xdp.keep = Some(folder.0.clone());
        for _ in 0..2 {
            drop(keeping.attach().expect("attach, then take over"));
        }
    });
    assert!(program_on(&net, INTERFACE).is_some());
}

#[test]
fn another_layout_of_the_maps_is_never_misread() {
    let Some(net) = net() else {
        return;
    };
    let folder = Folder::new("layout");
    let served = Served::start(
        &net.gateway,
        &keeping(&folder, "connection_burst = 1\nconnection_rate = \"1/m\""),
    );
    let open = |last| connect(&net.clients, client_v4(last), AT_ONCE);
    assert!(open(2).is_some() && open(2).is_none());
    // Who is banned has nothing to do with it.
    for (network, lasts) in [("10.77.0.3", "10m"), ("10.77.0.128/25", "20m")] {
        assert!(served.ask(&["ban", network, "--for", lasts]).0);
    }
    served.wait_until("the network is banned", || served.metric("gateway_bans_held") == 2);
    let layouts = || {
        let names = folder.0.read_dir().expect("the folder").map(|entry| entry.expect("a name"));
        names.filter(|entry| entry.path().is_dir()).count()
    };
    assert_eq!(layouts(), 1);

    let larger = "connection_burst = 1\nconnection_rate = \"1/m\"\ntable = \"1MiB\"";
    let served = served.kill().restart(&keeping(&folder, larger));
    assert_eq!(layouts(), 1, "the maps of before are gone");
    assert!(open(2).is_some() && open(2).is_none(), "it begins anew");
    assert!(open(3).is_none() && open(4).is_some(), "whose ban goes on, and who has none");
    let (log, said) = (served.log(), served.ask(&["bans"]).1);
    assert!(log.contains("bans of 1 sources and 1 networks are taken over"), "{log}");
    assert!(said.contains("10.77.0.3/32") && said.contains("10.77.0.128/25"), "{said}");

    // The same source by another measure.
    let wider = format!("{larger}\nipv4_prefix = 31\nipv6_prefix = 60");
    let served = served.kill().restart(&keeping(&folder, &wider));
    assert_eq!(layouts(), 1);
    let said = served.ask(&["bans"]).1;
    assert!(said.contains("10.77.0.2/31") && said.contains("10.77.0.128/25"), "{said}");
    assert!(open(2).is_none() && open(3).is_none() && open(4).is_some(), "{said}");
}

#[test]
fn bans_by_workers_and_how_many_there_were_outlive_the_gateway() {
    let Some(net) = net() else {
        return;
    };
    let folder = Folder::new("levels");
    let bans = "[bans]\nenforce = true\nthreshold = 2\ndurations = [\"3s\", \"1h\"]\n\
                weights = { client_error = 1 }";
    let config = keeping(&folder, bans).replace("\" }", "\", trusted_proxies = [\"10.77.0.4\"] }");
    let served = Served::start(&net.gateway, &config);
    let from = |client: &str| {
        format!("GET /guessed HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")
    };
    let ask = |client: &str| {
        let mut proxy = connect(&net.clients, client_v4(4), AT_ONCE).expect("the proxy");
        offend(&mut proxy, &from(client))
    };
    let guess = |served: &Served<'_>, client: &str, ban: &str| {
        while ask(client) != "HTTP/1.1 403 Forbidden" {}
        let said = served.ask(&["bans"]).1;
        assert!(said.contains(&format!("{client}/32")) && said.contains(ban), "{said}");
    };
    // Its first ban is over when its second begins.
    guess(&served, "192.0.2.9", "no. 1");
    served.wait_until("it is over", || served.ask(&["bans"]).1 == "nobody is banned\n");
    let served = served.kill().restart(&config);
    guess(&served, "192.0.2.9", "no. 2");
    let before = served.ask(&["bans"]).1;
    assert!(before.contains("workers"), "{before}");

    let served = served.kill().restart(&config);
    assert_eq!(ask("192.0.2.9"), "HTTP/1.1 403 Forbidden");
    assert_eq!(ask("192.0.2.8"), "HTTP/1.1 404 Not Found");
    let json = served.ask(&["bans", "--json"]).1;
    let kept: Value = serde_json::from_str(&json).expect("JSON");
    let ban = &kept[0];
    assert_eq!((&ban["level"], &ban["direct"]), (&1.into(), &false.into()), "{kept}");
    assert_eq!((&ban["kept_by"], &ban["reason"]), (&"workers".into(), &"client_error".into()));

    let status = served.ask(&["xdp", "status"]).1;
    assert!(status.contains("1 bans\n1 of the bans are of clients of proxies"), "{status}");

    // What was told can be read again, and is the same.
    assert!(served.ask(&["unban", "192.0.2.9"]).0);
    let file = served.path("bans.json");
    fs::write(&file, json).expect("a file");
    assert!(served.ask(&["bans", "--import", file.to_str().expect("a path")]).0);
    let read: Value = serde_json::from_str(&served.ask(&["bans", "--json"]).1).expect("JSON");
    for key in ["network", "until", "level", "direct", "kept_by", "reason"] {
        assert_eq!(read[0][key], kept[0][key], "{key}");
    }
    assert_eq!(ask("192.0.2.9"), "HTTP/1.1 403 Forbidden");
}

#[test]
fn what_one_keeps_another_that_keeps_nothing_does_not_take() {
    let Some(net) = net() else {
        return;
    };
    let folder = Folder::new("taken");
    net.gateway.run(|| {
        let mut keeping = settings_here(true);
        keeping.xdp.keep = Some(folder.0.clone());
        drop(keeping.attach().expect("attach"));
        let error = settings_here(true).attach().expect_err("the hook is taken");
        assert!(matches!(error, Error::Busy { .. }), "{error}");
        assert!(error.to_string().contains("gateway xdp detach"), "{error}");

        keeping.xdp.keep = Some("/tmp/gateway-no-bpffs".into());
        let error = keeping.attach().expect_err("no bpffs");
        assert!(error.to_string().contains("it is in no bpffs"), "{error}");
    });
}

/// Or the bans of an attack would leave no room for those of the next.
#[test]
fn bans_that_are_forgotten_while_nobody_runs_are_not_kept() {
    let Some(net) = net() else {
        return;
    };
    let folder = Folder::new("ended");
    let config = keeping(&folder, "table = \"1MiB\"\n[bans]\nremember = \"1s\"");
    let kept = || {
        let mut setup = settings(1, true);
        setup.xdp.keep = Some(folder.0.clone());
        load(&setup).expect("a program").bans().expect("bans").len()
    };
    let served = Served::start(&net.gateway, &config);
    assert!(served.ask(&["ban", "10.77.0.3", "--for", "1s"]).0);
    assert!(served.ask(&["ban", "10.77.0.4", "--for", "10m"]).0);
    let (ended, ends) = (served.kill(), unix_now() + 2);
    assert_eq!(kept(), 2);
    while unix_now() <= ends {
        thread::sleep(Duration::from_millis(50));
    }
    drop(ended.restart(&config));
    assert_eq!(kept(), 1);
}

#[test]
fn status_tells_where_it_runs_and_what_it_decided() {
    let Some(net) = net() else {
        return;
    };
    let config = config(
        INTERFACE,
        "allow = [\"10.77.0.2 # the office\"]\ndeny = [\"file:FOLDER/deny.txt\"]\n\
         [xdp.classes.more]\nnetworks = [\"10.77.0.4\"]",
    );
    let deny = std::env::temp_dir().join(format!("deny-{}.txt", std::process::id()));
    fs::write(&deny, "192.0.2.0/24 # never seen\n10.77.0.3 # they only scan\n").expect("a file");
    let deny = deny.to_str().expect("a path");
    let served = Served::start(&net.gateway, &config.replace("FOLDER/deny.txt", deny));
    fs::remove_file(deny).expect("the file");
    assert!(connect(&net.clients, client_v4(2), AT_ONCE).is_some());
    let said = served.ask(&["xdp", "status"]).1;
    for line in ["gw0: native mode", "pass      allowed                            1"] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.contains("1  xdp.allow # the office"), "{said}");

    // It is only observed.
    for last in [3, 3, 4] {
        assert!(connect(&net.clients, client_v4(last), AT_ONCE).is_some());
    }
    let status: Value =
        serde_json::from_str(&served.ask(&["xdp", "status", "--json"]).1).expect("JSON");
    let entry = |network: &str, packets: u64, list: &str, origin: String, comment: &str| {
        json!({
            "network": network,
            "packets": packets,
            "list": list,
            "origin": origin,
            "comment": comment,
        })
    };
    let class = "xdp.classes.more.networks".to_owned();
    assert_eq!(
        status["hits"],
        json!([
            entry("10.77.0.3/32", 2, "deny", format!("{deny}:2"), "they only scan"),
            entry("10.77.0.2/32", 1, "allow", "xdp.allow".to_owned(), "the office"),
            entry("10.77.0.4/32", 1, "classes.more", class, ""),
        ])
    );
    let metric = |list: &str, origin: &str| {
        let labels = format!("list=\"{list}\",origin=\"{origin}\"");
        served.metric(&format!("gateway_xdp_list_hits{{{labels}}}"))
    };
    assert_eq!(metric("deny", deny), 2);
    assert_eq!(metric("allow", "xdp.allow"), 1);
    assert_eq!(metric("classes.more", "xdp.classes.more.networks"), 1);
}
