//! Python as an engine: unknown estimators, MLflow's pyfunc, TorchScript, classes of the operator's own.
//!
//! The worker is one file that this crate carries. It executes what is in and beside the model, which is why there is
//! such an engine only where the operator allowed it; what it may do to the machine is what the server's user may.
//!
//! Not here: the worker (`python/worker.py`), keeping it alive (`keeper`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use models::{Engines, Hosted as Evaluated, LoadError, Method, Predictor, Wanted};

use crate::hosted::{Hosted, Spec};
use crate::process::Program;
use crate::protocol::Load;

const WORKER: &str = include_str!("../python/worker.py");

/// Endings of files that Python's libraries read.
const ENDINGS: [&str; 10] =
    [".pkl", ".pickle", ".joblib", ".cloudpickle", ".skops", ".pt", ".pth", ".ts", ".torchscript", ".pt2"];
/// Variables by which numeric libraries learn how many threads to start.
const THREADS: [&str; 3] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"];

/// The engine.
#[derive(Debug, Clone)]
pub struct Python {
    /// The interpreter, by path or by a name on `PATH`.
    pub program: PathBuf,
    /// Processes of each model.
    pub workers: usize,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// How long reading a model may take.
    pub start_timeout: Duration,
    /// Bytes that the tensors of a call may have, inputs and outputs together.
    pub memory_bytes_max: u64,
    /// Variables that workers get besides the usual ones.
    pub env: Vec<(OsString, OsString)>,
    /// Whom a class that is a transformer asks.
    pub predictor: Option<Predictor>,
}

impl Python {
    /// An interpreter with the usual limits: one worker, 30 s a call, 2 minutes to read, 1 GiB.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            workers: 1,
            call_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(120),
            memory_bytes_max: 1 << 30,
            env: Vec::new(),
            predictor: None,
        }
    }

    fn spec(&self, wanted: &Wanted<'_>, options: serde_json::Value) -> Spec {
        let path = std::path::absolute(wanted.path).unwrap_or_else(|_| wanted.path.to_owned());
        let method = match wanted.method {
            Method::Predict => "predict",
            Method::Probabilities => "predict_proba",
            Method::Decisions => "decision_function",
        };
        let load = Load {
            name: wanted.name.to_owned(),
            path: path.to_string_lossy().into_owned(),
            file: wanted.file.filter(|_| path.is_dir()).map(str::to_owned),
            method: method.to_owned(),
            class: wanted.class.map(|class| class.name.clone()),
            options,
            memory_bytes_max: self.memory_bytes_max,
        };
        Spec {
            program: Program {
                program: self.program.clone(),
                // Models lie on volumes that may be read-only, and are not to change by being served.
                args: vec!["-B".into()],
                script: Some(WORKER),
                folder: None,
                env: self.threads().chain(self.env.iter().cloned()).collect(),
            },
            load,
            workers: self.workers,
            lanes: 1,
            start_timeout: self.start_timeout,
            call_timeout: self.call_timeout,
        }
    }

    /// The workers of a model share the CPUs, unless the operator said otherwise.
    fn threads(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let each = (cpus / self.workers.max(1)).max(1).to_string();
        let unset = THREADS.into_iter().filter(|name| std::env::var_os(name).is_none());
        unset.map(move |name| (name.into(), each.clone().into()))
    }
}

impl Engines for Python {
    fn load(&self, wanted: &Wanted<'_>) -> Option<Result<Evaluated, String>> {
        let options = match wanted.class {
            Some(class) => options_of(class, self.predictor.as_ref()),
            None if is_for_python(wanted) => Ok(serde_json::Value::Null),
            None => return None,
        };
        let started = options.and_then(|options| Hosted::start(self.spec(wanted, options)));
        Some(started.map(|hosted| Evaluated {
            platform: hosted.ready().platform.clone(),
            format: hosted.ready().format.clone(),
            backend: Box::new(hosted),
        }))
    }
}

fn options_of(class: &models::Class, predictor: Option<&Predictor>) -> Result<serde_json::Value, String> {
    let settings: Option<serde_json::Value> = match &class.settings {
        Some(text) => Some(serde_json::from_str(text).map_err(|error| error.to_string())?),
        None => None,
    };
    let predictor = predictor.map(asked);
    Ok(serde_json::json!({ "code": class.code, "settings": settings, "predictor": predictor }))
}

/// What a worker is told of the server that its transformer asks.
fn asked(predictor: &Predictor) -> serde_json::Value {
    serde_json::json!({
        "host": predictor.host,
        "protocol": predictor.protocol,
        "use_ssl": predictor.use_ssl,
        "timeout": predictor.timeout.as_secs_f64(),
        "retries": predictor.retries,
    })
}

/// Whether Python's libraries may read what the native readers refused.
fn is_for_python(wanted: &Wanted<'_>) -> bool {
    if matches!(wanted.refusal, Some(LoadError::TooLarge { .. })) {
        return false;
    }
    let ends = |name: &str| ENDINGS.iter().any(|ending| name.ends_with(ending));
    match wanted.file {
        Some(file) => ends(file) || wanted.path.join("MLmodel").is_file(),
        None => files(wanted.path).iter().any(|name| name == "MLmodel" || ends(name)),
    }
}

/// Names in a folder, or of the file itself.
fn files(path: &Path) -> Vec<String> {
    if path.is_file() {
        return path.file_name().map(|name| name.to_string_lossy().into_owned()).into_iter().collect();
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries.take(10_000).flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_pythons_libraries_read_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let unknown = LoadError::Unknown { what: "x".into() };
        let large = LoadError::TooLarge { what: "x", limit: 1 };
        let takes = |file: Option<&str>, refusal: &LoadError| {
            let refusal = Some(refusal);
            let path = folder.path();
            is_for_python(&Wanted { name: "m", path, file, method: Method::Predict, class: None, refusal })
        };
        assert!(takes(Some("model.pkl"), &unknown));
        assert!(!takes(Some("model.pkl"), &large), "a limit is a limit");
        assert!(!takes(Some("model.onnx"), &unknown));
        assert!(!takes(None, &unknown));
        std::fs::write(folder.path().join("saved_model.pb"), "").expect("written");
        assert!(!takes(None, &unknown));
        std::fs::write(folder.path().join("model.pt"), "").expect("written");
        assert!(takes(None, &unknown));
    }
}
