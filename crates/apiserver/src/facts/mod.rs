//! Facts about kinds, and the rules that follow from them.
//!
//! API objects are untyped values here; what typed objects would know lives in one [`Schema`] type, for built-in kinds
//! from a generated table, for custom ones from their CustomResourceDefinition. All functions are pure.
//!
//! * [`schema_of`] and [`Schema::from_crd`] give schemas.
//! * [`fields`]: unknown fields, pruning, defaults of the schema, decode errors.
//! * [`check`]: validation of values against a schema, CEL included.
//! * [`patch`]: strategic merge.
//! * [`defaults`] and [`validate`]: what Kubernetes does by hand-written code for its own kinds.
//!
//! Not here: which resources are served (that is [`crate::builtin`]) and how errors become a Status
//! ([`crate::error`]).

pub mod check;
pub mod defaults;
pub mod fields;
mod parse;
pub mod patch;
pub mod schema;
pub(crate) mod table;
pub mod validate;

pub use schema::{Field, ListType, Node, Rules, Schema, Type};
pub use table::{definition_named, schema_of};
