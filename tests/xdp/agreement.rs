//! The same packets through the host library and through the loaded program: same verdict, same
//! counter, at every length a packet can be cut to.

#![expect(clippy::disallowed_types, reason = "the gateway's own tables are shared by its workers")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use aya::programs::{TestRun, TestRunOptions};
use gateway::admission::lists::live;
use gateway::admission::{self, Counts, Sources, Treatment, unix_now};
use gateway::xdp::{Ban, Program};
use gateway_ebpf::answer::{Answer, answer};
use gateway_ebpf::bucket::{Admission, Limits, WAYS, admit};
use gateway_ebpf::bytes::{Bytes, Frame};
use gateway_ebpf::hash::Place;
use gateway_ebpf::packet::{Address, Fields, decode, fields};
use gateway_ebpf::verdict::{Action, Listener, Reason, Tables, Verdict, decide};
use gateway_ebpf::{abi, flood, hash};

use crate::packets::{self, Case, syn_from_ipv4};
use crate::{LISTENERS, PORT, Setup, load, settings};

/// `BPF_PROG_TEST_RUN` takes no frame below an Ethernet header.
const TEST_RUN_BYTES_MIN: usize = 14;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

#[test]
fn admitting_everything() {
    agree(&settings(u32::MAX, true));
}

#[test]
fn dropping_what_is_over_the_limit() {
    agree(&settings(3, true));
}

#[test]
fn observing_what_is_over_the_limit() {
    agree(&settings(3, false));
}

#[test]
fn resetting_what_is_over_the_limit() {
    let mut resetting = settings(3, true);
    resetting.class().resets = true;
    agree(&resetting);
}

#[test]
fn with_networks_on_lists() {
    let listed = |treatment| {
        settings(3, true).list("192.0.2.0/24", treatment).list("2001:db8::/32", treatment)
    };
    agree(&listed(Treatment::Allow));
    agree(&listed(Treatment::Deny));
    agree(&listed(Treatment::Ban));
    agree(&listed(Treatment::Class(0)));
    let exception = listed(Treatment::Deny).list("192.0.2.1", Treatment::Allow);
    agree(&exception.list("2001:db8::/64", Treatment::Allow));
}

/// All that may speak against a connection, each with and without the others, each enforced or not.
#[test]
fn observing_one_thing_and_enforcing_another() {
    let Some(program) = load(&settings(1, true)) else {
        return;
    };
    let client = IpAddr::from([192, 0, 2, 7]);
    let frame = syn_from_ipv4([192, 0, 2, 7]);
    let counts = Arc::new(program.counts().expect("counts"));
    // One connection, as long as the seat is there.
    let seats = Sources::new(&connections_max(1), &[], Arc::clone(&counts));
    let admission::Verdict::Enter(_seat) = seats.enter(client, 0) else { panic!("not the first") };
    let mut host = Host::new(&settings(1, true));
    for broken in 0_u32..1 << 5 {
        let [denied, banned, full, over, flooded] =
            [0, 1, 2, 3, 4].map(|bit| broken >> bit & 1 != 0);
        let until = if banned { unix_now() + 600 } else { 0 };
        let ban = Ban { until, level: 0, reason: 0, hits: 0, in_kernel: true };
        program.ban(counts.source(client), ban).expect("a ban");
        for enforced in 0_u32..1 << 4 {
            let [deny, connections, rate, cookies] =
                [0, 1, 2, 3].map(|bit| enforced >> bit & 1 != 0);
            let mut setup = settings(if over { 1 } else { 100_000 }, rate);
            setup.class().connections_max = if full { 1 } else { 2 };
            setup.class().enforce_connections = connections;
            setup.sources.enforce_deny = deny;
            setup.sources.enforce_cookies = cookies;
            setup.sources.flood = if flooded { flood::ALWAYS } else { flood::NEVER };
            if denied {
                setup = setup.list("192.0.2.0/24", Treatment::Deny);
            }
            program.configure(&setup.sources, &LISTENERS).expect("configure");
            program.set_list(&live(&setup.sources.list, unix_now())).expect("the list");
            let Host { constants, lines, .. } = host;
            host = Host { constants, lines, banned, open: 1, flooded, ..Host::new(&setup) };
            let mut expected = decide(&fields(&*frame), &host);
            if expected.action == Action::Cookie {
                // Nobody listens here, so the kernel makes none.
                expected = Verdict { action: Action::Pass, reason: Reason::WithinLimit };
            }
            let got = run(&program, abi::PROGRAM, &frame);
            assert_eq!(got, expected, "{broken:05b} is so, {enforced:04b} is enforced");
        }
    }
}

fn connections_max(connections_max: u32) -> admission::Settings {
    let mut setup = settings(1, true);
    setup.class().connections_max = connections_max;
    setup.sources
}

fn agree(settings: &Setup) {
    let cases = packets::all();
    assert!(cases.len() > 60);
    for entry_point in [abi::PROGRAM, abi::PROGRAM_FRAGS] {
        let Some(program) = load(settings) else {
            return;
        };
        let host = Host::new(settings);
        for Case { name, frame } in &cases {
            for length in 0..=frame.len() {
                let packet = decode(&frame[..length]);
                let mut expected = decide(&fields(&frame[..length]), &host);
                if expected.action == Action::Reset && reset(&frame[..length]).is_none() {
                    expected.action = Action::Drop;
                }
                if length >= TEST_RUN_BYTES_MIN {
                    let got = run(&program, entry_point, &frame[..length]);
                    assert_eq!(
                        got,
                        expected,
                        "{entry_point}: {name}, {length} of {} bytes: {packet:?}",
                        frame.len()
                    );
                }
            }
        }
    }
}

