//! The proxies: how each is configured for one worker on one core, started, and ended.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long a proxy may take to accept.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A build of the gateway, and its further flags.
    Gateway {
        binary: PathBuf,
        flags: Vec<String>,
    },
    Nginx,
    Haproxy,
    /// The program in `tests/bench/pingora`.
    Pingora {
        binary: PathBuf,
    },
    /// What moves bytes and reads no HTTP: [`crate::relay`].
    Floor,
    /// No proxy: the limit of what origin and load generator can do.
    Direct,
}

/// Where proxies run.
pub struct Rig {
    /// What they stand in front of.
    pub origin: SocketAddr,
    /// The CPU that is theirs.
    pub cpu: usize,
    /// For their files.
    pub folder: PathBuf,
    /// The certificate they show, and its key.
    pub certificate: (PathBuf, PathBuf),
    /// How many connections they must take, which HAProxy wants to know.
    pub connections_max: usize,
}

/// A proxy with a name in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub peer: Peer,
}

impl Named {
    /// What it says of its version.
    pub fn version(&self) -> Result<String> {
        let (program, flag) = match &self.peer {
            Peer::Gateway { binary, .. } => (binary.as_path(), "version"),
            Peer::Nginx => (Path::new("nginx"), "-v"),
            Peer::Haproxy => (Path::new("haproxy"), "-v"),
            Peer::Pingora { .. } => return Ok(pingora_version()),
            Peer::Floor => return Ok("a relay that reads no HTTP".to_owned()),
            Peer::Direct => return Ok("the origin itself".to_owned()),
        };
        let output = Command::new(program).arg(flag).output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        let words = line.trim_start_matches("nginx version: ");
        Ok(words.split(" - ").next().unwrap_or(words).to_owned())
    }

    /// Starts it, speaking TLS or not.
    pub fn start(&self, rig: &Rig, tls: bool) -> Result<Running> {
        let folder = rig.folder.join(&self.name);
        fs::create_dir_all(&folder)?;
        let address = free_address()?;
        let Some(mut command) = self.command(address, tls, rig, &folder)? else {
            return Ok(Running { address: rig.origin, process: None });
        };
        let log = fs::File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A child inherits what its parent may run on.
        let ours = sched_getaffinity(None)?;
        pin(rig.cpu)?;
        let process = command.spawn();
        sched_setaffinity(None, &ours)?;
        let process = process.with_context(|| format!("cannot start {}", self.name))?;
        let mut running = Running { address, process: Some(process) };
        running.wait().with_context(|| {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            format!("{} did not start:\n{log}", self.name)
        })?;
        Ok(running)
    }

    fn command(
        &self,
        address: SocketAddr,
        tls: bool,
        rig: &Rig,
        folder: &Path,
    ) -> Result<Option<Command>> {
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let mut command;
        match &self.peer {
            Peer::Gateway { binary, flags } => {
                command = Command::new(binary);
                command.args(["run", "--cores", "1", "--log-level", "warn"]).args(flags);
                command.arg("--config").arg(write("gateway.toml", gateway(address, tls, rig))?);
            }
            Peer::Nginx => {
                command = Command::new("nginx");
                command.arg("-c").arg(write("nginx.conf", nginx(address, tls, rig, folder))?);
                command.args(["-g", "daemon off;"]);
            }
            Peer::Haproxy => {
                command = Command::new("haproxy");
                let both = write("both.pem", both(rig)?)?;
                let text = haproxy(address, tls.then_some(both.as_path()), rig);
                command.arg("-f").arg(write("haproxy.cfg", text)?);
            }
            Peer::Pingora { binary } => {
                command = Command::new(binary);
                command.arg(address.to_string()).arg(rig.origin.to_string());
                if tls {
                    command.arg(&rig.certificate.0).arg(&rig.certificate.1);
                }
            }
            Peer::Floor => {
                command = Command::new(std::env::current_exe()?);
                command.args(["--relay", &address.to_string(), &rig.origin.to_string()]);
            }
            Peer::Direct => return Ok(None),
        }
        Ok(Some(command))
    }
}

/// A proxy that runs until this is dropped.
pub struct Running {
    pub address: SocketAddr,
    process: Option<Child>,
}

impl Running {
    /// Its process, if it is one.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait()?
            {
                bail!("it ended with {status}");
            }
            if start.elapsed() > START_TIMEOUT {
                bail!("nobody accepts at {}", self.address);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        if let Some(pid) = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // nginx's children end with it on this signal, at once.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let start = Instant::now();
        while let Ok(None) = process.try_wait() {
            if start.elapsed() > Duration::from_secs(3) {
                let _ = process.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Lets this thread run on one CPU only.
pub fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("cannot run on CPU {cpu}"))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn gateway(address: SocketAddr, tls: bool, rig: &Rig) -> String {
    let (origin, descriptors) = (rig.origin, 2 * rig.connections_max);
    let (chain, key) = &rig.certificate;
    let tls = match tls {
        true => format!(
            "tls = 'bench'\n[tls.bench]\ncertificates = [{{ chain = {chain:?}, key = {key:?} }}]"
        ),
        false => String::new(),
    };
    format!(
        "[runtime]
drain_timeout = '0s'
tunnel_drain_timeout = '0s'
[timeouts]
keep_alive = '1h'
[limits]
connections = {descriptors}
requests_per_connection = 1000000000
[admin]
address = 'off'
[access_log]
format = 'off'
[[listeners]]
address = '{address}'
{tls}
[upstreams.origin]
endpoints = ['{origin}']
idle_connections = 128
[[routes]]
upstream = 'origin'
"
    )
}

fn nginx(address: SocketAddr, tls: bool, rig: &Rig, folder: &Path) -> String {
    let (origin, descriptors) = (rig.origin, 2 * rig.connections_max);
    let folder = folder.display();
    let (chain, key) = (rig.certificate.0.display(), rig.certificate.1.display());
    let (ssl, ssl_files) = match tls {
        true => ("ssl", format!("ssl_certificate {chain}; ssl_certificate_key {key};")),
        false => ("", String::new()),
    };
    format!(
        "worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors;
events {{ worker_connections {descriptors}; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_buffer_size 64k;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    proxy_max_temp_file_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    upstream origin {{
        server {origin};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:bench:10m;
    {ssl_files}
    server {{
        listen {address} backlog=4096 {ssl};
        location / {{ proxy_pass http://origin; }}
    }}
}}
"
    )
}

fn haproxy(address: SocketAddr, certificate: Option<&Path>, rig: &Rig) -> String {
    let Rig { origin, connections_max, .. } = rig;
    let ssl = certificate.map(|path| format!("ssl crt {}", path.display())).unwrap_or_default();
    format!(
        "global
    nbthread 1
    maxconn {connections_max}
defaults
    mode http
    timeout client 1h
    timeout server 1h
    timeout connect 5s
    timeout http-keep-alive 1h
    option forwardfor
    http-reuse always
frontend in
    bind {address} backlog 4096 {ssl}
    default_backend out
backend out
    server origin {origin} pool-max-conn 128
"
    )
}

/// Chain and key in one file, as HAProxy has it.
fn both(rig: &Rig) -> Result<String> {
    Ok(fs::read_to_string(&rig.certificate.0)? + &fs::read_to_string(&rig.certificate.1)?)
}

/// Which Pingora the program is made with.
fn pingora_version() -> String {
    let manifest = include_str!("../pingora/Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("pingora-proxy"));
    let version = line.and_then(|line| line.split('"').nth(1)).unwrap_or("?");
    format!("pingora-proxy {version}")
}
