//! What happens to a packet, and why. We limit new connections and are no firewall: whatever cannot
//! be decoded passes, except fragments that were made to get past the limit.

use crate::bucket::Admission;
use crate::packet::{Address, Packet};

/// What a verdict depends on besides the packet: maps in the kernel, plain values in tests.
pub trait Tables {
    /// Whether the gateway listens on this TCP port.
    fn serves(&self, port: u16) -> bool;
    /// Takes one connection from the source's allowance.
    fn admit(&self, source: Address) -> Admission;
    /// Whether to drop, or only to count what would be dropped.
    fn enforces(&self) -> bool;
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
    /// A first fragment too short for a TCP header.
    TinyFragment,
    /// A fragment that begins inside a TCP header.
    OverlappingFragment,
}

impl Reason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 7] = [
        Self::Other,
        Self::Undecodable,
        Self::WithinLimit,
        Self::Contended,
        Self::OverLimit,
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
            Self::TinyFragment => "tiny_fragment",
            Self::OverlappingFragment => "overlapping_fragment",
        }
    }

    /// Whether a packet may be dropped for it.
    #[inline(always)]
    pub const fn is_excess(self) -> bool {
        matches!(self, Self::OverLimit | Self::TinyFragment | Self::OverlappingFragment)
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
            let actions: &[Action] =
                if reason.is_excess() { &[Action::Drop, Action::Observe] } else { &[Action::Pass] };
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
pub fn decide(packet: Packet, tables: &impl Tables) -> Verdict {
    let reason = reason(packet, tables);
    let action = if !reason.is_excess() {
        Action::Pass
    } else if tables.enforces() {
        Action::Drop
    } else {
        Action::Observe
    };
    Verdict { action, reason }
}

#[inline(always)]
fn reason(packet: Packet, tables: &impl Tables) -> Reason {
    match packet {
        Packet::Segment(segment) if segment.opens_connection() && tables.serves(segment.port) => {
            match tables.admit(segment.source) {
                Admission::Within => Reason::WithinLimit,
                Admission::Contended => Reason::Contended,
                Admission::Over => Reason::OverLimit,
            }
        }
        Packet::TinyFragment { port: Some(port), .. } if !tables.serves(port) => Reason::Other,
        Packet::TinyFragment { .. } => Reason::TinyFragment,
        Packet::OverlappingFragment { .. } => Reason::OverlappingFragment,
        Packet::Segment(_) | Packet::Other => Reason::Other,
        Packet::Undecodable => Reason::Undecodable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Segment;

    struct Fixed {
        admission: Option<Admission>,
        enforces: bool,
    }

    impl Tables for Fixed {
        fn serves(&self, port: u16) -> bool {
            port == 443
        }
        fn admit(&self, _: Address) -> Admission {
            self.admission.expect("nothing may be taken from the allowance")
        }
        fn enforces(&self) -> bool {
            self.enforces
        }
    }

    const SOURCE: Address = Address::V4([192, 0, 2, 1]);
    const SYN: u8 = 0x02;

    fn segment(port: u16, flags: u8) -> Packet {
        Packet::Segment(Segment { source: SOURCE, port, flags })
    }

    /// `(action when enforcing, action when observing, reason)`
    fn both(packet: Packet, admission: Option<Admission>) -> (Action, Action, Reason) {
        let enforced = decide(packet, &Fixed { admission, enforces: true });
        let observed = decide(packet, &Fixed { admission, enforces: false });
        assert_eq!(enforced.reason, observed.reason);
        (enforced.action, observed.action, enforced.reason)
    }

    #[test]
    fn a_connection_is_dropped_only_above_its_limit() {
        use Action::{Drop, Observe, Pass};
        let syn = segment(443, SYN);
        let with = |admission| both(syn, Some(admission));
        assert_eq!(with(Admission::Within), (Pass, Pass, Reason::WithinLimit));
        assert_eq!(with(Admission::Contended), (Pass, Pass, Reason::Contended));
        assert_eq!(with(Admission::Over), (Drop, Observe, Reason::OverLimit));
    }

    #[test]
    fn what_opens_no_connection_of_ours_costs_no_allowance() {
        for packet in [
            segment(22, SYN),
            segment(443, SYN | 0x10),
            segment(443, 0x10),
            segment(443, 0x04),
            segment(443, 0),
            Packet::Other,
        ] {
            assert_eq!(both(packet, None), (Action::Pass, Action::Pass, Reason::Other));
        }
    }

    #[test]
    fn what_cannot_be_decoded_passes() {
        let expected = (Action::Pass, Action::Pass, Reason::Undecodable);
        assert_eq!(both(Packet::Undecodable, None), expected);
    }

    #[test]
    fn tiny_fragments_are_dropped_unless_known_to_be_for_someone_else() {
        let tiny = |port| both(Packet::TinyFragment { source: SOURCE, port }, None);
        assert_eq!(tiny(Some(443)), (Action::Drop, Action::Observe, Reason::TinyFragment));
        assert_eq!(tiny(None), (Action::Drop, Action::Observe, Reason::TinyFragment));
        assert_eq!(tiny(Some(22)), (Action::Pass, Action::Pass, Reason::Other));
    }

    #[test]
    fn overlapping_fragments_are_dropped() {
        let packet = Packet::OverlappingFragment { source: SOURCE };
        let expected = (Action::Drop, Action::Observe, Reason::OverlappingFragment);
        assert_eq!(both(packet, None), expected);
    }

    #[test]
    fn every_verdict_has_a_counter_of_its_own() {
        let mut slots: Vec<u32> = Verdict::all().map(Verdict::slot).collect();
        assert_eq!(slots.len(), 4 + 2 * 3);
        assert!(slots.iter().all(|slot| *slot < SLOTS));
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 10);
        for (position, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
    }
}
