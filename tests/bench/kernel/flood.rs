//! Floods of SYNs over a veth, from inside the kernel, while honest clients connect: with no protection, with
//! nftables', and with the gateway's.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Socket, Type};

use crate::bpf::{Programs, Sources, Way};
use crate::netns::{GATEWAY_V4, INTERFACE, Namespace, Net};
use crate::spread::Spread;
use crate::{Arguments, PORT};

/// What each source may open a second, and at once.
const RATE: u32 = 10;
const BURST: u32 = 20;

/// Where the gateway and all that it receives run, and where the flood and the clients do.
const RECEIVER: usize = 0;
const SENDER: usize = 1;

/// Honest clients, an address and a thread each, and how long after a connection each opens the next.
const CLIENTS: u8 = 200;
const INTERVAL: Duration = Duration::from_secs(1);
/// The last number of the first one's address.
const FIRST: u8 = 5;

/// A client has been served well within this time, and has given up after the second.
const SERVED_WELL: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks a second at whether it is over. The kernel takes some 25 ms to begin and to end each part of a flood.
const PARTS: u32 = 2;

struct Flood {
    name: &'static str,
    about: &'static str,
    sources: Sources,
}

const FLOODS: [Flood; 2] = [
    Flood {
        name: "256 sources",
        about: "Each sends what it can.",
        sources: Sources { base: 0x0a4e_0000, mask: 0xff },
    },
    Flood {
        name: "invented sources",
        about: "Hardly any sends twice.",
        sources: Sources { base: 0x2000_0000, mask: 0x1fff_ffff },
    },
];

/// Offered SYNs a second.
pub const OFFERED: [u32; 2] = [200_000, 1_000_000];

/// What is between a flood and the gateway's listener.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protection {
    None,
    NftInput,
    NftRaw,
    NftIngress,
    Native,
    Generic,
    /// The bench's own, as what follows: what receiving takes, whoever drops.
    BareDrop,
    /// The same of whoever answers.
    BareTurn,
}

impl Protection {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NftInput => "nftables, input",
            Self::NftRaw => "nftables, raw prerouting",
            Self::NftIngress => "nftables, ingress of the device",
            Self::Native => "gateway, in the driver",
            Self::Generic => "gateway, generic",
            Self::BareDrop => "a bare program that drops it",
            Self::BareTurn => "a bare program that sends it back",
        }
    }

    /// Where nftables' limit is.
    fn hook(self) -> Option<String> {
        let (family, hook) = match self {
            Self::NftInput => ("inet", "input priority filter".to_owned()),
            Self::NftRaw => ("inet", "prerouting priority raw".to_owned()),
            Self::NftIngress => ("netdev", format!("ingress device {INTERFACE} priority 0")),
            _ => return None,
        };
        Some(format!(
            "table {family} limits {{
                set sources {{ type ipv4_addr; flags dynamic; size 65535; timeout 60s; }}
                chain syns {{
                    type filter hook {hook};
                    tcp dport {PORT} tcp flags & (syn | ack) == syn \
                    add @sources {{ ip saddr limit rate over {RATE}/second burst {BURST} packets }} drop
                }}
            }}"
        ))
    }

    /// The bench's program at the interface, where the gateway has none.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Native | Self::Generic => None,
            Self::BareDrop => Some("drop_flood"),
            Self::BareTurn => Some("turn_flood"),
            // Through the same queue as where a program decides: what is full is full for honest clients, too.
            _ => Some("pass"),
        }
    }

    /// The gateway's table `xdp`.
    fn xdp(self) -> String {
        let mode = match self {
            Self::Native => "native",
            Self::Generic => "generic",
            _ => return String::new(),
        };
        format!(
            "[xdp]\ninterfaces = ['{INTERFACE}']\nmode = '{mode}'\nrequired = true\nenforce = true\n\
             connection_rate = '{RATE}/s'\nconnection_burst = {BURST}\nconnections_max = 'off'\nlog_rate = 0\n"
        )
    }
}

