//! A model of several signatures behind the protocol: this program is both the test and, with `--lanes`, its worker.
//!
//! Not here: what happens to workers (`engine`).

use std::time::Duration;

use backend_host::child::{self, Engine, Opened};
use backend_host::protocol::Load;
use backend_host::{Hosted, Program, Spec};
use models::{
    Backend, BackendError, Batch, CLASSIFY, DType, Dims, Entry, Outputs, PREDICT, Shape, Signature, Tensor,
    TensorSpec,
};

/// `serving_default` answers rows with their places, `whole` a tensor of any dimensions with how many they are.
struct Two(Vec<Entry>);

impl Two {
    fn new() -> Self {
        let entry = |name: &str, method: &str, input, output| {
            let signature = Signature { inputs: vec![input], outputs: vec![output], columns: Vec::new() };
            Entry { name: name.into(), method: method.into(), signature }
        };
        let rows = |name: &str| TensorSpec::new(name, DType::I64, []);
        let any = TensorSpec { dims: Dims::Any, ..rows("x") };
        let scalar = TensorSpec { dims: Dims::Whole, ..rows("rank") };
        Self(vec![
            entry("serving_default", PREDICT, rows("x"), rows("place")),
            entry("whole", CLASSIFY, any, scalar),
        ])
    }
}

impl Backend for Two {
    fn signature(&self) -> &Signature {
        &self.0[0].signature
    }

    fn row_cost_ns(&self) -> u64 {
        50
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        self.run_entry(0, batch, outputs)
    }

    fn entries(&self) -> &[Entry] {
        &self.0
    }

    fn run_entry(&self, entry: usize, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let rank = batch.inputs[0].dims().len();
        if entry == 1 {
            outputs.numbers::<i64>(Shape::new(&[]).expect("small"))[0] = rank as i64;
            return Ok(());
        }
        let places = outputs.numbers::<i64>(Shape::new(&[batch.rows]).expect("small"));
        places.iter_mut().enumerate().for_each(|(place, slot)| *slot = place as i64);
        Ok(())
    }
}

impl Engine for Two {
    fn load(&self, _: &Load) -> Result<Opened, String> {
        Ok(Opened { backend: Box::new(Self::new()), platform: "two".into(), format: "none".into() })
    }
}

fn hosted() -> Hosted {
    let program = std::env::current_exe().expect("this program");
    let program = Program { program, args: Vec::new(), script: None, folder: None, env: Vec::new() };
    let load = Load {
        name: "two".into(),
        path: "/two".into(),
        file: None,
        method: "predict".into(),
        class: None,
        options: serde_json::Value::Null,
        memory_bytes_max: 1 << 20,
    };
    let (start_timeout, call_timeout) = (Duration::from_secs(60), Duration::from_secs(60));
    Hosted::start(Spec { program, load, workers: 1, lanes: 1, start_timeout, call_timeout })
        .expect("a worker")
}

fn answer(hosted: &Hosted, entry: usize, dims: &[usize], rows: usize) -> Result<Vec<i64>, BackendError> {
    let numbers = vec![7_i64; dims.iter().product()];
    let tensor = Tensor::owned(&numbers, dims).expect("fits");
    let mut outputs = Outputs::new();
    hosted.run_entry(entry, &Batch { rows, inputs: &[tensor] }, &mut outputs)?;
    Ok(outputs.tensors()[0].slice::<i64>().expect("numbers").to_vec())
}

fn each_signature_is_called_by_its_place() {
    let hosted = hosted();
    assert_eq!(hosted.entries(), Two::new().entries());
    assert_eq!(hosted.signature(), Two::new().signature());
    assert_eq!(answer(&hosted, 0, &[3], 3), Ok(vec![0, 1, 2]));
    assert_eq!(answer(&hosted, 1, &[2, 5, 1], 1), Ok(vec![3]));
    assert_eq!(answer(&hosted, 1, &[], 1), Ok(vec![0]));
    for (entry, dims, rows) in [(0, &[3, 1][..], 3), (0, &[2], 3)] {
        assert!(matches!(answer(&hosted, entry, dims, rows), Err(BackendError::Input(_))), "{dims:?}");
    }
    assert!(matches!(answer(&hosted, 2, &[1], 1), Err(BackendError::Internal(_))));
}

fn main() {
    let mut args = std::env::args().skip_while(|arg| arg != "--lanes");
    if let Some(lanes) = args.nth(1) {
        let lanes = child::lanes(&lanes).expect("lanes");
        child::serve(lanes, &Two::new()).expect("served");
        return;
    }
    each_signature_is_called_by_its_place();
    println!("signatures: 1 law holds");
}
