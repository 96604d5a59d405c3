//! What memory the process has, as the kernel, the allocator and the models' files say.
//!
//! How much there is of each kind is told for nothing, and is how a leak is told from a large model.
//!
//! Not here: who takes memory (`allocations`), where CPU time goes (`profile`).
#![allow(unsafe_code)] // The allocator's statistics are a C function.

use serde_json::{Value, json};

use crate::repository::Repository;

/// The whole page.
pub(super) fn report(repository: &Repository) -> Value {
    let mut models = Vec::new();
    for model in repository.snapshot().models {
        for version in model.versions {
            if let Some(served) = version.served {
                models.push(json!({
                    "model": *model.name,
                    "version": version.version,
                    "file_bytes": served.about.bytes,
                    "references": std::sync::Arc::strong_count(&served),
                }));
            }
        }
    }
    json!({"kernel": kernel(), "allocator": allocator(), "models": models})
}

/// The kernel's sums over all mappings, in bytes.
fn kernel() -> Value {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let mut sums = serde_json::Map::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(name), Some(count), Some("kB")) = (words.next(), words.next(), words.next())
            && let Ok(kibibytes) = count.parse::<u64>()
        {
            sums.insert(name.trim_end_matches(':').to_owned(), (kibibytes * 1024).into());
        }
    }
    sums.into()
}

/// The allocator's own count, in bytes: what is in use, what it keeps for later, and what it got by mapping.
#[cfg(target_env = "gnu")]
fn allocator() -> Value {
    // SAFETY: it takes nothing and returns a structure of numbers.
    let seen = unsafe { libc::mallinfo2() };
    json!({
        "in_use": seen.uordblks + seen.hblkhd,
        "free": seen.fordblks,
        "arenas": seen.arena,
        "mapped": seen.hblkhd,
        "mappings": seen.hblks,
        "releasable": seen.keepcost,
    })
}

#[cfg(not(target_env = "gnu"))]
fn allocator() -> Value {
    Value::Null
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_taken_shows() {
        let in_use = || allocator()["in_use"].as_u64().unwrap_or(0);
        let before = in_use();
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(in_use() >= before + (taken.len() as u64) / 2);
        assert!(kernel()["Rss"].as_u64().is_some_and(|bytes| bytes > 64 << 20), "{}", kernel());
    }
}
