//! `slipway reset`: removes everything a cluster keeps, after ending it.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};

use super::{DataFolder, down};

/// Removes everything the cluster keeps.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  slipway reset --data /tmp/try --yes")]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Ends the cluster and removes its folder.
pub fn run(args: &Args) -> Result<()> {
    let folder = args.data.folder()?;
    let path = folder.path();
    if !path.exists() {
        return Ok(());
    }
    if !path.join("VERSION").exists() {
        bail!("{} is no slipway data folder (it has no VERSION); nothing was removed", path.display());
    }
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            bail!("say --yes to remove {} with all runs, models and pods in it", path.display());
        }
        print!("Remove {} with all runs, models and pods in it? [y/N] ", path.display());
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was removed");
        }
    }
    down::end_all(&folder)?;
    std::fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}
