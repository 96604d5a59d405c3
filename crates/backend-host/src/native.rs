//! Native libraries as an engine: SavedModels in TensorFlow, graphs in ONNX Runtime.
//!
//! The worker is this binary itself, started again as `slipway backend-host`: there alone the libraries are opened. Each
//! model has a process of its own with a lane for each call that may run at once, because both libraries take calls from
//! several threads and have threads of their own for each.
//!
//! Only where the operator asks for it in so many words does a graph run in the server's process ([`Where::Here`]).
//!
//! Not here: calling the libraries (`engines`), keeping workers alive (`keeper`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engines::{Kind, Places, onnx, tensorflow};
use models::{Engines, Hosted as Evaluated, Method, Wanted};
use serde::{Deserialize, Serialize};

use crate::child::{self, Opened};
use crate::hosted::{Hosted, Spec};
use crate::process::Program;
use crate::protocol::Load;

/// The subcommand by which a server starts itself as a worker.
pub const COMMAND: &str = "backend-host";

/// Where a library is looked for: see [`Places::new`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The library's file or folder.
    pub library: Option<PathBuf>,
    /// The Python whose packages may have it.
    pub interpreter: Option<PathBuf>,
}

impl Search {
    fn places(&self) -> Places {
        Places::new(self.library.clone(), self.interpreter.clone())
    }
}

/// How graphs run in ONNX Runtime, as text and numbers that an operator may write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onnx {
    /// Where its library is.
    pub search: Search,
    /// See [`onnx::Options::providers`].
    pub providers: String,
    /// See [`onnx::Options::intra_op_threads`].
    pub intra_op_threads: u32,
    /// See [`onnx::Options::inter_op_threads`].
    pub inter_op_threads: u32,
    /// `none`, `basic`, `extended`, or empty for all.
    pub optimization: String,
}

impl Onnx {
    fn options(&self) -> Result<onnx::Options, String> {
        let providers = onnx::Options::providers(&self.providers).map_err(|error| error.to_string())?;
        let level = match self.optimization.as_str() {
            "" => onnx::Level::default(),
            text => text.parse()?,
        };
        let parallel = self.inter_op_threads > 1;
        let (intra_op_threads, inter_op_threads) = (self.intra_op_threads, self.inter_op_threads);
        Ok(onnx::Options { providers, intra_op_threads, inter_op_threads, parallel, level })
    }

    /// Opens the library and reads a graph.
    fn open(&self, file: &Path) -> Result<Opened, String> {
        let library = onnx::Library::open(&self.search.places()).map_err(|error| error.to_string())?;
        let model = onnx::Model::load(library, file, &self.options()?).map_err(|error| error.to_string())?;
        let format = format!("onnx in ONNX Runtime {}", library.version());
        Ok(Opened { backend: Box::new(model), platform: "onnxruntime_onnx".into(), format })
    }
}

/// How SavedModels run in TensorFlow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorFlow {
    /// Where its library is.
    pub search: Search,
    /// Tags of the graph, with commas between; empty is `serve`.
    pub tags: String,
    /// See [`tensorflow::Options::intra_op_threads`].
    pub intra_op_threads: u32,
    /// See [`tensorflow::Options::inter_op_threads`].
    pub inter_op_threads: u32,
    /// See [`tensorflow::Options::gpu_memory_fraction`].
    pub gpu_memory_fraction: f64,
}

impl TensorFlow {
    fn options(&self) -> tensorflow::Options {
        let tags: Vec<String> =
            self.tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        let default = tensorflow::Options::default();
        tensorflow::Options {
            tags: if tags.is_empty() { default.tags } else { tags },
            intra_op_threads: self.intra_op_threads,
            inter_op_threads: self.inter_op_threads,
            gpu_memory_fraction: self.gpu_memory_fraction,
        }
    }

    /// Opens the library and reads a SavedModel.
    fn open(&self, folder: &Path) -> Result<Opened, String> {
        let library = tensorflow::Library::open(&self.search.places()).map_err(|error| error.to_string())?;
        let model =
            tensorflow::Model::load(library, folder, &self.options()).map_err(|error| error.to_string())?;
        for (signature, why) in model.refused() {
            tracing::warn!(signature, why, "a signature is not served");
        }
        let format = format!("SavedModel in TensorFlow {}", library.version());
        Ok(Opened { backend: Box::new(model), platform: "tensorflow_savedmodel".into(), format })
    }
}

/// Which engine a worker is, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Onnx(Onnx),
    TensorFlow(TensorFlow),
}

/// The worker's engine.
struct Worker;

impl child::Engine for Worker {
    fn load(&self, load: &Load) -> Result<Opened, String> {
        let order = serde_json::from_value(load.options.clone()).map_err(|error| error.to_string())?;
        let path = Path::new(&load.path);
        match order {
            Order::Onnx(onnx) => {
                onnx.open(&load.file.as_ref().map_or(path.to_owned(), |file| path.join(file)))
            }
            Order::TensorFlow(tensorflow) => tensorflow.open(path),
        }
    }
}

