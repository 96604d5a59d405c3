//! JSON the way grpc-gateway writes and reads it: snake_case, zero values left out, unknown request fields refused.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The message without its zero values (`""`, `0`, `false`, `null`, empty lists and objects), at its top level only:
/// below that the parts have been through here already, or are opaque.
pub(crate) fn without_zeros(message: Value) -> Value {
    let Value::Object(fields) = message else { return message };
    Value::Object(fields.into_iter().filter(|(_, value)| !is_zero(value)).collect())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Reads a request body. The type says which fields there are (`deny_unknown_fields`); `null` is "not given".
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut value: Value =
        serde_json::from_slice(body).map_err(|e| Error::Invalid(format!("the body is not JSON: {e}")))?;
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    serde_json::from_value(value).map_err(|e| Error::Invalid(format!("the body does not fit: {e}")))
}

/// Microseconds since 1970 as protojson's timestamp; the empty text for "never".
pub(crate) fn time(micros: i64) -> String {
    if micros == 0 {
        return String::new();
    }
    let time = Timestamp::from_microsecond(micros).unwrap_or_default();
    // Protojson: no fraction, or 3 or 6 digits of it.
    match micros.rem_euclid(1_000_000) {
        0 => format!("{time:.0}"),
        fraction if fraction % 1000 == 0 => format!("{time:.3}"),
        _ => format!("{time:.6}"),
    }
}

/// An RFC 3339 time as microseconds; 0 for none or nonsense.
pub(crate) fn micros(text: &str) -> i64 {
    text.parse::<Timestamp>().map_or(0, Timestamp::as_microsecond)
}

/// Now, in microseconds.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

/// A stored JSON column.
pub(crate) fn stored(what: &'static str, text: &str) -> Result<Value> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(|source| Error::Stored { what, source })
}

/// An id from the path: ids of ours are UUIDs, and anything else cannot exist.
pub(crate) fn id(what: &'static str, id: &str) -> Result<String> {
    match uuid::Uuid::parse_str(id) {
        Ok(uuid) => Ok(uuid.to_string()),
        Err(_) => Err(Error::NotFound { what, id: id.to_owned() }),
    }
}

/// Integral numbers without a fraction (`1.0` is `1`), as protojson writes Go's numbers.
pub(crate) fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) =
                number.as_f64().filter(|_| number.as_i64().is_none() && number.as_u64().is_none())
                && float.fract() == 0.0
                && float.abs() < 9_007_199_254_740_992.0
            {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// A JSON object from an optional map, for columns.
pub(crate) fn object(map: Option<Map<String, Value>>) -> String {
    map.map(|map| Value::Object(map).to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn zeros_are_left_out_and_times_are_protojsons() {
        let message =
            json!({"a": "", "b": 0, "c": false, "d": [], "e": {}, "f": null, "g": "x", "h": {"z": 0}});
        assert_eq!(without_zeros(message), json!({"g": "x", "h": {"z": 0}}));
        assert_eq!(time(1_000_000), "1970-01-01T00:00:01Z");
        assert_eq!(time(1_500_000), "1970-01-01T00:00:01.500Z");
        assert_eq!(micros(&time(1_500_001)), 1_500_001);
        let mut numbers = json!([1.0, 0.5, {"a": 2.0}, 3]);
        whole_numbers(&mut numbers);
        assert_eq!(numbers, json!([1, 0.5, {"a": 2}, 3]));
    }
}
