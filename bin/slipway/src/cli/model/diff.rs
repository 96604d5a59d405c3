//! `slipway model diff`: what changed between two models.
//!
//! Not here: finding it out (`infer::compare`).

use anyhow::{Result, bail};
use infer::compare::{Change, diff};
use models::Limits;

use super::{DataFolder, locate};

/// What changed between two models: format, versions, classes, settings, trees.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slipway model diff old.joblib new.joblib\n  slipway model diff models:/iris/1 models:/iris/2 --all\n  slipway model diff a.onnx b.onnx --exit-code && echo same"
)]
pub(super) struct Args {
    /// A file, a folder, or a URI such as models:/iris/1.
    first: String,
    /// The model to compare with it.
    second: String,
    /// Show what is the same too.
    #[arg(long)]
    all: bool,
    /// Exit with 1 where something differs.
    #[arg(long)]
    exit_code: bool,
    /// Print JSON.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let cluster = DataFolder { data: None };
    let (first, second) = (locate(&args.first, &cluster)?, locate(&args.second, &cluster)?);
    for (name, located) in [(&args.first, &first), (&args.second, &second)] {
        anyhow::ensure!(located.path.exists(), "there is no model {name:?}: no such file or folder");
    }
    let changes = diff(&first.path, &second.path, &Limits::default());
    let shown: Vec<&Change> = changes.iter().filter(|change| args.all || !change.is_same()).collect();
    let different = changes.iter().filter(|change| !change.is_same()).count();
    if args.output == "json" {
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        shown.iter().for_each(|change| print(change));
        println!("{different} of {} facts differ", changes.len());
    }
    if args.exit_code && different > 0 {
        bail!("{different} facts differ");
    }
    Ok(())
}

fn print(change: &Change) {
    let what = &change.what;
    match (&change.first, &change.second) {
        (Some(first), Some(second)) if first == second => println!("  {what}: {first}"),
        (Some(first), Some(second)) => println!("~ {what}: {first} -> {second}"),
        (Some(first), None) => println!("- {what}: {first}"),
        (None, Some(second)) => println!("+ {what}: {second}"),
        (None, None) => {}
    }
}
