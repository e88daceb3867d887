//! `cargo xtask build-ebpf`: the BPF object, built so that the same sources and the same compiler
//! give the same bytes on every machine.

mod object;
pub mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use toolchain::Toolchain;

/// The committed object, embedded by `gateway`.
const OBJECT: &str = "gateway-ebpf/object/gateway.bpf.o";
/// Beside it: what it was built with and from.
const ORIGIN: &str = "gateway-ebpf/object/gateway.bpf.origin";
/// The BPF binaries of `gateway-ebpf`: what is embedded, and what measures it.
const BINARY: &str = "gateway-bpf";
const BENCH_BINARY: &str = "bench-bpf";
const TARGET: &str = "bpfel-unknown-none";

/// Builds the object in place, or with `check` fails when that would change it.
pub fn build(check: bool) -> Result<()> {
    let root = root()?;
    let toolchain = toolchain::find()?;
    let linker = toolchain::linker()?
        .context("bpf-linker is not on the PATH: `cargo xtask setup` installs it")?;
    ensure!(
        linker.llvm.is_none_or(|llvm| llvm == toolchain.llvm),
        "bpf-linker has another LLVM than {}: `cargo xtask setup` installs the right one",
        toolchain.version
    );
    let built = object::without_debug_info(&fs::read(compile(&root, &toolchain, BINARY)?)?)?;
    let origin = Origin {
        compiler: toolchain.version.clone(),
        linker: linker.to_string(),
        sources: format!("{:016x}", digest_of_sources(&root)?),
    };
    if check {
        return compare(&root, &built, &origin);
    }
    fs::create_dir_all(root.join(OBJECT).with_file_name(""))?;
    fs::write(root.join(OBJECT), &built).with_context(|| format!("cannot write {OBJECT}"))?;
    fs::write(root.join(ORIGIN), origin.to_text())
        .with_context(|| format!("cannot write {ORIGIN}"))?;
    println!("{OBJECT}: {} bytes, by {}", built.len(), origin.compiler);
    Ok(())
}

fn compare(root: &Path, built: &[u8], here: &Origin) -> Result<()> {
    let again = "run `cargo xtask build-ebpf` and commit the result";
    let read =
        |path: &str| fs::read(root.join(path)).with_context(|| format!("no {path}: {again}"));
    let committed = read(OBJECT)?;
    let origin = Origin::from_text(&String::from_utf8(read(ORIGIN)?)?)?;

    let differences = object::differences(&committed, built)?;
    if differences.is_empty() {
        println!("{OBJECT}: is what the sources give, by {}", here.compiler);
        return Ok(());
    }
    let differs = differences.join(", ");
    if origin.is_from_the_same_tools(here) {
        bail!("{OBJECT} is not what the sources give: {differs} differ; {again}");
    }
    let tools = format!(
        "it was built by {} and {}, here are {} and {}",
        origin.compiler, origin.linker, here.compiler, here.linker
    );
    // Another compiler may well give other instructions. That the committed object comes from
    // these sources can still be told by their digest.
    ensure!(
        origin.sources == here.sources,
        "{OBJECT} was built from other sources than these ({differs} differ; {tools}); {again}"
    );
    println!("{OBJECT}: comes from these sources; {differs} not compared, as {tools}");
    Ok(())
}

/// Builds what the kernel bench runs; where it is.
pub fn build_bench() -> Result<PathBuf> {
    compile(&root()?, &toolchain::find()?, BENCH_BINARY)
}

/// Builds a binary; where cargo and bpf-linker leave it.
fn compile(root: &Path, toolchain: &Toolchain, binary: &str) -> Result<PathBuf> {
    let target_dir = root.join("target/bpf");
    let status = Command::new(&toolchain.cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--release", "-Zbuild-std=core"])
        .args(["--target", TARGET, "--package", "gateway-ebpf", "--features", "bpf"])
        .args(["--bin", binary])
        .env("RUSTC", &toolchain.rustc)
        // Debian's compiler is a stable one; this unlocks build-std and the one intrinsic we need.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, toolchain)?.join("\x1f"))
        // BTF is made from full debug information.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        // What `cargo xtask` itself runs under must not leak in.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .with_context(|| format!("cannot run {}", toolchain.cargo.display()))?;
    ensure!(status.success(), "building the BPF object failed");
    Ok(target_dir.join(TARGET).join("release").join(binary))
}

fn flags(root: &Path, toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags = vec![
        // aya-ebpf picks its kernel structures by it; XDP uses none that differ.
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // The first CPU with compare-and-swap and 32-bit jumps: Linux 5.12.
        "-Ctarget-cpu=v3".to_owned(),
    ];
    // BTF names source files: only by paths that are the same everywhere.
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root, ".");
    remap(&toolchain.library, "/rust");
    remap(&toolchain.library.canonicalize()?, "/rust");
    for registry in registries()? {
        remap(&registry, "/crates");
    }
    Ok(flags)
}

/// Where cargo unpacks crates: one folder for each registry.
fn registries() -> Result<Vec<PathBuf>> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sources = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    // A first build has no crates yet; the folder's name must be known before cargo makes it.
    if !sources.is_dir() {
        let fetched = Command::new("cargo").args(["fetch", "--quiet", "--locked"]).status()?;
        ensure!(fetched.success(), "cargo fetch failed");
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(&sources).with_context(|| sources.display().to_string())? {
        folders.push(entry?.path());
    }
    folders.sort();
    Ok(folders)
}

/// What an object was built with and from.
struct Origin {
    compiler: String,
    linker: String,
    sources: String,
}

impl Origin {
    fn to_text(&self) -> String {
        let Self { compiler, linker, sources } = self;
        format!("compiler: {compiler}\nlinker: {linker}\nsources: {sources}\n")
    }

    fn from_text(text: &str) -> Result<Self> {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .map(str::to_owned)
                .with_context(|| format!("{ORIGIN} has no line \"{key}:\""))
        };
        Ok(Self {
            compiler: value("compiler")?,
            linker: value("linker")?,
            sources: value("sources")?,
        })
    }

    fn is_from_the_same_tools(&self, other: &Self) -> bool {
        self.compiler == other.compiler && self.linker == other.linker
    }
}

/// FNV-1a over everything of ours that goes into the object, and the versions of what does not.
fn digest_of_sources(root: &Path) -> Result<u64> {
    let folder = root.join("gateway-ebpf/src");
    let mut files = vec![root.join("gateway-ebpf/Cargo.toml")];
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let file = entry?.path();
        if !file.to_string_lossy().ends_with("_tests.rs") {
            files.push(file);
        }
    }
    files.sort();
    let mut digest = Fnv::default();
    for file in files {
        digest.add(file.strip_prefix(root)?.as_os_str().as_encoded_bytes());
        digest.add(&fs::read(&file).with_context(|| file.display().to_string())?);
    }
    let lock = fs::read_to_string(root.join("Cargo.lock"))?;
    for package in lock.split("[[package]]") {
        let kernel_side = ["name = \"aya-ebpf", "name = \"aya-log-ebpf", "name = \"aya-log-common"];
        if kernel_side.iter().any(|name| package.trim_start().starts_with(name)) {
            digest.add(package.trim().as_bytes());
        }
    }
    Ok(digest.0)
}

struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Adds one part, apart from the next.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    Ok(root.context("xtask has no parent folder")?.to_owned())
}
