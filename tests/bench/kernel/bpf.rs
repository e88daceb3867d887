//! The bench's own BPF programs (`programs.rs`), loaded.

use aya::Ebpf;
use aya::maps::{Array, ProgramArray};
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};

use crate::PORT;
use crate::frames::{IPV4, SYN, TCP, ethernet, ipv4, tcp};

/// Frames in one go, before others have a turn on the CPU.
const BATCH: u32 = 64;

/// Sources: some bits of the mask, and the base.
#[derive(Clone, Copy)]
pub struct Sources {
    pub base: u32,
    pub mask: u32,
}

/// From one network card to another.
#[derive(Clone, Copy)]
pub struct Way {
    pub from: [u8; 6],
    pub to: [u8; 6],
    /// The index of the interface to send by.
    pub interface: u32,
}

pub struct Programs(Ebpf);

impl Programs {
    pub fn load() -> Self {
        let path = std::env::var("BENCH_BPF").expect("run it by cargo xtask bench-kernel");
        let mut ebpf = Ebpf::load_file(path).expect("the bench's own programs");
        for (_, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into().expect("an XDP program");
            program.load().expect("load");
        }
        Self(ebpf)
    }

    pub fn program(&self, name: &str) -> &Xdp {
        let program = self.0.program(name).expect("a program of this name");
        program.try_into().expect("an XDP program")
    }

    /// Runs one of them in an interface's driver, for as long as they are loaded.
    pub fn attach(&mut self, name: &str, interface: &str) {
        let program = self.0.program_mut(name).expect("a program of this name");
        let program: &mut Xdp = program.try_into().expect("an XDP program");
        program.attach(interface, XdpMode::Driver).expect("attach");
    }

    /// What `varied` goes on with.
    pub fn set_next(&mut self, program: &Xdp) {
        let fd = program.fd().expect("it is loaded").try_clone().expect("a descriptor");
        let map = self.0.map_mut("NEXT").expect("the map");
        let mut next = ProgramArray::try_from(map).expect("an array of programs");
        next.set(0, &fd, 0).expect("a program of the same kind");
    }

    /// The same with one of these.
    pub fn set_next_own(&mut self, name: &str) {
        let fd = self.program(name).fd().expect("it is loaded").try_clone().expect("a descriptor");
        let map = self.0.map_mut("NEXT").expect("the map");
        let mut next = ProgramArray::try_from(map).expect("an array of programs");
        next.set(0, &fd, 0).expect("a program of the same kind");
    }

    /// What `varied` and `flood` send, and how fast: nothing is waited for at a rate of 0.
    pub fn set_plan(&mut self, sources: Sources, way: Way, to: [u8; 4], per_second: u32) {
        let frame = template(way, to);
        let mut plan = [0_u64; 10];
        for (word, bytes) in plan.iter_mut().zip(frame.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        let interval = 1_000_000_000_u32.checked_div(per_second).unwrap_or(0);
        plan[8] = u64::from(sources.base) | u64::from(sources.mask) << 32;
        plan[9] = u64::from(way.interface) | u64::from(interval) << 32;
        let map = self.0.map_mut("PLAN").expect("the map");
        let mut array = Array::<_, [u64; 10]>::try_from(map).expect("an array");
        array.set(0, plan, 0).expect("the plan");
    }

    /// Sends so many frames; blocks until they are gone.
    pub fn flood(&self, frames: u32) {
        let frame = [0; 64];
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        self.program("flood").test_run(options).expect("live frames");
    }
}

/// Nanoseconds a program takes for each of some runs on a frame.
pub fn time(program: &Xdp, frame: &[u8], runs: u32) -> f64 {
    let options =
        TestRunOptions { data_in: Some(frame), repeat: runs, ..TestRunOptions::default() };
    program.test_run(options).expect("test run").duration.as_nanos() as f64
}

/// A SYN as a client sends it, with the largest segment, but without a source and its port; in the place of
/// its checksums their sums so far.
fn template(way: Way, to: [u8; 4]) -> [u8; 64] {
    let mut segment = tcp(PORT, SYN);
    segment[12] = 6 << 4;
    segment[14..16].copy_from_slice(&64_240_u16.to_be_bytes());
    segment.extend([2, 4, 5, 180]);
    let mut packet = ipv4([0; 4], 0, 0, TCP, &segment);
    packet[0] = 0x45;
    packet[8] = 64;
    packet[16..20].copy_from_slice(&to);
    let pseudo = sum(&to) + u32::from(TCP) + segment.len() as u32;
    let (ip, tcp) = (folded(sum(&packet[..20])), folded(pseudo + sum(&segment)));
    packet[10..12].copy_from_slice(&ip.to_be_bytes());
    packet[36..38].copy_from_slice(&tcp.to_be_bytes());
    let mut frame = ethernet(&[], IPV4, &packet);
    frame[..6].copy_from_slice(&way.to);
    frame[6..12].copy_from_slice(&way.from);
    frame.resize(64, 0);
    frame.try_into().expect("64 bytes")
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum()
}

fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
