//! OpenAPI v3 documents: what kubectl reads before it validates, explains, diffs and patches.
//!
//! One document per group and version, made from the same [`Schema`]s that the server itself goes by, so a document
//! cannot promise what the server does not do. kubectl 1.32 and 1.34 read, in the document of an object's version: the
//! PATCH operation of its kind (parameter `fieldValidation`: the server checks unknown fields; media type
//! `application/strategic-merge-patch+json`: patches are computed from the schema), the GET operation (which kind a
//! resource has, for `explain`) and `components.schemas`.
//!
//! * [`prose`] has the descriptions of built-in fields, [`render`] makes schemas, [`paths`] operations.
//! * [`serve`] answers requests and keeps documents for as long as somebody asks for them.
//!
//! Not here: `/openapi/v2`. kubectl asks for it only where v3 has no answer, and goes on without it.

mod paths;
mod prose;
mod render;
mod serve;

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::facts::{self, Schema};
use crate::resource::{Registry, Resource, Version, api_version};
use prose::Prose;
use render::Context;

pub(crate) use serve::Documents;
pub use serve::answer;

/// A definition that has the texts that all Kubernetes objects share.
const ANY_OBJECT: &str = "io.k8s.api.core.v1.ConfigMap";

/// `/openapi/v3`: where each document is. The hash changes with the document, so clients may keep it for ever.
fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for group in registry.groups() {
        for version in &group.versions {
            let url = url(&group.name, version);
            paths.insert(root(&group.name, &version.name), json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// Where the current document of a version is.
fn url(group: &str, version: &Version) -> String {
    format!("/openapi/v3/{}?hash={}", root(group, &version.name), hash(group, version))
}

/// `api/v1` or `apis/group/version`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The fingerprint of a version's document.
fn hash<'a>(group: &str, version: &'a Version) -> &'a str {
    version.openapi_hash.get_or_init(|| {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(api_version(group, &version.name));
        for resource in &version.resources {
            hash.update(format!("{}/{}/{:?}\n", resource.plural, resource.kind, resource.verbs));
            if let Some(custom) = &resource.custom {
                hash.update(render::schema(&custom.schema, &mut Context::default()).to_string());
            }
        }
        hex::encode_upper(hash.finalize())
    })
}

/// Writes the document of a version, one schema at a time: as one value it would be tens of megabytes.
fn write_document(version: &Version, out: &mut impl Write) -> io::Result<()> {
    let text = prose::unpack();
    let mut context = Context { prose: Prose::parse(&text), wanted: BTreeSet::new() };
    let mut served = Map::new();
    let mut own = Vec::new();
    for resource in &version.resources {
        let Some((name, schema)) = component(resource) else { continue };
        served.extend(paths::path_items(resource, &name));
        match &resource.custom {
            Some(_) => {
                own.push((name, schema, vec![(&*resource.group, &*resource.version, &*resource.kind)]))
            }
            None => drop(context.wanted.insert(name)),
        }
    }
    write!(out, r#"{{"openapi":"3.0.0","info":{{"title":"Kubernetes","version":"unversioned"}},"paths":"#)?;
    serde_json::to_writer(&mut *out, &served)?;
    write!(out, r#","components":{{"schemas":{{"#)?;
    write_schemas(own, &mut context, out)?;
    write!(out, "}}}}}}")
}

/// A schema by its name among the components, and the kinds that it is of.
type Component<'a> = (String, &'a Schema, Vec<(&'a str, &'a str, &'a str)>);

/// The schemas of the document's own kinds, and all that anything in it refers to.
fn write_schemas<'a>(
    mut open: Vec<Component<'a>>,
    context: &mut Context<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut written = BTreeSet::new();
    loop {
        let next = open.pop().or_else(|| {
            let name = context.wanted.pop_first()?;
            let schema = facts::definition_named(&name)?;
            let kinds = facts::table::kinds_of(&name);
            Some((name, schema, kinds))
        });
        let Some((name, schema, kinds)) = next else { return Ok(()) };
        if !written.insert(name.clone()) {
            continue;
        }
        let mut rendered = render::schema(schema, context);
        mark_kind(&mut rendered, &kinds);
        if !schema.is_builtin() {
            describe_object_fields(&mut rendered, &context.prose);
        }
        out.write_all(if written.len() > 1 { b"," } else { b"" })?;
        serde_json::to_writer(&mut *out, &name)?;
        out.write_all(b":")?;
        serde_json::to_writer(&mut *out, &rendered)?;
    }
}

/// What a custom kind has in common with all others is described in the same words.
fn describe_object_fields(schema: &mut Value, prose: &Prose<'_>) {
    for name in ["apiVersion", "kind", "metadata"] {
        if let Some(field) = schema.pointer_mut(&format!("/properties/{name}"))
            && let Some(text) = prose.of_field(ANY_OBJECT, name)
        {
            field["description"] = text.into();
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let registry = crate::builtin::registry();
        let url = index(&registry)["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="));
        let version = registry.version("apps", "v1").unwrap();
        let mut text = Vec::new();
        write_document(version, &mut text).unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        assert!(patch["requestBody"]["content"].get(paths::STRATEGIC).is_some());
        let schemas = &document["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert!(containers["description"].as_str().unwrap().starts_with("List of containers"));
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
    }
}
