//! Every reader of what strangers send, as a function of bytes: none may panic, hang or take memory without bound.
//!
//! * `targets` are those functions, with the inputs that they begin from.
//! * `mutate` makes new inputs of known ones; `coverage` says which code an input reached; `memory` what it took.
//! * The binary puts them together and keeps inputs that reach something new; `tests/replay.rs` runs what was kept,
//!   in `corpus/`, with every `make test`.
//!
//! Coverage is that of the compiler on the stable toolchain (`-C instrument-coverage`), so that no other compiler and
//! no other fuzzer is needed.
//!
//! Not here: the random tests of single crates (`tests/hostile.rs` of each), which check more than that nothing breaks.

pub mod coverage;
pub mod memory;
pub mod mutate;
pub mod targets;

use std::path::PathBuf;

/// The folder of a target's kept inputs.
pub fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The kept inputs of a target, in the order of their names.
pub fn kept(target: &str) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(corpus(target))? {
        let entry = entry?;
        all.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    all.sort();
    Ok(all)
}
