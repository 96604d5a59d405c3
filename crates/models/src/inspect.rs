//! What a model file is, whether it is safe, and what will serve it.
//!
//! Inspecting runs the whole load: what the report promises has been done. A file that is refused still has a
//! report, with the reason.
//!
//! Not here: printing (`bin/slipway`).

use bytes::Bytes;
use serde::Serialize;

use crate::container::{self, Content, Packing};
use crate::error::{LoadError, Result};
use crate::graph::Graph;
use crate::limits::Limits;
use crate::pickle;
use crate::sklearn::{self, Estimator, Role};
use crate::skops;
use crate::source::{Folder, choose};

/// How a file is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Format {
    /// `joblib`, `pickle` or `skops`.
    pub name: String,
    /// The compression, or `none`.
    pub packing: String,
    /// The pickle protocol, where there is one.
    pub protocol: Option<u8>,
    /// Bytes of the file.
    pub bytes: usize,
    /// Bytes when unpacked.
    pub bytes_unpacked: usize,
    /// The MLflow flavor, if the folder is an MLflow model.
    pub mlflow_flavor: Option<String>,
}

/// One estimator of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// How deep it is nested.
    pub depth: usize,
    /// The step's name in its pipeline.
    pub step: Option<String>,
    /// The class.
    pub class: String,
    /// Sizes.
    pub detail: String,
}

/// The report on a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The file's name.
    pub file: String,
    /// How it is stored; absent when that could not be told.
    pub format: Option<Format>,
    /// The estimators, outermost first.
    pub estimators: Vec<Line>,
    /// Whether loading it runs no code: false when it names something that only code would be.
    pub safe: bool,
    /// Columns it takes.
    pub features: Option<usize>,
    /// Their names.
    pub feature_names: Vec<String>,
    /// The classes it tells apart.
    pub classes: Vec<String>,
    /// The scikit-learn that wrote it.
    pub sklearn_version: Option<String>,
    /// Methods that can be served.
    pub methods: Vec<String>,
    /// `native`, or absent when nothing here will serve it.
    pub served_by: Option<String>,
    /// Why it cannot be served.
    pub problem: Option<String>,
}

/// A model that was read.
#[derive(Debug)]
pub struct Loaded {
    /// What can be evaluated.
    pub estimator: Estimator,
    /// How it was stored.
    pub format: Format,
    /// The file it came from.
    pub file: String,
}

/// Reads the model of a folder.
pub fn load(folder: &dyn Folder, limits: &Limits) -> Result<Loaded> {
    let chosen = choose(folder)?;
    let bytes = folder.read(&chosen.path, limits.bytes_max);
    let bytes =
        bytes.map_err(|error| LoadError::Folder { what: format!("cannot read {}: {error}", chosen.path) })?;
    let mut loaded = load_bytes(&chosen.path, bytes, limits)?;
    loaded.format.mlflow_flavor = chosen.flavor;
    Ok(loaded)
}

/// Reads a model file.
pub fn load_bytes(file: &str, bytes: Bytes, limits: &Limits) -> Result<Loaded> {
    let (format, graph) = open(bytes, limits)?;
    let estimator = sklearn::read(graph.root())?;
    Ok(Loaded { estimator, format, file: file.to_owned() })
}

fn open(bytes: Bytes, limits: &Limits) -> Result<(Format, Graph)> {
    let size = bytes.len();
    let (packing, content, inner) = container::open(bytes, limits)?;
    let mut format = Format {
        name: "skops".into(),
        packing: packing.name().into(),
        protocol: None,
        bytes: size,
        bytes_unpacked: inner.len(),
        mlflow_flavor: None,
    };
    let graph = match content {
        Content::Zip => skops::read(&inner, limits)?.0,
        Content::Pickle => {
            let pickled = pickle::read(&inner, limits)?;
            // Compression is joblib's too: the plain pickle module writes none.
            let by_joblib = pickled.by_joblib || packing != Packing::None;
            format.name = if by_joblib { "joblib" } else { "pickle" }.into();
            format.protocol = Some(pickled.protocol);
            pickled.graph
        }
    };
    Ok((format, graph))
}

