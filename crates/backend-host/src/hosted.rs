//! A model in worker processes, as a backend.
//!
//! What comes in is checked against the signature before it is sent, and what comes back before it is used, so that a
//! worker's mistake is an error and never another row's answer. A worker that does not answer in time is ended; the
//! calls in it fail, and nobody else's.
//!
//! Not here: processes (`keeper`), packets (`lane`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use models::{
    Backend, BackendError, Batch, DType, Entry, Outputs, Shape, Signature, Tensor, TensorSpec, WorkerCounts,
    default_entry,
};
use parking_lot::Mutex;

use crate::keeper::{Keeper, Stop};
use crate::lane::{Ask, Failure};
use crate::pool::{Line, Pool};
use crate::process::Program;
use crate::protocol::{ENTRIES_MAX, Fault, Header, Kind, Load, Ready, Verb};

/// What a row is taken to cost until one was measured.
const ROW_COST_NS: u64 = 1_000_000;

/// How a model is hosted.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What is started.
    pub program: Program,
    /// What it is to read.
    pub load: Load,
    /// Processes; at least 1.
    pub workers: usize,
    /// Calls that one process works on at the same time; at least 1.
    pub lanes: usize,
    /// How long reading the model may take.
    pub start_timeout: Duration,
    /// How long a call may take, waiting for a free worker included.
    pub call_timeout: Duration,
}

/// A model in worker processes. They end with this value.
pub struct Hosted {
    spec: Arc<Spec>,
    pool: Arc<Pool>,
    ready: Ready,
    signature: Signature,
    entries: Vec<Entry>,
    row_cost_ns: AtomicU64,
    keepers: Vec<(Arc<Stop>, JoinHandle<()>)>,
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {} workers", self.spec.load.name, self.spec.workers)
    }
}

impl Hosted {
    /// Starts the workers and waits until each has read the model. The error is a text for people.
    pub fn start(spec: Spec) -> Result<Self, String> {
        let spec = Arc::new(spec);
        let pool = Arc::new(Pool::new(&spec.load.name));
        let agreed: Arc<Mutex<Option<Ready>>> = Arc::default();
        let mut keepers = Vec::new();
        let (told, first) = std::sync::mpsc::channel();
        for worker in 0..spec.workers.max(1) {
            let failed = |error: std::io::Error| format!("cannot start a worker's keeper: {error}");
            let stop = Arc::new(Stop::new().map_err(failed)?);
            let keeper = Keeper {
                spec: spec.clone(),
                worker,
                pool: pool.clone(),
                stop: stop.clone(),
                agreed: agreed.clone(),
            };
            let told = told.clone();
            let run = move || keeper.run(&|result| drop(told.send(result)));
            let thread = std::thread::Builder::new().name("keeper".into()).spawn(run);
            match thread {
                Ok(thread) => keepers.push((stop, thread)),
                Err(error) => {
                    end(&mut keepers);
                    return Err(failed(error));
                }
            }
        }
        drop(told);
        // The first failure decides, and ends the others.
        let failed = first.iter().take(keepers.len()).find_map(Result::err);
        let ready = agreed.lock().clone();
        let described = match (failed, &ready) {
            (None, Some(ready)) => described(ready),
            (Some(why), _) => Err(why),
            (None, None) => Err("no worker read the model".to_owned()),
        };
        match (described, ready) {
            (Ok((signature, entries)), Some(ready)) => {
                let cost = if ready.row_cost_ns == 0 { ROW_COST_NS } else { ready.row_cost_ns };
                let row_cost_ns = AtomicU64::new(cost);
                Ok(Self { spec, pool, ready, signature, entries, row_cost_ns, keepers })
            }
            (described, _) => {
                end(&mut keepers);
                Err(described.err().unwrap_or_default())
            }
        }
    }

