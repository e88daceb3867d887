//! io_uring where it is allowed, epoll where it is not or where it is asked for.

use std::process::{Command, Output};

use crate::clients::{PYTHON, has_module, script};
use crate::harness::{Gateway, Origin, binary};

const NOTICE: &str = "running on epoll";

/// A gateway that may not use io_uring; `None` where Python cannot forbid it.
fn run(origin: &Origin, driver: &str) -> Option<Command> {
    if !has_module("ctypes") {
        return None;
    }
    let mut command = Command::new(PYTHON);
    command.args(["-I", &script("without_io_uring.py"), binary(), "run", "--cores", "2"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--driver", driver]);
    command.arg("--upstream").arg(origin.address.to_string());
    Some(command)
}

#[test]
fn where_io_uring_is_forbidden_it_runs_on_epoll_and_says_so_once() {
    let origin = Origin::saying("hello");
    let Some(mut command) = run(&origin, "auto") else { return };
    let gateway = Gateway::spawn(&mut command, 1);
    assert_eq!(gateway.get("/").text(), "hello");
    let log = gateway.stop();
    assert_eq!(log.matches(NOTICE).count(), 1, "{log}");
    assert!(log.contains("seccomp") || log.contains("io_uring_disabled"), "{log}");
}

#[test]
fn epoll_that_was_asked_for_is_no_news() {
    let origin = Origin::saying("hello");
    let Some(mut command) = run(&origin, "epoll") else { return };
    let gateway = Gateway::spawn(&mut command, 1);
    assert_eq!(gateway.get("/").text(), "hello");
    assert!(!gateway.stop().contains(NOTICE));
}

#[test]
fn io_uring_that_was_asked_for_and_is_forbidden_is_a_failure() {
    let origin = Origin::saying("hello");
    let Some(mut command) = run(&origin, "io_uring") else { return };
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("gateway: io_uring cannot be used"), "{text}");
}
