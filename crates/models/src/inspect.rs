//! What a model file is, whether it is safe, and what will serve it.
//!
//! Inspecting runs the whole load: what the report promises has been done. A file that is refused still has a
//! report, with the reason.
//!
//! Not here: printing (`bin/slipway`).

use bytes::Bytes;
use serde::Serialize;

use crate::container::{self, Content, Packing};
use crate::document::{self, Value};
use crate::error::{LoadError, Result};
use crate::graph::Graph;
use crate::limits::Limits;
use crate::pickle;
use crate::pmml;
use crate::sklearn::native::Method;
use crate::sklearn::{self, Estimator, Role};
use crate::skops;
use crate::source::{Folder, choose};
use crate::{booster, catboost, lightgbm, xgboost};

/// How a file is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Format {
    /// `joblib`, `pickle`, `skops`, `pmml`, or a boosting library and its form, for example `xgboost-ubjson`.
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
    let (format, body) = open(bytes, limits)?;
    let estimator = body.read(limits)?;
    Ok(Loaded { estimator, format, file: file.to_owned() })
}

/// What a file holds, before it is checked and compiled.
enum Body {
    Graph(Graph),
    Document(Value),
    Bytes(Content, Bytes),
}

impl Body {
    fn read(&self, limits: &Limits) -> Result<Estimator> {
        let read: booster::Read = match self {
            Self::Graph(graph) => return sklearn::read(graph.root()),
            Self::Document(document) if xgboost::is_document(document) => xgboost::read_document(document)?,
            Self::Document(document) if catboost::is_document(document) => catboost::read_document(document)?,
            Self::Document(_) => {
                return Err(LoadError::unsupported("a JSON document of neither XGBoost nor CatBoost"));
            }
            Self::Bytes(Content::Lightgbm, bytes) => lightgbm::read(bytes, limits)?,
            Self::Bytes(Content::Catboost, bytes) => catboost::read_binary(bytes, limits)?,
            Self::Bytes(Content::Xml, bytes) => pmml::read(bytes, limits)?,
            Self::Bytes(_, bytes) => xgboost::read_binary(bytes, limits)?,
        };
        Ok(read.estimator())
    }

    /// What the report says of a file that cannot be served.
    fn class(&self) -> Option<String> {
        match self {
            Self::Graph(graph) => Some(graph.root().class_name()),
            Self::Document(document) if xgboost::is_document(document) => Some("xgboost.Booster".into()),
            Self::Document(document) if catboost::is_document(document) => Some("catboost.CatBoost".into()),
            Self::Document(_) => None,
            Self::Bytes(Content::Lightgbm, _) => Some("lightgbm.Booster".into()),
            Self::Bytes(Content::Catboost, _) => Some("catboost.CatBoost".into()),
            Self::Bytes(Content::Xml, _) => Some("pmml".into()),
            Self::Bytes(..) => Some("xgboost.Booster".into()),
        }
    }
}

fn open(bytes: Bytes, limits: &Limits) -> Result<(Format, Body)> {
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
    let body = match content {
        Content::Zip => Body::Graph(skops::read(&inner, limits)?.0),
        Content::Json | Content::Ubjson => {
            let is_text = content == Content::Json;
            let document =
                if is_text { document::json(&inner, limits)? } else { document::ubjson(&inner, limits)? };
            let library = match &document {
                document if catboost::is_document(document) => "catboost-",
                document if xgboost::is_document(document) => "xgboost-",
                _ => "",
            };
            format.name = format!("{library}{}", if is_text { "json" } else { "ubjson" });
            Body::Document(document)
        }
        Content::XgboostBinary | Content::Lightgbm | Content::Catboost | Content::Xml => {
            format.name = match content {
                Content::Lightgbm => "lightgbm-text",
                Content::Catboost => "catboost-cbm",
                Content::Xml => "pmml",
                _ => "xgboost-binary",
            }
            .into();
            Body::Bytes(content, inner)
        }
        Content::Pickle => {
            let pickled = pickle::read(&inner, limits)?;
            // Compression is joblib's too: the plain pickle module writes none.
            let by_joblib = pickled.by_joblib || packing != Packing::None;
            format.name = if by_joblib { "joblib" } else { "pickle" }.into();
            format.protocol = Some(pickled.protocol);
            Body::Graph(pickled.graph)
        }
    };
    Ok((format, body))
}

/// The values in the model file of a folder, not yet read as an estimator.
pub(crate) fn open_chosen(folder: &dyn Folder, limits: &Limits) -> Result<(Format, Graph)> {
    let chosen = choose(folder)?;
    let bytes = folder.read(&chosen.path, limits.bytes_max);
    let bytes =
        bytes.map_err(|error| LoadError::Folder { what: format!("cannot read {}: {error}", chosen.path) })?;
    match open(bytes, limits)? {
        (format, Body::Graph(graph)) => Ok((format, graph)),
        (format, _) => Err(LoadError::unsupported(format!("exact explanations of {} files", format.name))),
    }
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
    let (format, body) = match open(bytes, limits) {
        Ok(opened) => opened,
        Err(error) => return failed(file, None, &error),
    };
    match body.read(limits) {
        Ok(estimator) => Loaded { estimator, format, file: file.to_owned() }.inspection(),
        Err(error) => {
            let mut report = failed(file, Some(format), &error);
            if let Some(class) = body.class() {
                report.estimators.push(Line { depth: 0, step: None, class, detail: String::new() });
            }
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
            Role::Booster(model) => {
                classes = model.classes();
                if model.output(Method::Probabilities).is_some() {
                    methods.push("predict_proba");
                }
                if model.output(Method::Decisions).is_some() {
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
