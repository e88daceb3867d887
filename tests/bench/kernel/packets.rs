//! Nanoseconds for each packet (`BPF_PROG_TEST_RUN`), without a network.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use aya::programs::Xdp;
use gateway::admission::lists::live;
use gateway::admission::{self, Class, Entry, Treatment, unix_now};
use gateway::xdp::{self, Ban, Mode, Program};
use gateway_ebpf::abi;

use crate::PORT;
use crate::bpf::{Programs, Sources, Way, time};
use crate::frames::{ACK, IPV4, SYN, TCP, UDP, ethernet, ipv4, tcp};
use crate::spread::Spread;

/// Runs for each figure.
const RUNS: u32 = 300_000;

/// How many sources there are: so many bits of their address differ.
const SOURCES: [(&str, u32); 4] =
    [("1 source", 0), ("1,024", 0x3ff), ("131,072", 0x1_ffff), ("all differ", 0x1fff_ffff)];

/// An interface of its own, for the other program.
const FILTERED: &str = "bench-filter";

const NOBODY: Way = Way { from: [2; 6], to: [2; 6], interface: 0 };

pub fn measure(rounds: usize) -> String {
    let mut own = Programs::load();
    let before = maps_bytes();
    let first = load(1, &[], 0, 0);
    let megabytes = (maps_bytes() - before) as f64 / 1e6;
    let programs = [
        ("within the limit, no lists", load(u32::MAX, &[], 0, 0)),
        ("over the limit, no lists", first),
        ("with 10 networks", load(1, &[], 10, 0)),
        ("with 10,000 networks and as many bans", load(1, &[], 10_000, 10_000)),
        ("with 100,000 networks and 60,000 bans", load(1, &[], 100_000, 60_000)),
    ];
    let mut text = "\n### Packets\n\nNanoseconds for each SYN beyond what a program takes that passes everything, by \
                    the number of sources. The limit is one connection of each, so that all but the first are over it, \
                    save where they are within it.\n\n\
                    | |"
        .to_owned();
    text.extend(SOURCES.map(|(name, _)| format!(" {name} |")));
    text += "\n|---|---|---|---|---|\n";
    let mut figures = vec![vec![Vec::new(); SOURCES.len()]; programs.len() + 1];
    for _ in 0..rounds {
        for (column, (_, mask)) in SOURCES.iter().enumerate() {
            own.set_plan(Sources { base: 0x2000_0000, mask: *mask }, NOBODY, [10, 77, 0, 1], 0);
            let frame = syn([32, 0, 0, 0]);
            own.set_next_own("pass");
            let nothing = time(own.program("varied"), &frame, RUNS);
            own.set_next_own("parse");
            figures[0][column].push(time(own.program("varied"), &frame, RUNS) - nothing);
            for (row, (_, program)) in programs.iter().enumerate() {
                own.set_next(program.entry_point(abi::PROGRAM).expect("the plain one"));
                // Until each source has been seen.
                time(own.program("varied"), &frame, RUNS);
                figures[row + 1][column].push(time(own.program("varied"), &frame, RUNS) - nothing);
            }
        }
    }
    let names = std::iter::once("only parsed").chain(programs.iter().map(|(name, _)| *name));
    for (name, row) in names.zip(&figures) {
        let _ = write!(text, "| {name} |");
        text.extend(row.iter().map(|figures| format!(" {} |", Spread::of(figures).show(0))));
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "\nIts maps take {megabytes:.1} MB of memory, with a table for 900,000 sources."
    );
    text + &one_packet(&own, rounds)
}

