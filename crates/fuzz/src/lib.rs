//! Every reader of what strangers send, as a function of bytes: none may panic, hang or take memory without bound.
//!
//! * `targets` are those functions, with the inputs that they begin from.
//! * `search` looks for inputs that break one: `mutate` makes new inputs of known ones, `coverage` says which code an
//!   input reached, `compared` what its bytes were compared with, `memory` what it took.
//! * `ledger` is the table of what was searched in all.
//! * The binary keeps the inputs that reach something new; `tests/replay.rs` runs what was kept, in `corpus/`, with every
//!   `make test`.
//!
//! Coverage is that of LLVM through the pinned stable compiler (scripts/fuzz-rustc.sh), so that no other compiler and no
//! other fuzzer is needed.
//!
//! Not here: the tests of single crates (`tests/hostile.rs` of each), which check more than that nothing breaks.

pub mod compared;
pub mod coverage;
pub mod ledger;
pub mod memory;
mod message;
pub mod mutate;
pub mod search;
pub mod targets;

use std::path::PathBuf;

use targets::Target;

/// The folder of a target's kept inputs.
pub fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The kept inputs of a target, in the order of their names; none where it has no folder.
pub fn kept(target: &str) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    let entries = match std::fs::read_dir(corpus(target)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        all.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    all.sort();
    Ok(all)
}

/// Puts inputs in the place of a target's kept ones. A file's name is its content's, so that what stays is the same file.
pub fn keep(target: &Target, inputs: &[Vec<u8>]) -> std::io::Result<()> {
    let folder = corpus(target.name);
    std::fs::create_dir_all(&folder)?;
    let names: Vec<String> = inputs.iter().map(|input| name_of(input)).collect();
    for (name, _) in kept(target.name)? {
        if !names.contains(&name) {
            std::fs::remove_file(folder.join(name))?;
        }
    }
    names.iter().zip(inputs).try_for_each(|(name, input)| std::fs::write(folder.join(name), input))
}

/// FNV-1a, which will be the same for ever.
fn name_of(input: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", input.iter().fold(0xcbf2_9ce4_8422_2325, step))
}
