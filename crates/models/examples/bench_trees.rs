//! Times a model in this process, one thread, for `bench/trees/run.py`, which times peers in turn with it.
//!
//! `bench_trees MODEL ROWS METHOD` loads the model and the rows (64-bit floats, little-endian, row after row),
//! prints the microseconds that loading took, and then answers each line `COUNT SECONDS` of its input with the
//! microseconds of a call of so many rows, as a mean over at least so many seconds. Times are of this thread's
//! processor, so that other work on the machine disturbs them less. `MODEL ROWS METHOD --dump` prints the answers
//! instead.
//!
//! Not here: the request path (`bench/serving`).

use std::io::{BufRead, Write};
use std::time::Duration;

use models::{Backend, Batch, Limits, Method, Native, Outputs, Tensor};
use rustix::time::{ClockId, clock_gettime};

type Failure = Box<dyn std::error::Error>;

/// What this thread has had of the processor.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, rows, method, dump @ ..] = args.as_slice() else {
        return Err("usage: bench_trees MODEL ROWS predict|probabilities [--dump]".into());
    };
    let method = match method.as_str() {
        "predict" => Method::Predict,
        "probabilities" => Method::Probabilities,
        other => return Err(format!("unknown method {other:?}").into()),
    };
    let bytes = bytes::Bytes::from(std::fs::read(model)?);
    let rows: Vec<f64> = std::fs::read(rows)?.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
    let started = spent();
    let loaded = models::load_bytes(model, bytes, &Limits::default())?;
    let native = Native::new(loaded.estimator, method)?;
    let width = native.signature().inputs[0].row[0].unwrap_or(1);
    let load = spent() - started;
    if !dump.is_empty() {
        return print(&native, &rows, width);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{} {}", load.as_micros(), native.row_cost_ns())?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (count, seconds) = line.split_once(' ').ok_or("expected COUNT SECONDS")?;
        let time = time(&native, &rows, width, count.parse()?, Duration::from_secs_f64(seconds.parse()?))?;
        writeln!(out, "{time:.3}")?;
    }
    Ok(())
}

/// Microseconds of a call; successive calls take successive rows.
fn time(
    native: &Native,
    rows: &[f64],
    width: usize,
    count: usize,
    at_least: Duration,
) -> Result<f64, Failure> {
    let mut batches = Vec::new();
    for data in rows.chunks_exact(width * count) {
        batches.push(Tensor::borrowed(data, &[count, width]).ok_or("a shape")?);
    }
    let mut outputs = Outputs::new();
    let (started, mut calls) = (spent(), 0_u32);
    while spent() - started < at_least {
        for batch in &batches {
            outputs.clear();
            native.run(&Batch { rows: count, inputs: std::slice::from_ref(batch) }, &mut outputs)?;
            calls += 1;
        }
    }
    Ok((spent() - started).as_secs_f64() * 1e6 / f64::from(calls))
}

fn print(native: &Native, rows: &[f64], width: usize) -> Result<(), Failure> {
    let count = rows.len() / width;
    let input = Tensor::borrowed(rows, &[count, width]).ok_or("a shape")?;
    let mut outputs = Outputs::new();
    native.run(&Batch { rows: count, inputs: &[input] }, &mut outputs)?;
    for value in outputs.tensors()[0].to_f64s().ok_or("texts")?.iter() {
        println!("{value:?}");
    }
    Ok(())
}
