//! The project's own chores: `cargo xtask tidy`, `cargo xtask facts`.

mod facts;
mod tidy;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("facts") => facts::run(),
        Some("tidy") => tidy::run(),
        Some(other) => bail!("unknown command {other:?}; one of: facts, tidy"),
        None => bail!("which command? one of: facts, tidy"),
    }
}
