//! `slipway model inspect`: what a model is, whether it is safe to load, and what will serve it.
//!
//! Not here: the reading (`infer`, `models`).

use anyhow::{Result, bail};
use models::Inspection;

use super::{DataFolder, locate};

/// What a model is, whether it is safe to load, and what will serve it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slipway model inspect model.joblib\n  slipway model inspect models:/iris/1 -o json"
)]
pub(super) struct Args {
    #[command(flatten)]
    data: DataFolder,
    /// A file, a folder, or a URI such as models:/iris/1.
    model: String,
    /// Print JSON.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let located = locate(&args.model, &args.data)?;
    let report = infer::inspect(&located.path, &models::Limits::default());
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
