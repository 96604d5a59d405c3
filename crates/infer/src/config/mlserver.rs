//! MLServer's `model-settings.json`.
//!
//! The implementation names the library, of which those are known whose models are evaluated natively. Any other is a
//! class of somebody's own: code, which this process never runs and an engine may, where the operator allowed one.
//!
//! Not here: which file is the model (`models::choose`).

use std::path::Path;
use std::time::Duration;

use models::Class;
use serde::Deserialize;

use super::{Batching, Model};
use crate::served::Personality;

/// Implementations whose models are read natively.
const NATIVE: [&str; 6] = [
    "mlserver_sklearn.SKLearnModel",
    "mlserver_xgboost.XGBoostModel",
    "mlserver_lightgbm.LightGBMModel",
    "mlserver_catboost.CatboostModel",
    "mlserver_onnx.OnnxModel",
    "mlserver_mlflow.MLflowRuntime",
];

#[derive(Deserialize)]
struct Settings {
    name: Option<String>,
    implementation: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    max_batch_size: usize,
    /// Seconds.
    #[serde(default)]
    max_batch_time: f64,
}

#[derive(Default, Deserialize)]
struct Parameters {
    uri: Option<String>,
    version: Option<String>,
    #[serde(default)]
    extra: Extra,
}

/// Settings of the implementation, of which those of this server are taken.
#[derive(Default, Deserialize)]
struct Extra {
    sha256: Option<String>,
}

/// Reads a document into the model whose folder it lies in.
pub fn read(text: &str, folder: &Path, model: &mut Model) -> Result<(), String> {
    let settings: Settings = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !NATIVE.contains(&settings.implementation.as_str()) {
        model.class = Some(Class {
            name: settings.implementation,
            code: Some(folder.to_owned()),
            settings: Some(text.to_owned()),
        });
    }
    if let Some(name) = settings.name {
        model.name = name.into();
    }
    model.personality = Personality::MlServer;
    if let Some(uri) = settings.parameters.uri {
        let path = uri.strip_prefix("file://").unwrap_or(&uri);
        if path.contains("://") {
            return Err(format!("uri {uri:?}: models are read from files"));
        }
        model.path = folder.join(path);
    }
    if let Some(sha256) = settings.parameters.extra.sha256 {
        model.sha256 = Some(crate::proof::checked(&sha256)?);
    }
    if let Some(version) = settings.parameters.version {
        // Versions are words there and numbers here: a word becomes the label of the only version.
        model.labels.insert(version, 1);
    }
    if settings.max_batch_size > 1 && settings.max_batch_time > 0.0 {
        let wait_max = Duration::try_from_secs_f64(settings.max_batch_time)
            .map_err(|_| format!("max_batch_time {} is no time", settings.max_batch_time))?;
        let batching = Batching { rows_max: settings.max_batch_size, wait_max, ..Batching::default() };
        batching.check()?;
        model.batching = Some(batching);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(text: &str) -> Result<Model, String> {
        let mut model = Model::new("folder", "/models/folder");
        read(text, Path::new("/models/folder"), &mut model).map(|()| model)
    }

    #[test]
    fn settings_name_the_model_its_file_and_its_batches() {
        let text = r#"{"name":"iris","implementation":"mlserver_sklearn.SKLearnModel","platform":"sklearn",
            "parameters":{"uri":"./model.joblib","version":"v0.1.0"},"max_batch_size":16,"max_batch_time":0.5}"#;
        let model = read_as(text).expect("settings");
        assert_eq!((&*model.name, model.path.to_str()), ("iris", Some("/models/folder/./model.joblib")));
        assert_eq!(model.labels, [("v0.1.0".to_owned(), 1)].into());
        let batching = model.batching.expect("batching");
        assert_eq!((batching.rows_max, batching.wait_max), (16, Duration::from_millis(500)));
        assert_eq!(model.class, None);
        let own = r#"{"implementation":"mine.Model"}"#;
        let class = read_as(own).expect("settings").class.expect("code");
        assert_eq!((class.name.as_str(), class.settings.as_deref()), ("mine.Model", Some(own)));
        assert_eq!(class.code.as_deref(), Some(Path::new("/models/folder")));
        assert!(read_as("{").is_err());
    }
}
