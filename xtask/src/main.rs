//! The project's own chores: `cargo xtask tidy`, `cargo xtask facts`, `cargo xtask protobuf`.

mod facts;
mod protobuf;
mod tidy;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("facts") => facts::run(),
        Some("protobuf") => protobuf::run(),
        Some("tidy") => tidy::run(),
        Some(other) => bail!("unknown command {other:?}; one of: facts, protobuf, tidy"),
        None => bail!("which command? one of: facts, protobuf, tidy"),
    }
}
