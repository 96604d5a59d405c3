//! From a folder of model files to a backend.
//!
//! This is the only place that knows which formats there are; the rest of the server sees [`Backend`]s.
//!
//! Not here: which folders (`repository`), the formats themselves (`models`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use models::{Backend, Chosen, Folder, Limits, LoadError, Method, Native};

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
}

/// Reads a model. Blocks. The error is a text for people.
pub(crate) fn load(order: &Order) -> Result<Served, String> {
    let start = Instant::now();
    let digests = Digests::announced(&order.folder, order.wishes.sha256.as_deref())?;
    let (chosen, bytes) = read_chosen(&order.path, &order.limits).map_err(|error| error.to_string())?;
    digests.check(&order.folder, &chosen.path, &bytes)?;
    let origin = Origin::new(&order.path, &chosen.path, order.limits);
    let size = bytes.len() as u64;
    let (backend, about): (Box<dyn Backend>, About) = if onnx::is_onnx(&bytes) {
        let model = onnx::Onnx::load(&bytes).map_err(|error| error.to_string())?;
        (
            Box::new(model),
            About { platform: "onnx".into(), format: "onnx".into(), bytes: size, ..About::default() },
        )
    } else {
        let loaded =
            models::load_bytes(&chosen.path, bytes, &order.limits).map_err(|error| error.to_string())?;
        let (format, bytes) = (loaded.format.name.clone(), loaded.format.bytes_unpacked as u64);
        let backend = Native::new(loaded.estimator, order.method).map_err(|error| error.to_string())?;
        (Box::new(backend), About { platform: "sklearn".into(), format, bytes, ..About::default() })
    };
    let mut served = Served::new(order.name.clone(), order.version, order.personality, backend);
    let load_time = start.elapsed();
    served.about = About { file: chosen.path, load_time, ..about };
    served.origin = Some(origin);
    served.queue_by(&order.queueing);
    proof::prove(&served, &order.folder, &order.model, &order.wishes)?;
    report(&served, &order.path);
    Ok(served)
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
