//! `cargo xtask demo`: the gateway at work, on a machine with only Rust installed. Two origins (threads
//! in here), the gateway (a release build in its own process) and a line a second of what it counts.

mod admin;
mod gateway;
pub mod origin;
pub mod tied;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use admin::Counts;
use gateway::Gateway;

/// These addresses are `config/gateway.toml`'s; a test compares them.
const CONFIG: &str = "config/gateway.toml";
const CLIENTS: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9901";
const ORIGINS: [&str; 2] = ["127.0.0.1:9001", "127.0.0.1:9002"];

/// Runs until Ctrl-C, or for that many seconds.
pub fn run(seconds: Option<u32>) -> Result<()> {
    let binary = build()?;
    let stop = stop_requests()?;
    for address in ORIGINS {
        origin::start(address, listen(address)?)?;
    }
    // Asked first, so that the answer to "ready?" comes from the gateway started here.
    for address in [CLIENTS, ADMIN] {
        drop(listen(address)?);
    }
    let mut gateway = Gateway::start(&binary)?;
    if gateway.wait_until_ready(&stop)? {
        welcome(Counts::read()?.kernel.is_some());
        watch(&mut gateway, &stop, seconds)?;
    }
    gateway.stop(&stop)
}

fn build() -> Result<PathBuf> {
    println!("demo: building the gateway, a few minutes the first time");
    let status = Command::new("cargo")
        .args(["build", "--release", "--package", "gateway", "--bin", "gateway"])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the gateway does not build");
    // Beside this very program, wherever the target folder is.
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(2).context("no target folder")?;
    Ok(target.join("release/gateway"))
}

/// From here on Ctrl-C and SIGTERM only send a message.
fn stop_requests() -> Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for _ in signals.forever() {
            if send.send(()).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

fn listen(address: &str) -> Result<TcpListener> {
    let parsed: SocketAddr = address.parse()?;
    TcpListener::bind(parsed).with_context(|| {
        format!("the demo needs {address}: see who has it with `ss -ltnp` and end that")
    })
}

fn welcome(kernel: bool) {
    println!();
    for address in ORIGINS {
        println!("         origin  http://{address}/");
    }
    println!("        gateway  http://{CLIENTS}/");
    println!("          admin  http://{ADMIN}/metrics");
    if !kernel {
        let why = if rustix::process::geteuid().is_root() {
            "the gateway says why above"
        } else {
            "it needs root"
        };
        println!("    kernel part  off: {why}");
    } else {
        println!("    kernel part  attached to lo, only counting");
    }
    println!("\nTry in another terminal:");
    println!("  curl http://{CLIENTS}/             # either origin in turn");
    println!("  curl http://{CLIENTS}/first/page   # always the first");
    println!(
        "  curl -s -o /dev/null -H 'Connection: close' 'http://{CLIENTS}/?[1-600]'   \
         # 600 connections, all allowed: this machine always is"
    );
    println!("\nCtrl-C stops everything.\n");
}

/// Prints a line a second until told to stop, the time is over, or the gateway ends.
fn watch(gateway: &mut Gateway, stop: &Receiver<()>, seconds: Option<u32>) -> Result<()> {
    let mut before = (Instant::now(), Counts::read()?);
    for _ in 0..seconds.unwrap_or(u32::MAX) {
        if stop.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        gateway.still_runs()?;
        let now = (Instant::now(), Counts::read()?);
        let elapsed = now.0.duration_since(before.0).as_secs_f64();
        let requests = now.1.responses.saturating_sub(before.1.responses);
        println!("{:7.0} requests/s  {}", requests as f64 / elapsed, now.1);
        before = now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_those_of_the_file() {
        let path = format!("{}/../{CONFIG}", env!("CARGO_MANIFEST_DIR"));
        let file = std::fs::read_to_string(path).unwrap();
        for address in [CLIENTS, ADMIN, ORIGINS[0], ORIGINS[1]] {
            assert!(file.contains(&format!("\"{address}\"")), "{address} is not in {CONFIG}");
        }
    }
}
