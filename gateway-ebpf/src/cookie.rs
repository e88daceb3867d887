//! SYN cookies of the kernel's making.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::{
    bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_tcp_raw_gen_syncookie_ipv4,
    bpf_tcp_raw_gen_syncookie_ipv6,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;

use gateway_ebpf::abi;
use gateway_ebpf::answer::{IPV4_BYTES, IPV6_BYTES, SYN_IP, SYN_TCP, SYN_WORDS, Syn, is_plain};
use gateway_ebpf::packet::{Fields, NETWORK_MAX, TCP_BYTES};
use gateway_ebpf::{hash, known};

use crate::frame::{InPlace, View};
use crate::{BPF_F_MMAPABLE, SETTINGS, constants, timer};

#[map]
static KNOWN: Array<u64> = Array::with_max_entries(known::WORDS, BPF_F_MMAPABLE);
#[map]
static ASKED: Array<u64> = Array::with_max_entries(known::LISTENERS, 0);

/// The cookie, and above it the largest segment; 0 for none: the kernel makes none before a listener's queue is
/// full, unless `net.ipv4.tcp_syncookies` is 2.
#[inline(never)]
pub fn make_cookie(context: &XdpContext, packet: &Fields) -> u64 {
    match make_quickly(context, packet) {
        0 => {}
        cookie => return cookie,
    }
    let cookie = ask(context, packet);
    if cookie != 0
        && let Some((asked, word)) = asked(context, packet)
    {
        // SAFETY: a word of the map, which lives until this program's run ends; volatile, as another CPU may read it
        // at any time.
        unsafe { asked.write_volatile(word) };
    }
    cookie
}

/// The same without looking for a socket; 0 also where that cannot be.
#[inline(never)]
pub fn make_quickly(context: &XdpContext, packet: &Fields) -> u64 {
    // SAFETY: as above, and may write it.
    let is_asked = asked(context, packet)
        .is_some_and(|(asked, word)| unsafe { asked.read_volatile() } == word);
    if is_asked && is_unknown(packet) { make(context, packet) } else { 0 }
}

/// Where it is remembered that the listener has made a cookie, and what stands there then.
#[inline(always)]
fn asked(context: &XdpContext, packet: &Fields) -> Option<(*mut u64, u64)> {
    // The verifier knows the constant, and where it is 0 does not look at helpers that are not there.
    if constants().raw_cookies == 0 {
        return None;
    }
    let destination = packet.destination(&InPlace(context))?;
    let (index, word) = known::listener(destination, packet.port() as u16, timer());
    Some((ASKED.get_ptr_mut(index)?, word))
}

/// Whether whoever sent it has no connection here.
#[inline(always)]
fn is_unknown(packet: &Fields) -> bool {
    let has_known = SETTINGS.get(0).is_some_and(|settings| settings.flags & abi::HAS_KNOWN != 0);
    let (word, bit) = known::bit(hash::source_of(packet, constants()));
    // SAFETY: as in `make_cookie`; userspace may write it at any time.
    has_known && KNOWN.get_ptr(word).is_some_and(|word| unsafe { word.read_volatile() } & bit == 0)
}

/// Makes one without a socket (Linux 6.0).
#[inline(always)]
fn make(context: &XdpContext, packet: &Fields) -> u64 {
    let network = packet.network();
    // Always, but the verifier does not know.
    if network > NETWORK_MAX || !is_plain(packet) {
        return 0;
    }
    let (ip, end) = (context.data() + network, context.data_end());
    match packet.is_ipv4() {
        true => make_from::<IPV4_BYTES>(ip, end, |ip, tcp, bytes| {
            // SAFETY: so much lies within the packet, and the helper reads no more.
            unsafe { bpf_tcp_raw_gen_syncookie_ipv4(ip as *mut _, tcp as *mut _, bytes) }
        }),
        false => make_from::<IPV6_BYTES>(ip, end, |ip, tcp, bytes| {
            // SAFETY: as above.
            unsafe { bpf_tcp_raw_gen_syncookie_ipv6(ip as *mut _, tcp as *mut _, bytes) }
        }),
    }
}

/// Makes one from the headers at `ip`, of which the first has so many `IP` bytes. Each length of the second is a case
/// of its own, as the verifier follows only constants into the packet.
#[inline(always)]
fn make_from<const IP: usize>(
    ip: usize,
    end: usize,
    make: impl Fn(usize, usize, u32) -> i64,
) -> u64 {
    let tcp = ip + IP;
    if tcp + TCP_BYTES > end {
        return 0;
    }
    // SAFETY: it lies within the packet, as the line above has checked.
    let words = unsafe { ((tcp + 12) as *const u8).read() } >> 4;
    macro_rules! of_words {
        ($($count:literal)*) => {
            match words {
                $($count if tcp + 4 * $count <= end => make(ip, tcp, 4 * $count),)*
                _ => 0,
            }
        };
    }
    let cookie = of_words!(5 6 7 8 9 10 11 12 13 14 15);
    if cookie > 0 { cookie as u64 } else { 0 }
}

/// Asks the listener for one (Linux 5.4).
#[inline(always)]
fn ask(context: &XdpContext, packet: &Fields) -> u64 {
    /// `BPF_F_CURRENT_NETNS`
    const HERE: u64 = u64::MAX;
    // `Syn` writes all that counts. To write zeros first would cost as much as reading it.
    let mut words = MaybeUninit::<[u32; SYN_WORDS]>::uninit();
    let place = words.as_mut_ptr().cast::<u32>();
    // SAFETY: `Syn` knows how many words there are. Volatile, as they would otherwise be gathered in
    // registers, which there are too few of, and then be twice on the stack.
    let put = |word, value| unsafe { place.wrapping_add(word).write_volatile(value) };
    let view = View { start: context.data(), end: context.data_end() };
    let Some(Syn { tuple_bytes, ip_bytes, tcp_bytes }) = Syn::read(&view, packet, put) else {
        return 0;
    };
    let (context, tuple) = (context.ctx.cast(), place.cast());
    // SAFETY: the helper reads as much of the tuple as is said, which is all on this stack. What it
    // returns is null or a socket, which is released below.
    let socket = unsafe { bpf_skc_lookup_tcp(context, tuple, tuple_bytes as u32, HERE, 0) };
    if socket.is_null() {
        return 0;
    }
    let (ip, tcp) = (place.wrapping_add(SYN_IP).cast(), place.wrapping_add(SYN_TCP).cast());
    let (ip_bytes, tcp_bytes) = (ip_bytes as u32, checked(tcp_bytes));
    // SAFETY: as above, of the headers. Whether the socket listens it asks itself.
    let cookie = unsafe { bpf_tcp_gen_syncookie(socket.cast(), ip, ip_bytes, tcp, tcp_bytes) };
    // SAFETY: it was taken above, and nobody uses it any more.
    unsafe { bpf_sk_release(socket.cast()) };
    if cookie > 0 { cookie as u64 } else { 0 }
}

/// The length of a TCP header, which is one already: the verifier forgets it, and is told again by what the compiler
/// does not see through.
#[inline(always)]
fn checked(bytes: u64) -> u32 {
    let mut bytes = bytes;
    // SAFETY: it touches nothing else.
    unsafe { asm!("{0} &= 60", inout(reg) bytes, options(pure, nomem, nostack)) };
    bytes.max(TCP_BYTES as u64) as u32
}