/// What one run was like.
struct Outcome {
    /// SYNs that reached the interface, a second.
    received: f64,
    /// Nanoseconds of the receiving CPU's time for each.
    cost: f64,
    /// Of honest connections, how many were served well.
    served: f64,
    /// Milliseconds of those that were served at all.
    median: f64,
    late: f64,
}

pub fn measure(arguments: &Arguments) -> String {
    let Arguments { rounds, seconds, ref protection, ref offered, .. } = *arguments;
    let protections = match &**protection {
        [] => Protection::value_variants(),
        some => some,
    };
    let mut text = format!(
        "\n### Floods\n\nSYNs over a veth for {seconds} s, made in the kernel on one CPU; the gateway and the thread that \
         receives them (NAPI) share another. {CLIENTS} honest clients open a connection a second, \
         and send a request on it. A source may open {RATE} a second. CPU is the receiving thread's time, per SYN received.\n"
    );
    for flood in FLOODS {
        for &offered in offered {
            let _ = writeln!(
                text,
                "\n#### {}, {offered} SYNs a second\n\n{}\n\n| | received/s | CPU ns per SYN | ÷ none | served within \
                 {} ms | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|",
                flood.name,
                flood.about,
                SERVED_WELL.as_millis()
            );
            let mut outcomes: Vec<Vec<Outcome>> = protections.iter().map(|_| Vec::new()).collect();
            for _ in 0..rounds {
                for (protection, outcomes) in protections.iter().zip(&mut outcomes) {
                    outcomes.push(run(*protection, &flood, offered, seconds));
                }
            }
            for (protection, own) in protections.iter().zip(&outcomes) {
                let spread = |figure: &dyn Fn(&Outcome) -> f64| {
                    Spread::of(&own.iter().map(figure).collect::<Vec<_>>())
                };
                let ratios = own.iter().zip(&outcomes[0]).map(|(own, none)| own.cost / none.cost);
                let ratio = Spread::of(&ratios.collect::<Vec<_>>());
                let line = format!(
                    "| {} | {:.0} | {} | {} | {} % | {} | {} |",
                    protection.name(),
                    spread(&|outcome| outcome.received).median,
                    spread(&|outcome| outcome.cost).show(0),
                    ratio.show(2),
                    spread(&|outcome| 100.0 * outcome.served).show(1),
                    spread(&|outcome| outcome.median).show(2),
                    spread(&|outcome| outcome.late).show(2),
                );
                eprintln!("{}, {offered}/s: {line}", flood.name);
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

/// One flood against one protection, in namespaces of its own.
fn run(protection: Protection, flood: &Flood, offered: u32, seconds: f64) -> Outcome {
    let net = Net::new().expect("namespaces");
    let way = set_up(&net);
    let mut programs = net.clients.run(Programs::load);
    let target = [10, 77, 0, 1];
    programs.set_plan(flood.sources, way, target, offered);
    if let Some(rules) = protection.hook() {
        let mut nft = net
            .gateway
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft");
        nft.stdin.take().expect("its input").write_all(rules.as_bytes()).expect("its rules");
        assert!(nft.wait().expect("nft").success(), "{rules}");
    }
    if let Some(program) = protection.program() {
        net.gateway.run(|| programs.attach(program, INTERFACE));
    }
    let gateway = Gateway::start(&net.gateway, protection);
    // Attaching makes the thread anew.
    let receiver = threaded(&net.gateway, INTERFACE, RECEIVER);
    net.clients.run(|| programs.attach("answered", "cl0"));
    threaded(&net.clients, "cl0", SENDER);

    let over = AtomicBool::new(false);
    let lasts = Duration::from_secs_f64(seconds);
    thread::scope(|scope| {
        scope.spawn(|| {
            net.clients.run(|| {
                run_on(SENDER);
                // Honest clients get the CPU first.
                setpriority_process(None, 19).expect("a lower priority");
                while !over.load(Ordering::Relaxed) {
                    programs.flood(offered / PARTS);
                }
            });
        });
        // Until it has filled what there is to fill.
        thread::sleep(Duration::from_millis(500));
        let (cpu, packets, begun) = (cpu_ns(receiver), received(&net.gateway), Instant::now());
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let clients = &net.clients;
                scope.spawn(move || clients.run(|| connect_again_and_again(client, lasts)))
            })
            .collect();
        thread::sleep(lasts.saturating_sub(begun.elapsed()));
        let cpu = (cpu_ns(receiver) - cpu) as f64;
        let packets = (received(&net.gateway) - packets) as f64;
        let lasted = begun.elapsed().as_secs_f64();
        let mut took: Vec<Option<Duration>> =
            clients.into_iter().flat_map(|thread| thread.join().expect("clients")).collect();
        over.store(true, Ordering::Relaxed);
        drop(gateway);
        let all = took.len() as f64;
        let well = took.iter().flatten().filter(|took| **took <= SERVED_WELL).count() as f64;
        took.retain(Option::is_some);
        took.sort();
        let percentile = |share: f64| {
            let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
            took.get(index).copied().flatten().unwrap_or(PATIENCE).as_secs_f64() * 1e3
        };
        Outcome {
            received: packets / lasted,
            cost: cpu / packets,
            served: well / all,
            median: percentile(0.5),
            late: percentile(0.99),
        }
    })
}

/// Routes, addresses and queues; the way of the flood.
fn set_up(net: &Net) -> Way {
    for last in FIRST..FIRST + CLIENTS {
        net.clients.ip(&format!("address add 10.77.0.{last}/24 dev cl0"));
    }
    // Whoever answers an invented source does so by the clients' namespace, which throws it away.
    net.gateway.ip("route add default via 10.77.0.2");
    for (namespace, interface) in [(&net.gateway, INTERFACE), (&net.clients, "cl0")] {
        command(namespace, "sysctl", &["-qw", "net.ipv4.conf.all.rp_filter=0"]);
        command(namespace, "sysctl", &["-qw", &format!("net.ipv4.conf.{interface}.rp_filter=0")]);
        // Receives by NAPI, also without a program.
        command(namespace, "ethtool", &["-K", interface, "gro", "on"]);
    }
    // As the README says.
    command(&net.gateway, "sysctl", &["-qw", "net.ipv4.tcp_syncookies=2"]);
    let (from, interface) = net.clients.run(|| card("cl0"));
    let (to, _) = net.gateway.run(|| card(INTERFACE));
    Way { from, to, interface }
}

/// Hardware address and index of an interface.
fn card(interface: &str) -> ([u8; 6], u32) {
    let output = std::process::Command::new("ip").args(["-o", "link", "show", interface]).output();
    let text = String::from_utf8(output.expect("ip").stdout).expect("text");
    let index = text.split(':').next().expect("an index").parse().expect("a number");
    let (_, address) = text.split_once("link/ether ").expect("an address");
    let mut octets = address.split([':', ' ']).map(|octet| u8::from_str_radix(octet, 16));
    let address = std::array::from_fn(|_| octets.next().expect("six octets").expect("hexadecimal"));
    (address, index)
}

fn command(namespace: &Namespace, program: &str, arguments: &[&str]) {
    let status = namespace.command(program).args(arguments).stdout(Stdio::null()).status();
    assert!(status.expect("it starts").success(), "{program} {}", arguments.join(" "));
}

/// Has an interface's packets received by a thread of its own on this CPU; its number.
fn threaded(namespace: &Namespace, interface: &str, cpu: usize) -> Pid {
    let switch = format!("echo 1 >/sys/class/net/{interface}/threaded");
    let mut inside = std::process::Command::new("ip");
    inside.args(["netns", "exec"]).arg(namespace.path().rsplit('/').next().expect("a name"));
    assert!(inside.args(["sh", "-c", &switch]).status().expect("ip").success(), "{switch}");
    // Those of namespaces that are gone may still be there; the newest has the largest number.
    let name = format!("napi/{interface}-");
    let newest = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let path = entry.ok()?.path();
        let napi = fs::read_to_string(path.join("comm")).ok()?;
        let napi: u32 = napi.trim().strip_prefix(&name)?.parse().ok()?;
        Some((napi, path.file_name()?.to_str()?.parse().ok()?))
    });
    let (_, number) = newest.max().expect("the thread");
    let thread = Pid::from_raw(number).expect("a number");
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(Some(thread), &cpus).expect("a CPU for it");
    // As interrupts have, which receive where there is a network card.
    let chrt = std::process::Command::new("chrt")
        .args(["--fifo", "--pid", "50", &number.to_string()])
        .status();
    assert!(chrt.expect("chrt").success(), "no priority for {name}");
    thread
}

