//! Argo's template tags: `{{name}}` and `{{=expression}}`, in one pass over a JSON tree.
//!
//! Nested tags resolve from the inside out; what a value brings in is never expanded again, so a
//! step's output cannot inject tags.

use serde_json::{Map, Value};

use crate::{Error, text};

/// What a name in a tag stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A value.
    Value(Value),
    /// Known, but never produced (its node was skipped or omitted).
    Absent,
    /// Nobody knows the name.
    Unknown,
}

/// Where names of tags are looked up.
pub trait Scope {
    /// The value of a dotted name, e.g. `inputs.parameters.message`.
    fn lookup(&self, name: &str) -> Found;
    /// All of it as one tree, for expressions.
    fn tree(&self) -> Value;
}

/// Longest expression that is evaluated, in bytes.
const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// Deepest brackets of an expression: its parser is recursive.
const EXPRESSION_DEPTH_MAX: usize = 40;
/// Largest text that substitution may produce, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What came of substituting one text.
#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    /// The text with every tag replaced.
    Plain(String),
    /// The text was exactly one tag whose value is absent.
    Absent,
}

/// Substitutes in every string (keys too) of a tree. Absent values are errors.
pub fn tree(value: &Value, scope: &dyn Scope) -> Result<Value, Error> {
    Ok(match value {
        Value::String(text) => Value::String(string(text, scope)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| tree(item, scope)).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let mut done = Map::with_capacity(fields.len());
            for (name, field) in fields {
                done.insert(string(name, scope)?, tree(field, scope)?);
            }
            Value::Object(done)
        }
        other => other.clone(),
    })
}

/// Substitutes in a text; an absent value is an error.
pub fn string(text: &str, scope: &dyn Scope) -> Result<String, Error> {
    match maybe(text, scope)? {
        Text::Plain(text) => Ok(text),
        Text::Absent => {
            Err(Error::new(format!("failed to resolve {text}: the node that makes it did not run")))
        }
    }
}

/// Substitutes in a text; a text that is only one absent tag is [`Text::Absent`].
pub fn maybe(text: &str, scope: &dyn Scope) -> Result<Text, Error> {
    if !text.contains("{{") {
        return Ok(Text::Plain(text.to_owned()));
    }
    // Each open tag has the text before it and its own inside.
    let mut open: Vec<String> = vec![String::new()];
    let mut rest = text;
    loop {
        let start = rest.find("{{");
        // An expression may hold `}}` of its own only inside quotes; Argo's parser stops at the first, and so does this.
        let end = rest.find("}}");
        match (start, end) {
            (Some(start), end) if end.is_none_or(|end| start < end) => {
                open.last_mut().expect("one is always open").push_str(&rest[..start]);
                open.push(String::new());
                rest = &rest[start + 2..];
            }
            (_, Some(mut end)) if open.len() > 1 => {
                let code = open.last().is_some_and(|text| text.trim_start().starts_with('='))
                    || open.last().is_some_and(String::is_empty) && rest.trim_start().starts_with('=');
                // `{{=toJson({"a": {"b": 1}})}}`: braces of the expression itself do not close the tag.
                if code && let Some(balanced) = code_end(rest) {
                    end = balanced;
                }
                let mut inside = open.pop().expect("more than one is open");
                inside.push_str(&rest[..end]);
                let whole = open.len() == 1 && open[0].is_empty() && rest[end + 2..].is_empty();
                match resolve(&inside, scope)? {
                    Some(value) => open.last_mut().expect("one is always open").push_str(&value),
                    None if whole => return Ok(Text::Absent),
                    None => {
                        return Err(Error::new(format!(
                            "failed to resolve {{{{{inside}}}}}: the node that makes it did not run"
                        )));
                    }
                }
                rest = &rest[end + 2..];
            }
            _ => break,
        }
    }
    // Tags that never closed stay as they are.
    let mut done = String::new();
    for (index, part) in open.iter().enumerate() {
        if index > 0 {
            done.push_str("{{");
        }
        done.push_str(part);
    }
    done.push_str(rest);
    if done.len() > TEXT_BYTES_MAX {
        return Err(Error::new(format!("a text grows above {TEXT_BYTES_MAX} bytes after substitution")));
    }
    Ok(Text::Plain(done))
}

/// Where the `}}` stands that closes an expression: outside quotes, with all its own braces closed.
fn code_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth > 0 => depth -= 1,
            (None, '}') if text[at + 1..].starts_with('}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn resolve(inside: &str, scope: &dyn Scope) -> Result<Option<String>, Error> {
    if let Some(code) = inside.trim_start().strip_prefix('=') {
        let value = evaluate(code, scope)?;
        return Ok(match value {
            Value::Null => None,
            value => Some(text::plain(&value)),
        });
    }
    let name = inside.trim();
    match scope.lookup(name) {
        Found::Value(value) => Ok(Some(text::plain(&value))),
        Found::Absent => Ok(None),
        Found::Unknown => Err(Error::new(format!("failed to resolve {{{{{name}}}}}"))),
    }
}

