//! The project's chores.

mod bench;
mod bench_policies;
mod conformance;
mod demo;
mod ebpf;
mod setup;
mod test;
mod tidy;
mod tls;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the gateway, start it with two small origins, and show what it counts.
    Demo {
        /// Stop by itself after this long; else Ctrl-C does.
        #[arg(long)]
        seconds: Option<u32>,
    },
    /// Run every check there is, or only some steps.
    Test {
        /// What to run; everything when none is named.
        steps: Vec<test::Step>,
    },
    /// Hold the gateway, nginx and HAProxy to the rules of HTTP and write the scorecard.
    Conformance {
        /// Write nothing; fail when the committed scorecard is not what comes out.
        #[arg(long)]
        check: bool,
    },
    /// Hold a TLS listener to the rules of handshakes, let testssl.sh look at it, and write the results.
    Tls {
        /// Write nothing; fail when the committed results are not what comes out.
        #[arg(long)]
        check: bool,
        /// Play only the cases with all of these words, and write nothing.
        words: Vec<String>,
    },
    /// Measure what the gateway and its peers cost for each request; `bench --help` has its options.
    #[command(disable_help_flag = true)]
    Bench {
        /// See `cargo xtask bench --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure what the kernel program costs for each packet, and who is served under a flood; needs root.
    #[command(disable_help_flag = true)]
    BenchKernel {
        /// See `cargo xtask bench-kernel --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure what each policy adds to a request.
    BenchPolicies {
        /// Write the table into tests/bench/RESULTS.md.
        #[arg(long)]
        write: bool,
    },
    /// Make the certificates that the examples use, good for ninety days, in target/certs.
    Certs,
    /// Check the rules no compiler knows.
    Tidy,
    /// Install what building the BPF object and running the tests need and this machine lacks.
    Setup,
    /// Build the BPF object into gateway-ebpf/object/.
    BuildEbpf {
        /// Write nothing; fail when the committed object is not what the sources give.
        #[arg(long)]
        check: bool,
    },
    /// Become a command that ends when the process that started it does.
    #[command(hide = true)]
    Tied {
        parent: i32,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match execute(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Every path in a chore is relative to the repository, wherever in it cargo was called.
fn execute(chore: Chore) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    std::env::set_current_dir(&root).with_context(|| root.display().to_string())?;
    match chore {
        Chore::Demo { seconds } => demo::run(seconds),
        Chore::Test { steps } => test::run(&steps),
        Chore::Conformance { check } => conformance::run(check),
        Chore::Tls { check, words } => tls::run(check, &words),
        Chore::Bench { arguments } => bench::run(&arguments),
        Chore::BenchKernel { arguments } => bench::run_kernel(&arguments),
        Chore::BenchPolicies { write } => bench_policies::run(write),
        Chore::Certs => {
            let folder = Path::new("target/certs");
            certs::write_examples(folder).with_context(|| folder.display().to_string())?;
            println!("certs: ca.pem, server.* and client.* in {}", folder.display());
            Ok(())
        }
        Chore::Tidy => tidy::run(),
        Chore::Setup => setup::run(),
        Chore::BuildEbpf { check } => ebpf::build(check),
        Chore::Tied { parent, command } => demo::tied::become_command(parent, &command),
    }
}
