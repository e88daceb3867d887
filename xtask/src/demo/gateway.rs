//! The gateway as a process.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{ADMIN, CONFIG, admin, tied};

const READY_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// Running, or ended and not yet waited for. Dropped, it is killed: only an error does that.
pub struct Gateway(Child);

impl Gateway {
    pub fn start(binary: &Path) -> Result<Self> {
        let mut command = tied::command(binary)?;
        command.args(["run", "--config", CONFIG, "--access-log", "off"]);
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    /// Whether it became ready; if not, a stop was asked for meanwhile.
    pub fn wait_until_ready(&mut self, stop: &Receiver<()>) -> Result<bool> {
        let deadline = Instant::now() + READY_WITHIN;
        while admin::get("/readyz").is_err() {
            self.still_runs()?;
            ensure!(
                Instant::now() < deadline,
                "the gateway runs, but http://{ADMIN}/readyz did not say so within {READY_WITHIN:?}"
            );
            if stop.recv_timeout(POLL).is_ok() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fails when it ended by itself.
    pub fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("the gateway ended ({status}); what it said stands above");
        }
        Ok(())
    }

    /// Lets it finish what it does; a second request to stop ends it at once.
    pub fn stop(mut self, stop: &Receiver<()>) -> Result<()> {
        println!("demo: stopping");
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let status = loop {
            if let Some(status) = self.0.try_wait()? {
                break status;
            }
            if stop.recv_timeout(POLL).is_ok() {
                self.0.kill()?;
            }
        };
        ensure!(status.success(), "the gateway did not stop well: {status}");
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
