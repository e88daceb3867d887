//! The kernel: its release, io_uring, and whether it takes the program.

use std::path::Path;

use rustix::fs::statfs;
use rustix::system::uname;

use super::machine::Machine;
use super::{Finding, Wanted};
use crate::admission;
use crate::control;
use crate::xdp::{self, Program};

/// The oldest release this is meant for, see the README.
const RELEASE_MIN: (u32, u32) = (5, 15);

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: u64 = 0xcafe_4a11;

pub(super) fn look(machine: &Machine) -> Vec<Finding> {
    let release = machine.read("proc/sys/kernel/osrelease").unwrap_or_default();
    let release = match version(&release) {
        Some(version) if version < RELEASE_MIN => Finding::fail(
            "kernel",
            "release",
            format!("{release} is older than what the gateway is made for"),
            "5.15 or later",
        ),
        _ => Finding::ok("kernel", "release", release),
    };
    let architecture = uname().machine().to_string_lossy().into_owned();
    let architecture = match architecture.as_str() {
        "x86_64" => Finding::ok("kernel", "architecture", architecture),
        _ => Finding::warn(
            "kernel",
            "architecture",
            format!("{architecture}: the gateway has only been tested on x86_64"),
            "tell us how it went",
        ),
    };
    let io_uring = match control::io_uring() {
        Ok(()) => Finding::ok("kernel", "io_uring", "allowed; workers wait by it"),
        Err(reason) => Finding::warn(
            "kernel",
            "io_uring",
            format!("workers wait by epoll, which costs more for each request: {reason}"),
            "what is in brackets, if you may",
        ),
    };
    vec![release, architecture, io_uring]
}

/// Major and minor.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the kernel takes the program, by giving it to it. Nothing is attached.
pub(super) fn look_at_program(machine: &Machine, wanted: &Wanted) -> Vec<Finding> {
    const TOPIC: &str = "kernel program";
    let settings = xdp::Settings {
        interfaces: Vec::new(),
        mode: wanted.mode,
        required: true,
        table_bytes: 4 << 10,
        keep: None,
        log_rate: 0,
        object: wanted.config.as_ref().and_then(|config| config.xdp.as_ref()?.object.clone()),
    };
    let loaded = Program::load(&settings, &admission::Settings::default(), &[], 1);
    let mut findings = vec![match loaded {
        Ok(_) => Finding::ok(TOPIC, "loading", "the kernel takes it"),
        Err(error) => Finding::fail(
            TOPIC,
            "loading",
            error.to_string(),
            "without it lists, bans and connections_max are kept at accept, and nothing limits new connections",
        ),
    }];
    let is_kept = pinnable(&wanted.pin);
    let pin = wanted.pin.display();
    findings.push(match is_kept {
        true if wanted.keeps => Finding::ok(TOPIC, "outliving a crash", format!("kept in {pin}")),
        true => Finding::ok(TOPIC, "outliving a crash", "possible, with xdp.on_exit = \"keep\""),
        false => Finding::fail_if(
            wanted.keeps,
            TOPIC,
            "outliving a crash",
            format!("{pin} is in no BPF file system"),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    });
    if machine
        .read("sys/kernel/security/lockdown")
        .is_some_and(|text| text.contains("[confidentiality]"))
    {
        findings.push(Finding::warn(
            TOPIC,
            "lockdown",
            "the kernel is locked down for confidentiality, which may forbid BPF",
            "lockdown=integrity",
        ));
    }
    findings
}

/// Whether a folder is, or would be, in a BPF file system.
fn pinnable(folder: &Path) -> bool {
    let there = folder.ancestors().find(|ancestor| ancestor.exists());
    there.and_then(|there| statfs(there).ok()).is_some_and(|stat| stat.f_type as u64 == BPF_FS)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::machine::tests::Made;
    use super::*;

    #[test]
    fn old_releases_are_told() {
        for (release, status) in [
            ("5.15.0-91-generic", Status::Ok),
            ("6.1.0", Status::Ok),
            ("5.10.0-28-amd64", Status::Fail),
            ("4.19", Status::Fail),
            ("odd", Status::Ok),
        ] {
            let made = Made::of(&[("proc/sys/kernel/osrelease", release)]);
            assert_eq!(look(&made.0)[0].status, status, "{release}");
        }
    }

    #[test]
    fn ordinary_folders_keep_nothing() {
        assert!(!pinnable(Path::new("/tmp/no/such/folder")));
    }
}