/// What the worker's process does: it is `slipway backend-host --lanes …`.
pub fn work(lanes: &str) -> Result<(), String> {
    let lanes = child::lanes(lanes)?;
    child::serve(lanes, &Worker).map_err(|error| error.to_string())
}

/// Which graphs ONNX Runtime is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Those that the server's own engine does not evaluate.
    #[default]
    Others,
    /// All.
    All,
    /// None.
    None,
}

/// Where ONNX Runtime is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Where {
    /// In a process of its own.
    #[default]
    Worker,
    /// In the server's.
    Here,
}

/// The engine.
#[derive(Debug, Clone)]
pub struct Native {
    /// Which graphs run in ONNX Runtime.
    pub choice: Choice,
    /// Where.
    pub place: Where,
    /// How.
    pub onnx: Onnx,
    /// How SavedModels run in TensorFlow.
    pub tensorflow: TensorFlow,
    /// Calls of a model that run at once.
    pub lanes: usize,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// How long reading a model may take.
    pub start_timeout: Duration,
    /// Bytes that the tensors of a call may have, inputs and outputs together.
    pub memory_bytes_max: u64,
    /// Variables that workers get besides the usual ones.
    pub env: Vec<(OsString, OsString)>,
}

/// What a model is to these libraries.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A graph in this file.
    Graph(PathBuf),
    /// A SavedModel in this folder.
    SavedModel(PathBuf),
}

/// `takes_any` also finds the only graph of a folder that nobody named.
fn find(wanted: &Wanted<'_>, takes_any: bool) -> Option<Found> {
    let named = wanted.file.map_or_else(|| wanted.path.to_owned(), |file| wanted.path.join(file));
    let file = match (wanted.path.is_file(), takes_any && wanted.file.is_none()) {
        (true, _) => wanted.path.to_owned(),
        (false, true) => only_graph(wanted.path).unwrap_or(named),
        (false, false) => named,
    };
    if file.extension().is_some_and(|ending| ending == "onnx") && file.is_file() {
        return Some(Found::Graph(file));
    }
    let folder = if wanted.path.is_dir() { wanted.path } else { wanted.path.parent()? };
    let is_graph =
        |name: &str| folder.join(name).is_file() && (wanted.path.is_dir() || wanted.path.ends_with(name));
    ["saved_model.pb", "saved_model.pbtxt"]
        .into_iter()
        .any(is_graph)
        .then(|| Found::SavedModel(folder.to_owned()))
}

fn only_graph(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.take(10_000).flatten().map(|entry| entry.path());
    let mut graphs = entries.filter(|path| path.extension().is_some_and(|ending| ending == "onnx"));
    graphs.next().filter(|_| graphs.next().is_none())
}

impl Native {
    fn find(&self, wanted: &Wanted<'_>) -> Option<Found> {
        find(wanted, self.choice == Choice::All)
    }

    fn load_graph(&self, wanted: &Wanted<'_>, file: &Path) -> Result<Evaluated, String> {
        self.onnx.options()?;
        engines::candidates(Kind::OnnxRuntime, &self.onnx.search.places())
            .map_err(|error| error.to_string())?;
        if self.place == Where::Here {
            let Opened { backend, platform, format } = self.onnx.open(file)?;
            return Ok(Evaluated { backend, platform, format: format!("{format}, in this process") });
        }
        self.start(wanted, file, &Order::Onnx(self.onnx.clone()))
    }

    fn load_saved_model(&self, wanted: &Wanted<'_>, folder: &Path) -> Result<Evaluated, String> {
        let places = self.tensorflow.search.places();
        engines::candidates(Kind::TensorFlow, &places).map_err(|error| error.to_string())?;
        self.start(wanted, folder, &Order::TensorFlow(self.tensorflow.clone()))
    }

    /// Starts a worker of this binary and waits until it has read the model.
    fn start(&self, wanted: &Wanted<'_>, path: &Path, order: &Order) -> Result<Evaluated, String> {
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = path.to_str().ok_or_else(|| format!("{} is no path in UTF-8", path.display()))?;
        let load = Load {
            name: wanted.name.to_owned(),
            path: path.to_owned(),
            file: None,
            method: "predict".to_owned(),
            class: None,
            options: serde_json::to_value(order).map_err(|error| error.to_string())?,
            memory_bytes_max: self.memory_bytes_max,
        };
        // TensorFlow tells of each step of a load unless it is told not to.
        let quiet = [("TF_CPP_MIN_LOG_LEVEL", "1")].map(|(name, value)| (name.into(), value.into()));
        let quiet =
            quiet.into_iter().filter(|(name, _): &(OsString, OsString)| std::env::var_os(name).is_none());
        let program = Program {
            program,
            args: vec![COMMAND.into()],
            script: None,
            folder: None,
            env: quiet.chain(self.env.iter().cloned()).collect(),
        };
        let hosted = Hosted::start(Spec {
            program,
            load,
            workers: 1,
            lanes: self.lanes.max(1),
            start_timeout: self.start_timeout,
            call_timeout: self.call_timeout,
        })?;
        Ok(Evaluated {
            platform: hosted.ready().platform.clone(),
            format: hosted.ready().format.clone(),
            backend: Box::new(hosted),
        })
    }
}

