//! One thing that is wrong with one field, in the words of upstream's `field.Error`.
//!
//! Not here: how many of them become a `Status` (that is [`crate::error`]).

use std::fmt;

use serde_json::{Value, json};

/// What kind of wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A field that must be there is not.
    Required,
    /// The value is malformed.
    Invalid,
    /// The value is of another type than the schema's.
    TypeInvalid,
    /// The value is not one of the known ones.
    NotSupported,
    /// The value must be unique and is not.
    Duplicate,
    /// The field must not be set so, for reasons other than its form.
    Forbidden,
    /// Longer than allowed.
    TooLong,
    /// More items than allowed.
    TooMany,
    /// The thing named does not exist.
    NotFound,
    /// A failure while checking.
    Internal,
}

/// One finding of a validation.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// The kind of finding.
    pub wrong: Wrong,
    /// Path, such as `spec.template.metadata.labels`.
    pub field: String,
    /// The offending value, where the text shows one.
    pub value: Option<Value>,
    /// What is expected.
    pub detail: String,
}

impl FieldError {
    fn with(wrong: Wrong, field: impl Into<String>, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { wrong, field: field.into(), value, detail: detail.into() }
    }

    /// `field: Required value: detail`.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with(Wrong::Required, field, None, detail)
    }

    /// `field: Invalid value: value: detail`.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(Wrong::Invalid, field, Some(value.into()), detail)
    }

    /// `field: Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with(Wrong::Forbidden, field, None, detail)
    }

    /// `field: Duplicate value: value`.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::with(Wrong::Duplicate, field, Some(value.into()), "")
    }

    /// `field: Unsupported value: value: supported values: "a", "b"`.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, known: &[&str]) -> Self {
        let mut sorted: Vec<String> = known.iter().map(|one| format!("{one:?}")).collect();
        sorted.sort();
        Self::with(
            Wrong::NotSupported,
            field,
            Some(value.into()),
            format!("supported values: {}", sorted.join(", ")),
        )
    }

    /// `field: Not found: value`.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::with(Wrong::NotFound, field, Some(value.into()), "")
    }

    /// `Invalid value: …: field is immutable`.
    pub fn immutable(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::invalid(field, value, "field is immutable")
    }

    /// The text without the field, as in a Status cause.
    pub fn body(&self) -> String {
        let head = match self.wrong {
            Wrong::Required => "Required value",
            Wrong::Invalid | Wrong::TypeInvalid => "Invalid value",
            Wrong::NotSupported => "Unsupported value",
            Wrong::Duplicate => "Duplicate value",
            Wrong::Forbidden => "Forbidden",
            Wrong::TooLong => "Too long",
            Wrong::TooMany => "Too many",
            Wrong::NotFound => "Not found",
            Wrong::Internal => "Internal error",
        };
        let shows_value =
            !matches!(self.wrong, Wrong::Required | Wrong::Forbidden | Wrong::TooLong | Wrong::Internal);
        let mut text = head.to_owned();
        if let (true, Some(value)) = (shows_value, &self.value) {
            text.push_str(": ");
            text.push_str(&shown(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The entry in `details.causes`.
    pub fn cause(&self) -> Value {
        let reason = match self.wrong {
            Wrong::Required => "FieldValueRequired",
            Wrong::Invalid => "FieldValueInvalid",
            Wrong::TypeInvalid => "FieldValueTypeInvalid",
            Wrong::NotSupported => "FieldValueNotSupported",
            Wrong::Duplicate => "FieldValueDuplicate",
            Wrong::Forbidden => "FieldValueForbidden",
            Wrong::TooLong => "FieldValueTooLong",
            Wrong::TooMany => "FieldValueTooMany",
            Wrong::NotFound => "FieldValueNotFound",
            Wrong::Internal => "InternalError",
        };
        json!({ "reason": reason, "message": self.body(), "field": self.field })
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_upstream() {
        let cases = [
            (FieldError::required("spec.x", ""), "spec.x: Required value"),
            (FieldError::invalid("a", "b", "no"), "a: Invalid value: \"b\": no"),
            (FieldError::invalid("a", json!({"k": "v"}), "no"), "a: Invalid value: {\"k\":\"v\"}: no"),
            (FieldError::forbidden("a", "no"), "a: Forbidden: no"),
            (
                FieldError::not_supported("a", "x", &["c", "b"]),
                "a: Unsupported value: \"x\": supported values: \"b\", \"c\"",
            ),
            (FieldError::duplicate("a[1]", 80), "a[1]: Duplicate value: 80"),
        ];
        for (error, want) in cases {
            assert_eq!(error.to_string(), want);
        }
    }
}
