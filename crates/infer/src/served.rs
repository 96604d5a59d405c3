//! One version of a model that answers.
//!
//! A [`Served`] is immutable and shared: requests hold it while they run, and the version that was replaced goes
//! when its last request ends. Freeing a large model takes long, so that is done by a thread of its own.
//!
//! A version whose model has several signatures is a [`Served`] for each: the default one, which is found by the model's
//! name, knows the others.
//!
//! Not here: reading model files (`load`), which versions there are (`repository`).

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use models::{Backend, Dims, Entry, Through};

use crate::background;
use crate::batch::Queue;
use crate::cache::Cached;
use crate::compute::{self, Pool};
use crate::config::{Mode, Queueing};
use crate::explain::Origin;
use crate::metrics::Slot;
use crate::refusal::Refusal;

/// Whose error bodies, codes and colliding paths a model's answers follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Personality {
    /// KServe's Python servers.
    #[default]
    Kserve,
    /// `tensorflow_model_server`.
    TfServing,
    /// Triton Inference Server.
    Triton,
    /// MLServer.
    MlServer,
}

impl std::str::FromStr for Personality {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "kserve" => Self::Kserve,
            "tfserving" => Self::TfServing,
            "triton" => Self::Triton,
            "mlserver" => Self::MlServer,
            other => return Err(format!("{other:?} is none of kserve, tfserving, triton, mlserver")),
        })
    }
}

/// A backend that is freed aside, unless it is known to be small.
pub struct Kept {
    /// Absent only while it is dropped.
    backend: Option<Box<dyn Backend>>,
    is_small: bool,
}

impl Kept {
    /// Keeps a backend.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self { backend: Some(backend), is_small: false }
    }

    /// Says that freeing it takes no time.
    pub(crate) fn free_here(&mut self) {
        self.is_small = true;
    }

    /// The backend itself, of a value that is dropped next.
    fn take(&mut self) -> Box<dyn Backend> {
        self.backend.take().expect("it is taken once")
    }
}

impl Deref for Kept {
    type Target = dyn Backend;

    fn deref(&self) -> &(dyn Backend + 'static) {
        self.backend.as_deref().expect("it is taken only when dropped")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(backend) = self.backend.take() else { return };
        if self.is_small {
            return drop(backend);
        }
        background::run("free", move || drop(backend));
    }
}

/// Tells when the last request that held a version ended. All signatures of a version share it.
#[derive(Default)]
pub(crate) struct Gone(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl Gone {
    /// Says once who is told.
    pub(crate) fn tell(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(tell));
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(tell) = self.0.get() {
            tell();
        }
    }
}

/// The signature that a [`Served`] answers.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its purpose, in TensorFlow Serving's words; `None` where the model knows no purposes and whatever its outputs
    /// allow is answered.
    pub method: Option<String>,
    /// Its only input takes serialised examples.
    pub takes_examples: bool,
}

impl Named {
    /// The purpose as metadata shows it.
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or(models::PREDICT)
    }
}

impl Default for Named {
    fn default() -> Self {
        Self { name: models::DEFAULT_ENTRY.into(), method: None, takes_examples: false }
    }
}

/// What is known about a version besides its backend.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// What wrote it, in the words of the Open Inference Protocol: `sklearn`, `xgboost`, `onnx`.
    pub platform: String,
    /// The file that was read.
    pub file: String,
    /// The file's format.
    pub format: String,
    /// Bytes of the model's files, the estimate of what it takes in memory.
    pub bytes: u64,
    /// How long loading took.
    pub load_time: Duration,
}

