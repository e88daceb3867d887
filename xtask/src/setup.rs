//! `cargo xtask setup`: finds out what building the BPF object and running the tests need, installs
//! what is missing, and says each thing it finds or does in one line.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::ebpf::toolchain::{self, Toolchain};
use crate::tls;

/// The version this project builds with; it decides instructions as much as the compiler does.
const BPF_LINKER: &str = "0.13.0";

/// Programs the tests and the benches run, and the Debian package of each.
const TEST_PROGRAMS: [(&str, &str); 14] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("curl", "curl"),
    ("ab", "apache2-utils"),
    ("wrk", "wrk"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("slowhttptest", "slowhttptest"),
    ("testssl", "testssl.sh"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("ethtool", "ethtool"),
    ("nft", "nftables"),
    ("xdp-filter", "xdp-tools"),
];

/// Those that Debian starts as services when it installs them, which nobody asked for.
const SERVICES: [&str; 2] = ["nginx", "haproxy"];

/// Modules of Debian's Python, whichever comes first on the PATH, and the Debian package of each.
const PYTHON_MODULES: [(&str, &str); 7] = [
    ("aiohttp", "python3-aiohttp"),
    ("cryptography", "python3-cryptography"),
    ("ensurepip", "python3-venv"),
    ("h11", "python3-h11"),
    ("httpx", "python3-httpx"),
    ("jwt", "python3-jwt"),
    ("websockets", "python3-websockets"),
];

/// Debian's.
pub const PYTHON: &str = "/usr/bin/python3";

/// Where Debian's packages of JavaScript lie, and the one the tests use.
const UNDICI: (&str, &str) = ("/usr/share/nodejs/undici", "node-undici");

/// Installs what is missing. Does nothing, quickly, when nothing is.
pub fn run() -> Result<()> {
    let toolchain = compiler()?;
    linker(&toolchain)?;
    test_programs()?;
    tls::install_client()?;
    println!("setup: everything is there");
    Ok(())
}

fn compiler() -> Result<Toolchain> {
    if let Some(nightly) = toolchain::nightly()? {
        println!("compiler: rustup's nightly with rust-src, {}", nightly.version);
        return Ok(nightly);
    }
    if toolchain::system()?.is_none() {
        ensure!(
            is_debian(),
            "no compiler here can build for BPF: \
             run `rustup toolchain install nightly --component rust-src`"
        );
        println!("compiler: no rustup nightly with rust-src, installing Debian's");
        install(&["rustc-web", "rust-web-src", "cargo-web"])?;
    }
    let system = toolchain::system()?
        .context("Debian's packages are installed, but /usr/bin/rustc has no sources of `core`")?;
    println!("compiler: the system's, {}", system.version);
    Ok(system)
}

fn linker(toolchain: &Toolchain) -> Result<()> {
    let llvm = toolchain.llvm;
    match toolchain::linker()? {
        // A statically linked one cannot be asked for its LLVM; the build will tell.
        Some(linker) if linker.llvm.is_none_or(|major| major == llvm) => {
            println!("linker: {linker} with LLVM {llvm}");
            return Ok(());
        }
        Some(linker) => println!("linker: {linker} has another LLVM than the compiler's {llvm}"),
        None => println!("linker: no bpf-linker"),
    }
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if !Path::new(&prefix).join("bin/llvm-config").exists() {
        ensure!(
            is_debian(),
            "bpf-linker needs LLVM {llvm}'s development files in {prefix}, or put a bpf-linker \
             that has LLVM {llvm} on the PATH"
        );
        println!("linker: installing LLVM {llvm}'s development files");
        install(&[&format!("llvm-{llvm}-dev")])?;
    }
    println!("linker: building bpf-linker {BPF_LINKER}, about a minute");
    let status = Command::new("cargo")
        .args(["install", "--quiet", "--locked", "--force"])
        .args(["bpf-linker", "--version", BPF_LINKER])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", &prefix)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo install bpf-linker failed");
    ensure!(
        toolchain::linker()?.is_some(),
        "bpf-linker is installed, but not on the PATH: add cargo's bin folder to it"
    );
    Ok(())
}

fn test_programs() -> Result<()> {
    let mut missing: Vec<_> =
        TEST_PROGRAMS.into_iter().filter(|(program, _)| !is_on_path(program)).collect();
    missing.extend(PYTHON_MODULES.into_iter().filter(|(module, _)| !has_module(module)));
    missing.extend(Some(UNDICI).filter(|(folder, _)| !Path::new(folder).exists()));
    if missing.is_empty() {
        println!("test programs: all there");
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    ensure!(is_debian(), "the tests need these programs and modules: {}", names.join(", "));
    println!("test programs: installing {}", names.join(", "));
    install(&missing.iter().map(|(_, package)| *package).collect::<Vec<_>>())?;
    for service in SERVICES.into_iter().filter(|service| names.contains(service)) {
        // Where no systemd runs nothing was started.
        let _ = toolchain::output("systemctl", &["disable", "--now", service]);
    }
    Ok(())
}

fn has_module(module: &str) -> bool {
    let import = format!("import {module}");
    toolchain::output(PYTHON, &["-I", "-c", &import]).is_some()
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if toolchain::output("id", &["-u"]).as_deref() != Some("0") {
        bail!("run as root: apt-get install --no-install-recommends {list}");
    }
    for arguments in [
        &["update", "--quiet=2"][..],
        &[&["install", "--quiet=2", "--yes", "--no-install-recommends"], packages].concat(),
    ] {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .context("cannot run apt-get")?;
        ensure!(status.success(), "apt-get {} failed", arguments.join(" "));
    }
    Ok(())
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists()
}

fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        // Daemons lie where an ordinary user does not look.
        let folders = std::env::split_paths(&path).chain(Some("/usr/sbin".into()));
        folders.into_iter().any(|folder| folder.join(program).is_file())
    })
}
