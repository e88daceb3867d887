//! The packet, in the kernel's memory.

use core::arch::asm;
use core::ptr::read_unaligned;

use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;

use gateway_ebpf::bytes::{Bytes, Frame};

/// The packet, by the addresses the kernel gives.
pub struct View {
    pub start: usize,
    pub end: usize,
}

impl Bytes for View {
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

    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let from = self.start + at;
        // SAFETY: as above.
        (from + 4 * N <= self.end).then(|| unsafe { load_words(from) })
    }
}

/// Reads four bytes of the packet at once, so many times. The headers behind Ethernet's fourteen bytes are not aligned,
/// for which the compiler would read byte by byte; the CPU need not, and the kernel knows
/// (`HAVE_EFFICIENT_UNALIGNED_ACCESS`).
///
/// # Safety
/// They lie within the packet.
#[inline(always)]
unsafe fn load_words<const N: usize>(from: usize) -> [u32; N] {
    let mut words = [0; N];
    for (number, place) in words.iter_mut().enumerate() {
        let word: u64;
        // SAFETY: as the caller says; nothing else is read or written.
        unsafe {
            asm!(
                "{word} = *(u32 *)({from} + 0)",
                word = lateout(reg) word,
                from = in(reg) from + 4 * number,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        *place = word as u32;
    }
    words
}

/// The reverse.
///
/// # Safety
/// They lie within the packet.
#[inline(always)]
unsafe fn store_words<const N: usize>(to: usize, words: [u32; N]) {
    for (number, word) in words.iter().enumerate() {
        // SAFETY: as the caller says; nothing else is read or written.
        unsafe {
            asm!(
                "*(u32 *)({to} + 0) = {word}",
                to = in(reg) to + 4 * number,
                word = in(reg) u64::from(*word),
                options(nostack, preserves_flags),
            );
        }
    }
}

/// The packet, by addresses that are asked for each time, as a change of its length moves it.
pub struct InPlace<'a>(pub &'a XdpContext);

impl InPlace<'_> {
    #[inline(always)]
    fn place(&self, at: usize, bytes: usize) -> Option<usize> {
        let from = self.0.data() + at;
        (from + bytes <= self.0.data_end()).then_some(from)
    }
}

impl Bytes for InPlace<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let from = self.place(at, N)?;
        // SAFETY: as for `View`.
        Some(unsafe { read_unaligned(from as *const [u8; N]) })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let from = self.place(at, 4 * N)?;
        // SAFETY: as for `View`.
        Some(unsafe { load_words(from) })
    }
}

impl Frame for InPlace<'_> {
    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Option<()> {
        let to = self.place(at, 4 * N)?;
        // SAFETY: as for `View`; nobody else has the packet.
        unsafe { store_words(to, words) };
        Some(())
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn resize(&mut self, length: usize) -> bool {
        let by = length as i32 - self.length() as i32;
        // SAFETY: the helper takes any number, and says whether it can be done.
        unsafe { bpf_xdp_adjust_tail(self.0.ctx, by) == 0 }
    }
}
