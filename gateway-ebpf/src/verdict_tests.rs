use super::*;
use crate::abi::Constants;
use crate::bucket::Limits;
use crate::packet::{Address, Packet, Segment};

/// Says the same of every source.
#[derive(Clone, Copy)]
struct Fixed {
    is_everywhere: bool,
    is_for_us: bool,
    listed: Option<Treatment>,
    banned: bool,
    open: u32,
    connections_max: u32,
    admission: Option<Admission>,
    flood: bool,
    settings: u64,
    class: u32,
}

/// Nobody is listed or banned, nothing may be taken from the allowance, nothing is enforced.
const FIXED: Fixed = Fixed {
    is_everywhere: true,
    is_for_us: false,
    listed: None,
    banned: false,
    open: 0,
    connections_max: 0,
    admission: None,
    flood: false,
    settings: abi::HAS_LIST | abi::HAS_BANS,
    class: 0,
};

const ENFORCE_ALL: u64 = abi::ENFORCE_DENY | abi::ENFORCE_HIDING | abi::HAS_LIST | abi::HAS_BANS;

impl Tables for Fixed {
    fn listener(&self, port: u16) -> Option<Listener> {
        (port == 443).then_some(Listener::new(3, self.is_everywhere))
    }
    fn is_for_us(&self, _: &Fields) -> bool {
        self.is_for_us
    }
    fn listed(&self, _: &Fields) -> Option<Treatment> {
        self.listed
    }
    fn source(&self, packet: &Fields) -> [u64; 2] {
        packet.source_words()
    }
    fn place(&self, source: [u64; 2], class: u8) -> Place {
        let mask = [u64::MAX; 2];
        let constants = Constants {
            hash_key: [0; 2],
            ipv4_mask: mask,
            ipv6_mask: mask,
            open_mask: 0,
            interfaces: 1,
            jiffy_ns: 1,
            raw_cookies: 0,
        };
        crate::hash::place(source, class, &constants)
    }
    fn is_banned(&self, _: [u64; 2]) -> bool {
        self.banned
    }
    fn class(&self, class: u8) -> Option<Class> {
        Some(Class {
            limits: Limits { interval: 1, tolerance: 0 },
            connections_max: self.connections_max,
            flags: self.class,
            first_line: class.into(),
            line_mask: 0,
        })
    }
    fn open(&self, _: Place) -> u32 {
        self.open
    }
    fn admit(&self, _: Place, class: &Class) -> Admission {
        let expected = match self.listed {
            Some(Treatment::Class(class)) => class,
            _ => 3,
        };
        assert_eq!(class.first_line, expected.into());
        self.admission.expect("nothing may be taken from the allowance")
    }
    fn is_flood(&self, _: bool) -> bool {
        self.flood
    }
    fn settings(&self) -> Settings {
        Settings { flags: self.settings, ..Settings::default() }
    }
}

const SOURCE: Address = Address::V4([192, 0, 2, 1]);
const SYN: u8 = 0x02;

fn segment(port: u16, flags: u8) -> Packet {
    Packet::Segment(Segment { source: SOURCE, port, flags })
}

/// `(action when enforcing, action when observing, reason)`
fn both(packet: Packet, tables: Fixed) -> (Action, Action, Reason) {
    let all = abi::ENFORCE_RATE | abi::ENFORCE_CONNECTIONS;
    let enforced = decide(&packet.into(), &Fixed { settings: ENFORCE_ALL, class: all, ..tables });
    let observed = decide(&packet.into(), &tables);
    assert_eq!(enforced.reason, observed.reason);
    (enforced.action, observed.action, enforced.reason)
}

#[test]
fn a_connection_is_dropped_only_above_its_limit() {
    use Action::{Drop, Observe, Pass};
    let with = |admission| both(segment(443, SYN), Fixed { admission: Some(admission), ..FIXED });
    assert_eq!(with(Admission::Within), (Pass, Pass, Reason::WithinLimit));
    assert_eq!(with(Admission::Contended), (Pass, Pass, Reason::Contended));
    assert_eq!(with(Admission::Over), (Drop, Observe, Reason::OverLimit));
}