/// One version of a model.
pub struct Served {
    /// The model's name.
    pub name: Arc<str>,
    /// Its version, where the model's folder has versions.
    pub version: Option<u64>,
    /// Whose manners it has.
    pub personality: Personality,
    /// What evaluates it.
    pub backend: Kept,
    /// Numbers in a row where the only input is a table; else 0.
    pub width: usize,
    /// Where it came from.
    pub about: About,
    /// What `:explain` reads.
    pub origin: Option<Origin>,
    /// Which of the model's signatures it is.
    pub named: Named,
    /// The model's other signatures, sorted by name. Only the default one has any.
    others: Vec<Arc<Served>>,
    /// Where its calls wait that are not short.
    pub queue: Queue,
    /// Its answers that are kept, where it has any.
    pub(crate) cached: Option<Cached>,
    /// Who is told of its end.
    pub(crate) gone: Arc<Gone>,
    /// Where its calls are counted, from the first on.
    pub(crate) slot: OnceLock<Slot>,
    /// Threads of its own, where its calls wait for another process.
    pub(crate) pool: Option<Pool>,
}

impl Served {
    /// A version around a backend, with all its signatures.
    pub fn new(
        name: Arc<str>,
        version: Option<u64>,
        personality: Personality,
        backend: Box<dyn Backend>,
    ) -> Self {
        let mut served = Self::single(name, version, personality, backend);
        if served.backend.entries().is_empty() {
            return served;
        }
        let whole: Arc<dyn Backend> = Arc::from(served.backend.take());
        let mut all: Vec<Self> =
            Through::all(&whole).into_iter().map(|through| served.signed(through)).collect();
        let default = all.swap_remove(models::default_entry(whole.entries()));
        served = default;
        served.others = all.into_iter().map(Arc::new).collect();
        served
    }

    fn single(
        name: Arc<str>,
        version: Option<u64>,
        personality: Personality,
        backend: Box<dyn Backend>,
    ) -> Self {
        let width = match backend.signature().inputs.as_slice() {
            [only] if only.dims == Dims::Rows => match only.row.as_slice() {
                [width] => width.unwrap_or(0),
                _ => 0,
            },
            _ => 0,
        };
        let pool = backend.workers().map(Pool::own);
        Self {
            name,
            version,
            personality,
            pool,
            backend: Kept::new(backend),
            width,
            about: About::default(),
            origin: None,
            named: Named::default(),
            others: Vec::new(),
            gone: Arc::default(),
            slot: OnceLock::new(),
            queue: Queue::default(),
            cached: None,
        }
    }

    /// One signature of the same version.
    fn signed(&self, through: Through) -> Self {
        let Entry { name, method, .. } = through.entry();
        let named = Named {
            name: name.clone(),
            method: Some(method.clone()),
            takes_examples: through.entry().takes_examples(),
        };
        let served = Self::single(self.name.clone(), self.version, self.personality, Box::new(through));
        Self { named, gone: self.gone.clone(), ..served }
    }

    /// Says how calls wait, of all signatures. To be called before the version answers. Calls of a model whose rows have a
    /// part in each other's answers run whole and alone, whatever the rules say.
    pub fn queue_by(&mut self, rules: &Queueing) {
        let mut own = rules.clone();
        if !self.backend.keeps_rows_apart() {
            own.mode = Mode::Alone;
            tracing::info!(
                model = &*self.name,
                "rows change each other's answers: calls run whole and alone"
            );
        }
        self.queue = Queue::new(own);
        for other in self.others.iter_mut().filter_map(Arc::get_mut) {
            other.queue_by(rules);
        }
    }

    /// Whether rows of different calls may stand in one batch: not where a tensor has no rows, or nobody knows.
    pub(crate) fn has_rows(&self) -> bool {
        let signature = self.backend.signature();
        signature.inputs.iter().chain(&signature.outputs).all(|spec| spec.dims == Dims::Rows)
    }

    /// All signatures of the version, sorted by name.
    pub fn signatures(&self) -> Vec<&Self> {
        let mut all: Vec<&Self> = self.others.iter().map(|other| &**other).chain([self]).collect();
        all.sort_by(|one, other| one.named.name.cmp(&other.named.name));
        all
    }

