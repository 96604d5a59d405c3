//! CatBoost's models: told apart from others, and refused by name.
//!
//! Not here yet: reading and evaluating them (`.cbm`, JSON, pickled wrappers). `tests/fixtures/boosted/make.py`
//! makes the fixtures that a reader has to meet.

use crate::booster::Read;
use crate::document::Value;
use crate::error::{LoadError, Result};
use crate::graph::View;
use crate::limits::Limits;
use crate::sklearn::Estimator;
pub(crate) fn is_document(document: &Value) -> bool {
    document.get("features_info").is_some()
}
pub(crate) fn read_document(_document: &Value) -> Result<Read> {
    Err(LoadError::unsupported("CatBoost JSON models"))
}
pub(crate) fn read_binary(_bytes: &[u8], _limits: &Limits) -> Result<Read> {
    Err(LoadError::unsupported("CatBoost models"))
}
pub(crate) fn read_wrapper(_view: View<'_>, _limits: &Limits, _depth: usize) -> Result<Estimator> {
    Err(LoadError::unsupported("CatBoost wrappers"))
}
