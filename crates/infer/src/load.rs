//! From a folder of model files to a backend.
//!
//! This is the only place that knows which formats there are; the rest of the server sees [`Backend`]s. What is not read
//! natively is offered to the engines that the server was given, one after the other.
//!
//! Not here: which folders (`repository`), the formats themselves (`models`), engines (whoever wires the server).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use models::{Backend, Chosen, Class, Engines, Folder, Hosted, Limits, LoadError, Method, Native, Wanted};

use crate::config::Queueing;
use crate::explain::Origin;
use crate::files::Disk;
use crate::proof::{self, Digests, Wishes};
use crate::served::{About, Personality, Served};

/// What to read and how.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) name: Arc<str>,
    pub(crate) version: Option<u64>,
    /// The file, or the folder that it is in.
    pub(crate) path: PathBuf,
    /// The version's folder; the file where there is none.
    pub(crate) folder: PathBuf,
    /// The model's.
    pub(crate) model: PathBuf,
    pub(crate) wishes: Wishes,
    pub(crate) personality: Personality,
    pub(crate) method: Method,
    pub(crate) limits: Limits,
    pub(crate) queueing: Queueing,
    pub(crate) class: Option<Class>,
    pub(crate) engines: Arc<[Arc<dyn Engines>]>,
    /// Somebody waits for it.
    pub(crate) is_prompt: bool,
}

/// From so much work for a row on, a graph of tensors is better off in ONNX Runtime, where that is there: it takes a
/// fifth of our time or less, and the way to its process some 100 us.
const HEAVY_NS: u64 = 200_000;

/// What reading gives.
struct Read {
    backend: Box<dyn Backend>,
    about: About,
    origin: Option<Origin>,
}

/// Reads a model. Blocks. The error is a text for people.
pub(crate) fn load(order: &Order) -> Result<Served, String> {
    let start = Instant::now();
    let digests = Digests::announced(&order.folder, order.wishes.sha256.as_deref())?;
    let digests = digests.with_agents(&order.model, &order.folder, &order.wishes.md5);
    let Read { backend, about, origin } = match &order.class {
        Some(class) => of_class(order, class, &digests)?,
        None => read(order, &digests)?,
    };
    let mut served = Served::new(order.name.clone(), order.version, order.personality, backend);
    let load_time = start.elapsed();
    served.about = About { load_time, ..about };
    served.origin = origin;
    served.queue_by(&order.queueing);
    proof::prove(&served, &order.folder, &order.model, &order.wishes)?;
    report(&served, &order.path);
    Ok(served)
}

/// Reads natively, and where that is refused asks the engines.
fn read(order: &Order, digests: &Digests) -> Result<Read, String> {
    if let Some(engine) = first(order) {
        digests.check_others(&order.folder)?;
        let wanted = wanted(order);
        let hosted = engine.load(&wanted).unwrap_or_else(|| Err("its engine does not take it".to_owned()))?;
        return Ok(of_engine(hosted, ""));
    }
    let (chosen, refusal) = match read_chosen(&order.path, &order.limits) {
        Ok((chosen, bytes)) => {
            digests.check(&order.folder, &chosen.path, &bytes)?;
            match native(order, &chosen, bytes)? {
                Ok(read) => return Ok(read),
                Err(refusal) => (Some(chosen), refusal),
            }
        }
        Err(refusal) => {
            digests.check_others(&order.folder)?;
            (None, refusal)
        }
    };
    let file = chosen.as_ref().map(|chosen| chosen.path.as_str());
    let wanted = Wanted { file, refusal: Some(&refusal), ..wanted(order) };
    match ask(order, &wanted) {
        Some(Ok(hosted)) => Ok(of_engine(hosted, file.unwrap_or_default())),
        Some(Err(why)) => Err(format!("{why} (not read natively: {refusal})")),
        None if order.engines.is_empty() && is_for_python(&order.path, &refusal) => Err(format!(
            "{refusal}; with --allow_python a worker process of Python would read it and execute what is in it"
        )),
        None => Err(refusal.to_string()),
    }
}

