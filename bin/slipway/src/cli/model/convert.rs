//! `slipway model convert`: a native model as an ONNX file.
//!
//! Not here: what the file holds (`onnx`).

use anyhow::{Context, Result};
use infer::Disk;
use models::Limits;

use super::Made;

/// Writes a model as ONNX, for every other server and device.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Numbers stay 64-bit, so that answers are the library's; outputs are `label` and `probabilities` of classifiers\nand `variable` of others. What has no form in ONNX is refused by the name of its class.\n\nExamples:\n  slipway model convert model.joblib --to onnx -o model.onnx\n  slipway model convert models:/iris/1 -o iris.onnx\n  slipway model validate model.joblib model.onnx --data rows.csv      # the two agree"
)]
pub(super) struct Args {
    /// A file, a folder, or a URI such as models:/iris/1.
    model: String,
    /// The format to write.
    #[arg(long, value_parser = ["onnx"], default_value = "onnx")]
    to: String,
    #[command(flatten)]
    made: Made,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let located = args.made.from(&args.model)?;
    let limits = Limits::default();
    let loaded = models::load(&Disk::new(&located.path), &limits)
        .with_context(|| format!("cannot read {}", args.model))?;
    eprintln!("writing {} as ONNX", loaded.file);
    let bytes = onnx::convert(&loaded.estimator)
        .with_context(|| format!("cannot convert {}; `slipway serve` serves it as it is", args.model))?;
    // What was written must load: the reader is another program's author in spirit.
    let model = onnx::Onnx::load(&bytes).context("the ONNX file that was made does not load")?;
    args.made.write(&bytes)?;
    println!(
        "{}: {} bytes (the model {} bytes), {} nodes",
        args.made.output.display(),
        bytes.len(),
        loaded.format.bytes,
        model.summary().nodes.len()
    );
    Ok(())
}
