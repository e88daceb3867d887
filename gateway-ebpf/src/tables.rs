//! What a verdict depends on, in the kernel's maps.

use core::cell::Cell;
use core::intrinsics::{
    AtomicOrdering::AcqRel, AtomicOrdering::Relaxed, atomic_cxchg, atomic_xadd,
};
use core::ptr::read_volatile;

use aya_ebpf::helpers::bpf_map_lookup_elem;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::XdpContext;

use gateway_ebpf::abi::{self, Ban, Class, Entry, Key4, Key6, Settings};
use gateway_ebpf::bucket::{self, Admission, WAYS};
use gateway_ebpf::flood::Flood;
use gateway_ebpf::hash::{self, Place};
use gateway_ebpf::open;
use gateway_ebpf::packet::Fields;
use gateway_ebpf::verdict::{Listener, Tables, Treatment};

use crate::cookie::make_quickly;
use crate::frame::InPlace;
use crate::{BPF_F_MMAPABLE, clock, constants, listener, timer};

// The lengths of LIMITS and OPEN are set when the object is loaded.
#[map]
static LOCALS: HashMap<[u64; 3], u8> = HashMap::with_max_entries(2 * abi::LOCALS_MAX, 0);
/// The local that each CPU has met last, and how often they had changed.
#[map]
static LATEST: PerCpuArray<([u64; 3], u64)> = PerCpuArray::with_max_entries(1, 0);
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
static FLOODS: PerCpuArray<Flood> = PerCpuArray::with_max_entries(1, 0);
/// Where the sources have their state that each CPU has refused of late during a flood.
#[map]
static REFUSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(abi::REFUSED_MAX, 0);

/// The maps, at one time.
pub struct Maps<'a> {
    /// The packet.
    context: &'a XdpContext,
    /// Read once, so that no two of them are of different times.
    settings: Settings,
    /// 0 until somebody asks for it.
    now: Cell<u64>,
    /// Whether the packet is most likely to be answered by a cookie.
    expects_cookie: Cell<bool>,
    /// The cookie if it has been made, else 0.
    cookie: Cell<u64>,
}

impl<'a> Maps<'a> {
    #[inline(always)]
    pub fn new(context: &'a XdpContext, settings: Settings) -> Self {
        let (now, cookie) = (Cell::new(0), Cell::new(0));
        Self { context, settings, now, expects_cookie: Cell::new(false), cookie }
    }

    /// The cookie that has been made meanwhile, else 0.
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        self.cookie.get()
    }

    /// The time, which costs so much that it is read once.
    #[inline(always)]
    fn now(&self) -> u64 {
        if self.now.get() == 0 {
            self.now.set(clock());
        }
        self.now.get()
    }

    /// Whether there is a flood, which cookies answer, and this one is not from a source that has more than its due.
    #[inline(always)]
    fn expects_cookie(&self, place: Place) -> bool {
        self.settings.flags & abi::ENFORCE_COOKIES != 0
            // SAFETY: this CPU's own values of the maps; XDP programs are not preempted by each other.
            && FLOODS
                .get_ptr(0)
                .is_some_and(|flood| unsafe { (*flood).is_on(timer(), self.settings.flood) })
            // SAFETY: as above.
            && refused(place).is_some_and(|refused| unsafe { *refused } != place.tag())
    }
}

/// Where this CPU remembers a source that it has refused, or another one.
#[inline(always)]
fn refused(place: Place) -> Option<*mut u64> {
    REFUSED.get_ptr_mut(place.tag() as u32 % abi::REFUSED_MAX)
}

#[inline(always)]
fn limits_line(place: Place, class: &Class) -> Option<LimitsLine> {
    LIMITS.get_ptr_mut(place.line(class)).map(|line| Line(line.cast()))
}

#[inline(always)]
fn open_line(place: Place) -> Option<OpenLine> {
    OPEN.get_ptr_mut(place.open_line(constants())).map(|line| Line(line.cast()))
}

