//! What the kernel program costs for each packet, and who is served under a flood.
//! `cargo xtask bench-kernel --help`; how to read what comes out is in `tests/bench/README.md`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench panics to fail"
)]

mod bpf;
mod flood;
#[path = "../../xdp/frames.rs"]
#[expect(dead_code, reason = "frames for tests, too")]
mod frames;
#[path = "../../xdp/netns.rs"]
mod netns;
mod packets;
mod spread;

use std::fs;

use clap::{Parser, ValueEnum};

/// The port that is protected.
const PORT: u16 = 8080;

/// Where the results are; what is before the heading is another bench's.
const RESULTS: &str = "tests/bench/RESULTS.md";
const HEADING: &str = "## The kernel program\n";

/// Measures what the kernel program costs for each packet, and who is served under a flood. Needs root; two CPUs
/// or more for floods.
#[derive(Parser)]
#[command(name = "cargo xtask bench-kernel")]
struct Arguments {
    /// What to measure; both if neither is named
    what: Option<What>,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,

    /// With what protection floods are measured; repeatable, all when none is named
    #[arg(long, value_name = "NAME")]
    protection: Vec<flood::Protection>,

    /// How many SYNs a second floods offer; repeatable
    #[arg(long, value_name = "N", default_values_t = flood::OFFERED)]
    offered: Vec<u32>,

    /// How long each flood takes
    #[arg(long, value_name = "S", default_value_t = 4.0)]
    seconds: f64,

    /// Write what was measured into tests/bench/RESULTS.md
    #[arg(long)]
    write: bool,

    /// Cargo's own
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Nanoseconds for each packet, without a network
    Packets,
    /// Floods over a veth, with and without protection
    Floods,
}

fn main() {
    let arguments = Arguments::parse();
    // cargo runs benches where the package is.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::env::set_current_dir(root).expect("the repository");
    let wanted = |what| arguments.what.is_none_or(|wanted| wanted == what);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version");
    let mut text = format!(
        "{HEADING}\nMade by `cargo xtask bench-kernel --rounds {} --seconds {} --write` on Linux {}; medians, with the \
         least and the largest.\n",
        arguments.rounds,
        arguments.seconds,
        kernel.split('-').next().unwrap_or_default().trim()
    );
    if wanted(What::Packets) {
        text += &packets::measure(arguments.rounds);
    }
    if wanted(What::Floods) {
        text += &flood::measure(&arguments);
    }
    println!("{text}");
    if arguments.write {
        let whole = arguments.what.is_none()
            && arguments.protection.is_empty()
            && arguments.offered == flood::OFFERED;
        assert!(whole, "only what has been measured whole is written");
        let before = fs::read_to_string(RESULTS).expect(RESULTS);
        let before = before.split(HEADING).next().unwrap_or_default().trim_end();
        fs::write(RESULTS, format!("{before}\n\n{text}")).expect(RESULTS);
        println!("written to {RESULTS}");
    }
}

/// What [`netns`] calls where it may not make namespaces.
fn skip(reason: &str) {
    panic!("{reason}");
}
