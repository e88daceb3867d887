//! Rights that are needed once.

use aya::util::KernelVersion;
use rustix::thread::{capabilities, set_capabilities};

use crate::xdp::CAPABILITIES;

/// Before, writing an open map takes a right, too, where unprivileged processes may not use BPF.
const KERNEL_MIN: KernelVersion = KernelVersion::new(5, 19, 0);

/// Gives up for good what attaching has taken, for this thread and all that it will start, which are
/// those that meet clients: nothing else ever needs it. `writes_maps` where a program is attached.
pub(super) fn give_up(writes_maps: bool) {
    if writes_maps && !KernelVersion::current().is_ok_and(|version| version >= KERNEL_MIN) {
        let names = CAPABILITIES.map(|(_, name)| name).join(", ");
        tracing::warn!(
            "xdp: {names} are kept: before Linux 5.19 its maps cannot be written without"
        );
        return;
    }
    let given_up = capabilities(None).and_then(|mut sets| {
        for (once, _) in CAPABILITIES {
            sets.effective -= once;
            sets.permitted -= once;
            sets.inheritable -= once;
        }
        set_capabilities(None, sets)
    });
    if let Err(error) = given_up {
        tracing::warn!("cannot give up the rights to attach programs: {error}");
    }
}
