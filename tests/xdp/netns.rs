//! Two network namespaces joined by a veth: the gateway's and its clients'.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::skip;

/// The gateway's end of the veth, in its namespace.
pub const INTERFACE: &str = "gw0";
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub const GATEWAY_V6: IpAddr = IpAddr::V6(gateway_v6());

const fn gateway_v6() -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)
}

/// An IPv4 address of the clients.
pub fn client_v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, last).into()
}

/// An IPv6 address of the clients, in one of their two /64s.
pub fn client_v6(subnet: u16, last: u16) -> IpAddr {
    assert!((1..=2).contains(&subnet) && (2..=4).contains(&last));
    Ipv6Addr::new(0xfd77, 0, 0, subnet, 0, 0, 0, last).into()
}

/// The namespaces, which go away with the value.
pub struct Net {
    pub gateway: Namespace,
    pub clients: Namespace,
}

impl Net {
    /// `None` where namespaces are not permitted and the test is to be skipped.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let gateway = Namespace::new(format!("xdp-gw-{id}"))?;
        let clients = Namespace::new(format!("xdp-cl-{id}"))?;
        let (gw, cl) = (&gateway.name, &clients.name);
        ip(&format!("link add {INTERFACE} netns {gw} type veth peer name cl0 netns {cl}"));
        for (namespace, interface, addresses) in [
            (gw, INTERFACE, vec![GATEWAY_V4.to_string() + "/24", GATEWAY_V6.to_string() + "/48"]),
            (cl, "cl0", client_addresses()),
        ] {
            ip(&format!("-n {namespace} link set lo up"));
            for address in addresses {
                // Without duplicate address detection an IPv6 address is usable at once.
                let flags = if address.contains(':') { "nodad" } else { "" };
                ip(&format!("-n {namespace} address add {address} dev {interface} {flags}"));
            }
            ip(&format!("-n {namespace} link set {interface} up"));
        }
        Some(Self { gateway, clients })
    }
}

fn client_addresses() -> Vec<String> {
    let v4 = (2..=4).map(|last| format!("{}/24", client_v4(last)));
    let v6 = (1..=2).flat_map(|subnet| (2..=4).map(move |last| (subnet, last)));
    v4.chain(v6.map(|(subnet, last)| format!("{}/48", client_v6(subnet, last)))).collect()
}

pub struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: String) -> Option<Self> {
        let output = Command::new("ip").args(["netns", "add", &name]).output().expect("run ip");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            skip(&format!("a network namespace cannot be made: {}", why.trim()));
            return None;
        }
        Some(Self { name })
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let namespace = File::open(self.path()).expect("open the namespace");
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("enter the namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run inside the namespace, as the process that is spawned.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("run ip");
    assert!(status.success(), "ip {arguments}");
}
