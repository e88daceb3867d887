//! `cargo xtask test`: every check there is, in order, up to the first that fails. `.ci/run` does the
//! same on a new machine.

use std::num::NonZero;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{conformance, ebpf, tidy, tls};

/// From quick to slow, but for the last: it needs a second toolchain, which not everybody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// The layout is rustfmt's
    Fmt,
    /// Nothing the compiler or clippy warns of
    Clippy,
    /// The rules no compiler knows
    Tidy,
    /// The documentation's links lead somewhere
    Doc,
    /// Unit tests, end to end, the configuration, the kernel program
    Tests,
    /// End to end and the rules of HTTP once more, on epoll in place of io_uring
    Epoll,
    /// The rules of HTTP, beside nginx and HAProxy
    Conformance,
    /// The rules of TLS handshakes
    Tls,
    /// The committed BPF object is what the sources give
    Ebpf,
}

impl Step {
    fn run(self) -> Result<()> {
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"], &[]),
            Self::Clippy => cargo(
                &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
                &[],
            ),
            Self::Tidy => tidy::run(),
            Self::Doc => cargo(
                &["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"],
                &[("RUSTDOCFLAGS", "-D warnings".to_owned())],
            ),
            Self::Tests => cargo(&["test", "--workspace"], &[threads()]),
            Self::Epoll => cargo(
                // The workspace, as its features together are what is built already.
                &["test", "--workspace", "--test", "e2e", "--test", "conformance"],
                &[("GATEWAY_TEST_DRIVER", "epoll".to_owned()), threads()],
            ),
            Self::Conformance => conformance::run(true),
            Self::Tls => tls::check_cases(),
            Self::Ebpf => ebpf::build(true),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs the named steps, or all.
pub fn run(named: &[Step]) -> Result<()> {
    let mut times = Vec::new();
    let started = Instant::now();
    for step in Step::value_variants() {
        if !named.is_empty() && !named.contains(step) {
            continue;
        }
        let name = step.name();
        println!("\ntest: {name} …");
        let step_started = Instant::now();
        step.run().with_context(|| {
            format!(
                "{name} failed after {}; it alone: `cargo xtask test {name}`",
                seconds(step_started.elapsed())
            )
        })?;
        let time = seconds(step_started.elapsed());
        println!("test: {name} ok, {time}");
        times.push(format!("{name} {time}"));
    }
    println!("\ntest: all ok in {} ({})", seconds(started.elapsed()), times.join(", "));
    Ok(())
}

fn cargo(arguments: &[&str], environment: &[(&str, String)]) -> Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "`cargo {}`: {status}", arguments.join(" "));
    Ok(())
}

/// More tests at once than there are CPUs, as most wait most of the time.
fn threads() -> (&'static str, String) {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    ("RUST_TEST_THREADS", (2 * cpus).to_string())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
