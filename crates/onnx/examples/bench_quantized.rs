//! Prints how long a network of `float` and its 8-bit forms take in the engine, on one thread.
//!
//! `bench_quantized FILE...`: for each file a line for each form and number of rows, with the median of several rounds in
//! which the forms take turns, so that a clock that changes its pace changes it for all.
//!
//! Not here: accuracy (`slipway model quantize`), peers.

use std::time::{Duration, Instant};

use models::table::Table;
use models::{Backend, Batch, Outputs};
use onnx::{Mode, Onnx, quantize};

/// Rows of a call.
const ROWS: [usize; 3] = [1, 32, 256];
/// Rounds in which the forms take turns.
const ROUNDS: usize = 9;
/// How long a form runs in a round, at least.
const ROUND: Duration = Duration::from_millis(60);

/// Numbers between -2 and 2 that follow no pattern.
fn numbers(count: usize) -> Vec<f64> {
    let mut state = 7_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 22) - 2.0
    };
    (0..count).map(next).collect()
}

/// Nanoseconds of a call.
fn timed(model: &Onnx, batch: &Batch<'_>, outputs: &mut Outputs) -> f64 {
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        outputs.clear();
        model.run(batch, outputs).expect("it answers");
        calls += 1;
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn main() {
    for path in std::env::args().skip(1) {
        let plain = std::fs::read(&path).expect("readable").into();
        let float = Onnx::load(&plain).expect("it loads");
        let width: usize = float.signature().inputs[0].row.iter().map(|size| size.expect("fixed")).product();
        let data = Table::of_rows(&numbers(width * 256), width);
        let mut forms = vec![("float", float)];
        for (name, mode) in [("weights", Mode::Weights), ("dynamic", Mode::Dynamic), ("static", Mode::Static)]
        {
            let made = quantize(&plain, mode, Some(&data)).expect("it can be");
            forms.push((name, Onnx::load(&made.bytes).expect("it loads")));
        }
        for rows in ROWS {
            let part = data.slice(0..rows);
            let mut times = vec![Vec::new(); forms.len()];
            for _ in 0..ROUNDS {
                for ((_, model), times) in forms.iter().zip(&mut times) {
                    let inputs = part.inputs(model.signature()).expect("they fit");
                    times.push(timed(model, &Batch { rows, inputs: &inputs }, &mut Outputs::new()));
                }
            }
            for ((name, _), times) in forms.iter().zip(&mut times) {
                times.sort_by(f64::total_cmp);
                println!("{path} {name:8} {rows:4} rows {:10.1} us", times[ROUNDS / 2] / 1e3);
            }
        }
    }
}
