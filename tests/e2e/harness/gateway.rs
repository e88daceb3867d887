//! A gateway process: configured, started on ports of the kernel's choice, watched and stopped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, Origin, PATIENCE, Response, until};

/// A gateway's configuration in the making.
pub struct Setup {
    cores: String,
    listeners: usize,
    /// Further listeners, whole.
    more_listeners: String,
    listener: String,
    tables: BTreeMap<&'static str, String>,
    upstreams: String,
    routes: String,
}

/// One worker, no upstream, no route.
pub fn set_up() -> Setup {
    Setup {
        cores: next_cpu(),
        listeners: 1,
        more_listeners: String::new(),
        listener: String::new(),
        tables: BTreeMap::from([
            ("admin", "address = '127.0.0.1:0'".to_owned()),
            ("access_log", "format = 'off'".to_owned()),
        ]),
        upstreams: String::new(),
        routes: String::new(),
    }
}

impl Setup {
    /// A route for everything, to these endpoints.
    pub fn to(self, endpoints: &[SocketAddr]) -> Self {
        self.upstream("main", endpoints).route("upstream = 'main'")
    }

    pub fn upstream(mut self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let endpoints: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
        self.upstreams += &format!("[upstreams.{name}]\nendpoints = {endpoints:?}\n");
        self
    }

    /// One endpoint, as it is written.
    pub fn upstream_named(mut self, name: &str, endpoint: &str) -> Self {
        let endpoints = [endpoint];
        writeln!(self.upstreams, "[upstreams.{name}]\nendpoints = {endpoints:?}").unwrap();
        self
    }

    pub fn route(mut self, lines: &str) -> Self {
        writeln!(self.routes, "[[routes]]\n{lines}").unwrap();
        self
    }

    /// The lines of a table, such as `timeouts`.
    pub fn set(mut self, table: &'static str, lines: &str) -> Self {
        self.tables.insert(table, format!("{lines}\n"));
        self
    }

    /// More lines of a table that has been set.
    pub fn set_more(mut self, table: &'static str, lines: &str) -> Self {
        writeln!(self.tables.entry(table).or_default(), "{lines}").unwrap();
        self
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.cores = workers.to_string();
        self
    }

    /// Further lines of every listener.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listener = format!("{lines}\n");
        self
    }

    /// Further lines of the upstream named last.
    pub fn upstream_line(mut self, line: &str) -> Self {
        writeln!(self.upstreams, "{line}").unwrap();
        self
    }

    /// Another listener, at this address.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        writeln!(self.more_listeners, "[[listeners]]\naddress = '{address}'").unwrap();
        self
    }

    pub fn listeners(mut self, listeners: usize) -> Self {
        self.listeners = listeners;
        self
    }

    /// Starts the gateway and waits until all of it accepts.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let file = unique_path("toml");
        let (listeners, cores) = (self.listeners, self.cores.clone());
        std::fs::write(&file, self.text()).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg("--config").arg(&file);
        let mut gateway = Gateway::spawn(&mut command, listeners);
        gateway.file = Some((file, cores));
        gateway
    }

    fn text(mut self) -> String {
        let driver = std::env::var("GATEWAY_TEST_DRIVER").unwrap_or("auto".to_owned());
        let runtime = format!("cores = {:?}\ndriver = {driver:?}\n", self.cores);
        self.tables.entry("runtime").or_default().push_str(&runtime);
        let mut text = String::new();
        for (table, lines) in self.tables {
            writeln!(text, "[{table}]\n{lines}").unwrap();
        }
        text += &self.upstreams;
        let listener = format!("[[listeners]]\naddress = '127.0.0.1:0'\n{}", self.listener);
        text += &listener.repeat(self.listeners);
        text += &self.more_listeners;
        text + &self.routes
    }
}

/// A running gateway. When the test ends it must still be alive and have counted no panic; when
/// the test fails, what it logged is shown.
pub struct Gateway {
    /// Where clients connect, in the configuration's order.
    pub addresses: Vec<SocketAddr>,
    pub admin: SocketAddr,
    process: Child,
    stopped: bool,
    /// Its configuration, and the cores in it.
    file: Option<(PathBuf, String)>,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// One worker in front of one origin.
    #[track_caller]
    pub fn in_front_of(origin: &Origin) -> Self {
        set_up().to(&[origin.address]).start()
    }

