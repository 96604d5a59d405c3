//! `slipway model`: looks at model files without running anything in them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use models::Inspection;
use objects::{
    ArtifactUri,
    fetch::{Endpoints, fetch},
};

use super::{DataFolder, block_on, connect};

/// Looks at model files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a model is, whether it is safe to load, and what will serve it.
    #[command(
        after_help = "Examples:\n  slipway model inspect model.joblib\n  slipway model inspect models:/iris/1 -o json"
    )]
    Inspect(Inspect),
}

#[derive(Debug, clap::Args)]
struct Inspect {
    #[command(flatten)]
    data: DataFolder,
    /// A file, a folder, or a URI such as models:/iris/1.
    model: String,
    /// Print JSON.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Inspect(args) => inspect(args),
    }
}

fn inspect(args: &Inspect) -> Result<()> {
    let (_guard, path) = locate(args)?;
    let report = infer::inspect(&path, &models::Limits::default());
    if args.output == "json" {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    match &report.problem {
        Some(problem) => bail!("{} cannot be served: {problem}", args.model),
        None => Ok(()),
    }
}

/// The path to look at; URIs are fetched to a folder that goes with the guard.
fn locate(args: &Inspect) -> Result<(Option<tempfile::TempDir>, PathBuf)> {
    if Path::new(&args.model).exists() || !args.model.contains(":/") {
        return Ok((None, PathBuf::from(&args.model)));
    }
    let uri: ArtifactUri = args.model.parse()?;
    let target = tempfile::tempdir()?;
    block_on(async {
        let cluster = connect::cluster(&args.data).await?;
        let endpoints = Endpoints {
            artifacts_url: Some(cluster.address("artifacts")?.to_owned()),
            tracking_uri: Some(cluster.address("mlflow")?.to_owned()),
            token: None,
        };
        fetch(&uri, target.path(), &endpoints).await.with_context(|| format!("cannot fetch {}", args.model))
    })?;
    let path = target.path().to_path_buf();
    Ok((Some(target), path))
}

fn print(report: &Inspection) {
    let line = |name: &str, value: &str| println!("{name:<10} {value}");
    line("file", &report.file);
    if let Some(format) = &report.format {
        let flavor =
            format.mlflow_flavor.as_ref().map(|flavor| format!(", MLflow {flavor}")).unwrap_or_default();
        line("format", &format!("{} ({}, {} bytes){flavor}", format.name, format.packing, format.bytes));
    }
    for (index, estimator) in report.estimators.iter().enumerate() {
        let step = estimator.step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
        let text = format!("{}{step}{}  {}", "  ".repeat(estimator.depth), estimator.class, estimator.detail);
        line(if index == 0 { "estimator" } else { "" }, &text);
    }
    if let Some(features) = report.features {
        line("features", &format!("{features} {}", report.feature_names.join(", ")));
    }
    if !report.classes.is_empty() {
        line("classes", &report.classes.join(", "));
    }
    if let Some(version) = &report.sklearn_version {
        line("sklearn", version);
    }
    line(
        "safe",
        if report.safe { "yes: nothing in it is executed" } else { "no: it names what only code would be" },
    );
    if let Some(server) = &report.served_by {
        line("served by", &format!("{server} ({})", report.methods.join(", ")));
    }
}
