//! The platform's pure admission functions as the embedded API calls them: in process, what is a webhook elsewhere.

use std::sync::Arc;

use apiserver::{admission::Admission, field::FieldError};
use serde_json::Value;

/// Every family's rules.
pub fn all() -> Vec<Arc<dyn Admission>> {
    vec![Arc::new(Workflows), Arc::new(Serving)]
}

struct Workflows;

impl Admission for Workflows {
    fn handles(&self, group: &str, _kind: &str) -> bool {
        group == api::workflow::GROUP
    }

    fn defaults(&self, _group: &str, _version: &str, _kind: &str, _object: &mut Value) {}

    fn validate(
        &self,
        _: &str,
        _: &str,
        kind: &str,
        object: &Value,
        _old: Option<&Value>,
    ) -> Vec<FieldError> {
        let Err(problems) = api::workflow::admission::check(kind, object) else { return Vec::new() };
        problems.0.into_iter().map(|problem| finding(object, problem.field, problem.detail)).collect()
    }
}

struct Serving;

impl Admission for Serving {
    fn handles(&self, group: &str, _kind: &str) -> bool {
        group == api::serving::GROUP
    }

    fn defaults(&self, _group: &str, _version: &str, kind: &str, object: &mut Value) {
        api::serving::admission::defaults(kind, object);
    }

    fn validate(
        &self,
        _: &str,
        _: &str,
        kind: &str,
        object: &Value,
        _old: Option<&Value>,
    ) -> Vec<FieldError> {
        let problems = api::serving::admission::check(kind, object);
        problems.into_iter().map(|problem| finding(object, problem.field, problem.detail)).collect()
    }
}

/// `field: Invalid value: <the value there>: detail`.
fn finding(object: &Value, field: String, detail: String) -> FieldError {
    let pointer: String =
        field.split(['.', '[']).map(|part| format!("/{}", part.trim_end_matches(']'))).collect();
    match object.pointer(&pointer).filter(|value| !value.is_object() && !value.is_array()) {
        Some(value) => FieldError::invalid(field, value.clone(), detail),
        None => FieldError::invalid(field, "", detail),
    }
}