    /// Whether a request has to say which signature it means, unless it is the default one.
    pub fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// The signature of that name among those beside this one.
    pub fn other(&self, name: &str) -> Option<&Arc<Served>> {
        self.others.iter().find(|other| other.named.name == name)
    }
}

impl Served {
    /// Gives work to the threads that the model's calls belong to; refused when too much waits already.
    pub(crate) fn submit(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
        match &self.pool {
            Some(pool) => pool.submit(work),
            None => compute::submit(work),
        }
    }

    /// How many these threads are, at most.
    pub(crate) fn threads(&self) -> usize {
        self.pool.as_ref().map_or_else(compute::threads, Pool::threads)
    }

    /// Whether work waits for one of them.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.pool.as_ref().map_or_else(compute::is_waited_for, Pool::is_waited_for)
    }

    /// Runs work on the threads that the model's calls belong to, and waits for what it returns.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        match &self.pool {
            Some(pool) => pool.aside(work).await,
            None => compute::aside(work).await,
        }
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)?;
        self.version.map_or(Ok(()), |version| write!(f, "/{version}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use models::{BackendError, Batch, CLASSIFY, DType, Outputs, PREDICT, Signature, TensorSpec};

    use super::*;

    /// Answers the place of the signature that was asked.
    struct Several(Vec<Entry>);

    impl Backend for Several {
        fn signature(&self) -> &Signature {
            &self.0[models::default_entry(&self.0)].signature
        }

        fn row_cost_ns(&self) -> u64 {
            7
        }

        fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
            self.run_entry(models::default_entry(&self.0), batch, outputs)
        }

        fn entries(&self) -> &[Entry] {
            &self.0
        }

        fn run_entry(&self, entry: usize, _: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
            outputs.numbers::<u64>(models::Shape::new(&[1]).expect("small"))[0] = entry as u64;
            Ok(())
        }
    }

    fn several() -> Served {
        let entry = |name: &str, method: &str, dtype| {
            let inputs = vec![TensorSpec::new(name, dtype, [])];
            let signature = Signature { inputs, outputs: Vec::new(), columns: Vec::new() };
            Entry { name: name.into(), method: method.into(), signature }
        };
        let entries = vec![
            entry("classes", CLASSIFY, DType::Text),
            entry("serving_default", PREDICT, DType::F32),
            entry("zeros", PREDICT, DType::F32),
        ];
        Served::new("m".into(), Some(3), Personality::TfServing, Box::new(Several(entries)))
    }

    fn answer(served: &Served) -> u64 {
        let mut outputs = Outputs::new();
        served.backend.run(&Batch { rows: 1, inputs: &[] }, &mut outputs).expect("an answer");
        outputs.tensors()[0].slice::<u64>().expect("a number")[0]
    }

    #[test]
    fn each_signature_answers_under_its_name() {
        let served = several();
        let names: Vec<&str> = served.signatures().iter().map(|one| &*one.named.name).collect();
        assert_eq!(names, ["classes", "serving_default", "zeros"]);
        assert_eq!(answer(&served), 1);
        let classes = served.other("classes").expect("it is there");
        assert_eq!((answer(classes), classes.version, classes.named.takes_examples), (0, Some(3), true));
        assert_eq!(answer(served.other("zeros").expect("it is there")), 2);
        assert!(served.other("serving_default").is_none() && served.other("ones").is_none());
    }

    #[test]
    fn a_version_has_ended_when_the_last_of_its_signatures_has() {
        let ended = Arc::new(AtomicUsize::new(0));
        let served = several();
        let own = ended.clone();
        served.gone.tell(move || {
            own.fetch_add(1, SeqCst);
        });
        let zeros = served.other("zeros").expect("it is there").clone();
        drop(served);
        assert_eq!(ended.load(SeqCst), 0);
        drop(zeros);
        assert_eq!(ended.load(SeqCst), 1);
    }
}
