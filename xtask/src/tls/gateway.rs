//! The gateway as a process, with a listener that speaks TLS in front of a toy origin.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::demo::{origin, tied};

const READY_WITHIN: Duration = Duration::from_secs(15);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// Running. Dropped, it is killed: only an error does that.
pub struct Gateway {
    pub address: SocketAddr,
    /// Whom a client trusts.
    pub ca: PathBuf,
    admin: SocketAddr,
    process: Child,
}

impl Gateway {
    /// Starts it on ports of the kernel's choice; all it needs is written into `folder`.
    pub fn start(binary: &Path, folder: &Path) -> Result<Self> {
        certs::write_examples(folder).with_context(|| folder.display().to_string())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let config = folder.join("gateway.toml");
        std::fs::write(&config, configuration(listener.local_addr()?, folder))?;
        origin::start("origin", listener)?;
        let mut command = tied::command(binary)?;
        command.args(["run", "--config"]).arg(&config).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let stderr = process.stderr.take().context("no standard error")?;
        let lines = follow(stderr, File::create(folder.join("gateway.log"))?);
        let unset = SocketAddr::from(([127, 0, 0, 1], 0));
        let ca = folder.join("ca.pem");
        let mut gateway = Self { address: unset, ca, admin: unset, process };
        while gateway.address == unset || gateway.admin == unset {
            let line = lines
                .recv_timeout(READY_WITHIN)
                .with_context(|| format!("the gateway does not listen: see {folder:?}"))?;
            let after = |words: &str| line.split_once(words)?.1.trim().parse().ok();
            gateway.address = after("listening on ").unwrap_or(gateway.address);
            gateway.admin = after("admin on ").unwrap_or(gateway.admin);
        }
        Ok(gateway)
    }

    /// Lets it end, which it must do well and without having panicked.
    pub fn stop(mut self) -> Result<()> {
        let panics = self.metric("gateway_panics_total")?;
        ensure!(panics == "0", "the gateway panicked {panics} times: see its log");
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        let status = loop {
            if let Some(status) = self.process.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "the gateway does not stop");
            thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "the gateway did not stop well: {status}");
        Ok(())
    }

    fn metric(&self, name: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(READY_WITHIN))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name}"))?.to_owned())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// One worker, so that a session it keeps is found again.
fn configuration(origin: SocketAddr, folder: &Path) -> String {
    let (chain, key) = (folder.join("server.pem"), folder.join("server.key"));
    format!(
        "[runtime]\ncores = \"1\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n\
         [access_log]\nformat = \"off\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\ntls = \"main\"\n\
         [tls.main]\ncertificates = [{{ chain = {chain:?}, key = {key:?} }}]\n\
         [upstreams.main]\nendpoints = [\"{origin}\"]\n\
         [[routes]]\nupstream = \"main\"\n"
    )
}

/// Copies what it says into its log, and hands on each line until nobody listens.
fn follow(stream: impl Read + Send + 'static, mut log: File) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // A log that cannot be written is missed by nobody but a reader of it.
            drop(writeln!(log, "{line}"));
            drop(send.send(line));
        }
    });
    lines
}
