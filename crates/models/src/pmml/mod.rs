//! PMML 4.x: trees, regressions and what is made of them, evaluated natively.
//!
//! A document becomes a list of cells a row (the fields, the derived ones, the answers of earlier segments) and models
//! that read them. Missing and invalid values do what the specification says; where it leaves a choice, answers are
//! those of the JPMML evaluator, which KServe's own server for the format runs. An element or a setting that is not
//! known is refused with its name and its line.
//!
//! * `xml` reads documents within bounds; `fields` knows dictionaries, schemas and what names mean; `expression` and
//!   `predicate` are what stands in transformations and nodes.
//! * `tree`, `regression` and `mining` (over `sum`) are the models, `target` is what becomes of a number at the end, `model` the
//!   face of it all.
//!
//! Not here: the walk through trees of numbers (`trees`).

mod expression;
mod fields;
mod mining;
mod model;
mod predicate;
mod regression;
mod sum;
mod target;
mod tree;
mod xml;

use crate::booster::Read;
use crate::error::Result;
use crate::limits::Limits;

/// Reads a document.
pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Read> {
    let text = xml::text(bytes, limits)?;
    let document = xml::parse(text, limits)?;
    Ok(model::Model::new(xml::root(&document)?)?.read())
}
