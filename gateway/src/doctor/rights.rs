//! Rights and limits of the process that asks.

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::machine::Machine;
use super::{Finding, Wanted};
use crate::control;
use crate::xdp::CAPABILITIES;

const TOPIC: &str = "rights and limits";

/// Connections that a machine on the internet should have room for.
const CONNECTIONS_FEW: u64 = 4_096;

pub(super) fn look(machine: &Machine, wanted: &Wanted) -> Vec<Finding> {
    let held = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    let mut findings = Vec::new();
    if wanted.kernel || wanted.config.is_none() {
        findings.push(for_kernel(held, wanted.kernel));
    }
    let lowest = machine.number("proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    let listeners = wanted.config.iter().flat_map(|config| &config.listeners);
    let ports =
        listeners.map(|listener| u64::from(listener.address.port())).filter(|port| *port > 0);
    if let Some(port) = ports.filter(|port| *port < lowest).min() {
        findings.push(match held.contains(CapabilitySet::NET_BIND_SERVICE) {
            true => Finding::ok(TOPIC, "low ports", format!("may listen on port {port}")),
            false => Finding::fail(
                TOPIC,
                "low ports",
                format!("port {port} takes CAP_NET_BIND_SERVICE"),
                "root, systemd's AmbientCapabilities=, or sysctl net.ipv4.ip_unprivileged_port_start",
            ),
        });
    }
    findings.push(descriptors(wanted));
    findings.push(locked_memory(machine));
    let cpus = control::usable_cpus().len();
    let all = machine.read("sys/devices/system/cpu/online").unwrap_or_default();
    findings.push(Finding::ok(TOPIC, "CPUs", format!("may use {cpus}; online are {all}")));
    findings
}

fn for_kernel(held: CapabilitySet, is_needed: bool) -> Finding {
    let missing: Vec<_> = CAPABILITIES.iter().filter(|(right, _)| !held.contains(*right)).collect();
    match missing.as_slice() {
        [] => {
            Finding::ok(TOPIC, "kernel program", "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are held")
        }
        missing => {
            let names: Vec<_> = missing.iter().map(|(_, name)| *name).collect();
            Finding::fail_if(
                is_needed,
                TOPIC,
                "kernel program",
                format!("missing: {}", names.join(", ")),
                "run as root, or as config/gateway.service does, by AmbientCapabilities=; they are given up once it is attached",
            )
        }
    }
}

fn descriptors(wanted: &Wanted) -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let room = control::connections_for(limit) as u64;
    let asked = wanted.config.as_ref().and_then(|config| config.limits.connections);
    let found = format!("{limit}, which is room for {room} client connections");
    const FIX: &str = "ulimit -Hn, or systemd's LimitNOFILE=; each connection takes two";
    match asked {
        Some(asked) if asked as u64 > room => {
            let found = format!("{found}; limits.connections is {asked}");
            Finding::warn(TOPIC, "open files", found, FIX)
        }
        None if room < CONNECTIONS_FEW => Finding::warn(TOPIC, "open files", found, FIX),
        _ => Finding::ok(TOPIC, "open files", found),
    }
}

/// Rings and maps have been accounted by memory cgroup instead since Linux 5.11 and 5.12.
fn locked_memory(machine: &Machine) -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    let release = machine.read("proc/sys/kernel/osrelease").unwrap_or_default();
    let is_counted = release.starts_with("5.10.") || release.starts_with("5.4.");
    match is_counted && limit != "unlimited" {
        true => Finding::warn(
            TOPIC,
            "locked memory",
            limit,
            "this kernel counts rings and maps: ulimit -l unlimited, or LimitMEMLOCK=infinity",
        ),
        false => {
            Finding::ok(TOPIC, "locked memory", format!("{limit}; this kernel does not ask for it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn missing_rights_are_named() {
        let found = for_kernel(CapabilitySet::NET_ADMIN, true);
        assert_eq!((found.status, &*found.found), (Status::Fail, "missing: CAP_BPF, CAP_PERFMON"));
        assert_eq!(for_kernel(CapabilitySet::empty(), false).status, Status::Warn);
        assert_eq!(for_kernel(CapabilitySet::all(), true).status, Status::Ok);
    }
}
