//! An engine in Rust behind the protocol: this program is both the test and, with `--lanes`, the worker it starts.
//!
//! Not here: Python (`python.rs`).

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use backend_host::child::{self, Engine, Opened};
use backend_host::protocol::Load;
use backend_host::{Hosted, Program, Spec};
use models::{Backend, BackendError, Batch, DType, Outputs, Shape, Signature, Tensor, TensorSpec};

/// Adds up rows of three. A row that begins with 13 panics, one with 14 waits for ever, one with 15 aborts,
/// one with 16 is answered with the number of the process.
struct Sums(Signature);

impl Backend for Sums {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn row_cost_ns(&self) -> u64 {
        50
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let [input] = batch.inputs else { return Err(BackendError::Input("one input".into())) };
        let numbers = input.to_f64s().ok_or_else(|| BackendError::Input("numbers".into()))?;
        match numbers.first().copied().unwrap_or_default() as i64 {
            13 => panic!("thirteen"),
            14 => loop {
                std::thread::park();
            },
            15 => std::process::abort(),
            16 => {
                outputs.numbers::<f64>(Shape::new(&[1]).expect("small"))[0] = f64::from(std::process::id());
                return Ok(());
            }
            _ => {}
        }
        let sums = outputs.numbers::<f64>(Shape::new(&[batch.rows]).expect("small"));
        for (sum, row) in sums.iter_mut().zip(numbers.chunks_exact(3)) {
            *sum = row.iter().sum();
        }
        Ok(())
    }
}

struct Adder;

impl Engine for Adder {
    fn load(&self, load: &Load) -> Result<Opened, String> {
        if load.path != "/sums" {
            return Err(format!("{} is not /sums", load.path));
        }
        let spec = |name: &str, row: Vec<Option<usize>>| TensorSpec::new(name, DType::F64, row);
        let signature = Signature {
            inputs: vec![spec("input-0", vec![Some(3)])],
            outputs: vec![spec("output-0", Vec::new())],
            columns: Vec::new(),
        };
        Ok(Opened { backend: Box::new(Sums(signature)), platform: "sums".into(), format: "none".into() })
    }
}

fn spec(path: &str, lanes: usize) -> Spec {
    Spec {
        program: Program {
            program: std::env::current_exe().expect("this program"),
            args: Vec::new(),
            script: None,
            folder: None,
            env: Vec::new(),
        },
        load: Load {
            name: "sums".into(),
            path: path.into(),
            file: None,
            method: "predict".into(),
            class: None,
            options: serde_json::Value::Null,
            memory_bytes_max: 32 << 20,
        },
        workers: 1,
        lanes,
        start_timeout: Duration::from_secs(60),
        call_timeout: Duration::from_secs(5),
    }
}

fn sum(backend: &dyn Backend, first: f64) -> Result<f64, BackendError> {
    let row = [first, 1.0, 2.0];
    let tensor = Tensor::borrowed(&row, &[1, 3]).expect("a row");
    let mut outputs = Outputs::new();
    backend.run(&Batch { rows: 1, inputs: &[tensor] }, &mut outputs)?;
    Ok(outputs.tensors()[0].slice::<f64>().expect("numbers")[0])
}

fn holds_the_contract() {
    let hosted = Hosted::start(spec("/sums", 2)).expect("a worker");
    models::contract::check_backend(
        &hosted,
        &[vec![1.0, 2.0, 3.5], vec![0.1, 0.2, 0.3], vec![-1.0, 0.0, 1e300]],
    );
    assert_eq!((hosted.ready().platform.as_str(), hosted.workers()), ("sums", Some(2)));
}

fn a_model_that_cannot_be_read_says_why() {
    let error = Hosted::start(spec("/other", 1)).expect_err("not its path");
    assert!(error.contains("/other is not /sums"), "{error}");
    let mut absent = spec("/sums", 1);
    absent.program.program = "/no/such/program".into();
    let error = Hosted::start(absent).expect_err("no program");
    assert!(error.contains("/no/such/program"), "{error}");
}

