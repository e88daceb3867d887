//! What the network stack is set to, and whether the listeners can be had.

use std::os::unix::net::UnixStream;

use super::machine::Machine;
use super::{Finding, Wanted};
use crate::control;

const TOPIC: &str = "network";

/// Connections that may wait to be accepted, below which a burst of them is turned away.
const BACKLOG_FEW: u64 = 1_024;

pub(super) fn look(machine: &Machine, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(backlog) = machine.number("proc/sys/net/core/somaxconn") {
        let found = format!("net.core.somaxconn is {backlog}");
        findings.push(match backlog < BACKLOG_FEW {
            true => Finding::warn(TOPIC, "backlog", found, "sysctl net.core.somaxconn=4096"),
            false => Finding::ok(TOPIC, "backlog", found),
        });
    }
    let cookies = machine.number("proc/sys/net/ipv4/tcp_syncookies");
    if let Some(cookies) = cookies.filter(|_| wanted.cookies || wanted.config.is_none()) {
        let found = format!("net.ipv4.tcp_syncookies is {cookies}");
        findings.push(match cookies {
            2 => Finding::ok(TOPIC, "SYN cookies", format!("{found}: they can be made at once")),
            0 => Finding::fail_if(
                wanted.cookies,
                TOPIC,
                "SYN cookies",
                format!("{found}: the kernel makes none, nor lets the gateway"),
                "sysctl net.ipv4.tcp_syncookies=2",
            ),
            _ => Finding::warn(
                TOPIC,
                "SYN cookies",
                format!("{found}: they are made only once a listener's queue is full"),
                "sysctl net.ipv4.tcp_syncookies=2",
            ),
        });
    }
    let socket = wanted.config.as_ref().and_then(|config| config.admin_socket.as_ref());
    let running = socket.is_some_and(|socket| UnixStream::connect(&socket.path).is_ok());
    if running {
        findings.push(Finding::ok(
            TOPIC,
            "admin socket",
            "a gateway answers there, whose ports are not looked at",
        ));
        return findings;
    }
    let listeners = wanted.config.iter().flat_map(|config| &config.listeners);
    for listener in listeners {
        findings.push(match control::can_listen(listener.address) {
            Ok(()) => Finding::ok(TOPIC, "listener", format!("{} is free", listener.address)),
            Err(error) => Finding::fail(
                TOPIC,
                "listener",
                error.to_string(),
                "`ss -ltnp` shows who listens, `ip address` which addresses there are",
            ),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::machine::tests::Made;
    use super::*;
    use crate::xdp::Mode;

    fn wanted(cookies: bool) -> Wanted {
        Wanted {
            interfaces: Vec::new(),
            mode: Mode::Auto,
            kernel: cookies,
            answers: cookies,
            cookies,
            pin: "/sys/fs/bpf".into(),
            keeps: false,
            config: None,
        }
    }

    #[test]
    fn cookies_that_cannot_be_made_are_told() {
        for (value, cookies, status) in [
            ("2", true, Status::Ok),
            ("1", true, Status::Warn),
            ("0", true, Status::Fail),
            ("0", false, Status::Warn),
        ] {
            let made = Made::of(&[("proc/sys/net/ipv4/tcp_syncookies", value)]);
            assert_eq!(look(&made.0, &wanted(cookies))[0].status, status, "{value}");
        }
    }
}
