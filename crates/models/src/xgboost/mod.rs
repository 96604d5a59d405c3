//! XGBoost's models, evaluated natively.
//!
//! Reads what `save_model` of 1.0 to 3.x wrote (JSON, UBJSON, the older binary form) and the pickles of boosters
//! and of the wrappers with scikit-learn's interface. All arithmetic is in `f32` in the library's order, so that
//! answers are the library's to the bit (but for the exponential, which is the platform's).
//!
//! * `document` and `binary` read files into a [`parts::Parts`]; `objective` is what scores become.
//!
//! Not here: the walk through trees (`trees`); training state, which files may hold and nobody needs here.

mod binary;
mod model;
mod objective;
mod parts;
mod wrapper;

use crate::booster::Read;
use crate::document::{self, Value};
use crate::error::{LoadError, Result};
use crate::limits::Limits;

pub(crate) use binary::is_binary;
pub(crate) use wrapper::read as read_wrapper;

/// Whether a document is one of XGBoost's.
pub(crate) fn is_document(document: &Value) -> bool {
    document.get("learner").is_some()
        || document.get("Model").is_some_and(|model| model.get("learner").is_some())
}

/// Reads a JSON or UBJSON document.
pub(crate) fn read_document(document: &Value) -> Result<Read> {
    Ok(model::Model::new(parts::of_document(document)?)?.read())
}

/// Reads the older binary form.
pub(crate) fn read_binary(bytes: &[u8], limits: &Limits) -> Result<Read> {
    Ok(model::Model::new(binary::read(bytes, limits)?)?.read())
}

/// Reads the bytes that a pickled booster keeps.
fn of_bytes(bytes: &[u8], limits: &Limits) -> Result<parts::Parts> {
    const SNAPSHOT: &[u8] = b"CONFIG-offset:";
    if let Some(rest) = bytes.strip_prefix(SNAPSHOT) {
        // The model is followed by its configuration.
        let Some((head, model)) = rest.split_first_chunk::<8>() else {
            return Err(LoadError::malformed("XGBoost snapshot", SNAPSHOT.len(), "it ends in its header"));
        };
        let end = usize::try_from(u64::from_le_bytes(*head)).unwrap_or(usize::MAX);
        return of_bytes(&model[..end.min(model.len())], limits);
    }
    match bytes.first() {
        Some(b'{') if document::is_ubjson(bytes) => parts::of_document(&document::ubjson(bytes, limits)?),
        Some(b'{') => parts::of_document(&document::json(bytes, limits)?),
        _ => binary::read(bytes, limits),
    }
}