/// The outer error is final; the inner one says why the native readers do not take the file.
fn native(order: &Order, chosen: &Chosen, bytes: bytes::Bytes) -> Result<Result<Read, LoadError>, String> {
    let origin = Origin::new(&order.path, &chosen.path, order.limits);
    let size = bytes.len() as u64;
    let file = chosen.path.clone();
    let (backend, about): (Box<dyn Backend>, About) = if onnx::is_onnx(&bytes) {
        let model = match onnx::Onnx::load(&bytes) {
            Ok(model) => model,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if model.row_cost_ns() >= HEAVY_NS
            && let Some(read) = outrun(order, &file)
        {
            return Ok(Ok(read));
        }
        let about =
            About { platform: "onnx".into(), format: "onnx".into(), bytes: size, file, ..About::default() };
        (Box::new(model), about)
    } else {
        let loaded = match models::load_bytes(&chosen.path, bytes, &order.limits) {
            Ok(loaded) => loaded,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (format, bytes) = (loaded.format.name.clone(), loaded.format.bytes_unpacked as u64);
        let backend = Native::new(loaded.estimator, order.method).map_err(|error| error.to_string())?;
        (Box::new(backend), About { platform: "sklearn".into(), format, bytes, file, ..About::default() })
    };
    Ok(Ok(Read { backend, about, origin: Some(origin) }))
}

/// The graph in an engine that is faster; where that does not come to be, ours is as good as any.
fn outrun(order: &Order, file: &str) -> Option<Read> {
    let wanted = wanted(order);
    let engine = order.engines.iter().find(|engine| engine.outruns(&wanted))?;
    match engine.load(&wanted)? {
        Ok(hosted) => Some(of_engine(hosted, file)),
        Err(why) => {
            tracing::warn!(model = &*order.name, %why, "a network stays in this process, where it is slower");
            None
        }
    }
}

fn of_class(order: &Order, class: &Class, digests: &Digests) -> Result<Read, String> {
    digests.check_others(&order.folder)?;
    let name = &class.name;
    match ask(order, &Wanted { class: Some(class), ..wanted(order) }) {
        Some(hosted) => hosted.map(|hosted| of_engine(hosted, name)),
        None => Err(format!(
            "{name:?} is a class, which is code; with --allow_python a worker process of Python would execute it"
        )),
    }
}

fn wanted(order: &Order) -> Wanted<'_> {
    let Order { name, path, method, .. } = order;
    Wanted { name, path, file: None, method: *method, class: None, refusal: None }
}

/// The engine that the model is for before any native reader.
fn first(order: &Order) -> Option<&Arc<dyn Engines>> {
    order.engines.iter().find(|engine| engine.comes_first(&wanted(order)))
}

fn ask(order: &Order, wanted: &Wanted<'_>) -> Option<Result<Hosted, String>> {
    order.engines.iter().find_map(|engine| engine.load(wanted))
}

fn of_engine(hosted: Hosted, file: &str) -> Read {
    let Hosted { backend, platform, format } = hosted;
    Read {
        backend,
        about: About { platform, format, file: file.to_owned(), ..About::default() },
        origin: None,
    }
}

/// Whether a refusal is of a kind that Python's libraries may not share.
fn is_for_python(path: &Path, refusal: &LoadError) -> bool {
    match refusal {
        LoadError::Unsupported { .. } | LoadError::Refused { .. } | LoadError::Attribute { .. } => true,
        LoadError::Folder { .. } | LoadError::Unknown { .. } => {
            let files = Disk::new(path).list().unwrap_or_default();
            files
                .iter()
                .any(|file| [".pt", ".pth", ".pt2", ".py"].iter().any(|ending| file.ends_with(ending)))
        }
        _ => false,
    }
}

/// The model file of a folder, or the file itself.
pub(crate) fn read_chosen(path: &Path, limits: &Limits) -> Result<(Chosen, bytes::Bytes), LoadError> {
    let folder = Disk::new(path);
    let chosen = models::choose(&folder)?;
    let bytes = folder.read(&chosen.path, limits.bytes_max);
    let failed = |error| LoadError::Folder { what: format!("cannot read {}: {error}", chosen.path) };
    let bytes = bytes.map_err(failed)?;
    Ok((chosen, bytes))
}

fn report(served: &Served, path: &Path) {
    let About { file, format, load_time, .. } = &served.about;
    let path = path.display();
    tracing::info!(model = ?served, %path, file, format, width = served.width, ?load_time, "model loaded");
}