/// Evaluates an expr-lang expression over the scope's tree.
pub fn evaluate(code: &str, scope: &dyn Scope) -> Result<Value, Error> {
    let depth = code.bytes().try_fold((0usize, 0usize), |(now, most), byte| {
        let now = match byte {
            b'(' | b'[' | b'{' => now + 1,
            b')' | b']' | b'}' => now.saturating_sub(1),
            _ => now,
        };
        (now <= EXPRESSION_DEPTH_MAX).then_some((now, most.max(now)))
    });
    let prefixes = code.bytes().filter(|byte| matches!(byte, b'!' | b'?')).count();
    if code.len() > EXPRESSION_BYTES_MAX || depth.is_none() || prefixes > 4 * EXPRESSION_DEPTH_MAX {
        return Err(Error::new("an expression is too long or nested too deep"));
    }
    let tree = scope.tree();
    let mut context = expr::Context::default();
    if let Value::Object(fields) = &tree {
        for (name, field) in fields {
            context.insert(name.clone(), to_expr(field));
        }
    }
    let environment = environment();
    // Method calls on a map are no functions in expr-lang; sprig's are renamed to plain ones.
    let code = code.replace("sprig.", "sprig_");
    let failed = |why: &str| Error::new(format!("failed to evaluate expression '{}': {why}", code.trim()));
    // The library panics on some texts that its grammar accepts (a map inside a map); a fault in one
    // workflow must not stop the others.
    let run = std::panic::AssertUnwindSafe(|| environment.eval(code.trim(), &context));
    let value = std::panic::catch_unwind(run)
        .map_err(|_| failed("it is not understood"))?
        .map_err(|error| failed(&error.to_string()))?;
    Ok(from_expr(&value))
}

/// Evaluates an expression that must be true or false.
pub fn condition(code: &str, scope: &dyn Scope) -> Result<bool, Error> {
    match evaluate(code, scope)? {
        Value::Bool(value) => Ok(value),
        Value::String(text) if text == "true" || text == "false" => Ok(text == "true"),
        other => Err(Error::new(format!("expression '{code}' must be true or false, got {other}"))),
    }
}

fn to_expr(value: &Value) -> expr::Value {
    match value {
        Value::Null => expr::Value::Nil,
        Value::Bool(value) => expr::Value::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => expr::Value::Integer(integer),
            None => expr::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => expr::Value::String(text.clone()),
        Value::Array(items) => expr::Value::Array(items.iter().map(to_expr).collect()),
        Value::Object(fields) => {
            expr::Value::Map(fields.iter().map(|(name, field)| (name.clone(), to_expr(field))).collect())
        }
    }
}

fn from_expr(value: &expr::Value) -> Value {
    match value {
        expr::Value::Nil => Value::Null,
        expr::Value::Bool(value) => Value::Bool(*value),
        expr::Value::Integer(integer) => Value::from(*integer),
        expr::Value::Float(float) => Value::from(*float),
        expr::Value::String(text) => Value::String(text.clone()),
        expr::Value::Array(items) => Value::Array(items.iter().map(from_expr).collect()),
        expr::Value::Map(fields) => {
            Value::Object(fields.iter().map(|(name, field)| (name.clone(), from_expr(field))).collect())
        }
        other => Value::String(other.to_string()),
    }
}

type Answer = expr::Result<expr::Value>;

fn first(arguments: &[expr::Value]) -> expr::Value {
    arguments.first().cloned().unwrap_or_default()
}

fn failed(text: impl Into<String>) -> expr::Error {
    expr::Error::ExprError(text.into())
}

fn as_text(value: &expr::Value) -> String {
    text::plain(&from_expr(value))
}

fn as_int(arguments: &[expr::Value]) -> Answer {
    let value = first(arguments);
    match &value {
        expr::Value::Integer(_) => Ok(value),
        expr::Value::Float(float) => Ok(expr::Value::Integer(*float as i64)),
        other => {
            let text = as_text(other);
            let number = text.trim().parse::<i64>();
            number
                .map(expr::Value::Integer)
                .map_err(|_| failed(format!("asInt: {text:?} is not a whole number")))
        }
    }
}

fn as_float(arguments: &[expr::Value]) -> Answer {
    let text = as_text(&first(arguments));
    let number = text.trim().parse::<f64>();
    number.map(expr::Value::Float).map_err(|_| failed(format!("asFloat: {text:?} is not a number")))
}

