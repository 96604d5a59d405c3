//! The project's own chores: `cargo xtask tidy`, `cargo xtask facts`.

mod tidy;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("tidy") => tidy::run(),
        Some(other) => bail!("unknown command {other:?}; one of: tidy"),
        None => bail!("which command? one of: tidy"),
    }
}
