//! Cells of custom kinds, by the JSONPath of each column.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::{format, name};
use crate::crd::{Column, Custom};

/// The cells of a row.
pub fn cells(custom: &Custom, object: &Value) -> Vec<Value> {
    let mut out = vec![name(object)];
    out.extend(custom.columns.iter().map(|column| cell(column, object)));
    out
}

fn cell(column: &Column, object: &Value) -> Value {
    let Some(found) = first(&column.path, object) else { return Value::Null };
    match column.kind.as_str() {
        "date" => found.as_str().map_or(Value::Null, |at| format::since(at).into()),
        "integer" => match &found {
            Value::Number(number) if number.is_f64() => number.as_f64().map(|float| float as i64).into(),
            Value::Number(_) => found,
            _ => Value::Null,
        },
        "number" if found.is_number() => found,
        "boolean" if found.is_boolean() => found,
        "string" => match found {
            Value::String(_) => found,
            Value::Null => Value::Null,
            other => other.to_string().into(),
        },
        _ => Value::Null,
    }
}

fn first(path: &str, object: &Value) -> Option<Value> {
    let parsed = JsonPath::parse(&standard(path)).ok()?;
    parsed.query(object).all().first().map(|value| (*value).clone())
}

/// Kubernetes' JSONPath in the standard's form: a root, and keys with escaped dots in brackets.
fn standard(path: &str) -> String {
    let mut out = String::from("$");
    let text = path.trim_start_matches('$');
    let mut rest = text;
    while let Some(at) = rest.find("\\.") {
        // The key goes from the dot before the escape to the next dot or bracket that is not escaped.
        let start = rest[..at].rfind('.').unwrap_or(0);
        let mut end = at + 2;
        while let Some(step) = rest[end..].find(['.', '[']) {
            let escaped = rest[..end + step].ends_with('\\');
            end += step;
            if !escaped {
                break;
            }
            end += 1;
        }
        if !rest[end..].starts_with(['.', '[']) {
            end = rest.len();
        }
        let key = rest[start..end].trim_start_matches('.').replace("\\.", ".");
        out.push_str(&rest[..start]);
        out.push_str(&format!("['{key}']"));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_definitions_find_their_values() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"conditions": [{"type": "A", "status": "no"}, {"type": "Ready", "status": "True"}], "n": 3}
        });
        let cases = [
            (".status.n", Some(json!(3))),
            (r#".status.conditions[?(@.type=="Ready")].status"#, Some(json!("True"))),
            (r".metadata.annotations.a\.b/c", Some(json!("x"))),
            (".status.missing", None),
        ];
        for (path, want) in cases {
            assert_eq!(first(path, &object), want, "{path} as {}", standard(path));
        }
    }
}
