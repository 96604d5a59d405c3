//! Validation of values against the schema of a custom kind.

use serde_json::Value;

use super::schema::Schema;
use crate::field::FieldError;

/// Everything in a custom object that its schema forbids; `old` is the stored object on an update (for transition
/// rules).
pub fn validate(value: &Value, old: Option<&Value>, schema: &Schema) -> Vec<FieldError> {
    let _ = (value, old, schema);
    Vec::new()
}
