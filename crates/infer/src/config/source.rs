//! Where the list of models comes from, and reading it.
//!
//! A folder of models takes each folder in it as a model: with `config.pbtxt` as Triton does, with
//! `model-settings.json` as MLServer does, else under the folder's name. A document that cannot be read costs its own
//! model only.
//!
//! Not here: when the list is read again (`repository`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Model, mlserver, tfs, triton};
use crate::served::Personality;

/// Bytes of a document, at most.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Models of a folder, at most.
const MODELS_MAX: usize = 100_000;

/// Where the list of models comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The flags.
    Fixed(Vec<Model>),
    /// TensorFlow Serving's `--model_config_file`.
    File {
        /// The file.
        path: PathBuf,
        /// How often it is read again; `None` is never.
        poll: Option<Duration>,
    },
    /// A folder with a folder for each model.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Whose manners models have that bring no document.
        personality: Personality,
        /// Only these are loaded at the start, and others by calls; `None` loads all, and new ones as they come.
        only: Option<Vec<String>>,
    },
}

impl Source {
    /// Reads the list. Blocks.
    pub fn read(&self) -> Result<Vec<Model>, String> {
        match self {
            Self::Fixed(models) => Ok(models.clone()),
            Self::File { path, .. } => {
                let failed = |error: String| format!("{}: {error}", path.display());
                let text = document(path).map_err(failed)?;
                tfs::models(&text).map_err(|error| failed(error.to_string()))
            }
            Self::Folder { path, personality, .. } => folder(path, *personality),
        }
    }
}

/// Reads a document as text.
pub fn document(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > DOCUMENT_BYTES_MAX {
        return Err(format!("it is larger than {DOCUMENT_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

fn folder(root: &Path, personality: Personality) -> Result<Vec<Model>, String> {
    let failed = |error: std::io::Error| format!("cannot look through {}: {error}", root.display());
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with('.') && path.is_dir() {
            folders.push((name, path));
        }
        if folders.len() > MODELS_MAX {
            return Err(format!("{} holds more than {MODELS_MAX} folders", root.display()));
        }
    }
    // `mlserver start .` serves the folder itself where the settings lie in it.
    if root.join("model-settings.json").is_file() {
        let name =
            root.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
        folders = vec![(name, root.to_owned())];
    }
    folders.sort();
    let mut models: Vec<Model> = Vec::with_capacity(folders.len());
    let mut names = HashSet::new();
    for (name, path) in folders {
        let mut model = described(&name, &path, personality);
        if !names.insert(model.name.clone()) {
            let why = format!("another folder than {} has a model of this name too", path.display());
            model = Model { error: Some(why), ..Model::new(name, path) };
        }
        models.push(model);
    }
    Ok(models)
}

/// The model in a folder, as the document that lies there says.
fn described(name: &str, path: &Path, personality: Personality) -> Model {
    let plain = || Model { personality, ..Model::new(name, path) };
    let mut model = plain();
    let (triton, mlserver) = (path.join("config.pbtxt"), path.join("model-settings.json"));
    let read = if triton.is_file() {
        document(&triton)
            .and_then(|text| triton::read(&text, &mut model).map_err(|error| error.to_string()))
            .map_err(|error| format!("config.pbtxt: {error}"))
    } else if mlserver.is_file() {
        document(&mlserver)
            .and_then(|text| mlserver::read(&text, path, &mut model))
            .map_err(|error| format!("model-settings.json: {error}"))
    } else {
        Ok(())
    };
    match read.and_then(|()| model.check()) {
        Ok(()) => model,
        Err(why) => Model { error: Some(why), ..plain() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_is_a_model_as_its_document_says() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("a/config.pbtxt", "max_batch_size: 4");
        write("b/model-settings.json", r#"{"name":"iris","implementation":"mlserver_sklearn.SKLearnModel"}"#);
        write("c/1/model.onnx", "");
        write("d/config.pbtxt", "max_batch_size: many");
        write(".e/model.onnx", "");
        write("f/model-settings.json", r#"{"name":"iris","implementation":"mlserver_sklearn.SKLearnModel"}"#);
        write("note", "");
        let source =
            Source::Folder { path: root.path().to_owned(), personality: Personality::Triton, only: None };
        let models = source.read().expect("a list");
        let show = |model: &Model| (model.name.to_string(), model.personality, model.error.is_some());
        assert_eq!(
            models.iter().map(show).collect::<Vec<_>>(),
            [
                ("a".to_owned(), Personality::Triton, false),
                ("iris".to_owned(), Personality::MlServer, false),
                ("c".to_owned(), Personality::Triton, false),
                ("d".to_owned(), Personality::Triton, true),
                ("f".to_owned(), Personality::Kserve, true),
            ]
        );
        let gone = Source::File { path: root.path().join("absent"), poll: None };
        assert!(gone.read().expect_err("absent").contains("absent"));
    }
}
