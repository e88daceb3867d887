//! The same packets through the host library and through the loaded program: same verdict, same
//! counter, at every length a packet can be cut to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use aya::programs::{TestRun, TestRunOptions};
use gateway::xdp::{Program, Settings};
use gateway_ebpf::bucket::{Admission, Limits, WAYS, admit};
use gateway_ebpf::packet::{Address, decode};
use gateway_ebpf::verdict::{Action, Tables, Verdict, decide};
use gateway_ebpf::{abi, hash};

use crate::packets::{self, Case};
use crate::{PORT, load, settings};

/// `BPF_PROG_TEST_RUN` takes no frame below an Ethernet header.
const TEST_RUN_BYTES_MIN: usize = 14;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

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

fn agree(settings: &Settings) {
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
                let expected = decide(packet, &host);
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

/// What the loaded program does with a frame, by what it returns and the one counter it moves.
fn run(program: &Program, entry_point: &str, frame: &[u8]) -> Verdict {
    let before = program.counters().expect("counters");
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
    let returned = program.entry_point(entry_point).expect("entry point").test_run(options);
    let after = program.counters().expect("counters");

    let moved: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b.packets != a.packets).collect();
    let [(one, same)] = moved[..] else {
        panic!("one packet moved {} counters", moved.len());
    };
    assert_eq!(one.packets + 1, same.packets);
    let expected = if one.verdict.action == Action::Drop { XDP_DROP } else { XDP_PASS };
    assert_eq!(returned.expect("test run").return_value, expected, "{:?}", one.verdict);
    one.verdict
}

/// The program's maps in ordinary memory. Its table is keyed differently, which must not matter.
struct Host {
    constants: abi::Constants,
    limits: Limits,
    enforce: bool,
    lines: RefCell<HashMap<u32, [AtomicU64; WAYS]>>,
}

impl Host {
    fn new(settings: &Settings) -> Self {
        Self {
            constants: abi::Constants {
                hash_key: [7, 11],
                ipv4_mask: hash::prefix_mask(96 + u32::from(settings.ipv4_prefix)),
                ipv6_mask: hash::prefix_mask(u32::from(settings.ipv6_prefix)),
                line_mask: (1 << 14) - 1,
            },
            limits: Limits::new((1e9 / settings.connection_rate) as u64, settings.connection_burst),
            enforce: settings.enforce,
            lines: RefCell::default(),
        }
    }
}

impl Tables for Host {
    fn serves(&self, port: u16) -> bool {
        port == PORT
    }

    fn admit(&self, source: Address) -> Admission {
        const NOW: u64 = 1_000_000;
        let place = hash::place(source, &self.constants);
        let mut lines = self.lines.borrow_mut();
        admit(lines.entry(place.line).or_default(), place.tag, NOW, self.limits)
    }

    fn enforces(&self) -> bool {
        self.enforce
    }
}
