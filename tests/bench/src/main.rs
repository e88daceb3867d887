//! The gateway beside its peers, each on one core, in turns. `cargo xtask bench --help`; how to
//! read what comes out is in `tests/bench/README.md`.

mod load;
mod message;
mod origin;
mod peer;
mod poll;
mod process;
mod relay;
mod report;
mod scenario;
mod wire;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::sched_getaffinity;

use peer::{Named, Peer, Rig};
use report::{Measured, Row};
use scenario::{ALL, PART_LOAD, Scenario, Times};

/// Where in the results begins what other benches have written.
const OTHERS: &str = "\n## ";

/// Measures what the gateway and its peers cost for each request, one core each, in turns.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; repeatable, everything when none is named
    #[arg(long, value_name = "NAME", value_parser = ALL.map(|scenario| scenario.name))]
    scenario: Vec<String>,

    /// What to compare the gateway with; repeatable [default: nginx, haproxy]
    #[arg(long, value_name = "PROXY")]
    peer: Vec<PeerName>,

    /// Where the program of tests/bench/pingora is
    #[arg(long, value_name = "PATH", default_value = "target/pingora/release/bench-pingora")]
    pingora: PathBuf,

    /// Further builds of the gateway to compare with, such as before=/tmp/gateway; repeatable
    #[arg(long, value_name = "NAME=PATH", value_parser = named_build)]
    build: Vec<(String, PathBuf)>,

    /// Flags of `gateway run` for all of its builds, such as --driver=epoll
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    flag: Vec<String>,

    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,

    /// How long each measurement takes
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,

    /// Three rounds of a second each
    #[arg(long)]
    quick: bool,

    /// Write tests/bench/RESULTS.md
    #[arg(long)]
    write: bool,

    /// Be the floor's relay: from the first address to the second
    #[arg(long, num_args = 2, hide = true)]
    relay: Vec<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PeerName {
    Nginx,
    Haproxy,
    Pingora,
    Floor,
    Direct,
}

