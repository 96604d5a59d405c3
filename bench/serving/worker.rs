//! One row through a Python worker beside the same call inside Python: what the worker costs.
//!
//! `cargo run --release -p backend-host --example bench_worker -- PYTHON MODEL_FOLDER [CALLS]`; the folder holds one
//! `model.joblib` of four columns. Prints the median and the 99th percentile of both, in microseconds, of five
//! alternating rounds.
//!
//! Not here: a server (`load.rs` asks one).

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use backend_host::Python;
use models::{Batch, Engines, Method, Outputs, Tensor, Wanted};

const ROW: [f64; 4] = [5.1, 3.5, 1.4, 0.2];
const INSIDE: &str = "
import sys, time, joblib, numpy as np
model, row, calls = joblib.load(sys.argv[1] + '/model.joblib'), np.array([[5.1, 3.5, 1.4, 0.2]]), int(sys.argv[2])
times = []
for _ in range(calls):
    start = time.perf_counter_ns()
    model.predict(row)
    times.append(time.perf_counter_ns() - start)
times.sort()
print(times[len(times) // 2], times[len(times) * 99 // 100])
";

fn main() {
    let mut args = std::env::args().skip(1);
    let usage = "usage: bench_worker PYTHON MODEL_FOLDER [CALLS]";
    let python = PathBuf::from(args.next().expect(usage));
    let folder = PathBuf::from(args.next().expect(usage));
    let calls: usize = args.next().map_or(5000, |calls| calls.parse().expect("a number"));
    let engine = Python::new(&python);
    let wanted = Wanted {
        name: "model",
        path: &folder,
        file: Some("model.joblib"),
        method: Method::Predict,
        class: None,
        refusal: None,
    };
    let hosted = engine.load(&wanted).expect("a model of Python").expect("it is read");
    println!("round  inside Python p50 p99 us   through the worker p50 p99 us   difference p50 us");
    let mut differences = Vec::new();
    for round in 1..=5 {
        let inside = Command::new(&python)
            .args(["-W", "ignore", "-c", INSIDE])
            .arg(&folder)
            .arg(calls.to_string())
            .env("OMP_NUM_THREADS", "1")
            .output()
            .expect("Python starts");
        let inside = String::from_utf8(inside.stdout).expect("two numbers");
        let inside: Vec<f64> =
            inside.split_whitespace().map(|nanos| nanos.parse::<f64>().expect("a number") / 1e3).collect();
        let mut outputs = Outputs::new();
        let mut times: Vec<f64> = (0..calls)
            .map(|_| {
                let start = Instant::now();
                outputs.clear();
                let row = Tensor::borrowed(&ROW, &[1, 4]).expect("a row");
                hosted.backend.run(&Batch { rows: 1, inputs: &[row] }, &mut outputs).expect("an answer");
                start.elapsed().as_nanos() as f64 / 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (times[calls / 2], times[calls * 99 / 100]);
        println!(
            "{round}      {:9.1} {:9.1}           {p50:9.1} {p99:9.1}            {:9.1}",
            inside[0],
            inside[1],
            p50 - inside[0]
        );
        differences.push(p50 - inside[0]);
    }
    differences.sort_by(f64::total_cmp);
    println!("median difference {:.1} us", differences[2]);
}
