//! What happens to a packet, and why. We limit new connections and are no firewall: whatever cannot
//! be decoded passes, except what was made to get past the limits: fragments that hide a header, and IPv6
//! with extension headers that do.

use crate::abi::{self, Class, Settings};
use crate::bucket::Admission;
use crate::hash::Place;
use crate::packet::{self, Fields};

/// What a verdict depends on besides the packet: maps in the kernel, plain values in tests.
pub trait Tables {
    /// The listener at this TCP port, if the gateway has one there.
    fn listener(&self, port: u16) -> Option<Listener>;
    /// Whether the gateway listens at the address that the packet is for, at a port where it does not at all of them.
    fn is_for_us(&self, packet: &Fields) -> bool;
    /// What the list says of who sent the packet, by the longest of the networks it is in.
    fn listed(&self, packet: &Fields) -> Option<Treatment>;
    /// Who that counts as, see [`crate::hash::source_of`].
    fn source(&self, packet: &Fields) -> [u64; 2];
    /// Where a source's state lies for a class.
    fn place(&self, source: [u64; 2], class: u8) -> Place;
    /// Says that the state at this place, which is of this class, will be asked for before long. That of a source that
    /// has not been seen of late is in no cache; only memory that is slow has anything to do.
    #[inline(always)]
    fn fetch(&self, _place: Place, _class: &Class) {}
    /// Says that it is asked for next. What most get in a flood can be made until it is there.
    #[inline(always)]
    fn meanwhile(&self, _packet: &Fields) {}
    /// Whether the source is banned now.
    fn is_banned(&self, source: [u64; 2]) -> bool;
    /// The limits of a class.
    fn class(&self, class: u8) -> Option<Class>;
    /// How many connections the source at this place has open.
    fn open(&self, place: Place) -> u32;
    /// Takes one connection from the allowance of the source at this place, which is of this class.
    fn admit(&self, place: Place, class: &Class) -> Admission;
    /// Counts a connection that may go on; whether there are too many from new sources.
    fn is_flood(&self, is_new: bool) -> bool;
    /// What may change while the program runs.
    fn settings(&self) -> Settings;
}

/// Who listens at a port, as [`abi::PORTS`] has it: one more than its class, and above it whether that goes for some
/// addresses only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener(u8);

impl Listener {
    const SOMEWHERE: u8 = 0x80;

    /// Of a class, at all addresses or only at those of [`abi::LOCALS`].
    pub const fn new(class: u8, is_everywhere: bool) -> Self {
        Self((class + 1) | if is_everywhere { 0 } else { Self::SOMEWHERE })
    }

    /// As the map has it.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The reverse.
    #[inline(always)]
    pub const fn of_code(code: u8) -> Option<Self> {
        if code == 0 { None } else { Some(Self(code)) }
    }

    /// Whose limits who connects here is held to.
    #[inline(always)]
    pub const fn class(self) -> u8 {
        (self.0 & !Self::SOMEWHERE) - 1
    }

    /// Whether every address is the gateway's.
    #[inline(always)]
    pub const fn is_everywhere(self) -> bool {
        self.0 & Self::SOMEWHERE == 0
    }
}

const _: () = assert!(abi::CLASSES_MAX < Listener::SOMEWHERE as u32);

/// What a list says of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Treatment {
    /// Never limited, never banned.
    Allow,
    /// Never let in.
    Deny,
    /// Not let in for a while, also where deny lists are only observed.
    Ban,
    /// Held to the limits of this class.
    Class(u8),
}

impl Treatment {
    /// As an [`abi::Entry`] has it.
    pub const fn code(self) -> u64 {
        match self {
            Self::Allow => 0,
            Self::Deny => 1,
            Self::Ban => 2,
            Self::Class(class) => 3 + class as u64,
        }
    }

    /// The reverse of [`Self::code`].
    #[inline(always)]
    pub const fn of_code(code: u64) -> Self {
        match code {
            0 => Self::Allow,
            1 => Self::Deny,
            2 => Self::Ban,
            class => Self::Class((class - 3) as u8),
        }
    }
}

/// Whether a packet goes on to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on.
    Pass,
    /// Goes on, but would be dropped if the limit were enforced.
    Observe,
    /// Goes no further.
    Drop,
    /// Goes no further, and its sender is told that nobody listens.
    Reset,
    /// Is answered here, and the kernel hears of it when the client says more.
    Cookie,
}

impl Action {
    /// The value of the label `verdict`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Observe => "observe",
            Self::Drop => "drop",
            Self::Reset => "reset",
            Self::Cookie => "cookie",
        }
    }
}