impl Engines for Native {
    fn load(&self, wanted: &Wanted<'_>) -> Option<Result<Evaluated, String>> {
        if wanted.class.is_some() || wanted.method != Method::Predict {
            return None;
        }
        match self.find(wanted)? {
            Found::Graph(_) if self.choice == Choice::None => None,
            Found::Graph(file) => Some(self.load_graph(wanted, &file)),
            Found::SavedModel(folder) => Some(self.load_saved_model(wanted, &folder)),
        }
    }

    fn comes_first(&self, wanted: &Wanted<'_>) -> bool {
        match self.find(wanted) {
            Some(Found::Graph(_)) => self.choice == Choice::All && wanted.class.is_none(),
            Some(Found::SavedModel(_)) => wanted.class.is_none(),
            None => false,
        }
    }

    fn outruns(&self, wanted: &Wanted<'_>) -> bool {
        let is_graph = matches!(self.find(wanted), Some(Found::Graph(_)));
        let places = self.onnx.search.places();
        is_graph && self.choice == Choice::Others && engines::candidates(Kind::OnnxRuntime, &places).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[&str], path: &str, file: Option<&str>, takes_any: bool) -> Option<String> {
        let root = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let path = root.path().join(path);
        let wanted =
            Wanted { name: "m", path: &path, file, method: Method::Predict, class: None, refusal: None };
        let below = |path: PathBuf| {
            path.strip_prefix(root.path()).expect("below").to_str().expect("a name").to_owned()
        };
        find(&wanted, takes_any).map(|found| match found {
            Found::Graph(file) => format!("graph {}", below(file)),
            Found::SavedModel(folder) => format!("saved {}", below(folder)),
        })
    }

    #[test]
    fn models_of_the_libraries_are_known_by_their_files() {
        let saved = ["m/saved_model.pb", "m/variables/variables.index", "m/assets/a.txt"];
        assert_eq!(found(&saved, "m", None, false).as_deref(), Some("saved m"));
        assert_eq!(found(&saved, "m", Some("saved_model.pb"), false).as_deref(), Some("saved m"));
        assert_eq!(found(&saved, "m/saved_model.pb", None, false).as_deref(), Some("saved m"));
        assert_eq!(found(&["m/saved_model.pbtxt"], "m", None, false).as_deref(), Some("saved m"));
        let graph = ["m/model.onnx", "m/model.bin", "m/model.pkl"];
        assert_eq!(found(&graph, "m", Some("model.onnx"), false).as_deref(), Some("graph m/model.onnx"));
        assert_eq!(found(&graph, "m/model.onnx", None, false).as_deref(), Some("graph m/model.onnx"));
        assert_eq!(
            found(&graph, "m/model.onnx", Some("model.onnx"), false).as_deref(),
            Some("graph m/model.onnx")
        );
        assert_eq!(found(&graph, "m", Some("model.pkl"), false), None);
        assert_eq!(found(&graph, "m", None, false), None);
        assert_eq!(found(&graph, "m", None, true).as_deref(), Some("graph m/model.onnx"));
        assert_eq!(found(&["m/a.onnx", "m/b.onnx"], "m", None, true), None);
    }

    #[test]
    fn an_order_goes_to_the_worker_and_comes_back() {
        let onnx = Onnx { providers: "CPUExecutionProvider".into(), intra_op_threads: 2, ..Onnx::default() };
        let tensorflow =
            TensorFlow { tags: "serve,gpu".into(), gpu_memory_fraction: 0.25, ..TensorFlow::default() };
        for order in [Order::Onnx(onnx), Order::TensorFlow(tensorflow)] {
            let json = serde_json::to_value(&order).expect("JSON");
            assert_eq!(serde_json::from_value::<Order>(json).expect("an order"), order);
        }
        assert!(Onnx { optimization: "much".into(), ..Onnx::default() }.options().is_err());
    }

    #[test]
    fn a_library_that_is_not_there_is_missed_by_name() {
        let search = Search { library: Some("/no/such/folder".into()), interpreter: None };
        let native = Native {
            choice: Choice::Others,
            place: Where::Worker,
            onnx: Onnx { search: search.clone(), ..Onnx::default() },
            tensorflow: TensorFlow { search, ..TensorFlow::default() },
            lanes: 1,
            call_timeout: Duration::from_secs(1),
            start_timeout: Duration::from_secs(1),
            memory_bytes_max: 1 << 20,
            env: Vec::new(),
        };
        let root = tempfile::tempdir().expect("a folder");
        for (name, library) in [("saved_model.pb", "TensorFlow"), ("model.onnx", "ONNX Runtime")] {
            let path = root.path().join(name);
            std::fs::write(&path, "").expect("written");
            let wanted = Wanted {
                name: "m",
                path: &path,
                file: None,
                method: Method::Predict,
                class: None,
                refusal: None,
            };
            let Some(Err(why)) = native.load(&wanted) else {
                panic!("{name} is for this engine and cannot be read")
            };
            assert!(why.contains(library) && why.contains("/no/such/folder"), "{why}");
        }
    }
}