fn named_build(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

impl Arguments {
    fn rounds(&self) -> usize {
        if self.quick { 3 } else { self.rounds }
    }

    fn times(&self) -> Times {
        let seconds = if self.quick { 1.0 } else { self.seconds };
        let measure = Duration::from_secs_f64(seconds);
        Times { warm_up: Duration::from_millis(300), measure }
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let wanted = |scenario: &Scenario| {
            self.scenario.is_empty() || self.scenario.iter().any(|name| name == scenario.name)
        };
        ALL.into_iter().filter(wanted).collect()
    }

    /// The gateway first: others are compared with the first.
    fn proxies(&self) -> Result<Vec<Named>> {
        let program = std::env::current_exe()?;
        let folder = program.parent().context("the program is in no folder")?;
        let gateway = |name: &str, binary: PathBuf| {
            let peer = Peer::Gateway { binary, flags: self.flag.clone() };
            Named { name: name.to_owned(), peer }
        };
        let mut proxies = vec![gateway("gateway", folder.join("gateway"))];
        proxies.extend(self.build.iter().map(|(name, path)| gateway(name, path.clone())));
        let chosen = match self.peer.as_slice() {
            [] if self.build.is_empty() => &[PeerName::Nginx, PeerName::Haproxy][..],
            chosen => chosen,
        };
        for name in chosen {
            let peer = match name {
                PeerName::Nginx => Peer::Nginx,
                PeerName::Haproxy => Peer::Haproxy,
                PeerName::Pingora => Peer::Pingora { binary: self.pingora.clone() },
                PeerName::Floor => Peer::Floor,
                PeerName::Direct => Peer::Direct,
            };
            let name = name.to_possible_value().map_or_else(String::new, |v| v.get_name().into());
            proxies.push(Named { name, peer });
        }
        Ok(proxies)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let [address, origin] = *arguments.relay.as_slice() {
        return relay::run(address, origin);
    }
    let proxies = arguments.proxies()?;
    let versions: Vec<(String, String)> = proxies
        .iter()
        .map(|proxy| Ok((proxy.name.clone(), proxy.version()?)))
        .collect::<Result<_>>()?;
    let connections_max = raise_descriptors()? / 2 - 500;
    let cpus = usable_cpus()?;
    let (Some(first), Some(last)) = (cpus.first(), cpus.last()) else { bail!("no CPU to run on") };
    ensure!(first != last, "takes two CPUs: one for the proxy, one for origin and load");
    peer::pin(*last)?;
    let folder = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let pair = certs::Authority::new("bench")?.server(&[wire::NAMES])?;
    let certificate = pair.write(&folder, "server")?;
    let rig = Rig { origin: origin::start()?, cpu: *first, certificate, folder, connections_max };
    let bench = Bench { arguments: &arguments, proxies, rig };
    let tables = bench.run();
    let _ = fs::remove_dir_all(&bench.rig.folder);
    let text = header(&versions, &arguments)? + &tables?;
    if arguments.write {
        let path = Path::new("tests/bench/RESULTS.md");
        let before = fs::read_to_string(path).unwrap_or_default();
        let others = before.find(OTHERS).and_then(|at| before.get(at..)).unwrap_or_default();
        fs::write(path, text + others).with_context(|| path.display().to_string())?;
        println!("written to {}", path.display());
    }
    Ok(())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    proxies: Vec<Named>,
    rig: Rig,
}

impl Bench<'_> {
    /// All tables; each is printed when it is known.
    fn run(&self) -> Result<String> {
        let mut text = String::new();
        for scenario in self.arguments.scenarios() {
            let table = report::table(&self.measure(scenario)?);
            println!("{table}");
            text.push('\n');
            text.push_str(&table);
        }
        Ok(text)
    }

    /// A B C, A B C, …: what the machine does meanwhile, it does to all of them.
    fn measure(&self, scenario: Scenario) -> Result<Measured> {
        let measured = |proxy: &&Named| {
            !scenario.needs_proxy() || !matches!(proxy.peer, Peer::Direct | Peer::Floor)
        };
        let proxies: Vec<_> = self.proxies.iter().filter(measured).collect();
        let rate = if scenario.is_part_load() { self.part_load(&proxies)? } else { 0.0 };
        let remark = scenario.remark(rate, &self.rig);
        let row = |proxy: &&Named| Row { name: proxy.name.clone(), samples: Vec::new() };
        let mut rows: Vec<_> = proxies.iter().map(row).collect();
        for _ in 0..self.arguments.rounds() {
            for (proxy, row) in proxies.iter().zip(&mut rows) {
                let sample = self.sample(scenario, proxy, rate, self.arguments.times())?;
                row.samples.push(sample);
            }
        }
        Ok(Measured { scenario, remark, rows })
    }

    fn sample(
        &self,
        scenario: Scenario,
        proxy: &Named,
        rate: f64,
        times: Times,
    ) -> Result<scenario::Sample> {
        scenario
            .measure(proxy, &self.rig, rate, times)
            .with_context(|| format!("{} in {}", proxy.name, scenario.name))
    }

    /// At most half of what the slowest can do.
    fn part_load(&self, proxies: &[&Named]) -> Result<f64> {
        let [keep_alive, ..] = ALL;
        let times = Times { measure: Duration::from_secs(1), ..self.arguments.times() };
        let mut rate = PART_LOAD;
        for proxy in proxies {
            let sample = self.sample(keep_alive, proxy, 0.0, times)?;
            rate = rate.min(sample.requests_per_second / 2.0);
        }
        // A figure that can be given again.
        Ok((rate / 1000.0).floor() * 1000.0)
    }
}

fn header(versions: &[(String, String)], arguments: &Arguments) -> Result<String> {
    let said: Vec<String> = std::env::args().skip(1).collect();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let versions: Vec<String> =
        versions.iter().map(|(name, version)| format!("{name}: {version}")).collect();
    Ok(format!(
        "# Results\n\nMade by `cargo xtask bench {}` on Linux {}, {}.\n{}. {} rounds of {:?} each, in \
         turns; medians, with the least and the largest.\n[README.md](README.md) says how to read \
         them. A ratio above 1 is one the gateway loses.\n",
        said.join(" "),
        kernel.split('-').next().unwrap_or_default().trim(),
        model.map_or("an unknown CPU", |(_, model)| model),
        versions.join("; "),
        arguments.rounds(),
        arguments.times().measure,
    ))
}

fn usable_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Ten thousand connections need as many descriptors, and HAProxy wants two for each. Returns how
/// many there may be.
fn raise_descriptors() -> Result<usize> {
    const ENOUGH: u64 = 65_536;
    let given = getrlimit(Resource::Nofile).maximum.unwrap_or(ENOUGH);
    for limit in [ENOUGH.max(given), given] {
        let wanted = Rlimit { current: Some(limit), maximum: Some(limit) };
        if setrlimit(Resource::Nofile, wanted).is_ok() {
            return Ok(usize::try_from(limit)?);
        }
    }
    bail!("cannot raise the limit of open files");
}
