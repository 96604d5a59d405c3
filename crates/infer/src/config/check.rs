//! What a configuration would serve, without serving it.
//!
//! Not here: reading model files, which takes as long as starting does (`slipway model inspect`).

use std::fmt::Write;

use super::{Config, scan};
use crate::Error;
use crate::tls::Certificates;

/// Reads the list of models and the certificates and looks through the folders. The text tells what was found, for
/// people; the error is the first thing that would keep the server from starting.
pub fn check(config: &Config) -> Result<String, Error> {
    let models = config.models.read().map_err(Error::Config)?;
    if let Some(tls) = &config.tls {
        Certificates::open(tls.clone()).map_err(Error::Certificate)?;
    }
    let mut text = String::new();
    for model in &models {
        let failed =
            |why: String| Error::Load { name: model.name.to_string(), path: model.path.clone(), why };
        if let Some(why) = &model.error {
            return Err(failed(why.clone()));
        }
        model.check().map_err(failed)?;
        let found = scan(&model.path, &model.policy).map_err(|error| failed(error.to_string()))?;
        let versions: Vec<String> =
            found.iter().map(|found| found.version.unwrap_or(1).to_string()).collect();
        if versions.is_empty() && config.loading.poll.is_none() && config.loading.exit_on_error {
            return Err(failed("the folder holds no version that is wanted".to_owned()));
        }
        let versions = if versions.is_empty() { "none yet".to_owned() } else { versions.join(", ") };
        let _ = writeln!(text, "model {} from {}: versions {versions}", model.name, model.path.display());
    }
    let _ = writeln!(text, "{} models, the configuration is in order", models.len());
    Ok(text)
}
