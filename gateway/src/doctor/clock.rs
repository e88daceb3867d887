//! Clocks: one is read for each request, the other decides about certificates and tokens.

use super::Finding;
use super::machine::Machine;
use crate::sys;

/// Those that are read without a system call.
const FAST: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

const CURRENT: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";

pub(super) fn look(machine: &Machine) -> Vec<Finding> {
    let source = machine.read(CURRENT).map(|source| match FAST.contains(&source.as_str()) {
        true => Finding::ok("clock", "source", source),
        false => Finding::warn(
            "clock",
            "source",
            format!("{source}, which costs a system call each time it is read"),
            "where the processor's own is sound, the kernel takes it: see `dmesg | grep -i clocksource`",
        ),
    });
    let synchronised = match sys::is_clock_synchronised() {
        Ok(true) => Finding::ok("clock", "synchronised", "yes"),
        Ok(false) => Finding::warn(
            "clock",
            "synchronised",
            "no: certificates, tokens and bans by another gateway's clock end at the wrong time",
            "run an NTP client, such as chrony or systemd-timesyncd",
        ),
        Err(error) => Finding::warn(
            "clock",
            "synchronised",
            format!("cannot be asked: {error}"),
            "see `timedatectl`",
        ),
    };
    source.into_iter().chain([synchronised]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::machine::tests::Made;
    use super::*;

    #[test]
    fn a_slow_source_is_told() {
        for (source, status) in [("tsc\n", Status::Ok), ("hpet\n", Status::Warn)] {
            let made = Made::of(&[(CURRENT, source)]);
            assert_eq!(look(&made.0)[0].status, status);
        }
    }
}
