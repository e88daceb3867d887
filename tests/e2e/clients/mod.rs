//! Clients nobody here wrote, a file for each family. What a script checks, it checks itself.

mod curl;
mod load;
mod node;
pub mod python;
mod slow;

use std::process::{Command, Output, Stdio};

/// Debian's, which has the modules that `cargo xtask setup` installs; another Python may come
/// first on the PATH.
pub const PYTHON: &str = "/usr/bin/python3";

/// Seconds any program may take, after which its test fails.
const PROGRAM_SECONDS: &str = "60";

/// Runs a program. `None` when it is not there, which only CI does not forgive.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    run_with(program, arguments, Stdio::null())
}

fn run_with(program: &str, arguments: &[&str], input: impl Into<Stdio>) -> Option<Output> {
    let mut command = Command::new("timeout");
    command.args([PROGRAM_SECONDS, program]).args(arguments).stdin(input);
    // Debian's undici; nobody else minds.
    command.env("NODE_PATH", "/usr/share/nodejs");
    let output = command.output().unwrap();
    if output.status.code() == Some(127) {
        skip(program);
        return None;
    }
    Some(output)
}

pub fn skip(missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "no {missing}; see cargo xtask setup");
    println!("skipped: no {missing}");
}

/// Runs a program that must succeed, and returns what it printed.
#[track_caller]
pub fn text_of(program: &str, arguments: &[&str]) -> Option<String> {
    run(program, arguments).as_ref().map(succeeded)
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", output.status);
    text
}

/// The path of a script that lies here.
pub fn script(name: &str) -> String {
    format!("{}/../tests/e2e/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Whether Debian's Python has a module.
pub fn has_module(module: &str) -> bool {
    let there = run(PYTHON, &["-I", "-c", &format!("import {module}")])
        .is_some_and(|output| output.status.success());
    if !there {
        skip(&format!("Python module {module}"));
    }
    there
}
