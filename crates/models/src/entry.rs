//! Signatures by name.
//!
//! A TensorFlow model has several signatures, each with inputs, outputs and a purpose of its own; other models have one
//! without a name. The server sees each as a [`Backend`] of its own ([`Through`]), so that a batch never mixes two.
//!
//! Not here: what runs such models (`engines`).

use std::sync::Arc;

use crate::backend::{Backend, BackendError, Batch, Signature, WorkerCounts};
use crate::tensor::{DType, Outputs};

/// The name of the signature that is meant where none is asked for.
pub const DEFAULT_ENTRY: &str = "serving_default";
/// The purpose of most signatures, in TensorFlow Serving's words.
pub const PREDICT: &str = "tensorflow/serving/predict";
/// The purpose of signatures that give classes with scores.
pub const CLASSIFY: &str = "tensorflow/serving/classify";
/// The purpose of signatures that give one number.
pub const REGRESS: &str = "tensorflow/serving/regress";

/// One signature of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its purpose: [`PREDICT`], [`CLASSIFY`], [`REGRESS`], or another that only its model knows.
    pub method: String,
    /// What it takes and gives.
    pub signature: Signature,
}

impl Entry {
    /// Whether its only input is a text for each example, which then is a serialised `tensorflow.Example`.
    pub fn takes_examples(&self) -> bool {
        let inputs = self.signature.inputs.as_slice();
        let is_text = matches!(inputs, [only] if only.dtype == DType::Text && only.row.is_empty());
        is_text && (self.method == CLASSIFY || self.method == REGRESS)
    }
}

/// The place of the signature that answers where none is named: [`DEFAULT_ENTRY`], else the first.
pub fn default_entry(entries: &[Entry]) -> usize {
    entries.iter().position(|entry| entry.name == DEFAULT_ENTRY).unwrap_or(0)
}

/// One signature of a model that has several.
pub struct Through {
    backend: Arc<dyn Backend>,
    entry: usize,
}

impl Through {
    /// Each signature of a model, in their order; none where the model knows no names.
    pub fn all(backend: &Arc<dyn Backend>) -> Vec<Self> {
        (0..backend.entries().len()).map(|entry| Self { backend: backend.clone(), entry }).collect()
    }

    /// The signature with its name and purpose.
    pub fn entry(&self) -> &Entry {
        &self.backend.entries()[self.entry]
    }
}

impl Backend for Through {
    fn signature(&self) -> &Signature {
        &self.entry().signature
    }

    fn row_cost_ns(&self) -> u64 {
        self.backend.row_cost_ns()
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        self.backend.run_entry(self.entry, batch, outputs)
    }

    fn keeps_rows_apart(&self) -> bool {
        self.backend.keeps_rows_apart()
    }

    fn workers(&self) -> Option<usize> {
        self.backend.workers()
    }

    fn worker_counts(&self) -> Option<WorkerCounts> {
        self.backend.worker_counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::TensorSpec;

    fn entry(name: &str, method: &str, dtype: DType, row: &[Option<usize>]) -> Entry {
        let inputs = vec![TensorSpec::new("x", dtype, row)];
        let signature = Signature { inputs, outputs: Vec::new(), columns: Vec::new() };
        Entry { name: name.into(), method: method.into(), signature }
    }

    #[test]
    fn only_classify_and_regress_take_serialised_examples() {
        for (method, dtype, row, want) in [
            (CLASSIFY, DType::Text, &[][..], true),
            (REGRESS, DType::Text, &[], true),
            (PREDICT, DType::Text, &[], false),
            (REGRESS, DType::F32, &[], false),
            (REGRESS, DType::Text, &[Some(2)], false),
        ] {
            assert_eq!(entry("s", method, dtype, row).takes_examples(), want, "{method} {dtype:?}");
        }
    }

    #[test]
    fn the_default_is_known_by_its_name() {
        let of = |names: &[&str]| {
            let entries: Vec<_> = names.iter().map(|name| entry(name, PREDICT, DType::F32, &[])).collect();
            default_entry(&entries)
        };
        assert_eq!(of(&["a", "serving_default", "z"]), 1);
        assert_eq!(of(&["a", "z"]), 0);
    }
}
