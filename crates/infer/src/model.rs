//! The one model that is served.
//!
//! Not here: formats and evaluators (`models`).

use models::{Backend, Native};

use crate::files::Disk;
use crate::{Config, Error};

/// A loaded model with its name.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) backend: Box<dyn Backend>,
    /// Columns of a row.
    pub(crate) width: usize,
}

impl Model {
    pub(crate) fn load(config: &Config) -> Result<Self, Error> {
        let failed = |why: String| Error::Load {
            name: config.model_name.clone(),
            path: config.model_dir.clone(),
            why,
        };
        let loaded = models::load(&Disk::new(&config.model_dir), &config.limits);
        let loaded = loaded.map_err(|error| failed(error.to_string()))?;
        let width = loaded.inspection().features.unwrap_or(0);
        let (file, format) = (loaded.file.clone(), loaded.format.name.clone());
        let backend =
            Native::new(loaded.estimator, config.method).map_err(|error| failed(error.to_string()))?;
        tracing::info!(model = %config.model_name, file, format, width, "model loaded");
        Ok(Self { name: config.model_name.clone(), backend: Box::new(backend), width })
    }
}
