//! `cargo xtask conformance`: holds the gateway, and nginx and HAProxy where they are installed, to
//! the cases in `tests/conformance`, and writes down who keeps which rule.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Writes the scorecard; with `check` compares it with the committed one instead.
pub fn run(check: bool) -> Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--quiet", "--package", "gateway", "--test", "conformance", "scorecard"])
        .args(["--", "--exact", "--ignored", "--nocapture"])
        .env("CONFORMANCE", if check { "check" } else { "write" })
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "a MUST is broken, or tests/conformance/SCORECARD.md is out of date");
    Ok(())
}