fn run_on(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).expect("a CPU");
}

/// Nanoseconds a thread has run.
fn cpu_ns(thread: Pid) -> u64 {
    let path = format!("/proc/{}/schedstat", thread.as_raw_nonzero());
    let text = fs::read_to_string(path).expect("the thread's times");
    text.split(' ').next().expect("a figure").parse().expect("a number")
}

/// Packets that an interface of the gateway has received.
fn received(namespace: &Namespace) -> u64 {
    let output = namespace.command("ip").args(["-s", "-j", "link", "show", INTERFACE]).output();
    let told: serde_json::Value =
        serde_json::from_slice(&output.expect("ip").stdout).expect("JSON");
    told[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
}

/// Connects whenever it is due, and asks; how long each took, from when it was due.
fn connect_again_and_again(client: u8, lasts: Duration) -> Vec<Option<Duration>> {
    run_on(SENDER);
    let begun = Instant::now();
    let mut due = INTERVAL * u32::from(client) / u32::from(CLIENTS);
    let mut took = Vec::new();
    while due < lasts {
        thread::sleep(due.saturating_sub(begun.elapsed()));
        let served = connect(IpAddr::from([10, 77, 0, FIRST + client]));
        took.push(served.ok().map(|()| begun.elapsed() - due));
        due += INTERVAL;
    }
    took
}

fn connect(source: IpAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&SocketAddr::new(GATEWAY_V4, PORT).into(), PATIENCE)?;
    ask(socket.into())
}