/// The same packet again and again.
fn one_packet(own: &Programs, rounds: usize) -> String {
    let deny = |others| load(1, &["192.0.2.1"], others, 0);
    let (few, many, most) = (deny(9), deny(9_999), deny(99_999));
    let banned = load(1, &[], 0, 10_000);
    let counts = banned.counts().expect("counts");
    let ban = Ban { until: unix_now() + 3_600, level: 0, reason: 0, hits: 0, in_kernel: true };
    banned.ban(counts.source([192, 0, 2, 1].into()), ban).expect("a ban");
    let filter = Filter::load();
    let (ours, acks, udp) = (syn([192, 0, 2, 1]), segment(PORT, ACK), datagram());
    let other = segment(PORT + 1, SYN);
    let plain = |program| Program::entry_point(program, abi::PROGRAM).expect("the plain one");
    let mut rows: Vec<(&str, &Xdp, &[u8])> = vec![
        ("dropped by a program that does nothing else", own.program("drop_all"), &ours),
        ("only parsed", own.program("parse"), &ours),
        ("UDP", plain(&few), &udp),
        ("a SYN to another port", plain(&few), &other),
        ("what belongs to a connection", plain(&few), &acks),
        ("denied, 10 networks", plain(&few), &ours),
        ("denied, 10,000 networks", plain(&many), &ours),
        ("denied, 100,000 networks", plain(&most), &ours),
        ("banned, 10,000 bans", plain(&banned), &ours),
    ];
    if let Some(filter) = &filter {
        rows.push(("xdp-filter 1.3, one address denied", &filter.program, &ours));
    }
    let mut figures = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        let nothing = time(own.program("pass"), &ours, RUNS);
        for ((_, program, frame), figures) in rows.iter().zip(&mut figures) {
            figures.push(time(program, frame, RUNS) - nothing);
        }
    }
    let mut text =
        "\nThe same packet again and again, in the same unit.\n\n| | ns |\n|---|---|\n".to_owned();
    for ((name, ..), figures) in rows.iter().zip(&figures) {
        let _ = writeln!(text, "| {name} | {} |", Spread::of(figures).show(0));
    }
    text
}

/// So many connections of each source, then none while this runs; of `u32::MAX` there is no end.
fn load(burst: u32, denied: &[&str], networks: u32, bans: u32) -> Program {
    let class = Class {
        connection_rate: if burst == u32::MAX { 60_000.0 } else { 1e-3 },
        connection_burst: burst,
        connections_max: 0,
        enforce_rate: true,
        ..Class::default()
    };
    let deny =
        |network: String| Entry::parse(&network, Treatment::Deny, "the bench").expect("an entry");
    // None of those that are sent.
    let others = (0..networks).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        deny(format!("{}.{b}.{c}.0/24", 100 + a))
    });
    let list = denied.iter().map(|network| deny((*network).to_owned())).chain(others).collect();
    let sources = admission::Settings {
        classes: vec![class],
        enforce_deny: true,
        list,
        ..admission::Settings::default()
    };
    let settings = xdp::Settings {
        interfaces: Vec::new(),
        mode: Mode::Native,
        required: true,
        table_bytes: 8 << 20,
        keep: None,
        log_rate: 0,
        object: None,
    };
    let program =
        Program::load(&settings, &sources, &[(([0; 4], PORT).into(), 0)], 65_536).expect("load");
    program.set_list(&live(&sources.list, unix_now())).expect("the list");
    let counts = program.counts().expect("counts");
    let ban = Ban { until: unix_now() + 3_600, level: 0, reason: 0, hits: 0, in_kernel: true };
    for number in 0..bans {
        let [a, b, c, d] = number.to_be_bytes();
        program.ban(counts.source([90 + a, b, c, d].into()), ban).expect("a ban");
    }
    program
}

/// What all maps that this process holds take of the kernel's memory.
fn maps_bytes() -> u64 {
    let descriptors = fs::read_dir("/proc/self/fdinfo").expect("/proc");
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let bytes = |info: String| {
        let is_map = info.contains("map_id:");
        let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
        if is_map { line.trim().parse::<u64>().ok() } else { None }
    };
    infos.filter_map(bytes).sum()
}

fn syn(source: [u8; 4]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(source, 0, 0, TCP, &tcp(PORT, SYN)))
}

fn segment(port: u16, flags: u8) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4([192, 0, 2, 1], 0, 0, TCP, &tcp(port, flags)))
}

fn datagram() -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4([192, 0, 2, 1], 0, 0, UDP, &[0; 20]))
}

/// Debian's xdp-filter, loaded for an interface that nothing uses.
struct Filter {
    program: Xdp,
}

impl Filter {
    /// `None` where it is not installed.
    fn load() -> Option<Self> {
        Command::new("xdp-filter").arg("--version").output().ok()?;
        run("ip", &["link", "add", FILTERED, "type", "veth", "peer", "name", "bench-peer"]);
        run("xdp-filter", &["load", FILTERED, "--mode", "skb", "--features", "tcp,ipv4"]);
        run("xdp-filter", &["ip", "192.0.2.1", "--mode", "src"]);
        let folder = Path::new("/sys/fs/bpf/xdp-filter/programs").join(FILTERED);
        let pinned = folder.read_dir().expect("its programs").next().expect("one").expect("a file");
        let attached = aya_obj::programs::XdpAttachType::Interface;
        Some(Self { program: Xdp::from_pin(pinned.path(), attached).expect("its program") })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        run("xdp-filter", &["unload", FILTERED]);
        run("ip", &["link", "del", FILTERED]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().expect("it starts");
    assert!(status.success(), "{program} {}", arguments.join(" "));
}
