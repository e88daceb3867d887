//! What the workers wait by: decided once, so that all of them do the same and it is said once.

use std::io;

use super::Error;
use crate::net::rt::{Driver, probe_io_uring};

/// A sysctl since Linux 6.6: 1 leaves io_uring to a group and to root, 2 to nobody.
const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

/// The driver to run on. Where none is asked for it is io_uring, or with a notice epoll.
///
/// # Errors
/// When io_uring is asked for and cannot be used.
pub(super) fn choose(wanted: Option<Driver>) -> Result<Driver, Error> {
    if wanted == Some(Driver::Epoll) {
        return Ok(Driver::Epoll);
    }
    match (probe_io_uring(), wanted) {
        (Ok(()), _) => Ok(Driver::IoUring),
        (Err(error), Some(_)) => Err(Error::Driver(reason(&error, disabled()))),
        (Err(error), None) => {
            let reason = reason(&error, disabled());
            tracing::warn!("running on epoll, which costs more CPU; io_uring: {reason}");
            Ok(Driver::Epoll)
        }
    }
}

/// Whether workers can wait by io_uring.
///
/// # Errors
/// Why not, and what to do about it.
pub fn io_uring() -> Result<(), String> {
    probe_io_uring().map_err(|error| reason(&error, disabled()))
}

fn disabled() -> bool {
    std::fs::read_to_string(DISABLED).is_ok_and(|value| value.trim() != "0")
}

/// Why, and what to do about it.
fn reason(error: &io::Error, disabled: bool) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied if disabled => {
            "switched off by the sysctl kernel.io_uring_disabled; 0 allows it"
        }
        io::ErrorKind::PermissionDenied => {
            "a container runtime's seccomp profile, most likely; allow io_uring_setup, \
             io_uring_enter and io_uring_register in it"
        }
        io::ErrorKind::OutOfMemory => {
            "the limit of locked memory is too low; raise it (ulimit -l, LimitMEMLOCK=)"
        }
        io::ErrorKind::Unsupported => "takes Linux 5.11 or newer, built with CONFIG_IO_URING",
        _ => return error.to_string(),
    };
    format!("{error} ({advice})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_what_to_do() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(reason(&denied, true).contains("kernel.io_uring_disabled"));
        assert!(reason(&denied, false).contains("seccomp"));
        // ENOSYS
        assert!(reason(&io::Error::from_raw_os_error(38), false).contains("CONFIG_IO_URING"));
    }

    #[test]
    fn epoll_is_never_refused() {
        assert_eq!(choose(Some(Driver::Epoll)).unwrap(), Driver::Epoll);
    }
}