impl Tables for Maps<'_> {
    #[inline(always)]
    fn listener(&self, port: u16) -> Option<Listener> {
        listener(port)
    }

    #[inline(always)]
    fn is_for_us(&self, packet: &Fields) -> bool {
        let Some([high, low]) = packet.destination(&InPlace(self.context)) else {
            return false;
        };
        let local = [high, low, packet.port().into()];
        let Some(latest) = LATEST.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: this CPU's own value of the map; XDP programs are not preempted by each other.
        let latest = unsafe { &mut *latest };
        let ([a, b, c], locals) = *latest;
        if a == local[0] && b == local[1] && c == local[2] && locals == self.settings.locals {
            return true;
        }
        let is_there = LOCALS.get_ptr(local).is_some();
        if is_there {
            *latest = (local, self.settings.locals);
        }
        is_there
    }

    #[inline(always)]
    fn listed(&self, packet: &Fields) -> Option<Treatment> {
        let generation = [self.settings.generation as u8, 0, 0, 0];
        let [high, low] = packet.source_words();
        let entry: *mut Entry = if packet.is_ipv4() {
            let key =
                Key::new(64, Key4 { generation, address: ((low >> 32) as u32).to_le_bytes() });
            // SAFETY: the helper reads a key of the map's size and returns one of its values or null.
            unsafe {
                bpf_map_lookup_elem((&raw const LIST4).cast_mut().cast(), (&raw const key).cast())
            }
        } else {
            let address = (u128::from(low) << 64 | u128::from(high)).to_le_bytes();
            let key = Key::new(160, Key6 { generation, address });
            // SAFETY: as above.
            unsafe {
                bpf_map_lookup_elem((&raw const LIST6).cast_mut().cast(), (&raw const key).cast())
            }
        }
        .cast();
        if entry.is_null() {
            return None;
        }
        // SAFETY: a value of the map, which lives until this program's run ends.
        let Entry { until, treatment, .. } = unsafe { entry.read_volatile() };
        if until <= self.now() {
            return None;
        }
        // SAFETY: as above; all who write to the word add to it.
        unsafe { atomic_xadd::<u64, u64, { Relaxed }>(&raw mut (*entry).hits, 1) };
        Some(Treatment::of_code(treatment))
    }

    #[inline(always)]
    fn source(&self, packet: &Fields) -> [u64; 2] {
        hash::source_of(packet, constants())
    }

    #[inline(always)]
    fn place(&self, source: [u64; 2], class: u8) -> Place {
        hash::place(source, class, constants())
    }

    /// There is no instruction for it. A store does as much: the CPU goes on while the line comes. But only one CPU at a
    /// time can have a line that it writes, while all can have one that they read, as they do that of a source which all
    /// refuse. So stores are for floods, and for sources that are most likely written anyway. A load that nothing waits
    /// for does a part: the CPU goes on with some hundred instructions behind it.
    #[inline(always)]
    fn fetch(&self, place: Place, class: &Class) {
        self.expects_cookie.set(self.expects_cookie(place));
        if let Some(line) = limits_line(place, class) {
            if self.expects_cookie.get() { line.write() } else { line.touch() }
        }
        if class.connections_max != 0
            && let Some(line) = open_line(place)
        {
            line.touch();
        }
    }

    #[inline(always)]
    fn meanwhile(&self, packet: &Fields) {
        if self.expects_cookie.get() {
            self.cookie.set(make_quickly(self.context, packet));
        }
    }

    #[inline(always)]
    fn is_banned(&self, source: [u64; 2]) -> bool {
        let Some(ban) = BANS.get_ptr_mut(source) else {
            return false;
        };
        // SAFETY: a value of the map, which lives until this program's run ends; userspace may write it
        // at any time.
        if unsafe { read_volatile(&raw const (*ban).until) } <= self.now() {
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
        open_line(place).map_or(0, |line| open::count(&line, place.tag()))
    }

    #[inline(always)]
    fn admit(&self, place: Place, class: &Class) -> Admission {
        let Some(line) = limits_line(place, class) else {
            // Cannot be, as above.
            return Admission::Contended;
        };
        let now = bucket::ticks(timer());
        let admission = bucket::admit(&line, place.tag(), now, class.limits);
        if admission == Admission::Over
            && self.expects_cookie.get()
            && let Some(refused) = refused(place)
        {
            // SAFETY: this CPU's own word of a map value; XDP programs are not preempted by each other.
            unsafe { *refused = place.tag() };
        }
        admission
    }

    #[inline(always)]
    fn is_flood(&self, is_new: bool) -> bool {
        let Some(flood) = FLOODS.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: this CPU's own value of the map; XDP programs are not preempted by each other.
        unsafe { (*flood).count(is_new, timer(), self.settings.flood, || self.now()) }
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        self.settings
    }
}

/// A line of memory, whose `FIRST` words are no ways.
struct Line<const FIRST: usize>(*mut u64);

type LimitsLine = Line<1>;
type OpenLine = Line<0>;

impl<const FIRST: usize> Line<FIRST> {
    /// The mask keeps the verifier content, and the pointer within the line.
    #[inline(always)]
    fn way(&self, way: usize) -> *mut u64 {
        self.0.wrapping_add((FIRST + way) & (WAYS - 1))
    }

    #[inline(always)]
    fn touch(&self) {
        let _ = bucket::Line::load(self, 0);
    }
}

impl LimitsLine {
    #[inline(always)]
    fn write(&self) {
        // SAFETY: the first word of a map value, which lives as long as the program; nobody reads it.
        unsafe { self.0.write_volatile(0) }
    }
}

impl<const FIRST: usize> bucket::Line for Line<FIRST> {
    const WAYS: usize = WAYS - FIRST;

    #[inline(always)]
    fn load(&self, way: usize) -> u64 {
        // SAFETY: the pointer is one of the eight aligned words of a map value, which lives as long
        // as the program. Volatile, as another CPU may write it at any time; an atomic load would
        // need BPF CPU v4.
        unsafe { read_volatile(self.way(way)) }
    }

    #[inline(always)]
    fn swap(&self, way: usize, old: u64, new: u64) -> bool {
        // SAFETY: as for `load`; all writes to the word are atomic.
        unsafe { atomic_cxchg::<u64, { Relaxed }, { Relaxed }>(self.way(way), old, new).1 }
    }

    #[inline(always)]
    fn add(&self, way: usize, by: u64) -> u64 {
        // SAFETY: as for `load`. Of a relaxed one LLVM 22 makes an instruction that returns nothing.
        unsafe { atomic_xadd::<u64, u64, { AcqRel }>(self.way(way), by) }
    }
}