    /// What the workers told of the model.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// One call, on whichever lane is free; `use_answer` reads the answer before the lane goes back.
    fn call<'t, P, T>(
        &self,
        ask: Ask,
        parts: P,
        mut use_answer: impl FnMut(&Line, &Header) -> Result<T, Failure>,
    ) -> Result<T, BackendError>
    where
        P: ExactSizeIterator<Item = (DType, Shape, &'t [u8])> + Clone,
    {
        let start = Instant::now();
        let deadline = start + self.spec.call_timeout;
        loop {
            let mut line = self.pool.take(deadline)?;
            let asked = line.lane.ask(ask, parts.clone(), deadline);
            let answered = asked.and_then(|header| match header.kind {
                Kind::Answer => use_answer(&line, &header),
                other => Err(Failure::Broken(format!("{other:?}, expected Answer"))),
            });
            line.lane.release();
            let failure = match answered {
                Ok(answer) => {
                    self.pool.put(line);
                    self.measured(start, ask.rows);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.count(&failure);
            if failure.spares_the_lane() {
                self.pool.put(line);
            } else {
                let reason = self.reason(&failure);
                line.process.kill(reason.as_deref());
            }
            // A worker that had ended before it was asked costs nothing but another try.
            if !matches!(failure, Failure::Unsent) {
                return Err(self.error(failure));
            }
        }
    }

    fn count(&self, failure: &Failure) {
        let events = &self.pool.events;
        match failure {
            Failure::Hung => drop(events.timeouts.fetch_add(1, Relaxed)),
            Failure::Gone => drop(events.crashes.fetch_add(1, Relaxed)),
            Failure::Unsent | Failure::Broken(_) | Failure::Refused(..) | Failure::TooLarge(_) => {}
        }
    }

    /// Why a worker is ended by us.
    fn reason(&self, failure: &Failure) -> Option<String> {
        match failure {
            Failure::Hung => Some(format!("it did not answer within {:?}", self.spec.call_timeout)),
            Failure::Broken(why) => Some(format!("it made no sense: {why}")),
            _ => None,
        }
    }

    fn error(&self, failure: Failure) -> BackendError {
        let model = &self.spec.load.name;
        match failure {
            Failure::Refused(Fault::Input, why) | Failure::TooLarge(why) => BackendError::Input(why),
            Failure::Refused(Fault::Internal, why) => BackendError::Internal(why),
            Failure::Hung => BackendError::Late(format!(
                "model {model}: its worker did not answer within {:?} and is started again",
                self.spec.call_timeout
            )),
            Failure::Gone | Failure::Unsent => BackendError::Unavailable(format!(
                "model {model}: its worker ended during the call and is started again"
            )),
            Failure::Broken(why) => BackendError::Internal(format!(
                "model {model}: its worker made no sense and is started again: {why}"
            )),
        }
    }

    /// A moving mean over some eight calls.
    fn measured(&self, start: Instant, rows: u64) {
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) / rows.max(1);
        let old = self.row_cost_ns.load(Relaxed);
        self.row_cost_ns.store(old - old / 8 + nanos / 8, Relaxed);
    }

    /// Refuses inputs that do not fit the signature.
    fn check(signature: &Signature, batch: &Batch<'_>) -> Result<(), BackendError> {
        let specs = &signature.inputs;
        if batch.inputs.len() != specs.len() {
            let (want, got) = (specs.len(), batch.inputs.len());
            return Err(BackendError::Input(format!("expected {want} inputs, got {got}")));
        }
        for (tensor, spec) in batch.inputs.iter().zip(specs) {
            let name = &spec.name;
            if !fits(tensor.dims(), batch.rows, spec, signature) {
                let (rows, want, got) = (batch.rows, shown(&spec.row), tensor.dims());
                let what = format!("input {name:?}: expected {rows} rows of the shape {want}, got {got:?}");
                return Err(BackendError::Input(what));
            }
            if (tensor.dtype() == DType::Text) != (spec.dtype == DType::Text) {
                let (want, got) = (spec.dtype.v2_name(), tensor.dtype().v2_name());
                return Err(BackendError::Input(format!("input {name:?}: expected {want}, got {got}")));
            }
        }
        Ok(())
    }

    /// Refuses outputs that are not what the worker announced.
    fn check_answer(&self, line: &Line, rows: usize, signature: &Signature) -> Result<(), Failure> {
        let (places, specs) = (line.lane.places(), &signature.outputs);
        if self.ready.outputs_vary {
            let wrong = places.iter().position(|place| place.shape.dims().first() != Some(&rows));
            return match wrong {
                Some(index) => {
                    let got = places[index].shape;
                    Err(internal(format!("output {index} has the shape {got:?} for {rows} rows")))
                }
                None if places.is_empty() => Err(internal("an answer without outputs".into())),
                None => Ok(()),
            };
        }
        if places.len() != specs.len() {
            let (got, want) = (places.len(), specs.len());
            return Err(internal(format!("{got} outputs, {want} were announced")));
        }
        for (place, spec) in places.iter().zip(specs) {
            if place.dtype != spec.dtype || !fits(place.shape.dims(), rows, spec, signature) {
                let (name, want, got) = (&spec.name, spec.dtype.v2_name(), place.dtype.v2_name());
                let row = shown(&spec.row);
                return Err(internal(format!(
                    "output {name:?} is {got} {:?}; {want} in {rows} rows of the shape {row} was announced",
                    place.shape
                )));
            }
        }
        Ok(())
    }

    /// Calls one signature, which is the one at this place where there are several.
    fn run_signature(
        &self,
        entry: usize,
        signature: &Signature,
        batch: &Batch<'_>,
        outputs: &mut Outputs,
    ) -> Result<(), BackendError> {
        Self::check(signature, batch)?;
        let shape = |tensor: &Tensor<'_>| Shape::new(tensor.dims()).expect("it is a tensor's already");
        let parts = batch.inputs.iter().map(|tensor| (tensor.dtype(), shape(tensor), tensor.bytes()));
        let entry = u8::try_from(entry).map_err(|_| BackendError::Internal("too many signatures".into()))?;
        let ask = Ask { kind: Kind::Run, detail: Verb::Predict as u8, entry, rows: batch.rows as u64 };
        let taken = self.call(ask, parts, |line, _| {
            self.check_answer(line, batch.rows, signature)?;
            line.lane.take(outputs)
        });
        if taken.is_err() {
            outputs.clear();
        }
        taken
    }
}

/// A fault of the model's code: the worker itself is well.
fn internal(why: String) -> Failure {
    Failure::Refused(Fault::Internal, why)
}

/// The default signature, and all by name.
fn described(ready: &Ready) -> Result<(Signature, Vec<Entry>), String> {
    if ready.entries.len() > ENTRIES_MAX {
        return Err(format!("the model has {} signatures, at most {ENTRIES_MAX}", ready.entries.len()));
    }
    let entries = ready.entries.iter().cloned().map(Entry::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok((ready.signature.clone().try_into()?, entries))
}

fn fits(dims: &[usize], rows: usize, spec: &TensorSpec, signature: &Signature) -> bool {
    spec.fits(dims) && (!signature.is_batched() || dims.first() == Some(&rows))
}

fn shown(row: &[Option<usize>]) -> String {
    let dims: Vec<String> = row.iter().map(|dim| dim.map_or("any".into(), |dim| dim.to_string())).collect();
    format!("[{}]", dims.join(", "))
}

fn end(keepers: &mut Vec<(Arc<Stop>, JoinHandle<()>)>) {
    for (stop, _) in keepers.iter() {
        stop.stop();
    }
    for (_, thread) in keepers.drain(..) {
        if thread.join().is_err() {
            tracing::error!("a worker's keeper panicked");
        }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        end(&mut self.keepers);
    }
}

impl Backend for Hosted {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn row_cost_ns(&self) -> u64 {
        self.row_cost_ns.load(Relaxed)
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        self.run_signature(default_entry(&self.entries), &self.signature, batch, outputs)
    }

    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn run_entry(&self, entry: usize, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let found = self.entries.get(entry);
        let own =
            found.ok_or_else(|| BackendError::Internal(format!("the model has no signature {entry}")))?;
        self.run_signature(entry, &own.signature, batch, outputs)
    }

    fn workers(&self) -> Option<usize> {
        Some(self.spec.workers.max(1) * self.spec.lanes.max(1))
    }

    fn worker_counts(&self) -> Option<WorkerCounts> {
        let events = &self.pool.events;
        let (lanes, waiting) = self.pool.lanes_and_waiting();
        Some(WorkerCounts {
            alive: (lanes / self.spec.lanes.max(1)) as u64,
            waiting: waiting as u64,
            restarts: events.restarts.load(Relaxed),
            timeouts: events.timeouts.load(Relaxed),
            crashes: events.crashes.load(Relaxed),
            lines_dropped: events.lines_dropped.load(Relaxed),
        })
    }

    fn takes_documents(&self) -> bool {
        self.ready.takes_documents
    }

    fn answer_document(&self, document: &[u8], answer: &mut Vec<u8>) -> Result<(), BackendError> {
        if !self.ready.takes_documents {
            return Err(BackendError::Input("the model takes tensors, not documents".into()));
        }
        let shape = Shape::new(&[document.len()]).expect("one dimension");
        let parts = std::iter::once((DType::U8, shape, document));
        let ask = Ask { kind: Kind::Run, detail: Verb::Document as u8, entry: 0, rows: 1 };
        let max = self.spec.load.memory_bytes_max;
        let bytes = self.call(ask, parts, |line, _| line.lane.take_bytes(max))?;
        answer.extend_from_slice(&bytes);
        Ok(())
    }
}
