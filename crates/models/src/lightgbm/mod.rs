//! LightGBM's models, evaluated natively.
//!
//! Reads the text that `save_model` of 2.3 to 4.x wrote, and the pickles of boosters and of the wrappers with
//! scikit-learn's interface. Trees add up in 64 bits in the library's order.
//!
//! * `text` reads files into [`text::Parts`]; `model` compiles and answers; `wrapper` reads pickles.
//!
//! Not here: the walk through trees (`trees`).

mod model;
mod text;
mod wrapper;

use crate::booster::Read;
use crate::error::{LoadError, Result};
use crate::limits::Limits;

pub(crate) use wrapper::read as read_wrapper;

/// Reads a text file.
pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Read> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| LoadError::malformed("LightGBM text", error.valid_up_to(), "it is not UTF-8"))?;
    Ok(model::Model::new(text::read(text, limits)?)?.read())
}
