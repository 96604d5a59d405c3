//! `slipway status`: the server's record, for people or as JSON.

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::DataFolder;

/// Shows what runs and where it answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  slipway status\n  slipway status -o json | jq -r .addresses.mlflow")]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
    /// Output form.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// Prints the record; fails when no server runs on the folder.
pub fn run(args: &Args) -> Result<()> {
    let folder = args.data.folder()?;
    let Some(state) = folder.running() else {
        bail!("no server runs on {0}; start one with `slipway up --data {0}`", folder.path().display());
    };
    match args.output {
        Form::Json => println!("{}", serde_json::to_string_pretty(&state)?),
        Form::Text => {
            println!(
                "slipway {}  pid {}  network {}  data {}",
                state.version,
                state.pid,
                state.network,
                folder.path().display()
            );
            for (part, address) in &state.addresses {
                println!("  {part:<12} {address}");
            }
        }
    }
    Ok(())
}
