//! The XDP program: its two entry points, and what becomes of a packet. What it decides is in the library.

#![no_std]
#![no_main]
// `core::sync::atomic` has no compare-and-swap on this target; the intrinsic compiles to
// BPF_CMPXCHG (Linux 5.12, from `-Ctarget-cpu=v3`).
#![feature(core_intrinsics)]
// For words of packets, see `frame::load_words`.
#![feature(asm_experimental_arch)]
#![expect(internal_features, reason = "the only way to a compare-and-swap, see above")]
#![expect(unsafe_code, reason = "packet and map memory are raw pointers to a BPF program")]
#![expect(missing_docs, reason = "the macro `xdp` makes public functions without their comments")]

mod cookie;
mod frame;
mod note;
mod tables;

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;

use gateway_ebpf::abi::{self, Constants, Settings};
use gateway_ebpf::answer::{Answer, answer};
use gateway_ebpf::hash;
use gateway_ebpf::packet::{self, Fields, Glance};
use gateway_ebpf::verdict::{self, Action, Listener, Reason};

use cookie::make_cookie;
use frame::{InPlace, View};
use note::note;
use tables::Maps;

/// Userspace maps the table into its memory (Linux 5.5).
const BPF_F_MMAPABLE: u32 = 1 << 10;

#[map]
static PORTS: Array<u8> = Array::with_max_entries(1 << 16, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(abi::INTERFACES_MAX * verdict::SLOTS, 0);

/// Its values are set when the object is loaded.
#[unsafe(no_mangle)]
static CONSTANTS: Global<Constants> = Global::new(Constants {
    hash_key: [0; 2],
    ipv4_mask: hash::prefix_mask(128),
    ipv6_mask: hash::prefix_mask(64),
    open_mask: 0,
    interfaces: 1,
    jiffy_ns: 0,
    raw_cookies: 0,
});

/// The constants. To read them as [`Global`] offers is to read each and every one.
#[inline(always)]
fn constants() -> &'static Constants {
    let mut constants = &raw const CONSTANTS;
    // SAFETY: it touches nothing, and only hides from the compiler, which would know the values above, whose they are.
    unsafe { asm!("{0} += 0", inout(reg) constants, options(pure, nomem, nostack)) };
    // SAFETY: `Global` is nothing but its value, which nobody writes to once the program is loaded.
    unsafe { &*constants.cast() }
}

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

/// What does not concern the gateway, as most of what comes, leaves before anything is called.
#[inline(always)]
fn run(context: &XdpContext) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    match packet::glance(&View { start, end }, |port| listener(port).is_some()) {
        Glance::Opens(packet) => judge(context, &packet),
        Glance::Elsewhere => {
            count(interface(context), Reason::Other as u32);
            XDP_PASS
        }
        Glance::Unclear => judge(context, &fields(start, end)),
    }
}

#[inline(always)]
fn interface(context: &XdpContext) -> u32 {
    // SAFETY: the context is the kernel's own and lives for this run.
    unsafe { (*context.ctx).ingress_ifindex }
}

/// What follows are functions of their own in the kernel, too: it has little stack for all of them
/// together, and both entry points share them.
#[inline(never)]
fn fields(start: usize, end: usize) -> Fields {
    packet::fields(&View { start, end })
}

#[inline(never)]
fn judge(context: &XdpContext, packet: &Fields) -> u32 {
    let decided = decide(context, packet);
    let (mut slot, cookie) = ((decided >> COOKIE_BITS) as u32, decided & COOKIE_MASK);
    let mut action = XDP_PASS;
    match verdict::action(slot) {
        Action::Pass | Action::Observe => {}
        Action::Drop => action = XDP_DROP,
        Action::Reset if reply(context, packet, 0) => action = XDP_TX,
        Action::Reset => {
            slot = verdict::reason(slot);
            action = XDP_DROP;
        }
        Action::Cookie => {
            let cookie = if cookie == 0 { make_cookie(context, packet) } else { cookie };
            if cookie != 0 && reply(context, packet, cookie) {
                action = XDP_TX;
            } else {
                // The kernel does what it can.
                slot = Reason::WithinLimit as u32;
            }
        }
    }
    let interface = interface(context);
    count(interface, slot);
    if !matches!(verdict::action(slot), Action::Pass) {
        note(context, interface, packet, slot);
    }
    action
}

/// How much of a word a cookie with its largest segment takes.
const COOKIE_BITS: u32 = 48;
const COOKIE_MASK: u64 = (1 << COOKIE_BITS) - 1;

/// The verdict, by its counter, above a cookie, if one has been made meanwhile.
#[inline(never)]
fn decide(context: &XdpContext, packet: &Fields) -> u64 {
    // Always there: the map has its one entry.
    let settings = SETTINGS.get(0).copied().unwrap_or_default();
    let maps = Maps::new(context, settings);
    let slot = verdict::decide(packet, &maps).slot();
    u64::from(slot) << COOKIE_BITS | maps.cookie() & COOKIE_MASK
}

/// Answers with a cookie, as [`make_cookie`] returns it, or with a reset for 0.
#[inline(never)]
fn reply(context: &XdpContext, packet: &Fields, cookie: u64) -> bool {
    let with = match cookie {
        0 => Answer::Reset,
        _ => Answer::Cookie { sequence: cookie as u32, mss: (cookie >> 32) as u16 },
    };
    answer(&mut InPlace(context), packet, with)
}

#[inline(always)]
fn listener(port: u16) -> Option<Listener> {
    Listener::of_code(*PORTS.get(u32::from(port))?)
}

/// The time in ns by the monotonic clock, which userspace writes by, too. The coarse one (Linux 5.11) costs half of
/// the fine one.
#[inline(always)]
fn clock() -> u64 {
    // SAFETY: the helper takes no arguments and may be called at any time.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The time in ns by the kernel's timer interrupt, whose count is a word in memory (Linux 5.6), where a call for the
/// clock would be a fifth of a verdict. Its steps of 1 to 10 ms vanish in any burst. It knows nothing of adjustments
/// of the clock, so the two are never compared.
#[inline(always)]
fn timer() -> u64 {
    // SAFETY: as above.
    let interrupts = unsafe { bpf_jiffies64() };
    interrupts * constants().jiffy_ns
}

#[inline(always)]
fn count(interface: u32, slot: u32) {
    // The verifier knows the constant, and keeps what is needed of this.
    let place = match constants().interfaces as u32 {
        0 | 1 => 0,
        interfaces => interface % interfaces,
    };
    if let Some(counter) = COUNTERS.get_ptr_mut(place * verdict::SLOTS + slot) {
        // SAFETY: this CPU's own word of a map value; XDP programs are not preempted by each other.
        unsafe { *counter += 1 }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for GPL programs only; the code itself is MIT or Apache-2.0.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
