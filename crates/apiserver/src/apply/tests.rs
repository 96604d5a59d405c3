//! Laws of server-side apply: who owns what, what conflicts, what goes away.

use serde_json::{Value, json};

use super::{Conflicts, Writer, apply, track};
use crate::facts::{Schema, schema_of};

fn schema() -> Option<&'static Schema> {
    schema_of("apps", "v1", "Deployment")
}

fn writer(name: &str) -> Writer<'_> {
    Writer { name, api_version: "apps/v1", subresource: "", now: "2026-01-01T00:00:00Z" }
}

fn by(name: &str, live: Option<&Value>, spec: Value, force: bool) -> Result<Value, Conflicts> {
    let applied =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    apply(live, &applied, schema(), writer(name), force)
}

fn containers(all: Value) -> Value {
    json!({"template": {"spec": {"containers": all}}})
}

#[test]
fn fields_are_owned_as_upstream_writes_them() {
    let spec =
        containers(json!([{"name": "a", "image": "x", "args": ["1"], "ports": [{"containerPort": 80}]}]));
    let object = by("me", None, spec, false).unwrap();
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("me"), &json!("Apply")));
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
            ".": {}, "f:args": {}, "f:image": {}, "f:name": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
}

#[test]
fn a_field_that_is_no_longer_applied_goes_unless_someone_else_owns_it() {
    let one = by("a", None, json!({"replicas": 2, "paused": true}), false).unwrap();
    let two = by("b", Some(&one), json!({"replicas": 2}), false).unwrap();
    let three = by("a", Some(&two), json!({"minReadySeconds": 1}), false).unwrap();
    assert_eq!(three["spec"], json!({"replicas": 2, "minReadySeconds": 1}));
    let four = by("b", Some(&three), json!({}), false).unwrap();
    assert_eq!(four["spec"], json!({"minReadySeconds": 1}));
    assert_eq!(four["metadata"]["name"], "d");
}

#[test]
fn items_of_a_list_have_owners_of_their_own() {
    let one = by("a", None, containers(json!([{"name": "x", "image": "1"}])), false).unwrap();
    let two = by("b", Some(&one), containers(json!([{"name": "y", "image": "2"}])), false).unwrap();
    let items = &two["spec"]["template"]["spec"]["containers"];
    assert_eq!(*items, json!([{"name": "x", "image": "1"}, {"name": "y", "image": "2"}]));
    let three = by("a", Some(&two), containers(json!([])), false).unwrap();
    assert_eq!(three["spec"]["template"]["spec"]["containers"], json!([{"name": "y", "image": "2"}]));
}

#[test]
fn another_managers_field_is_a_conflict_until_forced() {
    let one = by("a", None, json!({"replicas": 2, "paused": true}), false).unwrap();
    let refused = by("b", Some(&one), json!({"replicas": 3}), false).unwrap_err();
    assert_eq!(refused.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let refused = by("b", Some(&one), json!({"replicas": 3, "paused": false}), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.paused\n- .spec.replicas"
    );
    let two = by("b", Some(&one), json!({"replicas": 3}), true).unwrap();
    assert_eq!(two["spec"]["replicas"], 3);
    let refused = by("a", Some(&two), json!({"replicas": 2, "paused": true}), false).unwrap_err();
    assert_eq!(refused.to_string(), "Apply failed with 1 conflict: conflict with \"b\": .spec.replicas");
    assert!(by("c", Some(&two), json!({"replicas": 3}), false).is_ok(), "the same value is shared");
}

#[test]
fn other_writes_take_ownership_and_are_named_in_conflicts() {
    let one = by("a", None, json!({"replicas": 2}), false).unwrap();
    let mut scaled = one.clone();
    scaled["spec"]["replicas"] = 5.into();
    track(Some(&one), &mut scaled, schema(), writer("scaler"));
    let refused = by("a", Some(&scaled), json!({"replicas": 2}), false).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1 at 2026-01-01T00:00:00Z: .spec.replicas"
    );
    let left = by("a", Some(&scaled), json!({"paused": true}), false).unwrap();
    assert_eq!(left["spec"], json!({"replicas": 5, "paused": true}));
}

#[test]
fn an_object_from_before_has_an_owner_and_applying_twice_changes_nothing() {
    let live = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}});
    let refused = by("a", Some(&live), json!({"replicas": 2}), false).unwrap_err();
    assert!(refused.to_string().contains("\"before-first-apply\" using apps/v1"), "{refused}");
    let one = by("a", Some(&live), json!({"replicas": 1}), false).unwrap();
    let two = by("a", Some(&one), json!({"replicas": 1}), false).unwrap();
    assert_eq!(one, two);
}

#[test]
fn custom_fields_without_a_schema_are_owned_one_by_one() {
    let schema = Schema::from_crd(None);
    let one = json!({"metadata": {"name": "x"}, "spec": {"a": {"b": 1}, "l": [1, 2]}});
    let two = json!({"metadata": {"name": "x"}, "spec": {"a": {"c": 2}}});
    let live = apply(None, &one, Some(&schema), writer("a"), false).unwrap();
    let live = apply(Some(&live), &two, Some(&schema), writer("b"), false).unwrap();
    assert_eq!(live["spec"], json!({"a": {"b": 1, "c": 2}, "l": [1, 2]}));
}
