//! The documents of the protocol: what a worker is to read, and what it tells of what it has read.
//!
//! Not here: the packets that they lie in (`protocol`).

use models::{DType, Dims, Entry, RANK_MAX, Signature, TensorSpec};
use serde::{Deserialize, Serialize};

use super::TENSORS_MAX;

/// Which model a worker is to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The model's name, for logs and for classes that are told it.
    pub name: String,
    /// The model's folder, or its file.
    pub path: String,
    /// The model's file in that folder, where something named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `predict`, `predict_proba` or `decision_function`.
    pub method: String,
    /// A class of the operator's own that is the model: `module:Class`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What else the engine was configured with.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub options: serde_json::Value,
    /// Bytes that the memory file of a lane may have.
    pub memory_bytes_max: u64,
}

/// What a worker tells of the model it has read. All workers of a model have to tell the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// What it takes and gives.
    pub signature: Described,
    /// All signatures of a model that has them by name, sorted by name; `signature` is the default one of them. At most
    /// [`ENTRIES_MAX`](super::ENTRIES_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<DescribedEntry>,
    /// Nanoseconds that a row takes, measured when the model was warmed up; 0 where nothing could be tried.
    #[serde(default)]
    pub row_cost_ns: u64,
    /// What wrote it, in the words of the Open Inference Protocol: `sklearn`, `tensorflow_savedmodel`.
    pub platform: String,
    /// The format that was read, for people.
    pub format: String,
    /// Whether it answers [`Verb::Document`](super::Verb::Document).
    #[serde(default)]
    pub takes_documents: bool,
    /// Whether the outputs are only a guess, because nothing but an answer tells: then their number, types and shapes
    /// are not checked, except that the first dimension is the rows where the model was given rows.
    #[serde(default)]
    pub outputs_vary: bool,
}

/// A signature on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// The inputs.
    pub inputs: Vec<DescribedTensor>,
    /// The outputs.
    pub outputs: Vec<DescribedTensor>,
    /// Names of the columns of the only input, if the model knows them.
    #[serde(default)]
    pub columns: Vec<String>,
}

/// One input or output on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DescribedTensor {
    /// Its name.
    pub name: String,
    /// Its type's name in the Open Inference Protocol.
    pub dtype: String,
    /// Dimensions after the rows; `null` is any.
    pub row: Vec<Option<usize>>,
    /// Whether there are rows at all: `whole` has none, so that `row` are all dimensions, and `any` may have any
    /// dimensions.
    #[serde(default, with = "DimsName", skip_serializing_if = "is_rows")]
    pub dims: Dims,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Dims", rename_all = "lowercase")]
enum DimsName {
    Rows,
    Whole,
    Any,
}

fn is_rows(dims: &Dims) -> bool {
    *dims == Dims::Rows
}

/// A signature with its name and purpose on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DescribedEntry {
    /// Its name.
    pub name: String,
    /// Its purpose.
    pub method: String,
    /// What it takes and gives.
    pub signature: Described,
}

impl From<&Entry> for DescribedEntry {
    fn from(entry: &Entry) -> Self {
        let Entry { name, method, signature } = entry;
        Self { name: name.clone(), method: method.clone(), signature: signature.into() }
    }
}

impl TryFrom<DescribedEntry> for Entry {
    type Error = String;

    fn try_from(described: DescribedEntry) -> Result<Self, String> {
        let DescribedEntry { name, method, signature } = described;
        Ok(Self { name, method, signature: signature.try_into()? })
    }
}

impl From<&Signature> for Described {
    fn from(signature: &Signature) -> Self {
        let tensor = |spec: &TensorSpec| DescribedTensor {
            name: spec.name.clone(),
            dtype: spec.dtype.v2_name().to_owned(),
            row: spec.row.clone(),
            dims: spec.dims,
        };
        Self {
            inputs: signature.inputs.iter().map(tensor).collect(),
            outputs: signature.outputs.iter().map(tensor).collect(),
            columns: signature.columns.clone(),
        }
    }
}

impl TryFrom<Described> for Signature {
    type Error = String;

    fn try_from(described: Described) -> Result<Self, String> {
        let tensor = |spec: DescribedTensor| match DType::of_v2_name(spec.dtype.as_bytes()) {
            _ if spec.row.len() + usize::from(is_rows(&spec.dims)) > RANK_MAX => {
                Err(format!("{:?} has more than {RANK_MAX} dimensions", spec.name))
            }
            Some(dtype) => Ok(TensorSpec { name: spec.name, dtype, row: spec.row, dims: spec.dims }),
            None => Err(format!("{:?} is of the type {:?}, which is none", spec.name, spec.dtype)),
        };
        if described.outputs.is_empty() {
            return Err("a signature without outputs".to_owned());
        }
        let tensors = |specs: Vec<DescribedTensor>| -> Result<Vec<TensorSpec>, String> {
            match specs.len() {
                count if count > TENSORS_MAX => {
                    Err(format!("{count} tensors, at most {TENSORS_MAX} can be passed"))
                }
                _ => specs.into_iter().map(tensor).collect(),
            }
        };
        Ok(Self {
            inputs: tensors(described.inputs)?,
            outputs: tensors(described.outputs)?,
            columns: described.columns,
        })
    }
}
