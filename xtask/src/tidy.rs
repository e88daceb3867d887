//! `cargo xtask tidy`: the rules no compiler knows. Each finding is one line, `file:line: message`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Words that stand only in certain files.
struct Ban {
    words: &'static [&'static str],
    /// Where it holds: the path's beginning …
    under: &'static str,
    /// … and one of its endings.
    kinds: &'static [&'static str],
    /// Files and folders it does not hold for.
    except: &'static [&'static str],
    message: &'static str,
}

const EVERYWHERE: &str = "";
const ALL_KINDS: &[&str] = &[""];
/// The words themselves stand in this file.
const THIS_FILE: &str = "xtask/src/tidy.rs";

const BANS: [Ban; 4] = [
    Ban {
        words: &["monoio::", "use monoio"],
        under: "gateway/src/",
        kinds: &[".rs"],
        except: &["gateway/src/net/"],
        message: "only net/ names the runtime",
    },
    // The workspace's lint refuses unsafe code; a file can only get around it by naming the lint.
    Ban {
        words: &["unsafe_code"],
        under: EVERYWHERE,
        kinds: &[".rs"],
        except: &[
            "gateway/src/sys.rs",
            "gateway/src/net/stream.rs",
            "gateway-ebpf/src/main.rs",
            "gateway-ebpf/src/abi.rs",
            // BPF, too.
            "tests/bench/kernel/programs.rs",
            THIS_FILE,
        ],
        message: "unsafe code is for the files that xtask/src/tidy.rs names",
    },
    Ban {
        words: &["TODO", "FIXME", "XXX"],
        under: EVERYWHERE,
        kinds: &[".rs", ".toml", ".md", ".ci/run"],
        except: &[THIS_FILE],
        message: "do it, or make it an issue",
    },
    // Also in the BPF object, whose debug information names source files.
    Ban {
        words: &["/root/", "/home/", "/work/"],
        under: EVERYWHERE,
        kinds: ALL_KINDS,
        except: &[THIS_FILE],
        message: "a path of somebody's machine",
    },
];

const RUST_LINES_MAX: usize = 600;

/// A module of the gateway that uses one below it in `lib.rs`, and why it may: none today.
const IMPORTS_ALLOWED: [(&str, &str, &str); 0] = [];

/// What is in the repository's folder and not the project's. In a second worktree .git is a file.
const SKIPPED: [&str; 2] = ["./.git", "./target"];

/// Fails when a rule is broken.
pub fn run() -> Result<()> {
    let files = read_files(Path::new("."))?;
    let findings = check(&files)?;
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(findings.is_empty(), "{} against the rules of xtask/src/tidy.rs", findings.len());
    println!("tidy: {} files in order", files.len());
    Ok(())
}

struct File {
    /// Relative to the repository.
    path: String,
    /// What is not UTF-8 is replaced.
    text: String,
}

