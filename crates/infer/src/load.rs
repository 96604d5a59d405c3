//! From a folder of model files to a backend.
//!
//! This is the only place that knows which formats there are; the rest of the server sees [`Backend`]s.
//!
//! Not here: which folders (`repository`), the formats themselves (`models`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use models::{Limits, Method, Native};

use crate::files::Disk;
use crate::served::{About, Personality, Served};

/// What to read and how.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) name: Arc<str>,
    pub(crate) version: Option<u64>,
    pub(crate) path: PathBuf,
    pub(crate) personality: Personality,
    pub(crate) method: Method,
    pub(crate) limits: Limits,
}

/// Reads a model. Blocks. The error is a text for people.
pub(crate) fn load(order: &Order) -> Result<Served, String> {
    let start = Instant::now();
    let folder = Disk::new(&order.path);
    let loaded = models::load(&folder, &order.limits).map_err(|error| error.to_string())?;
    let (file, format) = (loaded.file.clone(), loaded.format.name.clone());
    let bytes = loaded.format.bytes_unpacked as u64;
    let backend = Native::new(loaded.estimator, order.method).map_err(|error| error.to_string())?;
    let mut served = Served::new(order.name.clone(), order.version, order.personality, Box::new(backend));
    let load_time = start.elapsed();
    served.about = About { platform: "sklearn".into(), file, format, bytes, load_time };
    report(&served, &order.path);
    Ok(served)
}

fn report(served: &Served, path: &Path) {
    let About { file, format, load_time, .. } = &served.about;
    let path = path.display();
    tracing::info!(model = ?served, %path, file, format, width = served.width, ?load_time, "model loaded");
}
