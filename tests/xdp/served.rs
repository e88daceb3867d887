//! The binary in its namespace, with a configuration of the test's own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::PORT;
use crate::connections::PATIENCE;
use crate::netns::{GATEWAY_V4, INTERFACE, Namespace};
use crate::running::wait_until_clean;

/// In the folder of a gateway: its configuration, and what it says.
const FILE: &str = "gateway.toml";
const LOG: &str = "log";
const ADMIN: &str = "127.0.0.1:9901";

/// What every configuration here begins with. Nothing is ever sent upstream.
const COMMON: &str = r#"
    runtime.cores = 1
    runtime.drain_timeout = "1s"
    access_log = { format = "combined", path = "FOLDER/access.log" }
    admin = { address = "127.0.0.1:9901", socket = "FOLDER/admin.sock" }
    upstreams.none.endpoints = ["127.0.0.1:9"]
    routes = [{ path = "/hello", respond = { body = "hello\n" } }]
"#;

/// A gateway that is killed when it is dropped.
pub struct Served<'a> {
    inside: &'a Namespace,
    folder: PathBuf,
    process: Child,
}

impl<'a> Served<'a> {
    pub fn start(inside: &'a Namespace, config: &str) -> Self {
        Self::start_in(inside, new_folder(), config)
    }

    /// Starts one for each configuration at once, and waits until all but one have ended: the one that is
    /// left, and what the others said. None may be left, as the kernel may refuse all of them.
    pub fn race(inside: &'a Namespace, configs: &[String]) -> (Option<Self>, Vec<String>) {
        for config in configs {
            wait_until_free(inside, config);
        }
        let spawn = |config: &String| Self::spawn_in(inside, new_folder(), config);
        let mut running: Vec<_> = configs.iter().map(spawn).collect();
        let mut said = Vec::new();
        while running.len() > 1 {
            running.retain_mut(|served| {
                let ended = served.process.try_wait().expect("wait");
                assert!(ended.is_none_or(|status| !status.success()), "{}", served.log());
                said.extend(ended.map(|_| served.log()));
                ended.is_none()
            });
            thread::sleep(Duration::from_millis(5));
        }
        let mut left = running.pop();
        if let Some(left) = &mut left {
            left.wait_until_ready();
        }
        (left, said)
    }

