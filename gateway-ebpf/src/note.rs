//! What userspace is told of who is refused.

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_xadd};
use core::mem::replace;

use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use aya_log_ebpf::macro_support::{Level, level_enabled};

use gateway_ebpf::abi::{self, Event, Offender, Sample};
use gateway_ebpf::hash;
use gateway_ebpf::packet::{Address, Fields};
use gateway_ebpf::verdict::{self, Action, Reason};

use crate::{SETTINGS, clock, constants, timer};

#[map]
static OFFENDERS: LruHashMap<[u64; 2], Offender> =
    LruHashMap::with_max_entries(abi::OFFENDERS_MAX, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(abi::EVENTS_BYTES, 0);
#[map]
static SAMPLES: PerCpuArray<Sample> = PerCpuArray::with_max_entries(1, 0);

/// Takes down what is refused, or would be: now and then, for each CPU, one packet stands for all since the
/// last, so that a flood costs nothing more.
#[inline(always)]
pub fn note(context: &XdpContext, interface: u32, packet: &Fields, slot: u32) {
    let Some(sample) = SAMPLES.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own value of the map, and XDP programs are not preempted by each other.
    let sample = unsafe { &mut *sample };
    sample.packets += 1;
    let now = timer();
    if now.wrapping_sub(sample.last) >= abi::SAMPLE_NS {
        sample.last = now;
        tell(context, interface, packet, slot);
    }
}

/// Tells of one packet, for all since the last.
#[inline(never)]
fn tell(context: &XdpContext, interface: u32, packet: &Fields, slot: u32) {
    let Some(sample) = SAMPLES.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as in `note`.
    let sample = unsafe { &mut *sample };
    let packets = replace(&mut sample.packets, 0);
    let source = packet.source();
    // Those of a flood are invented.
    if verdict::reason(slot) != Reason::Flood as u32 {
        offended(hash::source_of(packet, constants()), verdict::action(slot), packets);
    }
    if SETTINGS.get(0).is_some_and(|settings| settings.flags & abi::HAS_READER != 0) {
        match EVENTS.reserve::<Event>(0) {
            Some(mut event) => {
                event.write(Event {
                    source: source.words(),
                    packets,
                    interface,
                    slot,
                    port: packet.port() as u32,
                    unused: 0,
                });
                event.submit(0);
            }
            None => sample.lost += 1,
        }
    }
    log(context, source, verdict::reason(slot));
}

/// Adds to what a source has been refused.
#[inline(always)]
fn offended(source: [u64; 2], action: Action, packets: u64) {
    let now = clock();
    let (refused, observed) = match action {
        Action::Observe => (0, packets),
        _ => (packets, 0),
    };
    let Some(offender) = OFFENDERS.get_ptr_mut(source) else {
        // It may be full of those that other CPUs are adding; then this one is not told.
        let _ = OFFENDERS.insert(source, Offender { refused, observed, last: now }, 0);
        return;
    };
    // SAFETY: a value of the map, which lives until this program's run ends; all who write to the first
    // two words add to them, and any of the times will do for the third.
    unsafe {
        atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*offender).refused, refused);
        atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*offender).observed, observed);
        (&raw mut (*offender).last).write_volatile(now);
    }
}

/// The same for whoever looks for mistakes. The level is off unless the loader says otherwise, and being
/// a constant to the verifier, all of this is then removed from the program as it is loaded.
#[inline(always)]
fn log(context: &XdpContext, source: Address, reason: u32) {
    const OVER_LIMIT: u32 = Reason::OverLimit as u32;
    const TOO_MANY_OPEN: u32 = Reason::TooManyOpen as u32;
    const DENIED: u32 = Reason::Denied as u32;
    const BANNED: u32 = Reason::Banned as u32;
    const FLOOD: u32 = Reason::Flood as u32;
    if !level_enabled(Level::Debug) {
        return;
    }
    let source = source.mapped();
    match reason {
        OVER_LIMIT => debug!(context, "over the limit: {:i}", source),
        TOO_MANY_OPEN => debug!(context, "too many open: {:i}", source),
        DENIED => debug!(context, "denied: {:i}", source),
        BANNED => debug!(context, "banned: {:i}", source),
        FLOOD => debug!(context, "flood: {:i}", source),
        _ => debug!(context, "a header is hidden: {:i}", source),
    }
}
