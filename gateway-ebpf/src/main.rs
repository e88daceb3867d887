//! The XDP program: maps, pointers and the two entry points. What it decides is in the library.

#![no_std]
#![no_main]
// `core::sync::atomic` has no compare-and-swap on this target; the intrinsic compiles to
// BPF_CMPXCHG (Linux 5.12, from `-Ctarget-cpu=v3`).
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the only way to a compare-and-swap, see above")]
#![expect(unsafe_code, reason = "packet and map memory are raw pointers to a BPF program")]
#![expect(missing_docs, reason = "the macro `xdp` makes public functions without their comments")]

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_cxchg};
use core::ptr::{read_unaligned, read_volatile};

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use aya_log_ebpf::macro_support::{Level, level_enabled};

use gateway_ebpf::abi::{self, Constants, Settings};
use gateway_ebpf::bucket::{self, Admission, Limits, WAYS};
use gateway_ebpf::hash;
use gateway_ebpf::packet::{self, Address, Bytes, Packet};
use gateway_ebpf::verdict::{self, Action, Tables, Verdict};

// The lengths of LIMITS and the values of CONSTANTS are set when the object is loaded.
#[map]
static PORTS: Array<u8> = Array::with_max_entries(1 << 16, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static LIMITS: Array<abi::Line> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(verdict::SLOTS, 0);

/// When this CPU last logged.
#[map]
static LOGGED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static CONSTANTS: Global<Constants> = Global::new(Constants {
    hash_key: [0; 2],
    ipv4_mask: hash::prefix_mask(128),
    ipv6_mask: hash::prefix_mask(64),
    line_mask: 0,
});

/// For drivers that hand over packets spread over several buffers (Linux 5.18): headers are read
/// from the first one.
#[xdp(frags)]
pub fn gateway_frags(context: XdpContext) -> u32 {
    run(&context)
}

/// For the others.
#[xdp]
pub fn gateway(context: XdpContext) -> u32 {
    run(&context)
}

#[inline(always)]
fn run(context: &XdpContext) -> u32 {
    let packet = packet::decode(&Frame { start: context.data(), end: context.data_end() });
    let verdict = verdict::decide(packet, &Maps);
    count(verdict);
    log(context, packet, verdict);
    match verdict.action {
        Action::Drop => XDP_DROP,
        Action::Pass | Action::Observe => XDP_PASS,
    }
}

/// The packet, by the addresses the kernel gives.
struct Frame {
    start: usize,
    end: usize,
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let from = self.start + at;
        if from + N > self.end {
            return None;
        }
        // SAFETY: `from..from + N` lies within the packet, as the line above has checked and the
        // verifier checks again; bytes need no alignment.
        Some(unsafe { read_unaligned(from as *const [u8; N]) })
    }
}

struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn serves(&self, port: u16) -> bool {
        PORTS.get(u32::from(port)).is_some_and(|ours| *ours != 0)
    }

    #[inline(always)]
    fn admit(&self, source: Address) -> Admission {
        let place = hash::place(source, &CONSTANTS.load());
        let (Some(line), Some(limits)) = (LIMITS.get_ptr_mut(place.line), limits()) else {
            // Cannot be: the mask keeps lines within the table, and SETTINGS has its one entry.
            return Admission::Contended;
        };
        bucket::admit(&Line(line.cast()), place.tag, bucket::ticks(now_ns()), limits)
    }

    #[inline(always)]
    fn enforces(&self) -> bool {
        SETTINGS.get(0).is_some_and(|settings| settings.enforce != 0)
    }
}

#[inline(always)]
fn limits() -> Option<Limits> {
    SETTINGS.get(0).map(|settings| settings.limits)
}

/// The coarse clock (Linux 5.11) costs half of the fine one; its steps of 1 to 10 ms vanish in any
/// burst.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper takes no arguments and may be called at any time.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The first way of a line of LIMITS.
struct Line(*mut u64);

impl Line {
    /// The mask keeps the verifier content, and the pointer within the line.
    #[inline(always)]
    fn way(&self, way: usize) -> *mut u64 {
        self.0.wrapping_add(way & (WAYS - 1))
    }
}

impl bucket::Line for Line {
    #[inline(always)]
    fn load(&self, way: usize) -> u64 {
        // SAFETY: the pointer is one of the eight aligned words of a map value, which lives as long
        // as the program. Volatile, as another CPU may write it at any time; an atomic load would
        // need BPF CPU v4.
        unsafe { read_volatile(self.way(way)) }
    }

    #[inline(always)]
    fn swap(&self, way: usize, old: u64, new: u64) -> bool {
        // SAFETY: as for `load`; all writes to the word are such swaps.
        unsafe { atomic_cxchg::<u64, { Relaxed }, { Relaxed }>(self.way(way), old, new).1 }
    }
}

#[inline(always)]
fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict.slot()) {
        // SAFETY: this CPU's own word of a map value; XDP programs are not preempted by each other.
        unsafe { *counter += 1 }
    }
}

/// Tells what is dropped, or would be: a sample, at most one record for each CPU and step of the
/// clock, as whoever reads the records must keep up with a flood. The level is off unless the loader
/// says otherwise, and being a constant to the verifier, all of this is then removed from the program
/// as it is loaded.
#[inline(always)]
fn log(context: &XdpContext, packet: Packet, verdict: Verdict) {
    if !level_enabled(Level::Debug) || !verdict.reason.is_excess() || !is_new_step() {
        return;
    }
    match packet {
        Packet::Segment(segment) => {
            debug!(context, "over the limit: {:i}", segment.source.mapped());
        }
        Packet::TinyFragment { source, .. } => {
            debug!(context, "tiny fragment: {:i}", source.mapped());
        }
        Packet::OverlappingFragment { source } => {
            debug!(context, "overlapping fragment: {:i}", source.mapped());
        }
        Packet::Other | Packet::Undecodable => {}
    }
}

/// Whether the clock has moved since this CPU last logged.
#[inline(always)]
fn is_new_step() -> bool {
    let Some(logged) = LOGGED.get_ptr_mut(0) else {
        return false;
    };
    let now = now_ns();
    // SAFETY: this CPU's own word of a map value, as in `count`.
    now != core::mem::replace(unsafe { &mut *logged }, now)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for GPL programs only; the code itself is MIT or Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
