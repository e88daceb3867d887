//! What happens to a packet, and why. We limit new connections and are no firewall: whatever cannot
//! be decoded passes, except fragments that were made to get past the limits.

use crate::abi::{self, Class, Settings};
use crate::bucket::{Admission, Limits};
use crate::hash::Place;
use crate::packet::{self, Address, Fields};

/// What a verdict depends on besides the packet: maps in the kernel, plain values in tests.
pub trait Tables {
    /// The class of the listener at this TCP port, if the gateway has one there.
    fn class_of_port(&self, port: u16) -> Option<u8>;
    /// What the list says of a source, by the longest of the networks it is in.
    fn listed(&self, source: Address) -> Option<Treatment>;
    /// Who the address counts as, see [`crate::hash::source`].
    fn source(&self, address: Address) -> [u64; 2];
    /// Where a source's state lies for a class.
    fn place(&self, source: [u64; 2], class: u8) -> Place;
    /// Whether the source is banned now.
    fn is_banned(&self, source: [u64; 2]) -> bool;
    /// The limits of a class.
    fn class(&self, class: u8) -> Option<Class>;
    /// How many connections the source at this place has open.
    fn open(&self, place: Place) -> u32;
    /// Takes one connection from the allowance of the source at this place.
    fn admit(&self, place: Place, limits: Limits) -> Admission;
    /// What may change while the program runs.
    fn settings(&self) -> Settings;
}

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
}

impl Action {
    /// The value of the label `verdict`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Observe => "observe",
            Self::Drop => "drop",
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
    /// A new connection let through because other CPUs kept changing its source's state.
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
}

impl Reason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 11] = [
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
        }
    }

    /// Whether a packet may be dropped for it.
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
        )
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

/// How many counters there are: observed packets are counted apart from dropped ones.
pub const SLOTS: u32 = 2 * Reason::ALL.len() as u32;

impl Verdict {
    /// Every verdict there is.
    pub fn all() -> impl Iterator<Item = Self> {
        Reason::ALL.into_iter().flat_map(|reason| {
            let actions: &[Action] = match reason {
                // Whoever is to be watched only is not banned.
                Reason::Banned => &[Action::Drop],
                reason if reason.is_excess() => &[Action::Drop, Action::Observe],
                _ => &[Action::Pass],
            };
            actions.iter().map(move |&action| Self { action, reason })
        })
    }

    /// Which counter counts it.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        let observed = matches!(self.action, Action::Observe) as u32;
        self.reason as u32 + observed * Reason::ALL.len() as u32
    }
}

/// Decides. Takes from the source's allowance only where the packet opens a connection to the
/// gateway.
#[inline(always)]
pub fn decide(packet: &Fields, tables: &impl Tables) -> Verdict {
    let (reason, enforced) = match packet.kind {
        packet::SEGMENT if packet.opens_connection() => match tables.class_of_port(packet.port) {
            Some(class) => connection(packet.source(), class, tables),
            None => (Reason::Other, false),
        },
        packet::TINY_FRAGMENT_TO_PORT if tables.class_of_port(packet.port).is_none() => {
            (Reason::Other, false)
        }
        packet::TINY_FRAGMENT | packet::TINY_FRAGMENT_TO_PORT => {
            (Reason::TinyFragment, tables.settings().flags & abi::ENFORCE_FRAGMENTS != 0)
        }
        packet::OVERLAPPING_FRAGMENT => {
            (Reason::OverlappingFragment, tables.settings().flags & abi::ENFORCE_FRAGMENTS != 0)
        }
        packet::UNDECODABLE => (Reason::Undecodable, false),
        _ => (Reason::Other, false),
    };
    let action = if !reason.is_excess() {
        Action::Pass
    } else if enforced {
        Action::Drop
    } else {
        Action::Observe
    };
    Verdict { action, reason }
}

/// What speaks for or against a new connection, and whether that is enforced. The list comes first,
/// so that nothing keeps out who is allowed.
#[inline(always)]
fn connection(address: Address, class: u8, tables: &impl Tables) -> (Reason, bool) {
    let flags = tables.settings().flags;
    let mut class = class;
    if flags & abi::HAS_LIST != 0 {
        match tables.listed(address) {
            Some(Treatment::Allow) => return (Reason::Allowed, false),
            Some(Treatment::Deny) => return (Reason::Denied, flags & abi::ENFORCE_DENY != 0),
            Some(Treatment::Ban) => return (Reason::Banned, true),
            Some(Treatment::Class(own)) => class = own,
            None => {}
        }
    }
    let source = tables.source(address);
    if flags & abi::HAS_BANS != 0 && tables.is_banned(source) {
        return (Reason::Banned, true);
    }
    let Some(limits) = tables.class(class) else {
        // Cannot be: there are as many classes as ports and lists may name.
        return (Reason::Contended, false);
    };
    let place = tables.place(source, class);
    if limits.connections_max != 0 && tables.open(place) >= limits.connections_max {
        return (Reason::TooManyOpen, limits.flags & abi::ENFORCE_CONNECTIONS != 0);
    }
    match tables.admit(place, limits.limits) {
        Admission::Within => (Reason::WithinLimit, false),
        Admission::Contended => (Reason::Contended, false),
        Admission::Over => (Reason::OverLimit, limits.flags & abi::ENFORCE_RATE != 0),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