#[test]
fn who_has_as_many_open_as_it_may_takes_nothing_from_its_allowance() {
    let full = Fixed { open: 5, connections_max: 5, ..FIXED };
    let enforced = Fixed { class: abi::ENFORCE_CONNECTIONS, ..full };
    let verdict = decide(&segment(443, SYN).into(), &enforced);
    assert_eq!((verdict.action, verdict.reason), (Action::Drop, Reason::TooManyOpen));
    let room = Fixed { open: 4, admission: Some(Admission::Within), ..full };
    assert_eq!(both(segment(443, SYN), room).2, Reason::WithinLimit);
    let no_limit = Fixed { connections_max: 0, admission: Some(Admission::Within), ..full };
    assert_eq!(both(segment(443, SYN), no_limit).2, Reason::WithinLimit);
}

#[test]
fn who_is_allowed_is_asked_nothing_else() {
    let allowed = Fixed {
        listed: Some(Treatment::Allow),
        banned: true,
        open: 9,
        connections_max: 1,
        ..FIXED
    };
    let expected = (Action::Pass, Action::Pass, Reason::Allowed);
    assert_eq!(both(segment(443, SYN), allowed), expected);
}

#[test]
fn deny_lists_can_be_observed_and_bans_not() {
    use Action::{Drop, Observe};
    let within = Some(Admission::Within);
    let denied = Fixed { listed: Some(Treatment::Deny), admission: within, ..FIXED };
    assert_eq!(both(segment(443, SYN), denied), (Drop, Observe, Reason::Denied));
    let banned = Fixed { banned: true, ..FIXED };
    assert_eq!(both(segment(443, SYN), banned), (Drop, Drop, Reason::Banned));
    let network = Fixed { listed: Some(Treatment::Ban), ..FIXED };
    assert_eq!(both(segment(443, SYN), network), (Drop, Drop, Reason::Banned));
}

/// What may speak against a connection, in the order in which it is asked, with what enforces it.
const RULES: [(Reason, u64, u32); 5] = [
    (Reason::Denied, abi::ENFORCE_DENY, 0),
    (Reason::Banned, 0, 0),
    (Reason::TooManyOpen, 0, abi::ENFORCE_CONNECTIONS),
    (Reason::OverLimit, 0, abi::ENFORCE_RATE),
    (Reason::Flood, abi::ENFORCE_COOKIES, 0),
];

#[test]
fn what_is_only_observed_keeps_nothing_from_being_enforced() {
    for broken in 0_u32..1 << RULES.len() {
        let is_broken = |reason| {
            let rule = RULES.iter().position(|rule| rule.0 == reason).unwrap();
            broken & 1 << rule != 0
        };
        let over = if is_broken(Reason::OverLimit) { Admission::Over } else { Admission::Within };
        let tables = Fixed {
            listed: is_broken(Reason::Denied).then_some(Treatment::Deny),
            banned: is_broken(Reason::Banned),
            open: is_broken(Reason::TooManyOpen).into(),
            connections_max: 1,
            admission: Some(over),
            flood: is_broken(Reason::Flood),
            ..FIXED
        };
        for enforced in 0_u32..1 << RULES.len() {
            // Bans are not observed.
            let is_enforced = |rule: usize| enforced & 1 << rule != 0 || rule == 1;
            let flags = |flags: (u64, u32), rule: usize| match is_enforced(rule) {
                true => (flags.0 | RULES[rule].1, flags.1 | RULES[rule].2),
                false => flags,
            };
            let (settings, class) = (0..RULES.len()).fold((FIXED.settings, 0), flags);
            let verdict = decide(&segment(443, SYN).into(), &Fixed { settings, class, ..tables });

            let mut broken = (0..RULES.len()).filter(|rule| is_broken(RULES[*rule].0));
            let first = broken.clone().next();
            let expected = match (broken.find(|rule| is_enforced(*rule)), first) {
                (Some(4), _) => (Action::Cookie, Reason::Flood),
                (Some(rule), _) => (Action::Drop, RULES[rule].0),
                (None, Some(rule)) => (Action::Observe, RULES[rule].0),
                (None, None) => (Action::Pass, Reason::WithinLimit),
            };
            assert_eq!((verdict.action, verdict.reason), expected, "of {enforced:05b}");
        }
    }
}

