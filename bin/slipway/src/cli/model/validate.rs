//! `slipway model validate`: two models on the same data.
//!
//! Not here: asking and comparing (`infer::compare`).

use anyhow::{Context, Result, bail};
use infer::compare::{Agreement, agreement, answers};
use models::Limits;

use super::{DataFile, DataFolder, locate};

/// Pairs of classes that are printed.
const CONFUSIONS_SHOWN: usize = 10;

/// Asks two models about the same data and tells how far they agree.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The exit code is 1 when a class differs or a number differs by more than the tolerance.\n\nExamples:\n  slipway model validate old.joblib new.joblib --data rows.csv --drop target\n  slipway model validate model.joblib model.onnx --data rows.npy --tolerance 1e-5\n  slipway model validate models:/iris/1 models:/iris/2 --data rows.json -o json"
)]
pub(super) struct Args {
    /// A file, a folder, or a URI such as models:/iris/1.
    first: String,
    /// The model to compare with it.
    second: String,
    #[command(flatten)]
    data: DataFile,
    /// How far numbers may differ, relative to the larger of 1 and the number.
    #[arg(long, default_value_t = 1e-6)]
    tolerance: f64,
    /// The share of rows that must have the same class.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    agreement: f64,
    /// Print JSON.
    #[arg(short, long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let table = args.data.required("validate")?;
    let cluster = DataFolder { data: None };
    let ask = |model: &str| {
        let located = locate(model, &cluster)?;
        let asked = answers(&located.path, &table, &Limits::default()).map_err(anyhow::Error::msg);
        asked.with_context(|| format!("cannot ask {model}"))
    };
    let made = agreement(&ask(&args.first)?, &ask(&args.second)?, args.tolerance);
    let is_json = args.output == "json";
    if is_json {
        println!("{}", serde_json::to_string_pretty(&made)?);
    } else {
        print(&made, table.rows());
    }
    let classes_hold = made.share() >= args.agreement;
    let numbers_hold = made.numbers.as_ref().is_none_or(|gap| gap.beyond == 0);
    let compared = made.classes > 0 || made.numbers.is_some();
    match (compared, classes_hold, numbers_hold) {
        (false, ..) => bail!("nothing could be compared: {}", made.left_out.join("; ")),
        (_, true, true) => Ok(()),
        (_, false, _) => bail!(
            "{} of {} classes are the same, expected a share of {}",
            made.same,
            made.classes,
            args.agreement
        ),
        (_, _, false) => bail!(
            "{} of {} numbers differ by more than {}; --tolerance allows more",
            made.numbers.as_ref().map_or(0, |gap| gap.beyond),
            made.numbers.as_ref().map_or(0, |gap| gap.count),
            args.tolerance
        ),
    }
}

pub(super) fn print(made: &Agreement, rows: usize) {
    println!("rows       {rows}");
    if made.classes > 0 {
        println!("classes    {} of {} the same ({:.3} %)", made.same, made.classes, made.share() * 100.0);
        for confusion in made.confusions.iter().take(CONFUSIONS_SHOWN) {
            println!(
                "           {} x {:?} became {:?} (first in row {})",
                confusion.count, confusion.first, confusion.second, confusion.row
            );
        }
        if made.confusions.len() > CONFUSIONS_SHOWN {
            println!("           and {} other pairs", made.confusions.len() - CONFUSIONS_SHOWN);
        }
    }
    if let Some(gap) = &made.numbers {
        let (row, column, first, second) = gap.at;
        println!("numbers    {} of {} against {}", gap.count, gap.names.0, gap.names.1);
        println!("           largest difference {:.3e}, mean {:.3e}", gap.max, gap.mean);
        if gap.max > 0.0 {
            println!("           the largest in row {row}, column {column}: {first} and {second}");
        }
    }
    for what in &made.left_out {
        println!("left out   {what}");
    }
}
