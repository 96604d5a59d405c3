//! OpenAPI v3 documents: what kubectl reads before it validates, explains, diffs and patches.
//!
//! One document per group and version, made from the same [`Schema`]s that the server itself goes by, so a document
//! cannot promise what the server does not do. kubectl 1.32 and 1.34 read, in the document of an object's version: the
//! PATCH operation of its kind (parameter `fieldValidation`: the server checks unknown fields; media type
//! `application/strategic-merge-patch+json`: patches are computed from the schema), the GET operation (which kind a
//! resource has, for `explain`) and `components.schemas`.
//!
//! Not here: `/openapi/v2`. kubectl asks for it only where v3 has no answer, and goes on without it. Descriptions of
//! built-in fields are not in the table of facts, so `explain` shows their names and types only.

mod render;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::facts::{self, Schema};
use crate::resource::{Registry, Resource, Version, api_version};

/// `/openapi/v3`: where each document is. The hash changes with the document, so clients may keep it for ever.
pub fn v3_index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for group in registry.groups() {
        for version in &group.versions {
            let path = root(&group.name, &version.name);
            let url = format!("/openapi/v3/{path}?hash={}", fingerprint(&group.name, version));
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// `/openapi/v3/<api/v1 | apis/group/version>`: one document; `None` when nothing is served there.
pub fn v3_document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let found = registry.groups().iter().find(|one| one.name == group)?;
    let version = found.versions.iter().find(|one| one.name == version)?;
    let mut schemas = Map::new();
    let mut wanted = BTreeSet::new();
    let mut paths = Map::new();
    for resource in &version.resources {
        let Some((name, schema)) = component(resource) else { continue };
        if resource.custom.is_some() {
            let mut rendered = render::schema(schema, &mut wanted);
            mark_kind(&mut rendered, &[(&resource.group, &resource.version, &resource.kind)]);
            schemas.insert(name.clone(), rendered);
        } else {
            wanted.insert(name.clone());
        }
        for (path, item) in path_items(resource, &name) {
            paths.insert(path, item);
        }
    }
    add_definitions(wanted, &mut schemas);
    schemas.sort_keys();
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "unversioned" },
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

/// The body and media type of a path below `/openapi/`; `None`: not served.
pub fn answer(registry: &Registry, path: &[&str]) -> Option<Value> {
    match path {
        ["v3"] => Some(v3_index(registry)),
        ["v3", "api", version] => v3_document(registry, "", version),
        ["v3", "apis", group, version] => v3_document(registry, group, version),
        _ => None,
    }
}

/// `api/v1` or `apis/group/version`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn fingerprint(group: &str, version: &Version) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(api_version(group, &version.name));
    for resource in &version.resources {
        hash.update(format!("{}/{}/{:?}\n", resource.plural, resource.kind, resource.verbs));
        if let Some(custom) = &resource.custom {
            hash.update(render::schema(&custom.schema, &mut BTreeSet::new()).to_string());
        }
    }
    hex::encode_upper(hash.finalize())
}

/// The name of a kind's schema among the components, and the schema.
fn component(resource: &Resource) -> Option<(String, &Schema)> {
    if let Some(custom) = &resource.custom {
        let mut parts: Vec<&str> = resource.group.split('.').rev().collect();
        parts.extend([resource.version.as_str(), resource.kind.as_str()]);
        return Some((parts.join("."), &custom.schema));
    }
    let schema = facts::schema_of(&resource.group, &resource.version, &resource.kind)?;
    Some((schema.name.clone(), schema))
}

/// The wanted definitions of the table and all that they refer to.
fn add_definitions(mut wanted: BTreeSet<String>, schemas: &mut Map<String, Value>) {
    while let Some(name) = wanted.pop_first() {
        if schemas.contains_key(&name) {
            continue;
        }
        let Some(schema) = facts::definition_named(&name) else { continue };
        let mut more = BTreeSet::new();
        let mut rendered = render::schema(schema, &mut more);
        mark_kind(&mut rendered, &facts::table::kinds_of(&name));
        schemas.insert(name, rendered);
        wanted.extend(more);
    }
}

fn mark_kind(schema: &mut Value, kinds: &[(&str, &str, &str)]) {
    if kinds.is_empty() {
        return;
    }
    let kinds: Vec<Value> = kinds.iter().map(|(group, version, kind)| gvk(group, version, kind)).collect();
    schema["x-kubernetes-group-version-kind"] = kinds.into();
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "kind": kind, "version": version })
}

fn path_items(resource: &Resource, component: &str) -> Vec<(String, Value)> {
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
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn query_parameter(name: &str) -> Value {
    let kind = if name == "force" { "boolean" } else { "string" };
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let registry = crate::builtin::registry();
        let index = v3_index(&registry);
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="));
        let document = answer(&registry, &["v3", "apis", "apps", "v1"]).unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        assert!(patch["requestBody"]["content"].get(STRATEGIC).is_some());
        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]["x-kubernetes-patch-merge-key"],
            "name"
        );
        assert_eq!(
            schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0]["kind"],
            "Deployment"
        );
        let mut text = document.to_string();
        while let Some(at) = text.find("#/components/schemas/") {
            text = text.split_off(at + "#/components/schemas/".len());
            let name = text.split('"').next().unwrap();
            assert!(schemas.get(name).is_some(), "{name} is referred to and absent");
        }
        assert!(answer(&registry, &["v2"]).is_none());
    }
}
