//! Rights that are needed once.

use aya::util::KernelVersion;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// What loading and attaching a program takes. Maps that are open can be written without.
const ONCE: CapabilitySet =
    CapabilitySet::BPF.union(CapabilitySet::PERFMON).union(CapabilitySet::NET_ADMIN);

/// Before, writing an open map takes a right, too, where unprivileged processes may not use BPF.
const KERNEL_MIN: KernelVersion = KernelVersion::new(5, 19, 0);

/// Gives up for good what attaching has taken, for this thread and all that it will start, which are
/// those that meet clients.
pub(super) fn give_up() {
    if !KernelVersion::current().is_ok_and(|version| version >= KERNEL_MIN) {
        return;
    }
    let given_up = capabilities(None).and_then(|mut sets| {
        sets.effective -= ONCE;
        sets.permitted -= ONCE;
        sets.inheritable -= ONCE;
        set_capabilities(None, sets)
    });
    if let Err(error) = given_up {
        tracing::warn!("xdp: cannot give up the rights to attach programs: {error}");
    }
}
