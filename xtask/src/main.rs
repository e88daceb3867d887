//! The project's chores.

mod ebpf;
mod setup;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what building the BPF object and running the tests need and this machine lacks.
    Setup,
    /// Build the BPF object into gateway-ebpf/object/.
    BuildEbpf {
        /// Write nothing; fail when the committed object is not what the sources give.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Setup => setup::run(),
        Chore::BuildEbpf { check } => ebpf::build(check),
    }
}
