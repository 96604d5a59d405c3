//! Decode errors in upstream's words, by table.

use serde_json::{Value, json};

use super::validate;
use crate::facts::Schema;

fn check(properties: Value, value: Value, old: Option<Value>, want: &[&str]) {
    let schema = Schema::from_crd(Some(&json!({"type": "object", "properties": {"spec": properties}})));
    let object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"}, "spec": value});
    let old = old.map(|old| json!({"spec": old}));
    let found: Vec<String> =
        validate(&object, old.as_ref(), &schema).iter().map(ToString::to_string).collect();
    assert_eq!(found, want, "{object}");
}

#[test]
fn findings_read_as_upstream() {
    let number = json!({"type": "integer", "minimum": 1, "maximum": 5, "exclusiveMaximum": true});
    check(number.clone(), json!(3), None, &[]);
    check(
        number.clone(),
        json!(0),
        None,
        &["spec: Invalid value: 0: spec in body should be greater than or equal to 1"],
    );
    check(number.clone(), json!(5), None, &["spec: Invalid value: 5: spec in body should be less than 5"]);
    check(
        number,
        json!("x"),
        None,
        &["spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
    );
    let text = json!({"type": "string", "pattern": "^a+$", "minLength": 2, "enum": ["aa", "aaa", "b"]});
    check(text.clone(), json!("aa"), None, &[]);
    check(
        text,
        json!("b"),
        None,
        &[
            "spec: Invalid value: \"b\": spec in body should be at least 2 chars long",
            "spec: Invalid value: \"b\": spec in body should match '^a+$'",
        ],
    );
    let object =
        json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "enum": ["x"]}}});
    check(object.clone(), json!({}), None, &["spec.a: Required value"]);
    check(object, json!({"a": "y"}), None, &["spec.a: Unsupported value: \"y\": supported values: \"x\""]);
    let list = json!({"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
        "items": {"type": "object", "properties": {"n": {"type": "string"}}}});
    check(list, json!([{"n": "a"}, {"n": "a"}]), None, &["spec[1]: Duplicate value: {\"n\":\"a\"}"]);
    let either = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    check(either.clone(), json!({"a": ""}), None, &[]);
    check(
        either,
        json!({}),
        None,
        &[
            "spec: Invalid value: {}: \"spec\" must validate one and only one schema (oneOf). Found none valid",
        ],
    );
}

#[test]
fn cel_rules_hold_or_say_why() {
    let rule = |rule: &str, message: &str| {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": message}],
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}})
    };
    let smaller = rule("self.a <= self.b", "a must not exceed b");
    check(smaller.clone(), json!({"a": 1, "b": 2}), None, &[]);
    check(smaller, json!({"a": 3, "b": 2}), None, &["spec: Invalid value: \"object\": a must not exceed b"]);
    let has = rule("!has(self.a) || self.a > 0", "");
    check(has.clone(), json!({}), None, &[]);
    check(
        has,
        json!({"a": 0}),
        None,
        &["spec: Invalid value: \"object\": failed rule: !has(self.a) || self.a > 0"],
    );
    let fixed = rule("self.a == oldSelf.a", "a is immutable");
    check(fixed.clone(), json!({"a": 1}), None, &[]);
    check(
        fixed,
        json!({"a": 1}),
        Some(json!({"a": 2})),
        &["spec: Invalid value: \"object\": a is immutable"],
    );
}
