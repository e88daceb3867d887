//! Finds a compiler that can build `core` for BPF, and the linker that goes with it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A compiler with the sources of `core`.
pub struct Toolchain {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    /// The folder that holds the sources of `core` as `library/core`.
    pub library: PathBuf,
    /// Release, commit and LLVM, on one line.
    pub version: String,
    /// The major version of its LLVM, which the linker's must equal.
    pub llvm: u32,
}

/// A rustup nightly with `rust-src`, else the distribution's compiler.
pub fn find() -> Result<Toolchain> {
    if let Some(nightly) = nightly()? {
        return Ok(nightly);
    }
    if let Some(system) = system()? {
        return Ok(system);
    }
    bail!("no compiler here can build for BPF: `cargo xtask setup` says what is missing")
}

/// The rustup nightly, if it is there with its `rust-src` component.
pub fn nightly() -> Result<Option<Toolchain>> {
    let which = |tool| output("rustup", &["which", "--toolchain", "nightly", tool]);
    match (which("cargo"), which("rustc")) {
        (Some(cargo), Some(rustc)) => inspect(cargo.into(), rustc.into()),
        _ => Ok(None),
    }
}

/// The distribution's compiler, if it is there with the sources of `core`.
pub fn system() -> Result<Option<Toolchain>> {
    inspect("/usr/bin/cargo".into(), "/usr/bin/rustc".into())
}

fn inspect(cargo: PathBuf, rustc: PathBuf) -> Result<Option<Toolchain>> {
    if !cargo.exists() || !rustc.exists() {
        return Ok(None);
    }
    let ask = |arguments: &[&str]| {
        output(&rustc, arguments).with_context(|| format!("cannot run {}", rustc.display()))
    };
    let sysroot = ask(&["--print", "sysroot"])?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust");
    if !library.join("library/core/Cargo.toml").exists() {
        return Ok(None);
    }
    let verbose = ask(&["-vV"])?;
    let field = |key: &str| {
        let value = verbose.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        value.with_context(|| format!("`rustc -vV` does not say its {key}"))
    };
    let (release, commit) = (field("release")?, field("commit-hash")?);
    let llvm_version = field("LLVM version")?;
    let llvm = llvm_version.split('.').next().and_then(|major| major.parse().ok());
    let version = format!("rustc {release} ({commit}), LLVM {llvm_version}");
    let llvm = llvm.with_context(|| format!("no number in LLVM version {llvm_version}"))?;
    Ok(Some(Toolchain { cargo, rustc, library, version, llvm }))
}

/// bpf-linker, as it is installed.
pub struct Linker {
    version: String,
    /// The major version of its LLVM, unless that is linked statically.
    pub llvm: Option<u32>,
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.version)
    }
}

/// bpf-linker on the PATH, if there is one.
pub fn linker() -> Result<Option<Linker>> {
    let Some(version) = output("bpf-linker", &["--version"]) else {
        return Ok(None);
    };
    let path = output("sh", &["-c", "command -v bpf-linker"]).context("sh has no `command -v`")?;
    // libLLVM.so.22.1 => …
    let llvm = output("ldd", &[&path])
        .and_then(|libraries| {
            let (_, after) = libraries.split_once("libLLVM")?;
            let digits = after.trim_start_matches(|c: char| !c.is_ascii_digit());
            Some(digits.chars().take_while(char::is_ascii_digit).collect::<String>())
        })
        .and_then(|major| major.parse().ok());
    Ok(Some(Linker { version, llvm }))
}

/// What a command prints, trimmed, if it exists and succeeds.
pub fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
