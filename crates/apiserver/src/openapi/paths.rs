//! The paths of an OpenAPI document: as much of each operation as clients read.

use serde_json::{Map, Value, json};

use super::{gvk, root};
use crate::resource::Resource;

/// The paths of a resource, for objects of the named component.
pub(super) fn path_items(resource: &Resource, component: &str) -> Vec<(String, Value)> {
    let base = format!("/{}", root(&resource.group, &resource.version));
    let all = format!("{base}/{}", resource.plural);
    let (own, namespace) = if resource.namespaced {
        (format!("{base}/namespaces/{{namespace}}/{}", resource.plural), Some(path_parameter("namespace")))
    } else {
        (all.clone(), None)
    };
    let operations = |verbs: &[(&str, &str)]| {
        let mut item = Map::new();
        for (method, verb) in verbs.iter().filter(|(_, verb)| resource.verbs.contains(verb)) {
            item.insert((*method).to_owned(), operation(resource, component, method, verb));
        }
        item
    };
    let mut out = Vec::new();
    if resource.namespaced {
        out.push((all, operations(&[("get", "list")]), Vec::new()));
    }
    let many = operations(&[("get", "list"), ("post", "create"), ("delete", "deletecollection")]);
    out.push((own.clone(), many, namespace.clone().into_iter().collect()));
    let one = operations(&[("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")]);
    let parameters = std::iter::once(path_parameter("name")).chain(namespace).collect();
    out.push((format!("{own}/{{name}}"), one, parameters));
    let with_parameters = |(path, mut item, parameters): (String, Map<String, Value>, Vec<Value>)| {
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        (path, Value::Object(item))
    };
    out.into_iter().filter(|(_, item, _)| !item.is_empty()).map(with_parameters).collect()
}

fn operation(resource: &Resource, component: &str, method: &str, verb: &str) -> Value {
    let body = json!({ "$ref": format!("#/components/schemas/{component}") });
    let mut out = json!({
        "x-kubernetes-action": if method == "post" { "post" } else { verb },
        "x-kubernetes-group-version-kind": gvk(&resource.group, &resource.version, &resource.kind),
        "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": body } } } },
    });
    if matches!(method, "post" | "put" | "patch") {
        let mut names = vec!["dryRun", "fieldManager", "fieldValidation"];
        if method == "patch" {
            names.push("force");
        }
        out["parameters"] = names.into_iter().map(query_parameter).collect();
        let types: &[&str] = match (method, resource.custom.is_some()) {
            ("patch", true) => &[APPLY, "application/json-patch+json", "application/merge-patch+json"],
            ("patch", false) => {
                &[APPLY, "application/json-patch+json", "application/merge-patch+json", STRATEGIC]
            }
            _ => &["application/json"],
        };
        let body = if method == "patch" { json!({ "type": "object" }) } else { body };
        let content: Map<String, Value> =
            types.iter().map(|one| ((*one).to_owned(), json!({ "schema": body }))).collect();
        out["requestBody"] = json!({ "required": true, "content": content });
    }
    out
}

const APPLY: &str = "application/apply-patch+yaml";
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn query_parameter(name: &str) -> Value {
    let kind = if name == "force" { "boolean" } else { "string" };
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } })
}