    /// Starts one beside another that runs; why it ends.
    pub fn refused(inside: &Namespace, config: &str) -> String {
        let folder = new_folder();
        write(&folder, &config.replace("8080", "8081"));
        let file = folder.join(FILE);
        let text = fs::read_to_string(&file).expect("what has been written");
        fs::write(&file, text.replace(ADMIN, "127.0.0.1:9902")).expect("a file");
        let output = command(inside, &folder).output().expect("run the gateway");
        let _ = fs::remove_dir_all(folder);
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success(), "{said}");
        said
    }

    /// Ends it without giving it a chance to tidy up; its folder stays.
    pub fn kill(mut self) -> Ended<'a> {
        self.process.kill().expect("SIGKILL");
        self.process.wait().expect("wait");
        Ended { inside: self.inside, folder: std::mem::take(&mut self.folder) }
    }

    fn start_in(inside: &'a Namespace, folder: PathBuf, config: &str) -> Self {
        wait_until_free(inside, config);
        let mut served = Self::spawn_in(inside, folder, config);
        served.wait_until_ready();
        served
    }

    fn spawn_in(inside: &'a Namespace, folder: PathBuf, config: &str) -> Self {
        write(&folder, config);
        let mut command = command(inside, &folder);
        let log = File::options().create(true).append(true).open(folder.join(LOG)).expect("a log");
        command.stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("start the gateway");
        Self { inside, folder, process }
    }

    fn wait_until_ready(&mut self) {
        while !self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if let Some(status) = self.process.try_wait().expect("wait") {
                panic!("the gateway ended: {status}");
            }
            // There is no event to await before its socket is there.
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lets it read another configuration, and waits until that counts.
    pub fn reload(&self, config: &str) {
        let applied = |served: &Self| served.metric("gateway_reloads_total{result=\"applied\"}");
        let before = applied(self);
        write(&self.folder, config);
        self.signal(Signal::HUP);
        self.wait_until("the configuration is applied", || applied(self) > before);
    }

    /// Capabilities that any of its threads has, or may take, as /proc shows them.
    pub fn capabilities(&self) -> u64 {
        let tasks = format!("/proc/{}/task", self.process.id());
        let tasks = fs::read_dir(tasks).expect("its threads").map(|task| task.expect("a thread"));
        let held = tasks.map(|task| {
            let status = fs::read_to_string(task.path().join("status")).expect("a status");
            let sets = status.lines().filter(|line| {
                ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"].iter().any(|set| line.starts_with(set))
            });
            let bits = sets.map(|line| line.split_whitespace().nth(1).expect("a set"));
            bits.map(|bits| u64::from_str_radix(bits, 16).expect("bits"))
                .fold(0, |all, bits| all | bits)
        });
        held.fold(0, |all, held| all | held)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("a signal");
    }

    /// Ends it as an operator does.
    pub fn stop(mut self) -> Ended<'a> {
        self.signal(Signal::TERM);
        assert!(self.process.wait().expect("wait").success());
        Ended { inside: self.inside, folder: std::mem::take(&mut self.folder) }
    }

    /// The value of a sample, 0 where there is none.
    pub fn metric(&self, sample: &str) -> u64 {
        let page = self.get("/metrics").expect("/metrics");
        let value = |line: &str| line.strip_prefix(sample)?.trim().parse().ok();
        page.lines().find_map(value).unwrap_or(0)
    }

    /// On all interfaces.
    pub fn packets(&self, verdict: &str, reason: &str) -> u64 {
        let labels = format!("verdict=\"{verdict}\",reason=\"{reason}\"}} ");
        let page = self.get("/metrics").expect("/metrics");
        let value = |line: &str| -> Option<u64> {
            let (_, value) =
                line.strip_prefix("gateway_xdp_packets_total{")?.split_once(&labels)?;
            value.trim().parse().ok()
        };
        page.lines().filter_map(value).sum()
    }

    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has said so far, and those before it in its place.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path(LOG)).expect("a log")
    }

    /// A file beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs a command of `gateway` against this one: whether it was right, and what it said.
    pub fn ask(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .args(arguments)
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .output()
            .expect("run gateway");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).expect("text"))
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        self.inside.run(|| {
            let mut stream = TcpStream::connect(ADMIN)?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }
}

/// Waits until another may begin where one has ended.
fn wait_until_free(inside: &Namespace, config: &str) {
    if !config.contains("keep") {
        for interface in [INTERFACE, "lo"] {
            wait_until_clean(inside, interface);
        }
    }
    // The ring of a process that was killed keeps its sockets for a moment.
    inside.run(|| {
        while TcpListener::bind((GATEWAY_V4, PORT)).is_err() {
            thread::yield_now();
        }
    });
}

fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = format!("gateway-xdp-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn write(folder: &Path, config: &str) {
    let config = format!("{COMMON}{config}").replace("FOLDER", &folder.display().to_string());
    fs::write(folder.join(FILE), config).expect("a file");
}

fn command(inside: &Namespace, folder: &Path) -> Command {
    let mut command = inside.command(env!("CARGO_BIN_EXE_gateway"));
    command.arg("run").arg("--config").arg(folder.join(FILE));
    command
}

/// What is left of a gateway; its folder goes with the value.
pub struct Ended<'a> {
    inside: &'a Namespace,
    folder: PathBuf,
}

impl<'a> Ended<'a> {
    /// Starts another one in its place.
    pub fn restart(mut self, config: &str) -> Served<'a> {
        Served::start_in(self.inside, std::mem::take(&mut self.folder), config)
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() && !self.folder.as_os_str().is_empty() {
            eprintln!("{}", self.log());
        }
        remove(&self.folder);
    }
}

/// Nothing where the folder has been handed on.
fn remove(folder: &Path) {
    if !folder.as_os_str().is_empty() {
        let _ = fs::remove_dir_all(folder);
    }
}
