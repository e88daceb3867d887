//! The BPF programs of the kernel bench: a flood of SYNs, sources that differ from run to run, and programs
//! that do nothing, to compare with.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet and map memory are raw pointers to a BPF program")]
#![expect(missing_docs, reason = "the macro `xdp` makes public functions without their comments")]

use core::ptr::{read_unaligned, write_unaligned};

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::programs::XdpContext;

use gateway_ebpf::bytes::Bytes;
use gateway_ebpf::packet;

/// Looks at the clock before a packet that is not due is sent all the same.
const WAIT_MAX: u32 = 4096;

/// Packets that are sent without waiting when they are late, as those are that the CPU was busy with others for. A
/// batch of frames leaves at once, and then all behind it are.
const LAG_MAX: u64 = 256;

/// Bytes of a frame.
const FRAME: usize = 64;
/// Where the IPv4 header has its checksum and its source.
const IP_CHECKSUM: usize = 24;
const SOURCE: usize = 26;
/// Where the TCP header has its source port and its checksum.
const SOURCE_PORT: usize = 34;
const TCP_CHECKSUM: usize = 50;

/// What is sent; userspace writes it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Plan {
    /// The frame, with neither source nor source port, and the sums of it in the place of its checksums.
    frame: [u64; FRAME / 8],
    /// Sources are this and some of the bits of `mask`.
    base: u32,
    mask: u32,
    /// Where to.
    interface: u32,
    /// Nanoseconds from one packet to the next.
    interval: u32,
}

#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);
/// When the next packet is due.
#[map]
static DUE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// What [`varied`] goes on with.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[xdp]
pub fn pass(_: XdpContext) -> u32 {
    XDP_PASS
}

#[xdp]
pub fn drop_all(_: XdpContext) -> u32 {
    XDP_DROP
}

/// Finds the TCP header as the gateway's program does, and does nothing about it.
#[xdp]
pub fn parse(context: XdpContext) -> u32 {
    let fields = packet::fields(&Frame(&context));
    if fields.port() == 0 { XDP_DROP } else { XDP_PASS }
}

/// What the gateway sends: honest clients get theirs, and the rest of the world's goes no further.
#[xdp]
pub fn answered(context: XdpContext) -> u32 {
    match Frame(&context).read::<34>(0) {
        Some(frame) if frame[12..14] == [8, 0] && frame[30..32] != [10, 77] => XDP_DROP,
        _ => XDP_PASS,
    }
}

/// Drops what honest clients have not sent, and looks no further.
#[xdp]
pub fn drop_flood(context: XdpContext) -> u32 {
    match Frame(&context).read::<34>(0) {
        Some(frame) if is_flood(&frame) => XDP_DROP,
        _ => XDP_PASS,
    }
}

/// Sends it back in place of that, as the least that an answer takes.
#[xdp]
pub fn turn_flood(context: XdpContext) -> u32 {
    match Frame(&context).read::<34>(0) {
        Some(frame) if is_flood(&frame) => {
            let [to, from] = [0, 6].map(|at| Frame(&context).read::<6>(at).unwrap_or_default());
            put(&context, 0, from);
            put(&context, 6, to);
            put(&context, SOURCE, [frame[30], frame[31], frame[32], frame[33]]);
            put(&context, SOURCE + 4, [frame[26], frame[27], frame[28], frame[29]]);
            XDP_TX
        }
        _ => XDP_PASS,
    }
}

/// Whether it is IPv4 and from none of the clients' addresses.
#[inline(always)]
fn is_flood(frame: &[u8; 34]) -> bool {
    frame[12..14] == [8, 0] && frame[26..28] != [10, 77]
}

/// Another source for each run, then the next program.
#[xdp]
pub fn varied(context: XdpContext) -> u32 {
    let Some(plan) = PLAN.get(0) else { return XDP_ABORTED };
    put(&context, SOURCE, source(plan).to_be());
    // SAFETY: the index is that of the only entry.
    let _ = unsafe { NEXT.tail_call(&context, 0) };
    XDP_ABORTED
}

/// A SYN from another source for each run, sent on when it is due.
#[xdp]
pub fn flood(context: XdpContext) -> u32 {
    let Some(plan) = PLAN.get(0) else { return XDP_ABORTED };
    let source = source(plan);
    // SAFETY: the helper takes nothing.
    let port = unsafe { bpf_get_prandom_u32() } as u16 | 1024;
    // Frames come back with what receivers have made of them, so each is written anew.
    for (index, word) in plan.frame.iter().enumerate() {
        put(&context, index * 8, *word);
    }
    put(&context, SOURCE, source.to_be());
    put(&context, SOURCE_PORT, port.to_be());
    let halves = (source >> 16) + (source & 0xffff);
    sum(&context, IP_CHECKSUM, halves);
    sum(&context, TCP_CHECKSUM, halves + u32::from(port));
    wait(plan.interval.into());
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect(plan.interface, 0) as u32 }
}

#[inline(always)]
fn source(plan: &Plan) -> u32 {
    // SAFETY: the helper takes nothing.
    plan.base | unsafe { bpf_get_prandom_u32() } & plan.mask
}

/// Makes a checksum (RFC 1071) of the sum that stands in its place, and what is added to it.
#[inline(always)]
fn sum(context: &XdpContext, at: usize, more: u32) {
    let Some(begun) = Frame(context).read::<2>(at) else { return };
    let mut sum = u32::from(u16::from_be_bytes(begun)) + more;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    put(context, at, (!sum as u16).to_be());
}

#[inline(always)]
fn wait(interval: u64) {
    let Some(due) = DUE.get_ptr_mut(0) else { return };
    // SAFETY: the helper takes nothing.
    let clock = || unsafe { bpf_ktime_get_ns() };
    // SAFETY: this CPU's own word of a map value; XDP programs are not preempted by each other.
    let due = unsafe { &mut *due };
    let mut now = clock();
    for _ in 0..WAIT_MAX {
        if now >= *due {
            break;
        }
        now = clock();
    }
    *due = (*due).max(now.saturating_sub(LAG_MAX * interval)) + interval;
}

#[inline(always)]
fn put<T>(context: &XdpContext, at: usize, value: T) {
    let place = context.data() + at;
    if place + size_of::<T>() <= context.data_end() {
        // SAFETY: within the packet, as the verifier has seen.
        unsafe { write_unaligned(place as *mut T, value) }
    }
}

/// The packet.
struct Frame<'a>(&'a XdpContext);

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let place = self.0.data() + at;
        // SAFETY: within the packet, as the verifier has seen.
        (place + N <= self.0.data_end()).then(|| unsafe { read_unaligned(place as *const [u8; N]) })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let (place, end) = (self.0.data() + at, self.0.data_end());
        // SAFETY: as above.
        (place + 4 * N <= end).then(|| unsafe { read_unaligned(place as *const [u32; N]) })
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