/// Sends a request, and reads its answer.
fn ask(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

/// A gateway that answers by itself; ended when it is dropped.
struct Gateway {
    process: Child,
    file: PathBuf,
}

impl Gateway {
    fn start(namespace: &Namespace, protection: Protection) -> Self {
        let file = std::env::temp_dir().join(format!("bench-kernel-{}.toml", std::process::id()));
        let config = format!(
            "listeners = [{{ address = '{GATEWAY_V4}:{PORT}' }}]\nadmin.address = 'off'\naccess_log.format = 'off'\n\
             runtime.cores = '{RECEIVER}-{RECEIVER}'\nroutes = [{{ respond = {{ body = 'hello' }} }}]\n\
             upstreams.none.endpoints = ['127.0.0.1:9']\n{}",
            protection.xdp()
        );
        fs::write(&file, config).expect("a file");
        let mut command = namespace.command(env!("CARGO_BIN_EXE_gateway"));
        let process = command.args(["run", "--log-level", "error", "--config"]).arg(&file).spawn();
        let gateway = Self { process: process.expect("the gateway"), file };
        let begun = Instant::now();
        // It listens before its program is attached, and answers only then.
        while namespace.run(|| ask(TcpStream::connect((GATEWAY_V4, PORT))?)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the gateway does not start");
            thread::sleep(Duration::from_millis(10));
        }
        gateway
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.file);
    }
}