/// The values in the model file of a folder, not yet read as an estimator.
pub(crate) fn open_chosen(folder: &dyn Folder, limits: &Limits) -> Result<(Format, Graph)> {
    let chosen = choose(folder)?;
    let bytes = folder.read(&chosen.path, limits.bytes_max);
    let bytes =
        bytes.map_err(|error| LoadError::Folder { what: format!("cannot read {}: {error}", chosen.path) })?;
    open(bytes, limits)
}

/// Reports on the model of a folder.
pub fn inspect(folder: &dyn Folder, limits: &Limits) -> Inspection {
    let chosen = choose(folder);
    let read = chosen.and_then(|chosen| {
        let bytes = folder.read(&chosen.path, limits.bytes_max);
        let bytes = bytes
            .map_err(|error| LoadError::Folder { what: format!("cannot read {}: {error}", chosen.path) })?;
        Ok((chosen, bytes))
    });
    match read {
        Ok((chosen, bytes)) => {
            let mut report = inspect_bytes(&chosen.path, bytes, limits);
            if let Some(format) = &mut report.format {
                format.mlflow_flavor = chosen.flavor;
            }
            report
        }
        Err(error) => failed("", None, &error),
    }
}

/// Reports on a model file.
pub fn inspect_bytes(file: &str, bytes: Bytes, limits: &Limits) -> Inspection {
    let (format, graph) = match open(bytes, limits) {
        Ok(opened) => opened,
        Err(error) => return failed(file, None, &error),
    };
    match sklearn::read(graph.root()) {
        Ok(estimator) => Loaded { estimator, format, file: file.to_owned() }.inspection(),
        Err(error) => {
            let mut report = failed(file, Some(format), &error);
            let class = graph.root().class_name();
            report.estimators.push(Line { depth: 0, step: None, class, detail: String::new() });
            report
        }
    }
}

fn failed(file: &str, format: Option<Format>, error: &LoadError) -> Inspection {
    Inspection {
        file: file.to_owned(),
        format,
        estimators: Vec::new(),
        safe: !matches!(error, LoadError::Refused { .. }),
        features: None,
        feature_names: Vec::new(),
        classes: Vec::new(),
        sklearn_version: None,
        methods: Vec::new(),
        served_by: None,
        problem: Some(error.to_string()),
    }
}

impl Loaded {
    /// The report on it.
    pub fn inspection(&self) -> Inspection {
        let estimator = &self.estimator;
        let mut methods = vec!["predict"];
        let mut classes = Vec::new();
        match &estimator.role {
            Role::Classifier(model, labels) => {
                classes = labels.to_texts();
                if model.has_probabilities() {
                    methods.push("predict_proba");
                }
                if model.decisions_width() > 0 {
                    methods.push("decision_function");
                }
            }
            Role::Several(model, _) => {
                if !model.tables().is_empty() {
                    methods.push("predict_proba");
                }
                if model.decisions_width() > 0 {
                    methods.push("decision_function");
                }
            }
            Role::Transformer(_) => methods = vec!["transform"],
            Role::Assigner(model) if model.shares() > 0 => methods.push("predict_proba"),
            Role::Assigner(model) if model.has_decisions() => methods.push("decision_function"),
            Role::Regressor(_) | Role::Assigner(_) => {}
        }
        let line = |part: &sklearn::Part| Line {
            depth: part.depth,
            step: part.step.clone(),
            class: part.class.clone(),
            detail: part.detail.clone(),
        };
        Inspection {
            file: self.file.clone(),
            format: Some(self.format.clone()),
            estimators: estimator.parts.iter().map(line).collect(),
            safe: true,
            features: Some(estimator.features),
            feature_names: estimator.feature_names.clone(),
            classes,
            sklearn_version: estimator.version.clone(),
            methods: methods.into_iter().map(str::to_owned).collect(),
            served_by: Some("native".into()),
            problem: None,
        }
    }
}