/// Why. The discriminants are the order of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Not a new connection to one of the gateway's ports.
    Other,
    /// Headers cut short, at odds with themselves, or more of them than we read.
    Undecodable,
    /// A new connection within its source's limit.
    WithinLimit,
    /// A new connection let through uncounted, because other CPUs kept giving its place to other sources.
    Contended,
    /// A new connection above its source's limit.
    OverLimit,
    /// A new connection of a source that has as many open as it may.
    TooManyOpen,
    /// A new connection from a network on an allow list.
    Allowed,
    /// A new connection from a network on a deny list.
    Denied,
    /// A new connection of a banned source.
    Banned,
    /// A first fragment too short for a TCP header.
    TinyFragment,
    /// A fragment that begins inside a TCP header.
    OverlappingFragment,
    /// A packet whose extension headers hide what it is, see [`packet::Packet::HiddenHeader`].
    HiddenHeader,
    /// A new connection while there are too many from new sources.
    Flood,
}

impl Reason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 13] = [
        Self::Other,
        Self::Undecodable,
        Self::WithinLimit,
        Self::Contended,
        Self::OverLimit,
        Self::TooManyOpen,
        Self::Allowed,
        Self::Denied,
        Self::Banned,
        Self::TinyFragment,
        Self::OverlappingFragment,
        Self::HiddenHeader,
        Self::Flood,
    ];

    /// The value of the label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Undecodable => "undecodable",
            Self::WithinLimit => "within_limit",
            Self::Contended => "contended",
            Self::OverLimit => "over_limit",
            Self::TooManyOpen => "connections_max",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Banned => "banned",
            Self::TinyFragment => "tiny_fragment",
            Self::OverlappingFragment => "overlapping_fragment",
            Self::HiddenHeader => "hidden_header",
            Self::Flood => "flood",
        }
    }

    /// The reason of this discriminant.
    pub fn of(discriminant: u32) -> Option<Self> {
        Self::ALL.get(discriminant as usize).copied()
    }

    /// Whether a packet may be dropped for it, or answered in the kernel's place.
    #[inline(always)]
    pub const fn is_excess(self) -> bool {
        matches!(
            self,
            Self::OverLimit
                | Self::TooManyOpen
                | Self::Denied
                | Self::Banned
                | Self::TinyFragment
                | Self::OverlappingFragment
                | Self::HiddenHeader
                | Self::Flood
        )
    }

    /// Whether it is a limit that the source has reached.
    #[inline(always)]
    const fn is_limit(self) -> bool {
        matches!(self, Self::OverLimit | Self::TooManyOpen)
    }
}

/// What happens to a packet, and why.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// How many counters there are for an interface: packets that are observed or reset are counted apart
/// from dropped ones.
pub const SLOTS: u32 = 3 * Reason::ALL.len() as u32;

impl Verdict {
    /// Every verdict there is.
    pub fn all() -> impl Iterator<Item = Self> {
        Reason::ALL.into_iter().flat_map(|reason| {
            let actions: &[Action] = match reason {
                // Whoever is to be watched only is not banned.
                Reason::Banned => &[Action::Drop],
                Reason::Flood => &[Action::Cookie, Action::Observe],
                reason if reason.is_limit() => &[Action::Drop, Action::Observe, Action::Reset],
                reason if reason.is_excess() => &[Action::Drop, Action::Observe],
                _ => &[Action::Pass],
            };
            actions.iter().map(move |&action| Self { action, reason })
        })
    }

    /// Which counter counts it.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        let group = match self.action {
            Action::Pass | Action::Drop | Action::Cookie => 0,
            Action::Observe => 1,
            Action::Reset => 2,
        };
        self.reason as u32 + group * Reason::ALL.len() as u32
    }
}

/// The action of the verdict that a counter counts.
#[inline(always)]
pub const fn action(slot: u32) -> Action {
    const COUNT: u32 = Reason::ALL.len() as u32;
    if slot >= 2 * COUNT {
        return Action::Reset;
    }
    if slot >= COUNT {
        return Action::Observe;
    }
    if slot == Reason::Flood as u32 {
        return Action::Cookie;
    }
    let excess = slot >= Reason::OverLimit as u32 && slot != Reason::Allowed as u32;
    if excess { Action::Drop } else { Action::Pass }
}

/// The discriminant of its reason.
#[inline(always)]
pub const fn reason(slot: u32) -> u32 {
    slot % Reason::ALL.len() as u32
}