    /// Runs the command and waits until it says where it listens.
    #[track_caller]
    pub fn spawn(command: &mut Command, listeners: usize) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (lines, log) = (mpsc::channel(), Arc::<Mutex<String>>::default());
        let stdout = collect(process.stdout.take().unwrap(), &log, None);
        let stderr = collect(process.stderr.take().unwrap(), &log, Some(lines.0));
        let mut gateway = Self {
            addresses: Vec::new(),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            process,
            stopped: false,
            file: None,
            log,
            readers: vec![stdout, stderr],
        };
        while gateway.addresses.len() < listeners || gateway.admin.port() == 0 {
            let line = lines.1.recv_timeout(PATIENCE).expect("a gateway that listens");
            if let Some(address) = address_after("admin on ", &line) {
                gateway.admin = address;
            } else if let Some(address) = address_after("listening on ", &line) {
                gateway.addresses.push(address);
            }
        }
        gateway
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// `GET target` on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.client().get(target)
    }

    /// `GET target` at the admin address.
    #[track_caller]
    pub fn admin(&self, target: &str) -> Response {
        Client::connect(self.admin).get(target)
    }

    /// The sum of the series whose name and labels start so.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let belongs = |rest: &str| series.ends_with('}') || rest.starts_with([' ', '{', ',']);
        let text = self.admin("/metrics").text();
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.strip_prefix(series).is_some_and(belongs))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "no series {series} in:\n{text}");
        values.iter().sum()
    }

    #[track_caller]
    pub fn wait_for_metric(&self, series: &str, value: f64) {
        until(&format!("{series} to be {value}"), || self.metric(series) == value);
    }

    /// Memory in use, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Lets it read another configuration and waits until it has applied or refused it, and said so.
    #[track_caller]
    pub fn reload(&self, setup: Setup) {
        let (_, cores) = self.file.as_ref().unwrap();
        self.reload_text(&Setup { cores: cores.clone(), ..setup }.text());
    }

    /// The same with a file of any content.
    #[track_caller]
    pub fn reload_text(&self, text: &str) {
        let before = self.metric("gateway_reloads_total");
        let told = || {
            let tells = |line: &&str| {
                line.contains("configuration reloaded") || line.contains("not reloaded: ")
            };
            self.log().lines().filter(tells).count()
        };
        let told_before = told();
        std::fs::write(&self.file.as_ref().unwrap().0, text).unwrap();
        self.signal(Signal::HUP);
        self.wait_for_metric("gateway_reloads_total", before + 1.0);
        // It counts before it tells, and what it tells comes by a pipe.
        until("the line that says so", || told() > told_before);
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Asks it to drain and waits for its end, which must be a success.
    #[track_caller]
    pub fn stop(self) -> String {
        self.signal(Signal::TERM);
        self.wait_for_success()
    }

    /// Waits for an end that was asked for, and returns all it printed.
    #[track_caller]
    pub fn wait_for_success(self) -> String {
        let (status, log) = self.wait_for_end();
        assert!(status.success(), "{status}: {log}");
        log
    }

    /// Waits for its end, and returns all it printed.
    #[track_caller]
    pub fn wait_for_end(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.process);
        self.stopped = true;
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (status, self.log())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !self.stopped && !thread::panicking() {
            assert_eq!(self.metric("gateway_panics_total"), 0.0, "{}", self.log());
        }
        // It may have ended by itself, which is then what the test is about.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some((file, _)) = &self.file {
            let _ = std::fs::remove_file(file);
        }
        if thread::panicking() {
            println!("--- the gateway printed:\n{}---", self.log());
        }
    }
}

/// The path of the gateway under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_gateway")
}

/// An address at which nothing listens, so that connecting is refused. The socket keeps the port
/// from being given to somebody else.
pub fn closed_port() -> (SocketAddr, socket2::Socket) {
    let socket = bound(([127, 0, 0, 1], 0).into());
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// A socket that has this address, and does not listen.
pub fn bound(address: SocketAddr) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

/// A file name nobody else uses, in the directory cargo gives tests to write to.
pub fn unique_path(extension: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("e2e-{}-{number}.{extension}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// One CPU after the other, as a list: `cores = "1"` alone would put every gateway on the first.
fn next_cpu() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..1024).filter(|cpu| allowed.is_set(*cpu)).collect();
    let cpu = cpus[COUNT.fetch_add(1, Ordering::Relaxed) % cpus.len()];
    format!("{cpu}-{cpu}")
}

fn collect(
    stream: impl Read + Send + 'static,
    log: &Arc<Mutex<String>>,
    lines: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            writeln!(log.lock().unwrap(), "{line}").unwrap();
            // Nobody listens any more once the gateway is up.
            let _ = lines.as_ref().map(|lines| lines.send(line));
        }
    })
}

fn address_after(words: &str, line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(words)?;
    rest.split_whitespace().next()?.trim_end_matches([',', '.']).parse().ok()
}

fn wait(process: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the gateway to end", || {
        status = process.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}
