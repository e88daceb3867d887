//! `cargo xtask bench`: builds what is to be compared and hands over to the program in `tests/bench`.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::ebpf;

/// Runs the bench with its own arguments.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !help {
        cargo(&["build", "--release", "--workspace"])?;
    }
    // Minutes, and cmake, clang and libclang: only for who asks for it.
    let pingora = arguments.windows(2).any(|pair| pair == ["--peer", "pingora"]);
    if pingora && !help {
        let manifest = "tests/bench/pingora/Cargo.toml";
        let target = "target/pingora";
        cargo(&["build", "--release", "--manifest-path", manifest, "--target-dir", target])
            .context("Pingora's TLS is built by cmake and clang: apt install cmake libclang-dev")?;
    }
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--release", "--package", "bench", "--"]).args(arguments);
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "the bench failed");
    Ok(())
}

/// Runs the bench of the kernel program with its own arguments.
pub fn run_kernel(arguments: &[OsString]) -> Result<()> {
    let programs = ebpf::build_bench()?;
    let mut command = Command::new("cargo");
    command.args(["bench", "--quiet", "--workspace", "--bench", "kernel", "--"]);
    let status = command.args(arguments).env("BENCH_BPF", programs).status();
    ensure!(status.context("cannot run cargo")?.success(), "the bench failed");
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(arguments).status().context("cannot run cargo")?;
    ensure!(status.success(), "`cargo {}`: {status}", arguments.join(" "));
    Ok(())
}