/// Decides. Takes from the source's allowance only where the packet opens a connection to the
/// gateway.
#[inline(always)]
pub fn decide(packet: &Fields, tables: &impl Tables) -> Verdict {
    match packet.kind {
        packet::SEGMENT if packet.opens_connection() => match tables.listener(packet.port) {
            Some(listener) => connection(packet, listener, tables),
            None => Verdict::pass(Reason::Other),
        },
        packet::TINY_FRAGMENT_TO_PORT if tables.listener(packet.port).is_none() => {
            Verdict::pass(Reason::Other)
        }
        packet::TINY_FRAGMENT | packet::TINY_FRAGMENT_TO_PORT => {
            hiding(Reason::TinyFragment, tables)
        }
        packet::OVERLAPPING_FRAGMENT => hiding(Reason::OverlappingFragment, tables),
        packet::HIDDEN_HEADER => hiding(Reason::HiddenHeader, tables),
        packet::UNDECODABLE => Verdict::pass(Reason::Undecodable),
        _ => Verdict::pass(Reason::Other),
    }
}

/// Of a packet that hides a TCP header.
#[inline(always)]
fn hiding(reason: Reason, tables: &impl Tables) -> Verdict {
    Verdict::excess(reason, tables.settings().flags & abi::ENFORCE_HIDING != 0)
}

/// What speaks for or against a new connection. The list comes first, so that nothing keeps out who is
/// allowed; limits come before cookies, as they cost less. What is only observed is told where nothing
/// else is enforced, and keeps nothing from being so.
#[inline(always)]
fn connection(packet: &Fields, listener: Listener, tables: &impl Tables) -> Verdict {
    let flags = tables.settings().flags;
    let source = tables.source(packet);
    let class = listener.class();
    let Some(mut limits) = tables.class(class) else {
        // Cannot be: there are as many classes as ports and lists may name.
        return Verdict::pass(Reason::Contended);
    };
    let mut place = tables.place(source, class);
    // Looking elsewhere meanwhile costs hardly more than waiting for it.
    tables.fetch(place, &limits);
    if !listener.is_everywhere() && !tables.is_for_us(packet) {
        return Verdict::pass(Reason::Other);
    }
    let mut observed = None;
    if flags & abi::HAS_LIST != 0 {
        match tables.listed(packet) {
            Some(Treatment::Allow) => return Verdict::pass(Reason::Allowed),
            Some(Treatment::Deny) if flags & abi::ENFORCE_DENY != 0 => {
                return Verdict::excess(Reason::Denied, true);
            }
            Some(Treatment::Deny) => observed = Some(Reason::Denied),
            Some(Treatment::Ban) => return Verdict::excess(Reason::Banned, true),
            Some(Treatment::Class(own)) => match tables.class(own) {
                Some(own_limits) => (limits, place) = (own_limits, tables.place(source, own)),
                // As above.
                None => return Verdict::pass(Reason::Contended),
            },
            None => {}
        }
    }
    if flags & abi::HAS_BANS != 0 && tables.is_banned(source) {
        return Verdict::excess(Reason::Banned, true);
    }
    if limits.connections_max != 0 && tables.open(place) >= limits.connections_max {
        if limits.flags & abi::ENFORCE_CONNECTIONS != 0 {
            return Verdict::refuse(Reason::TooManyOpen, limits.flags);
        }
        observed = observed.or(Some(Reason::TooManyOpen));
    }
    tables.meanwhile(packet);
    let (reason, is_new) = match tables.admit(place, &limits) {
        Admission::Over if limits.flags & abi::ENFORCE_RATE != 0 => {
            return Verdict::refuse(Reason::OverLimit, limits.flags);
        }
        Admission::Over => {
            observed = observed.or(Some(Reason::OverLimit));
            (Reason::OverLimit, false)
        }
        Admission::Within => (Reason::WithinLimit, false),
        Admission::New => (Reason::WithinLimit, true),
        Admission::Contended => (Reason::Contended, false),
    };
    if tables.is_flood(is_new) {
        if flags & abi::ENFORCE_COOKIES != 0 {
            return Verdict { action: Action::Cookie, reason: Reason::Flood };
        }
        observed = observed.or(Some(Reason::Flood));
    }
    match observed {
        Some(reason) => Verdict::excess(reason, false),
        None => Verdict::pass(reason),
    }
}

impl Verdict {
    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self { action: Action::Pass, reason }
    }

    #[inline(always)]
    const fn excess(reason: Reason, enforced: bool) -> Self {
        Self { action: if enforced { Action::Drop } else { Action::Observe }, reason }
    }

    /// Of a limit that is enforced, of a [`Class`] with these `flags`.
    #[inline(always)]
    const fn refuse(reason: Reason, flags: u32) -> Self {
        let action = if flags & abi::RESET != 0 { Action::Reset } else { Action::Drop };
        Self { action, reason }
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
