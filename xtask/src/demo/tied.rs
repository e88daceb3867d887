//! A process that does not outlive the one that starts it, even if that one is killed.
//!
//! Between fork and exec only `unsafe` code can run, so this program starts itself once more, asks
//! the kernel to end it with its parent, and then becomes the command; exec keeps the request.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// `program`, tied to the calling thread, which must live as long as the process: the main one.
/// In a group of its own, so that the terminal's Ctrl-C reaches only the parent.
pub fn command(program: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("tied").arg(process::id().to_string()).arg("--").arg(program).process_group(0);
    Ok(command)
}

/// What [`command`] runs; comes back only with an error.
pub fn become_command(parent: i32, command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have died just before.
    let living = getppid().map(|pid| pid.as_raw_nonzero().get());
    ensure!(living == Some(parent), "started by another process than {parent}");
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
