//! KFP's conditions and selectors: CEL over an ExecutorInput, with `parseJson`.

use std::sync::Arc;

use serde_json::Value;

use crate::Error;

/// Longest expression that is compiled, in bytes.
const BYTES_MAX: usize = 32 * 1024;
/// Deepest brackets: the parser is recursive.
const DEPTH_MAX: usize = 60;

/// Evaluates a task's `triggerPolicy.condition` over `{inputs: {parameter_values: ...}}`; it must be true or false.
pub fn condition(code: &str, parameter_values: &Value) -> Result<bool, Error> {
    let inputs = serde_json::json!({ "parameter_values": floats(parameter_values) });
    match run(code, "inputs", &inputs)? {
        cel::Value::Bool(value) => Ok(value),
        other => Err(Error::new(format!("condition '{code}' must be true or false, got {other:?}"))),
    }
}

/// Evaluates a `parameterExpressionSelector`, e.g. `parseJson(string_value)["a"]`, over a value's JSON text.
pub fn select(code: &str, string_value: &str) -> Result<Value, Error> {
    let value = run(code, "string_value", &Value::String(string_value.to_owned()))?;
    from_cel(&value).ok_or_else(|| Error::new(format!("selector '{code}' gives a value that is not JSON")))
}

fn run(code: &str, name: &str, value: &Value) -> Result<cel::Value, Error> {
    let mut depth = 0usize;
    let mut deepest = 0usize;
    for byte in code.bytes() {
        match byte {
            b'(' | b'[' | b'{' | b'!' | b'?' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if code.len() > BYTES_MAX || deepest > DEPTH_MAX {
        return Err(Error::new("a condition is too long or nested too deep"));
    }
    let program = std::panic::catch_unwind(|| cel::Program::compile(code))
        .map_err(|_| Error::new(format!("'{code}' is not understood")))?
        .map_err(|error| Error::new(format!("'{code}' is not a CEL expression: {error}")))?;
    let mut context = cel::Context::default();
    context
        .add_function("parseJson", |text: Arc<String>| {
            let parsed: Result<Value, _> = serde_json::from_str(&text);
            let value = parsed
                .map_err(|error| cel::ExecutionError::function_error("parseJson", error.to_string()))?;
            cel::to_value(&value)
                .map_err(|error| cel::ExecutionError::function_error("parseJson", error.to_string()))
        })
        .map_err(|error| Error::new(format!("parseJson: {error:?}")))?;
    let value = cel::to_value(value).map_err(|error| Error::new(error.to_string()))?;
    context.add_variable_from_value(name, value);
    program.execute(&context).map_err(|error| Error::new(format!("'{code}' cannot be evaluated: {error}")))
}

/// All numbers as doubles: protojson has no others, and the SDK's conditions count on it.
fn floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().unwrap_or(0.0)),
        Value::Array(items) => Value::Array(items.iter().map(floats).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, field)| (name.clone(), floats(field))).collect())
        }
        other => other.clone(),
    }
}

fn from_cel(value: &cel::Value) -> Option<Value> {
    Some(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(value) => Value::Bool(*value),
        cel::Value::Int(value) => Value::from(*value),
        cel::Value::UInt(value) => Value::from(*value),
        cel::Value::Float(value) => Value::from(*value),
        cel::Value::String(text) => Value::String(text.to_string()),
        cel::Value::List(items) => Value::Array(items.iter().map(from_cel).collect::<Option<_>>()?),
        cel::Value::Map(map) => {
            let mut fields = serde_json::Map::new();
            for (key, field) in map.map.iter() {
                fields.insert(key.to_string(), from_cel(field)?);
            }
            Value::Object(fields)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_those_the_sdk_writes() {
        let values = json!({"pipelinechannel--t-Output": 7, "s": "a", "b": true, "d": 0.5});
        for (code, want) in [
            ("int(inputs.parameter_values['pipelinechannel--t-Output']) == 7", true),
            ("inputs.parameter_values['s'] == 'a' && inputs.parameter_values['b'] == true", true),
            ("!(inputs.parameter_values['s'] == 'a')", false),
            ("inputs.parameter_values['d'] > 0.25", true),
        ] {
            assert_eq!(condition(code, &values), Ok(want), "{code}");
        }
        assert!(condition("inputs.parameter_values['s']", &values).is_err());
        assert!(condition("inputs.parameter_values['none'] == 1", &values).is_err());
    }

    #[test]
    fn selectors_read_json_text() {
        let picked = select("parseJson(string_value)[\"a\"]", r#"{"a": {"b": [1, "x"]}}"#);
        assert_eq!(picked, Ok(json!({"b": [1, "x"]})));
    }
}