/// A frame in ordinary memory.
struct Copy(Vec<u8>);

impl Bytes for Copy {
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.read(at)
    }
}

impl Frame for Copy {
    fn write<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Option<()> {
        let place = self.0.get_mut(at..at + 4 * N)?;
        place.copy_from_slice(words.map(u32::to_ne_bytes).as_flattened());
        Some(())
    }

    fn length(&self) -> usize {
        self.0.len()
    }

    fn resize(&mut self, length: usize) -> bool {
        self.0.resize(length, 0);
        true
    }
}

/// The frame that resets the connection which this one asks for, if that can be.
fn reset(frame: &[u8]) -> Option<Vec<u8>> {
    let mut copy = Copy(frame.to_vec());
    answer(&mut copy, &fields(frame), Answer::Reset).then_some(copy.0)
}

/// What the loaded program does with a frame, by what it returns and the one counter it moves. Its answer
/// is the library's.
fn run(program: &Program, entry_point: &str, frame: &[u8]) -> Verdict {
    let before = program.counters().expect("counters");
    let mut out = vec![0; frame.len() + 64];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::default()
    };
    let returned = program.entry_point(entry_point).expect("entry point").test_run(options);
    let after = program.counters().expect("counters");

    let moved: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b.packets != a.packets).collect();
    let [(one, same)] = moved[..] else {
        panic!("one packet moved {} counters", moved.len());
    };
    assert_eq!(one.packets + 1, same.packets);
    let returned = returned.expect("test run");
    let expected = match one.verdict.action {
        Action::Drop => XDP_DROP,
        Action::Reset | Action::Cookie => XDP_TX,
        Action::Pass | Action::Observe => XDP_PASS,
    };
    assert_eq!(returned.return_value, expected, "{:?}", one.verdict);
    let expected = match one.verdict.action {
        Action::Reset => reset(frame).expect("an answer"),
        _ => frame.to_vec(),
    };
    assert_eq!(out[..returned.data_size_out as usize], expected);
    one.verdict
}

/// The program's maps in ordinary memory. Its table is keyed differently, which must not matter.
struct Host {
    constants: abi::Constants,
    sources: Sources,
    class: abi::Class,
    settings: abi::Settings,
    banned: bool,
    open: u32,
    flooded: bool,
    lines: RefCell<HashMap<u32, [AtomicU64; WAYS]>>,
}

impl Host {
    fn new(setup: &Setup) -> Self {
        let Setup { sources, .. } = setup;
        let class = &sources.classes[0];
        let constants = admission::constants(sources, 0).expect("constants");
        let counts = Arc::new(Counts::new(sources, 0).expect("counts"));
        let flag = |flag, is_on| if is_on { flag } else { 0 };
        let flags = flag(abi::HAS_LIST, !sources.list.is_empty())
            | flag(abi::HAS_BANS, true)
            | flag(abi::ENFORCE_HIDING, class.enforce_rate || sources.enforce_deny)
            | flag(abi::ENFORCE_DENY, sources.enforce_deny)
            | flag(abi::ENFORCE_COOKIES, sources.enforce_cookies);
        let class_flag = |flag, is_on| if is_on { flag } else { 0 };
        Self {
            constants,
            sources: Sources::new(sources, &live(&sources.list, unix_now()), counts),
            class: abi::Class {
                limits: Limits::new((1e9 / class.connection_rate) as u64, class.connection_burst),
                connections_max: class.connections_max,
                flags: class_flag(abi::ENFORCE_RATE, class.enforce_rate)
                    | class_flag(abi::ENFORCE_CONNECTIONS, class.enforce_connections)
                    | class_flag(abi::RESET, class.resets),
                first_line: 0,
                line_mask: (1 << 14) - 1,
            },
            settings: abi::Settings { flags, ..abi::Settings::default() },
            banned: false,
            open: 0,
            flooded: false,
            lines: RefCell::default(),
        }
    }
}

fn ip(address: Address) -> IpAddr {
    match address {
        Address::V4(octets) => octets.into(),
        Address::V6(octets) => octets.into(),
    }
}

impl Tables for Host {
    fn listener(&self, port: u16) -> Option<Listener> {
        (port == PORT).then_some(Listener::new(0, true))
    }

    fn is_for_us(&self, _: &Fields) -> bool {
        true
    }

    fn listed(&self, packet: &Fields) -> Option<Treatment> {
        self.sources.listed(ip(packet.source()))
    }

    fn source(&self, packet: &Fields) -> [u64; 2] {
        hash::source(packet.source(), &self.constants)
    }

    fn place(&self, source: [u64; 2], class: u8) -> Place {
        hash::place(source, class, &self.constants)
    }

    fn is_banned(&self, _: [u64; 2]) -> bool {
        self.banned
    }

    fn class(&self, class: u8) -> Option<abi::Class> {
        (class == 0).then_some(self.class)
    }

    fn open(&self, _: Place) -> u32 {
        self.open
    }

    fn admit(&self, place: Place, class: &abi::Class) -> Admission {
        const NOW: u64 = 1_000_000;
        let mut lines = self.lines.borrow_mut();
        let line = lines.entry(place.line(class)).or_default();
        admit(line, place.tag(), NOW, class.limits)
    }

    fn is_flood(&self, _: bool) -> bool {
        self.flooded
    }

    fn settings(&self) -> abi::Settings {
        self.settings
    }
}
