//! `slipway model quantize`: an ONNX model with 8-bit weights, and what that costs and saves.
//!
//! Not here: the rewriting (`onnx`), comparing answers (`infer::compare`).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use infer::compare::{agreement, answers};
use models::table::Table;
use models::{Backend, Batch, Limits, Outputs};
use onnx::{Mode, Onnx};

use super::{DataFile, Made, print_agreement};

/// How long each model is measured.
const MEASURED: Duration = Duration::from_millis(500);
/// Rows of a call, at most.
const ROWS_MAX: usize = 256;

/// Makes the weights of an ONNX model's matrix products and convolutions integers of 8 bits.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "weights  only the file shrinks; answers change by the rounding of weights\ndynamic  values before an operator become integers too, by their range at run time\nstatic   the same by their range on --data, and what a convolution makes too\n\nExamples:\n  slipway model quantize net.onnx -o net8.onnx --data rows.csv --drop target\n  slipway model quantize net.onnx -o net8.onnx --mode static --data images.npy\n  slipway model quantize net.onnx -o net8.onnx --mode weights"
)]
pub(super) struct Args {
    /// An ONNX file, its folder, or a URI such as models:/net/1.
    model: String,
    #[command(flatten)]
    made: Made,
    /// What becomes integers: dynamic, static or weights.
    #[arg(long, value_parser = ["dynamic", "static", "weights"], default_value = "dynamic")]
    mode: String,
    #[command(flatten)]
    data: DataFile,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let located = args.made.from(&args.model)?;
    let limits = Limits::default();
    let bytes = infer::read_model(&located.path, &limits).map_err(anyhow::Error::msg)?;
    if !onnx::is_onnx(&bytes) {
        bail!("{} is no ONNX model; `slipway model convert {0} -o FILE` makes one", args.model);
    }
    let table = args.data.read()?;
    let mode = match args.mode.as_str() {
        "static" => Mode::Static,
        "weights" => Mode::Weights,
        _ => Mode::Dynamic,
    };
    if mode == Mode::Static && table.is_none() {
        bail!("--mode static learns ranges from rows: give --data FILE, or use --mode dynamic");
    }
    eprintln!("quantizing {}", args.model);
    let made = onnx::quantize(&bytes, mode, table.as_ref())?;
    args.made.write(&made.bytes)?;
    let share = made.bytes.len() as f64 / bytes.len() as f64 * 100.0;
    println!("size       {} bytes, {share:.1} % of {} bytes", made.bytes.len(), bytes.len());
    for node in &made.changed {
        println!("rewritten  {node}");
    }
    for node in &made.kept {
        println!("kept       {node}");
    }
    match table {
        None => println!("speed and accuracy were not measured: give --data FILE"),
        Some(table) => measure(&located.path, &args.made.output, &bytes, &made.bytes, &table)?,
    }
    Ok(())
}

/// Speed and accuracy on the data, in the engine that is built in.
fn measure(
    plain: &Path,
    small: &Path,
    plain_bytes: &bytes::Bytes,
    small_bytes: &bytes::Bytes,
    table: &Table,
) -> Result<()> {
    let rate = |bytes: &bytes::Bytes| -> Result<f64> {
        let model = Onnx::load(bytes).context("the built-in engine does not run it")?;
        rows_per_second(&model, table)
    };
    match (rate(plain_bytes), rate(small_bytes)) {
        (Ok(before), Ok(after)) => println!(
            "speed      {after:.0} rows/s, before {before:.0} rows/s (built-in engine; others have 8-bit kernels)"
        ),
        (Err(error), _) | (_, Err(error)) => println!("speed      not measured: {error:#}"),
    }
    let ask = |path: &Path| answers(path, table, &Limits::default());
    match (ask(plain), ask(small)) {
        (Ok(before), Ok(after)) => print_agreement(&agreement(&before, &after, 1e-6), table.rows()),
        (Err(error), _) | (_, Err(error)) => println!("accuracy   not measured: {error}"),
    }
    Ok(())
}

/// Rows of a call are as many as take a fifth of the time, so that a large net is measured about as long as a small one.
fn rows_per_second(model: &Onnx, table: &Table) -> Result<f64> {
    let first = measured(model, table, 1, Duration::ZERO)?;
    let rows = (first * MEASURED.as_secs_f64() / 5.0) as usize;
    measured(model, table, rows.clamp(1, ROWS_MAX), MEASURED)
}

/// Rows a second, by calls of so many rows for at least so long.
fn measured(model: &Onnx, table: &Table, rows: usize, time: Duration) -> Result<f64> {
    let part = table.slice(0..table.rows().min(rows));
    let inputs = part.inputs(model.signature())?;
    let batch = Batch { rows: part.rows(), inputs: &inputs };
    let mut outputs = Outputs::new();
    let (start, mut done) = (Instant::now(), 0);
    loop {
        outputs.clear();
        model.run(&batch, &mut outputs)?;
        done += part.rows();
        if start.elapsed() >= time {
            return Ok(done as f64 / start.elapsed().as_secs_f64());
        }
    }
}