#[test]
fn a_network_of_a_class_is_held_to_that_and_not_to_the_ports() {
    let other = Fixed {
        listed: Some(Treatment::Class(7)),
        admission: Some(Admission::Over),
        class: abi::ENFORCE_RATE,
        ..FIXED
    };
    assert_eq!(decide(&segment(443, SYN).into(), &other).action, Action::Drop);
}

#[test]
fn nothing_is_asked_of_an_empty_list_and_no_bans() {
    let within = Fixed { banned: true, admission: Some(Admission::Within), ..FIXED };
    assert_eq!(decide(&segment(443, SYN).into(), &within).reason, Reason::Banned);
    let no_bans = Fixed { settings: abi::HAS_LIST, ..within };
    assert_eq!(decide(&segment(443, SYN).into(), &no_bans).reason, Reason::WithinLimit);
    let no_list = Fixed { listed: Some(Treatment::Class(3)), settings: 0, ..within };
    assert_eq!(decide(&segment(443, SYN).into(), &no_list).reason, Reason::WithinLimit);
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
        assert_eq!(both(packet, FIXED), (Action::Pass, Action::Pass, Reason::Other));
    }
    let undecodable = (Action::Pass, Action::Pass, Reason::Undecodable);
    assert_eq!(both(Packet::Undecodable, FIXED), undecodable);
}

#[test]
fn what_hides_a_header_is_dropped() {
    let tiny = |port| Packet::TinyFragment { source: SOURCE, port };
    let dropped = |reason| (Action::Drop, Action::Observe, reason);
    assert_eq!(both(tiny(Some(443)), FIXED), dropped(Reason::TinyFragment));
    assert_eq!(both(tiny(None), FIXED), dropped(Reason::TinyFragment));
    let overlapping = Packet::OverlappingFragment { source: SOURCE };
    assert_eq!(both(overlapping, FIXED), dropped(Reason::OverlappingFragment));
    let hidden = Packet::HiddenHeader { source: SOURCE };
    assert_eq!(both(hidden, FIXED), dropped(Reason::HiddenHeader));
    let passed = (Action::Pass, Action::Pass, Reason::Other);
    assert_eq!(both(tiny(Some(22)), FIXED), passed);
}

#[test]
fn a_connection_to_another_address_is_not_ours() {
    let over = Fixed { is_everywhere: false, admission: Some(Admission::Over), ..FIXED };
    let passed = (Action::Pass, Action::Pass, Reason::Other);
    assert_eq!(both(segment(443, SYN), over), passed);
    let ours = both(segment(443, SYN), Fixed { is_for_us: true, ..over });
    assert_eq!(ours, (Action::Drop, Action::Observe, Reason::OverLimit));
}

#[test]
fn a_counter_tells_its_verdict() {
    for verdict in Verdict::all() {
        let slot = verdict.slot();
        assert_eq!((action(slot), reason(slot)), (verdict.action, verdict.reason as u32));
        assert_eq!(verdict.reason.is_excess(), verdict.action != Action::Pass);
    }
}

#[test]
fn every_listener_has_a_code_of_its_own() {
    assert_eq!(Listener::of_code(0), None);
    for class in 0..abi::CLASSES_MAX as u8 {
        for is_everywhere in [true, false] {
            let listener = Listener::of_code(Listener::new(class, is_everywhere).code()).unwrap();
            assert_eq!((listener.class(), listener.is_everywhere()), (class, is_everywhere));
        }
    }
}

#[test]
fn every_treatment_has_a_code_of_its_own() {
    let classes = (0..abi::CLASSES_MAX as u8).map(Treatment::Class);
    for treatment in [Treatment::Allow, Treatment::Deny, Treatment::Ban].into_iter().chain(classes)
    {
        assert_eq!(Treatment::of_code(treatment.code()), treatment);
    }
}

#[test]
fn every_verdict_has_a_counter_of_its_own() {
    let mut slots: Vec<u32> = Verdict::all().map(Verdict::slot).collect();
    assert!(slots.iter().all(|slot| *slot < SLOTS));
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), Verdict::all().count());
    for (position, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, position);
    }
}
