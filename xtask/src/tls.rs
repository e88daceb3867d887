//! `cargo xtask tls`: plays a table of broken and odd handshakes against a listener of the gateway, lets
//! testssl.sh look at it, and writes down what came of both. Everything stays on loopback.

mod fuzz;
mod gateway;
mod testssl;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup;
use gateway::Gateway;

const RESULTS: &str = "tests/tls/RESULTS.md";
const REQUIREMENTS: &str = "tests/tls/requirements.txt";
/// Certificates, configuration, log, and a Python of its own.
const FOLDER: &str = "target/tls";
const PYTHON: &str = "target/tls/venv/bin/python";

/// Plays all and writes the results; with `check` compares them with the committed ones instead. With
/// `words` plays only the cases that have them all, and prints those that do not pass.
pub fn run(check: bool, words: &[String]) -> Result<()> {
    install_client()?;
    if !words.is_empty() {
        fuzz::play(&start()?, words)?.print(true);
        return Ok(());
    }
    let gateway = start()?;
    let played = fuzz::play(&gateway, &[])?;
    played.print(false);
    println!("tls: testssl.sh, about a minute");
    let looked = testssl::look(&gateway)?;
    gateway.stop()?;
    let page = format!("{HEAD}{}\n{}", played.render(), looked.render());
    match check {
        true => ensure!(
            std::fs::read_to_string(RESULTS).is_ok_and(|committed| committed == page),
            "{RESULTS} differs; run `cargo xtask tls`\n{page}"
        ),
        false => std::fs::write(RESULTS, &page).context(RESULTS)?,
    }
    played.judge()?;
    looked.judge()
}

const HEAD: &str = "# Results\n\nWritten by `cargo xtask tls`; [README.md](README.md) says how they come about.\n\n";

/// The part that takes seconds, compared with the committed results. Says so and passes where its
/// client is not installed.
pub fn check_cases() -> Result<()> {
    if !is_installed() {
        ensure!(std::env::var_os("CI").is_none(), "no tlslite-ng: run `cargo xtask setup`");
        println!("tls: skipped, no tlslite-ng: `cargo xtask setup` installs it");
        return Ok(());
    }
    let gateway = start()?;
    let played = fuzz::play(&gateway, &[])?;
    gateway.stop()?;
    played.print(false);
    played.judge()?;
    let committed = std::fs::read_to_string(RESULTS).context(RESULTS)?;
    ensure!(committed.contains(&played.render()), "{RESULTS} differs; run `cargo xtask tls`");
    Ok(())
}

/// Makes a virtual environment with the client of the cases in it, if there is none.
pub fn install_client() -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    println!("tls: installing what {REQUIREMENTS} names in {FOLDER}/venv");
    let venv = format!("{FOLDER}/venv");
    for (program, arguments) in [
        (setup::PYTHON, &["-m", "venv", "--clear", &venv][..]),
        (PYTHON, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]),
    ] {
        let mut command = Command::new(program);
        command.args(arguments);
        if program == PYTHON {
            command.args(["--no-deps", "--require-hashes", "--requirement", REQUIREMENTS]);
        }
        let status = command.status().with_context(|| format!("cannot run {program}"))?;
        ensure!(status.success(), "{program} {}: {status}", arguments.join(" "));
    }
    std::fs::copy(REQUIREMENTS, installed()).context(REQUIREMENTS)?;
    Ok(())
}

/// What the environment was made from, beside it.
fn installed() -> PathBuf {
    Path::new(FOLDER).join("venv/requirements.txt")
}

fn is_installed() -> bool {
    let wanted = std::fs::read(REQUIREMENTS);
    matches!((wanted, std::fs::read(installed())), (Ok(wanted), Ok(has)) if wanted == has)
}

/// A gateway with TLS as it is by default, built with assertions.
fn start() -> Result<Gateway> {
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--package", "gateway", "--bin", "gateway"])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the gateway does not build");
    // Beside this very program, wherever the target folder is.
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(2).context("no target folder")?;
    Gateway::start(&target.join("debug/gateway"), Path::new(FOLDER))
}
