//! CatBoost's models, evaluated natively.
//!
//! Reads what `save_model` of 0.26 to 1.2 wrote as `.cbm` and as JSON, and the pickles of the wrappers with
//! scikit-learn's interface. Values are compared in 32 bits and leaves add up in 64, as the library does;
//! categories are hashed as it hashes them, and statistics of categories (CTRs) come from the file's tables.
//!
//! * `json` and `cbm` (over `flat`) read files into [`parts::Parts`]; `compile` and `model` answer; `ctr` knows
//!   the statistics, `hash` the hashes, `wrapper` the pickles.
//!
//! Not here: the walk through trees (`trees`); features of texts and embeddings, which are refused by name.

mod cbm;
mod compile;
mod ctr;
mod flat;
mod hash;
mod json;
mod link;
mod model;
mod parts;
mod wrapper;

use crate::booster::Read;
use crate::document::Value;
use crate::error::Result;
use crate::limits::Limits;

pub(crate) use wrapper::read as read_wrapper;

/// Whether a document is a model of CatBoost.
pub(crate) fn is_document(document: &Value) -> bool {
    document.get("features_info").is_some()
}

/// Reads a JSON model.
pub(crate) fn read_document(document: &Value) -> Result<Read> {
    Ok(model::Model::new(json::read(document)?)?.read())
}

/// Reads a `.cbm` model.
pub(crate) fn read_binary(bytes: &[u8], limits: &Limits) -> Result<Read> {
    Ok(model::Model::new(cbm::read(bytes, limits)?)?.read())
}