fn read_files(folder: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if SKIPPED.iter().any(|skipped| Path::new(skipped) == path) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files.extend(read_files(&path)?);
        } else {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            files.push(File { path: path.strip_prefix(".")?.display().to_string(), text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn check(files: &[File]) -> Result<Vec<String>> {
    let text_of = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.map(|file| file.text.as_str()).with_context(|| format!("no {path}"))
    };
    let order = modules(text_of("gateway/src/lib.rs")?);
    let readme = text_of("README.md")?;
    let mut findings = Vec::new();
    for file in files {
        findings.extend(BANS.iter().flat_map(|ban| banned_words(file, ban)));
        findings.extend(imports_from_below(file, &order));
        findings.extend(too_long(file));
        findings.extend(lints_left_out(file));
        findings.extend(not_named(file, readme, files));
    }
    Ok(findings)
}

fn banned_words(file: &File, ban: &Ban) -> Vec<String> {
    let path = &file.path;
    let applies = path.starts_with(ban.under)
        && ban.kinds.iter().any(|kind| path.ends_with(kind))
        && !ban.except.iter().any(|except| path.starts_with(except));
    if !applies {
        return Vec::new();
    }
    let lines = file.text.lines().enumerate().filter_map(|(index, line)| {
        let word = ban.words.iter().find(|word| line.contains(**word))?;
        Some(format!("{path}:{}: {word}: {}", index + 1, ban.message))
    });
    lines.collect()
}

/// The modules in the order `lib.rs` declares them.
fn modules(lib: &str) -> Vec<&str> {
    let declared = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    declared.collect()
}

fn imports_from_below(file: &File, order: &[&str]) -> Vec<String> {
    let place = |module: &str| order.iter().position(|known| *known == module);
    let Some(importer) = file.path.strip_prefix("gateway/src/").map(top_level) else {
        return Vec::new();
    };
    // `lib.rs` and `main.rs` stand above all.
    let Some(importer_place) = place(importer) else { return Vec::new() };
    let broken = crate_paths(&file.text).into_iter().filter(|(_, used)| {
        let from_below = place(used).is_none_or(|used_place| used_place > importer_place);
        from_below && !IMPORTS_ALLOWED.iter().any(|(who, what, _)| (*who, what) == (importer, used))
    });
    broken
        .map(|(line, used)| {
            format!("{}:{line}: `{importer}` uses `{used}`, which lib.rs puts below it", file.path)
        })
        .collect()
}

/// `action` of `action/relay.rs`, `cli` of `cli.rs`.
fn top_level(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap_or(path)
}

/// What follows each `crate::` in code, with its line: one name, or those of a list in braces.
fn crate_paths(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (position, path) in text.match_indices("crate::") {
        let (before, here) = text.split_at(position);
        let is_comment = before.rsplit('\n').next().is_some_and(|line| line.contains("//"));
        let Some(after) = here.strip_prefix(path).filter(|_| !is_comment) else { continue };
        let line = before.matches('\n').count() + 1;
        match after.strip_prefix('{') {
            Some(list) => found.extend(names_of_list(list).into_iter().map(|name| (line, name))),
            None => found.extend(first_name(after).map(|name| (line, name))),
        }
    }
    found
}

/// `a` and `d` of `a::{b, c}, d}`.
fn names_of_list(list: &str) -> Vec<&str> {
    let (mut depth, mut starts, mut names) = (0_u32, true, Vec::new());
    for (position, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts = true,
            _ if character.is_whitespace() => {}
            _ if starts => {
                names.extend(list.get(position..).and_then(first_name));
                starts = false;
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> Option<&str> {
    path.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

fn too_long(file: &File) -> Option<String> {
    let lines = file.text.lines().count();
    (file.path.ends_with(".rs") && lines > RUST_LINES_MAX)
        .then(|| format!("{}:{lines}: more than {RUST_LINES_MAX} lines", file.path))
}

/// A package that forgets this line has none of the workspace's lints.
fn lints_left_out(file: &File) -> Option<String> {
    let is_member = file.path.ends_with("/Cargo.toml") && !file.text.contains("[workspace]");
    (is_member && !file.text.contains("[lints]\nworkspace = true"))
        .then(|| format!("{}:1: `[lints] workspace = true` is missing", file.path))
}

/// A configuration that we ship is one that the README leads to or a test names.
fn not_named(file: &File, readme: &str, files: &[File]) -> Option<String> {
    let path = &file.path;
    let (folder, _) = path.strip_suffix(".toml")?.rsplit_once('/')?;
    if !["config", "config/examples"].contains(&folder) {
        return None;
    }
    let linked = [path, folder].iter().any(|path| readme.contains(&format!("]({path})")));
    let is_test = |file: &&File| file.path.starts_with("tests/") && file.path.ends_with(".rs");
    let tested = files.iter().filter(is_test).any(|test| test.text.contains(path.as_str()));
    (!linked && !tested).then(|| format!("{path}:1: neither the README nor a test names it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [&str; 3] = ["http", "net", "action"];

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn findings(path: &str, text: &str) -> Vec<String> {
        imports_from_below(&file(path, text), &ORDER)
    }

    #[test]
    fn the_order_is_that_of_lib() {
        let lib = "//! The library.\n\npub mod http;\n\npub mod net;\nmod private { }\n";
        assert_eq!(modules(lib), ["http", "net"]);
    }

    #[test]
    fn a_module_uses_itself_and_those_above() {
        let text = "use crate::http::head::Head;\nuse crate::{http, net::Stream};\n";
        assert!(findings("gateway/src/net/rt.rs", text).is_empty());
        assert!(findings("gateway/src/main.rs", "use crate::action;").is_empty());
        assert!(findings("xtask/src/main.rs", "use crate::action;").is_empty());
    }

    #[test]
    fn a_module_uses_none_below() {
        assert_eq!(
            findings("gateway/src/http/mod.rs", "\nuse crate::net::Stream;\n"),
            ["gateway/src/http/mod.rs:2: `http` uses `net`, which lib.rs puts below it"]
        );
        assert_eq!(findings("gateway/src/net.rs", "fn f() -> crate::action::Relay {}").len(), 1);
        assert_eq!(findings("gateway/src/net.rs", "use crate::unheard_of;").len(), 1);
    }

    #[test]
    fn every_name_of_a_list_counts() {
        let text = "use crate::{\n    http::{Head, action},\n    net,\n    action,\n};\n";
        assert_eq!(crate_paths(text), [(1, "http"), (1, "net"), (1, "action")]);
        assert_eq!(findings("gateway/src/http/mod.rs", text).len(), 2);
    }

    #[test]
    fn comments_import_nothing() {
        assert!(findings("gateway/src/http/mod.rs", "/// See [`crate::net`].\n").is_empty());
    }

    #[test]
    fn words_are_banned_where_the_table_says() {
        let found = |path, text| {
            BANS.iter().flat_map(|ban| banned_words(&file(path, text), ban)).collect::<Vec<_>>()
        };
        assert_eq!(
            found("gateway/src/worker/mod.rs", "\nuse monoio::net;"),
            ["gateway/src/worker/mod.rs:2: monoio::: only net/ names the runtime"]
        );
        assert!(found("gateway/src/net/rt.rs", "use monoio::net;").is_empty());
        assert_eq!(found("gateway/src/cli.rs", "#![expect(unsafe_code)]").len(), 1);
        assert_eq!(found("README.md", "cd /home/me").len(), 1);
    }

    #[test]
    fn shipped_configurations_are_named() {
        let file = file("config/examples/new.toml", "");
        let test = [super::File { path: "tests/a.rs".into(), text: format!("{:?}", file.path) }];
        assert!(not_named(&file, "", &[]).is_some());
        assert!(not_named(&file, "[more](config/examples)", &[]).is_none());
        assert!(not_named(&file, "", &test).is_none());
    }
}
