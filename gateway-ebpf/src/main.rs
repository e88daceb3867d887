//! The XDP program: maps, pointers and the two entry points. What it decides is in the library.

#![no_std]
#![no_main]
// `core::sync::atomic` has no compare-and-swap on this target; the intrinsic compiles to
// BPF_CMPXCHG (Linux 5.12, from `-Ctarget-cpu=v3`).
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the only way to a compare-and-swap, see above")]
#![expect(unsafe_code, reason = "packet and map memory are raw pointers to a BPF program")]
#![expect(missing_docs, reason = "the macro `xdp` makes public functions without their comments")]

use core::intrinsics::{AtomicOrdering::Relaxed, atomic_cxchg, atomic_xadd};
use core::ptr::{read_unaligned, read_volatile};

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_map_lookup_elem};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use aya_log_ebpf::macro_support::{Level, level_enabled};

use gateway_ebpf::abi::{self, Ban, Class, Constants, Entry, Key4, Key6, Settings};
use gateway_ebpf::bucket::{self, Admission, Limits, WAYS};
use gateway_ebpf::hash::{self, Place};
use gateway_ebpf::open;
use gateway_ebpf::packet::{self, Address, Bytes, Fields};
use gateway_ebpf::verdict::{self, Action, Reason, Tables, Treatment, Verdict};

/// Userspace maps the table into its memory (Linux 5.5).
const BPF_F_MMAPABLE: u32 = 1 << 10;

// The lengths of LIMITS and OPEN and the values of CONSTANTS are set when the object is loaded.
#[map]
static PORTS: Array<u8> = Array::with_max_entries(1 << 16, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static LIMITS: Array<abi::Line> = Array::with_max_entries(1, 0);
#[map]
static CLASSES: Array<Class> = Array::with_max_entries(abi::CLASSES_MAX, 0);
#[map]
static OPEN: Array<abi::Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static LIST4: LpmTrie<Key4, Entry> = LpmTrie::with_max_entries(2 * abi::LIST_MAX, 0);
#[map]
static LIST6: LpmTrie<Key6, Entry> = LpmTrie::with_max_entries(2 * abi::LIST_MAX, 0);
#[map]
static BANS: HashMap<[u64; 2], Ban> = HashMap::with_max_entries(abi::BANS_MAX, 0);
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
    open_mask: 0,
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
    let frame = Frame { start: context.data(), end: context.data_end() };
    judge(context, &packet::fields(&frame))
}

/// A function of its own in the kernel, too: both entry points share it, and have its registers left.
#[inline(never)]
fn judge(context: &XdpContext, packet: &Fields) -> u32 {
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
    fn class_of_port(&self, port: u16) -> Option<u8> {
        PORTS.get(u32::from(port))?.checked_sub(1)
    }

    #[inline(always)]
    fn listed(&self, source: Address) -> Option<Treatment> {
        let generation = [SETTINGS.get(0)?.generation as u8, 0, 0, 0];
        let entry: *mut Entry = match source {
            Address::V4(address) => {
                let key = Key::new(64, Key4 { generation, address });
                // SAFETY: the helper reads a key of the map's size and returns one of its values or null.
                unsafe {
                    bpf_map_lookup_elem(
                        (&raw const LIST4).cast_mut().cast(),
                        (&raw const key).cast(),
                    )
                }
            }
            Address::V6(address) => {
                let key = Key::new(160, Key6 { generation, address });
                // SAFETY: as above.
                unsafe {
                    bpf_map_lookup_elem(
                        (&raw const LIST6).cast_mut().cast(),
                        (&raw const key).cast(),
                    )
                }
            }
        }
        .cast();
        if entry.is_null() {
            return None;
        }
        // SAFETY: a value of the map, which lives until this program's run ends.
        let Entry { until, treatment, .. } = unsafe { entry.read_volatile() };
        if until <= now_ns() {
            return None;
        }
        // SAFETY: as above; all who write to the word add to it.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*entry).hits, 1) };
        Some(Treatment::of_code(treatment))
    }

    #[inline(always)]
    fn source(&self, address: Address) -> [u64; 2] {
        hash::source(address, &CONSTANTS.load())
    }

    #[inline(always)]
    fn place(&self, source: [u64; 2], class: u8) -> Place {
        hash::place(source, class, &CONSTANTS.load())
    }

    #[inline(always)]
    fn is_banned(&self, source: [u64; 2]) -> bool {
        let Some(ban) = BANS.get_ptr_mut(source) else {
            return false;
        };
        // SAFETY: a value of the map, which lives until this program's run ends; userspace may write it
        // at any time.
        if unsafe { read_volatile(&raw const (*ban).until) } <= now_ns() {
            return false;
        }
        // SAFETY: as for the list.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*ban).hits, 1) };
        true
    }

    #[inline(always)]
    fn class(&self, class: u8) -> Option<Class> {
        CLASSES.get(u32::from(class)).copied()
    }

    #[inline(always)]
    fn open(&self, place: Place) -> u32 {
        // Always there, as the mask keeps lines within the table.
        OPEN.get_ptr_mut(place.open_line(&CONSTANTS.load()))
            .map_or(0, |line| open::count(&Line(line.cast()), place.tag()))
    }

    #[inline(always)]
    fn admit(&self, place: Place, limits: Limits) -> Admission {
        match LIMITS.get_ptr_mut(place.line(&CONSTANTS.load())) {
            Some(line) => {
                bucket::admit(&Line(line.cast()), place.tag(), bucket::ticks(now_ns()), limits)
            }
            // Cannot be, as above.
            None => Admission::Contended,
        }
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        // Always there: the map has its one entry.
        SETTINGS.get(0).copied().unwrap_or_default()
    }
}

/// The coarse clock (Linux 5.11) costs half of the fine one; its steps of 1 to 10 ms vanish in any
/// burst.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper takes no arguments and may be called at any time.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The first way of a line of LIMITS or OPEN.
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
fn log(context: &XdpContext, packet: &Fields, verdict: Verdict) {
    if !level_enabled(Level::Debug) || !verdict.reason.is_excess() || !is_new_step() {
        return;
    }
    let source = packet.source().mapped();
    match verdict.reason {
        Reason::OverLimit => debug!(context, "over the limit: {:i}", source),
        Reason::TooManyOpen => debug!(context, "too many open: {:i}", source),
        Reason::Denied => debug!(context, "denied: {:i}", source),
        Reason::Banned => debug!(context, "banned: {:i}", source),
        Reason::TinyFragment => debug!(context, "tiny fragment: {:i}", source),
        Reason::OverlappingFragment => debug!(context, "overlapping fragment: {:i}", source),
        _ => {}
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
