//! Names of addresses of this process, where names are to be had.
//!
//! A released binary is stripped: its frames are `slipway+0x1a2b`, which `addr2line` and `pprof` turn into names with a
//! binary of the same build that is not stripped. If such a binary lies beside it as `<binary>.debug`, or the binary
//! itself was not stripped, names are found here. They stay mangled; `c++filt` and `rustfilt` read them.
//!
//! Not here: taking a profile (`profile`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::profile::Stacks;

/// The mapped files of a process: where each part begins and ends, and where its file begins.
struct Mapped {
    start: usize,
    end: usize,
    base: usize,
    name: String,
    is_own: bool,
}

/// Where symbols begin, and their names.
type Names = BTreeMap<usize, String>;

/// The stacks as lines `outermost;…;innermost count`, the form of flame graphs.
pub(super) fn folded(stacks: &Stacks, maps: &str) -> String {
    let mapped = mapped(maps);
    let names = own_names();
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for (stack, count) in &stacks.0 {
        let mut line = String::new();
        for (depth, address) in stack.iter().enumerate().rev() {
            // All but the innermost are where a call returns to, which may be the next function.
            let inside = if depth == 0 { *address } else { address - 1 };
            if !line.is_empty() {
                line.push(';');
            }
            frame(&mut line, inside, &mapped, &names);
        }
        *lines.entry(line).or_default() += count;
    }
    let mut text = String::new();
    for (line, count) in lines {
        let _ = writeln!(text, "{line} {count}");
    }
    text
}

fn frame(line: &mut String, address: usize, mapped: &[Mapped], names: &Names) {
    let Some(part) = mapped.iter().find(|part| (part.start..part.end).contains(&address)) else {
        let _ = write!(line, "{address:#x}");
        return;
    };
    let offset = address - part.base;
    let name = names.range(..=offset).next_back().filter(|_| part.is_own);
    let _ = match name {
        Some((_, name)) => write!(line, "{name}"),
        None => write!(line, "{}+{offset:#x}", part.name),
    };
}

/// Reads the lines of `/proc/self/maps`.
fn mapped(maps: &str) -> Vec<Mapped> {
    let own = std::env::current_exe().unwrap_or_default();
    let mut bases: BTreeMap<&str, usize> = BTreeMap::new();
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let path = fields.nth(4).unwrap_or_default();
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        let Some((start, end)) = range.and_then(|(start, end)| Some((hex(start)?, hex(end)?))) else {
            continue;
        };
        if path.is_empty() {
            continue;
        }
        // A file's first part is its beginning.
        let base = *bases.entry(path).or_insert(start);
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        all.push(Mapped { start, end, base, name, is_own: Path::new(path) == own });
    }
    all
}

/// The names of this binary's functions.
fn own_names() -> Names {
    let Ok(own) = std::env::current_exe() else { return Names::new() };
    let beside =
        own.with_file_name(format!("{}.debug", own.file_name().unwrap_or_default().to_string_lossy()));
    let read =
        |path: &Path| std::fs::read(path).ok().and_then(|file| names(&file)).filter(|all| !all.is_empty());
    read(&own).or_else(|| read(&beside)).unwrap_or_default()
}

/// The functions in the symbol table of an ELF file of 64 bits, little-endian; `None` for anything else.
fn names(file: &[u8]) -> Option<Names> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let bytes = |at: usize, len: usize| file.get(at..at.checked_add(len)?);
    let word = |at: usize| Some(u64::from_le_bytes(bytes(at, 8)?.try_into().ok()?) as usize);
    let half = |at: usize| Some(u32::from_le_bytes(bytes(at, 4)?.try_into().ok()?) as usize);
    let (sections, size) = (word(40)?, usize::from(u16::from_le_bytes(bytes(58, 2)?.try_into().ok()?)));
    let count = usize::from(u16::from_le_bytes(bytes(60, 2)?.try_into().ok()?));
    let section = |index: usize| sections.checked_add(index.checked_mul(size)?);
    const SYMBOLS: usize = 2;
    const FUNCTION: u8 = 2;
    let mut all = Names::new();
    for index in 0..count {
        let head = section(index)?;
        if half(head + 4)? != SYMBOLS {
            continue;
        }
        let (at, len, texts) = (word(head + 24)?, word(head + 32)?, section(half(head + 40)?)?);
        let texts = bytes(word(texts + 24)?, word(texts + 32)?)?;
        for symbol in bytes(at, len)?.chunks_exact(24) {
            let number =
                |from: usize| usize::from_le_bytes(symbol[from..from + 8].try_into().unwrap_or_default());
            if symbol[4] & 15 != FUNCTION || number(8) == 0 {
                continue;
            }
            let from = u32::from_le_bytes(symbol[..4].try_into().unwrap_or_default()) as usize;
            let name = texts.get(from..)?.split(|byte| *byte == 0).next()?;
            all.insert(number(8), String::from_utf8_lossy(name).into_owned());
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn somewhere() -> usize {
        std::hint::black_box(somewhere as *const () as usize)
    }

    #[test]
    fn functions_of_an_unstripped_binary_have_names() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let mut stacks = Stacks::default();
        stacks.0.insert(vec![somewhere() + 1, 16], 3);
        let text = folded(&stacks, &maps);
        assert!(text.contains("somewhere") && text.ends_with(" 3\n"), "{text}");
        assert!(text.starts_with("0xf;"), "{text}");
    }

    #[test]
    fn what_is_no_elf_file_has_no_names() {
        let mut cut = std::fs::read(std::env::current_exe().expect("a path")).expect("this file");
        cut.truncate(5_000);
        assert!(names(b"").is_none() && names(b"#!/bin/sh").is_none() && names(&cut).is_none());
    }
}
