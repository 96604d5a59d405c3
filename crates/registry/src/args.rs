//! The arguments of a call: JSON body, query string and path, read as protobuf's JSON mapping reads them.
//!
//! That mapping takes an int64 as number or string, repeats a query key for a list, and ignores unknown fields; a table of
//! accessors follows it more closely than typed structs would, and keeps the wording of refusals in one place.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Arguments of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Args(Map<String, Value>);

impl Args {
    /// From a JSON body; an empty body has no arguments.
    pub(crate) fn from_body(body: &[u8]) -> Result<Self> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(other) => Err(Error::Invalid(format!(
                "Malformed request body: expected a JSON object, got {}",
                kind(&other)
            ))),
            Err(error) => {
                Err(Error::Invalid(format!("Malformed request body: expected a JSON object: {error}")))
            }
        }
    }

    /// From decoded pairs of a query string or path; a repeated key makes a list.
    pub(crate) fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut args = Self::default();
        for (key, value) in pairs {
            let key = key.strip_suffix("[]").unwrap_or(&key).to_owned();
            match args.0.get_mut(&key) {
                None => {
                    args.0.insert(key, Value::String(value));
                }
                Some(Value::Array(list)) => list.push(Value::String(value)),
                Some(first) => {
                    let list = vec![first.take(), Value::String(value)];
                    *first = Value::Array(list);
                }
            }
        }
        args
    }

    /// Adds a value that the route found in the path.
    pub(crate) fn insert(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), Value::String(value));
    }

    /// Whether the key is there and not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| !value.is_null())
    }

    /// A text, or nothing.
    pub(crate) fn text_opt(&self, key: &str) -> Result<Option<String>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(other) => Err(wrong_type(key, other, "string")),
        }
    }

    /// A text; empty when missing.
    pub(crate) fn text_or_empty(&self, key: &str) -> Result<String> {
        Ok(self.text_opt(key)?.unwrap_or_default())
    }

    /// A text that must be there and not be empty.
    pub(crate) fn text(&self, key: &str) -> Result<String> {
        match self.text_opt(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(missing(key)),
        }
    }

    /// The run's id, under its present or its old name.
    pub(crate) fn run_id(&self) -> Result<String> {
        match self.text_opt("run_id")? {
            Some(id) if !id.is_empty() => Ok(id),
            _ => self.text("run_uuid").map_err(|_| missing("run_id")),
        }
    }

    /// An int64 as number or as text, or nothing.
    pub(crate) fn int_opt(&self, key: &str) -> Result<Option<i64>> {
        let value = match self.0.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let number = match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.map(Some).ok_or_else(|| wrong_type(key, value, "int64"))
    }

    /// An int64 that must be there.
    pub(crate) fn int(&self, key: &str) -> Result<i64> {
        self.int_opt(key)?.ok_or_else(|| missing(key))
    }

    /// A double as number or as text (`"NaN"`, `"Infinity"`), which must be there.
    pub(crate) fn double(&self, key: &str) -> Result<f64> {
        let value = self.0.get(key).filter(|value| !value.is_null()).ok_or_else(|| missing(key))?;
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => match text.as_str() {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                text => text.parse().ok(),
            },
            _ => None,
        };
        number.ok_or_else(|| wrong_type(key, value, "double"))
    }

    /// A flag; false when missing.
    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(wrong_type(key, other, "bool")),
        }
    }

    /// A list of texts; a single text is a list of one.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let list = match self.0.get(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        list.iter()
            .map(|value| match value {
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                other => Err(wrong_type(key, other, "string")),
            })
            .collect()
    }

    /// A list of objects.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Self>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .map(|value| match value {
                    Value::Object(map) => Ok(Self(map.clone())),
                    other => Err(wrong_type(key, other, "object")),
                })
                .collect(),
            Some(other) => Err(wrong_type(key, other, "list of objects")),
        }
    }

    /// An object, or one without fields.
    pub(crate) fn object(&self, key: &str) -> Result<Self> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::Object(map)) => Ok(Self(map.clone())),
            Some(other) => Err(wrong_type(key, other, "object")),
        }
    }

    /// `[{key, value}]` as pairs.
    pub(crate) fn pairs(&self, key: &str) -> Result<Vec<(String, String)>> {
        self.objects(key)?.iter().map(|pair| Ok((pair.text("key")?, pair.text_or_empty("value")?))).collect()
    }
}

/// MLflow's text for a parameter that is not there.
pub(crate) fn missing(key: &str) -> Error {
    Error::Invalid(format!(
        "Missing value for required parameter '{key}'. See the API docs for more information about request parameters."
    ))
}

fn wrong_type(key: &str, value: &Value, expected: &str) -> Error {
    let shown: String = value.to_string().chars().take(100).collect();
    Error::Invalid(format!(
        "Invalid value {shown} for parameter '{key}' supplied: expected a {expected}, got a {}",
        kind(value)
    ))
}

fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9.0e18).then_some(number as i64)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_int64_is_a_number_or_a_text() {
        let args = Args::from_body(br#"{"a": 5, "b": "6", "c": 7.0, "d": 7.5, "e": "x"}"#).unwrap();
        assert_eq!(args.int("a").unwrap(), 5);
        assert_eq!(args.int("b").unwrap(), 6);
        assert_eq!(args.int("c").unwrap(), 7);
        assert!(args.int("d").is_err());
        let error = args.int("e").unwrap_err().to_string();
        assert!(error.contains("'e'") && error.contains("\"x\"") && error.contains("int64"), "{error}");
    }

    #[test]
    fn doubles_that_json_cannot_write_come_as_text() {
        let args = Args::from_body(br#"{"n": "NaN", "i": "-Infinity", "x": 1e3}"#).unwrap();
        assert!(args.double("n").unwrap().is_nan());
        assert_eq!(args.double("i").unwrap(), f64::NEG_INFINITY);
        assert_eq!(args.double("x").unwrap(), 1000.0);
    }

    #[test]
    fn a_repeated_query_key_is_a_list() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let args = Args::from_pairs([pair("id", "1"), pair("id", "2"), pair("one", "3")]);
        assert_eq!(args.texts("id").unwrap(), ["1", "2"]);
        assert_eq!(args.texts("one").unwrap(), ["3"]);
        assert!(args.texts("none").unwrap().is_empty());
    }

    #[test]
    fn an_empty_required_text_is_missing() {
        let args = Args::from_body(br#"{"name": ""}"#).unwrap();
        assert!(
            args.text("name")
                .unwrap_err()
                .to_string()
                .starts_with("Missing value for required parameter 'name'")
        );
    }
}