fn large_calls_grow_the_memory_up_to_its_bound() {
    let hosted = Hosted::start(spec("/sums", 1)).expect("a worker");
    let rows = 1_000_000;
    let numbers = vec![1.0; 3 * rows];
    let run = |rows: usize| -> Result<f64, BackendError> {
        let tensor = Tensor::borrowed(&numbers[..3 * rows], &[rows, 3]).expect("rows");
        let mut outputs = Outputs::new();
        hosted.run(&Batch { rows, inputs: &[tensor] }, &mut outputs)?;
        Ok(outputs.tensors()[0].slice::<f64>().expect("numbers").iter().sum::<f64>())
    };
    // 24 MB in and 8 MB out are just below 32 MiB.
    assert_eq!(run(rows), Ok(3e6));
    assert_eq!(run(10), Ok(30.0), "a small call after a large one");
    let twice = vec![0.0; 6 * rows];
    let tensor = Tensor::borrowed(&twice, &[2 * rows, 3]).expect("rows");
    let refused = hosted.run(&Batch { rows: 2 * rows, inputs: &[tensor] }, &mut Outputs::new());
    assert!(
        matches!(&refused, Err(BackendError::Input(why)) if why.contains("33554432 bytes")),
        "{refused:?}"
    );
    assert_eq!(run(10), Ok(30.0), "the worker is unharmed");
}

/// Calls until the worker is back; the bound is a guard against hanging.
fn comes_back(hosted: &Hosted) {
    let start = std::time::Instant::now();
    loop {
        match sum(hosted, 1.0) {
            Ok(sum) => return assert!((sum - 4.0).abs() < 1e-12),
            Err(BackendError::Unavailable(_)) if start.elapsed() < Duration::from_secs(60) => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn a_failed_call_costs_itself_alone() {
    let mut spec = spec("/sums", 2);
    spec.call_timeout = Duration::from_millis(300);
    let hosted = Hosted::start(spec).expect("a worker");
    let panicked = sum(&hosted, 13.0);
    assert!(
        matches!(&panicked, Err(BackendError::Internal(why)) if why.contains("panicked")),
        "{panicked:?}"
    );
    assert_eq!(sum(&hosted, 1.0), Ok(4.0), "the same process goes on after a panic");
    let hung = sum(&hosted, 14.0);
    assert!(matches!(&hung, Err(BackendError::Late(why)) if why.contains("300ms")), "{hung:?}");
    comes_back(&hosted);
    let aborted = sum(&hosted, 15.0);
    assert!(matches!(aborted, Err(BackendError::Unavailable(_))), "{aborted:?}");
    comes_back(&hosted);
}

fn a_worker_dies_with_its_server() {
    let program = std::env::current_exe().expect("this program");
    let mut server = Command::new(program).arg("--serve").stdout(Stdio::piped()).spawn().expect("a server");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let worker = format!("/proc/{}", line.trim());
    assert!(std::path::Path::new(&worker).exists(), "{line:?} is a worker");
    server.kill().expect("killed, so that it can tell nobody");
    server.wait().expect("it ended");
    let start = std::time::Instant::now();
    // Nothing tells when somebody else's child is gone; the bound is a guard against hanging.
    while std::path::Path::new(&worker).exists() && !is_dead(&worker) {
        assert!(start.elapsed() < Duration::from_secs(30), "the worker lives on");
        std::thread::yield_now();
    }
}

/// Ended, though nobody has waited for it yet.
fn is_dead(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with(['Z', 'X']))
}

fn serve() {
    let hosted = Hosted::start(spec("/sums", 1)).expect("a worker");
    println!("{}", sum(&hosted, 16.0).expect("its number"));
    loop {
        std::thread::park();
    }
}

fn main() {
    let mut args = std::env::args().skip_while(|arg| arg != "--lanes");
    if let Some(lanes) = args.nth(1) {
        let lanes = child::lanes(&lanes).expect("lanes");
        child::serve(lanes, &Adder).expect("served");
        return;
    }
    if std::env::args().any(|arg| arg == "--serve") {
        return serve();
    }
    holds_the_contract();
    a_model_that_cannot_be_read_says_why();
    large_calls_grow_the_memory_up_to_its_bound();
    a_failed_call_costs_itself_alone();
    a_worker_dies_with_its_server();
    println!("engine: 5 laws hold");
}
