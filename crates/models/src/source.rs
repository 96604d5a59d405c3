//! From a folder or a file to a model.
//!
//! This crate reads no files: who asks hands in a [`Folder`], which lists names and reads bytes. What is in the
//! folder decides: an `MLmodel` document names its own model file; otherwise there must be exactly one file
//! with one of the endings KServe's server takes, or one file at all.
//!
//! Not here: the formats (`container`), the report (`inspect`).

use bytes::Bytes;
use serde::Deserialize;

use crate::error::{LoadError, Result};

/// A folder of model files.
pub trait Folder {
    /// The files in it and below it, as relative paths with `/`.
    fn list(&self) -> std::io::Result<Vec<String>>;

    /// The bytes of one file, refused above `bytes_max`.
    fn read(&self, path: &str, bytes_max: usize) -> std::io::Result<Bytes>;
}

/// Files in memory: a single file, or a test's.
#[derive(Debug, Default, Clone)]
pub struct Memory(pub Vec<(String, Bytes)>);

impl Folder for Memory {
    fn list(&self) -> std::io::Result<Vec<String>> {
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn read(&self, path: &str, _bytes_max: usize) -> std::io::Result<Bytes> {
        let found = self.0.iter().find(|(name, _)| name == path);
        found.map(|(_, bytes)| bytes.clone()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

/// The endings that are looked for. KServe's servers know the first three, and `.bst`, `.json` and `.ubj`.
const ENDINGS: [&str; 12] = [
    ".joblib",
    ".pkl",
    ".pickle",
    ".skops",
    ".cloudpickle",
    ".bst",
    ".ubj",
    ".cbm",
    ".xgb",
    ".lgb",
    ".onnx",
    ".pmml",
];
/// Endings of models and of much else: they count where no file has one of the others.
const ENDINGS_WEAK: [&str; 4] = [".json", ".model", ".txt", ".xml"];
/// Texts that lie beside models and are none.
const NO_MODELS: [&str; 8] = [
    "requirements.txt",
    "README.txt",
    "LICENSE.txt",
    "config.json",
    "model-settings.json",
    "slipway-model.json",
    "golden.json",
    "warmup.json",
];
/// Requests that TensorFlow Serving's users leave beside a model.
const EXTRA: &str = "assets.extra/";

fn is_beside(file: &str) -> bool {
    NO_MODELS.contains(&file) || file.starts_with(EXTRA)
}

/// The MLflow flavors that are evaluated natively; the first that a document has names the file.
const FLAVORS: [&str; 5] = ["sklearn", "xgboost", "lightgbm", "catboost", "onnx"];

/// The file that holds the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its path in the folder.
    pub path: String,
    /// The MLflow flavor that named it, if one did.
    pub flavor: Option<String>,
}

#[derive(Deserialize)]
struct MlModel {
    #[serde(default)]
    flavors: std::collections::BTreeMap<String, serde_yaml_ng::Value>,
}

/// Chooses the model file of a folder.
pub fn choose(folder: &dyn Folder) -> Result<Chosen> {
    let failed =
        |error: std::io::Error| LoadError::Folder { what: format!("cannot list the model folder: {error}") };
    let files = folder.list().map_err(failed)?;
    if files.iter().any(|file| file == "MLmodel") {
        return mlflow(folder, &files);
    }
    let files: Vec<String> = files.into_iter().filter(|file| !is_beside(file)).collect();
    let ending_in = |endings: &[&str]| -> Vec<&String> {
        let ends = |file: &&String| endings.iter().any(|ending| file.ends_with(ending));
        files.iter().filter(|file| !file.contains('/')).filter(ends).collect()
    };
    let mut models = ending_in(&ENDINGS);
    if models.is_empty() {
        models = ending_in(&ENDINGS_WEAK);
    }
    match models.as_slice() {
        [one] => Ok(Chosen { path: (*one).clone(), flavor: None }),
        // A pipeline's artifact is one file under the artifact's name; what it is, its bytes tell.
        [] if files.len() == 1 => Ok(Chosen { path: files[0].clone(), flavor: None }),
        [] => {
            let shown: Vec<&str> = files.iter().take(8).map(String::as_str).collect();
            let what = format!(
                "no model file ({}) in the folder; it holds [{}]",
                ENDINGS.join(", "),
                shown.join(", ")
            );
            Err(LoadError::Folder { what })
        }
        several => {
            let names: Vec<&str> = several.iter().take(8).map(|name| name.as_str()).collect();
            let what = format!("more than one model file in the folder: {}; keep one", names.join(", "));
            Err(LoadError::Folder { what })
        }
    }
}

/// The file that an `MLmodel` document names.
fn mlflow(folder: &dyn Folder, files: &[String]) -> Result<Chosen> {
    let text = folder.read("MLmodel", 1 << 20);
    let text = text.map_err(|error| LoadError::Folder { what: format!("cannot read MLmodel: {error}") })?;
    let document: MlModel = serde_yaml_ng::from_slice(&text)
        .map_err(|error| LoadError::malformed("MLmodel", 0, error.to_string()))?;
    let names: Vec<&str> = document.flavors.keys().map(String::as_str).collect();
    let native = FLAVORS.into_iter().find_map(|name| Some((name, document.flavors.get(name)?)));
    let Some((name, flavor)) = native else {
        let what = format!(
            "MLflow models of the flavors [{}]; evaluated natively are {}",
            names.join(", "),
            FLAVORS.join(", ")
        );
        return Err(LoadError::unsupported(what));
    };
    let python = document.flavors.get("python_function");
    let named = [
        flavor.get("pickled_model"),
        flavor.get("model_path"),
        flavor.get("data"),
        python.and_then(|flavor| flavor.get("model_path")),
    ];
    let named = named.into_iter().flatten().find_map(|value| value.as_str());
    let fallback = ["model.pkl", "model.skops", "model.joblib"]
        .into_iter()
        .find(|name| files.iter().any(|file| file == name));
    let Some(path) = named.or(fallback) else {
        return Err(LoadError::Folder { what: format!("MLmodel names no model file for {name}") });
    };
    let path = path.trim_start_matches("./");
    if path.starts_with('/')
        || path.split('/').any(|part| part == "..")
        || !files.iter().any(|file| file == path)
    {
        return Err(LoadError::Folder {
            what: format!("MLmodel names {path:?}, which is not in the folder"),
        });
    }
    Ok(Chosen { path: path.to_owned(), flavor: Some(name.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> Memory {
        Memory(
            files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), Bytes::copy_from_slice(text.as_bytes())))
                .collect(),
        )
    }

    #[test]
    fn one_model_file_is_found() {
        let mlmodel = "flavors:\n  python_function: {model_path: model.skops}\n  sklearn: {pickled_model: model.skops}\n";
        let escape = "flavors:\n  sklearn: {pickled_model: ../secret.pkl}\n";
        let xgboost = "flavors:\n  xgboost: {data: model.ubj}\n";
        let onnx = "flavors:\n  onnx: {data: model.onnx, onnx_version: 1.19.0}\n";
        let torch = "flavors:\n  pytorch: {data: data}\n";
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Result<&'a str, &'a str>);
        let cases: [Case<'_>; 14] = [
            ("an artifact with its tests", &[("model", ""), ("golden.json", "")], Ok("model")),
            (
                "requests",
                &[("model.json", ""), ("warmup.json", ""), ("assets.extra/x", "")],
                Ok("model.json"),
            ),
            ("one", &[("model.pkl", ""), ("README.md", "")], Ok("model.pkl")),
            ("an artifact", &[("model", "")], Ok("model")),
            ("none", &[("README.md", ""), ("a.csv", "")], Err("no model file")),
            ("two", &[("a.pkl", ""), ("b.joblib", "")], Err("more than one")),
            ("mlflow", &[("MLmodel", mlmodel), ("model.skops", ""), ("other.pkl", "")], Ok("model.skops")),
            ("mlflow without its file", &[("MLmodel", mlmodel)], Err("not in the folder")),
            ("mlflow outside", &[("MLmodel", escape), ("../secret.pkl", "")], Err("not in the folder")),
            ("mlflow of xgboost", &[("MLmodel", xgboost), ("model.ubj", "")], Ok("model.ubj")),
            ("mlflow of another flavor", &[("MLmodel", torch)], Err("pytorch")),
            ("mlflow of onnx", &[("MLmodel", onnx), ("model.onnx", "")], Ok("model.onnx")),
            ("a booster", &[("model.bst", ""), ("notes.json", "")], Ok("model.bst")),
            (
                "a document",
                &[("model.json", ""), ("README.md", ""), ("requirements.txt", "")],
                Ok("model.json"),
            ),
        ];
        for (name, files, want) in cases {
            match (choose(&folder(files)), want) {
                (Ok(chosen), Ok(path)) => assert_eq!(chosen.path, path, "{name}"),
                (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{name}: {error}"),
                (got, want) => panic!("{name}: got {got:?}, want {want:?}"),
            }
        }
    }
}