fn json_path(arguments: &[expr::Value]) -> Answer {
    let [document, path] = arguments else { return Err(failed("jsonpath needs a text and a path")) };
    let document: Value = match document {
        expr::Value::String(text) => serde_json::from_str(text).map_err(|error| failed(error.to_string()))?,
        other => from_expr(other),
    };
    let path = serde_json_path::JsonPath::parse(&as_text(path)).map_err(|error| failed(error.to_string()))?;
    let found = path.query(&document).all();
    Ok(match found.as_slice() {
        [one] => to_expr(one),
        many => expr::Value::Array(many.iter().map(|value| to_expr(value)).collect()),
    })
}

/// The functions of Argo's expressions beyond expr-lang's own.
fn environment() -> expr::Environment<'static> {
    let mut environment = expr::Environment::new();
    environment.add_function("asInt", |call| as_int(&call.args));
    environment.add_function("asFloat", |call| as_float(&call.args));
    environment.add_function("toJson", |call| Ok(text::json(&from_expr(&first(&call.args))).into()));
    environment.add_function("jsonpath", |call| json_path(&call.args));
    environment.add_function("sprig_trim", |call| Ok(as_text(&first(&call.args)).trim().to_owned().into()));
    environment.add_function("sprig_upper", |call| Ok(as_text(&first(&call.args)).to_uppercase().into()));
    environment.add_function("sprig_lower", |call| Ok(as_text(&first(&call.args)).to_lowercase().into()));
    environment.add_function("sprig_int", |call| as_int(&call.args));
    environment.add_function("sprig_int64", |call| as_int(&call.args));
    environment.add_function("sprig_toString", |call| Ok(as_text(&first(&call.args)).into()));
    environment.add_function("sprig_toJson", |call| Ok(text::json(&from_expr(&first(&call.args))).into()));
    environment.add_function("sprig_fromJson", |call| {
        let text = as_text(&first(&call.args));
        serde_json::from_str(&text)
            .map(|value: Value| to_expr(&value))
            .map_err(|error| failed(error.to_string()))
    });
    environment.add_function("sprig_replace", |call| {
        let [old, new, text] = call.args.as_slice() else { return Err(failed("replace needs three texts")) };
        Ok(as_text(text).replace(&as_text(old), &as_text(new)).into())
    });
    environment.add_function("sprig_default", |call| {
        let [fallback, value] = call.args.as_slice() else { return Err(failed("default needs two values")) };
        let empty = matches!(value, expr::Value::Nil) || as_text(value).is_empty();
        Ok(if empty { fallback.clone() } else { value.clone() })
    });
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixed;

    impl Scope for Fixed {
        fn lookup(&self, name: &str) -> Found {
            match name {
                "inputs.parameters.a" => Found::Value(json!("x \"{{b}}\"")),
                "b" => Found::Value(json!("a")),
                "gone" => Found::Absent,
                _ => Found::Unknown,
            }
        }
        fn tree(&self) -> Value {
            json!({"inputs": {"parameters": {"n": "3", "a-b": "{\"k\": [1, 2]}"}}, "gone": null})
        }
    }

    #[test]
    fn tags_are_replaced_once() {
        for (text, want) in [
            ("plain", "plain"),
            ("<{{inputs.parameters.a}}>", "<x \"{{b}}\">"),
            ("{{inputs.parameters.{{b}}}}", "x \"{{b}}\""),
            ("{{=asInt(inputs.parameters.n) * 2}}", "6"),
            ("{{=jsonpath(inputs.parameters['a-b'], '$.k[1]')}}", "2"),
            ("{{=sprig.upper('a')}}", "A"),
            ("{{=toJson({'a': 1})}}", "{\"a\":1}"),
            ("open {{b", "open {{b"),
            ("close }} b", "close }} b"),
        ] {
            assert_eq!(string(text, &Fixed), Ok(want.to_owned()), "{text}");
        }
        assert_eq!(maybe("{{gone}}", &Fixed), Ok(Text::Absent));
        assert_eq!(string("{{=gone ?? 'other'}}", &Fixed), Ok("other".into()));
        for text in ["{{nope}}", "a{{gone}}", "{{=1 +}}"] {
            assert!(string(text, &Fixed).is_err(), "{text}");
        }
        assert!(evaluate(&"(".repeat(5000), &Fixed).is_err());
        assert!(evaluate("{'a': {'b': 1}}", &Fixed).is_err(), "a panic of the library is an error");
    }

    #[test]
    fn trees_are_replaced_in_keys_and_values() {
        let tree = tree(&json!({"{{b}}": ["{{b}}", 1]}), &Fixed).unwrap();
        assert_eq!(tree, json!({"a": ["a", 1]}));
    }
}
