//! The object as an ELF file: what is taken out of it, and how two of them are compared.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};
use object::{Object, ObjectSection, ObjectSymbol};

/// The object without DWARF, and without the hashes in the names of local symbols, which change with
/// the version of any crate in the build. BTF stays: the kernel's verifier and bpftool show source
/// lines by it.
pub fn without_debug_info(elf: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(elf).context("the linker's output is no ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
    }
    for symbol in &mut builder.symbols {
        symbol.name = without_hash(&symbol.name.to_string()).into_bytes().into();
    }
    // LLVM keeps the names of sections with those of symbols, which the builder does not.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the stripped object")?;
    Ok(stripped)
}

/// `anon.HASH.1` becomes `anon.1`, and `…CsHASH_11gateway_bpf…`, which is how Rust names a crate and
/// its hash, `…C11gateway_bpf…`.
fn without_hash(symbol: &str) -> String {
    if let Some((_, number)) = symbol.strip_prefix("anon.").and_then(|rest| rest.split_once('.')) {
        return format!("anon.{number}");
    }
    match symbol.strip_prefix("_R").and_then(|rest| rest.split_once("Cs")) {
        Some((before, rest)) => {
            let (_, after) = rest.split_once('_').unwrap_or(("", rest));
            format!("_R{before}C{after}")
        }
        None => symbol.to_owned(),
    }
}

/// Which parts of two objects are not the same; empty when none.
pub fn differences(committed: &[u8], built: &[u8]) -> Result<Vec<&'static str>> {
    let (committed, built) = (parts(committed)?, parts(built)?);
    let all: std::collections::BTreeSet<_> = committed.keys().chain(built.keys()).collect();
    Ok(all.into_iter().copied().filter(|part| committed.get(part) != built.get(part)).collect())
}

/// The bytes behind each part a person would name, in one piece.
fn parts(elf: &[u8]) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let file = object::File::parse(elf).context("not an ELF file")?;
    let mut parts: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
    for section in file.sections() {
        let part = match section.name()? {
            "maps" | ".maps" => "maps",
            ".BTF" | ".BTF.ext" => "BTF",
            name if name.starts_with(".rodata") || name.starts_with("license") => "constants",
            name if name.starts_with(".text") || name.starts_with("xdp") => "program text",
            // Relocations are compared through the sections they change; the rest are tables.
            _ => continue,
        };
        let bytes = parts.entry(part).or_default();
        bytes.extend(section.name()?.bytes());
        bytes.extend(section.data()?);
        for (offset, relocation) in section.relocations() {
            bytes.extend(format!("{offset} {:?}", relocation.addend()).bytes());
            if let object::RelocationTarget::Symbol(index) = relocation.target() {
                bytes.extend(file.symbol_by_index(index)?.name()?.bytes());
            }
        }
    }
    let mut symbols: Vec<_> = file
        .symbols()
        .filter_map(|symbol| Some(format!("{} {}", symbol.name().ok()?, symbol.size())))
        .collect();
    symbols.sort();
    parts.insert("symbols", symbols.join("\n").into_bytes());
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_leave_the_names_of_symbols() {
        assert_eq!(without_hash("anon.0ce70f674c4043067fc79b493b0dd3b9.4"), "anon.4");
        let closure = "_RNCNvCsgf35WfLzQG0_11gateway_bpf3logs_0B3_";
        assert_eq!(without_hash(closure), "_RNCNvC11gateway_bpf3logs_0B3_");
        for plain in ["gateway", "memcpy", "CONSTANTS", "", "anon"] {
            assert_eq!(without_hash(plain), plain);
        }
    }
}
