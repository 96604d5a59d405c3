//! Checks of `metadata`, the same for all kinds but for the form of the name.

use serde_json::Value;

use crate::field::FieldError;
use crate::names;
use crate::object;
use crate::resource::Resource;

/// Largest sum of annotation keys and values, in bytes; upstream's limit.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

fn name_problems(resource: &Resource, name: &str) -> Vec<String> {
    match resource.group_kind() {
        ("rbac.authorization.k8s.io", _) => names::path_segment_problems(name),
        ("", "Namespace") => names::label_problems(name),
        ("", "Service") => names::label_1035_problems(name),
        _ => names::subdomain_problems(name),
    }
}

/// What is wrong with the metadata of an object.
pub fn metadata_errors(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let name = object::name(object);
    if name.is_empty() {
        out.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        let problems = name_problems(resource, name).into_iter();
        out.extend(problems.map(|problem| FieldError::invalid("metadata.name", name, problem)));
    }
    let meta = object::meta(object);
    let map =
        |field: &str| meta.and_then(|meta| meta.get(field)).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in map("labels") {
        for problem in names::qualified_name_problems(key) {
            out.push(FieldError::invalid("metadata.labels", key.as_str(), problem));
        }
        let value = value.as_str().unwrap_or("");
        if let Some(problem) = names::label_value_problem(value) {
            out.push(FieldError::invalid("metadata.labels", value, problem));
        }
    }
    let mut bytes = 0;
    for (key, value) in map("annotations") {
        for problem in names::qualified_name_problems(&key.to_lowercase()) {
            out.push(FieldError::invalid("metadata.annotations", key.as_str(), problem));
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATION_BYTES_MAX {
        out.push(FieldError {
            wrong: crate::field::Wrong::TooLong,
            field: "metadata.annotations".into(),
            value: None,
            detail: format!("may not be more than {ANNOTATION_BYTES_MAX} bytes"),
        });
    }
    for finalizer in object::finalizers(object) {
        for problem in names::qualified_name_problems(finalizer) {
            out.push(FieldError::invalid("metadata.finalizers", finalizer, problem));
        }
    }
    out.extend(owner_errors(object));
    out
}

fn owner_errors(object: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let mut controllers = 0;
    for (index, owner) in object::items(object, "/metadata/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &format!("/{field}")).is_empty() {
                let at = format!("metadata.ownerReferences[{index}].{field}");
                out.push(FieldError::invalid(at, "", "must not be empty"));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let value = object["metadata"]["ownerReferences"].clone();
        let detail = "Only one reference can have Controller set to true";
        out.push(FieldError::invalid("metadata.ownerReferences", value, detail));
    }
    out
}

/// What an update may not do to the metadata.
pub fn metadata_update_errors(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    if object::name(new) != object::name(old) {
        out.push(FieldError::immutable("metadata.name", object::name(new)));
    }
    if object::is_terminating(old) {
        let had = object::finalizers(old);
        let added: Vec<&str> = object::finalizers(new).into_iter().filter(|one| !had.contains(one)).collect();
        if !added.is_empty() {
            let shown = added.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ");
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{shown}}}"
            );
            out.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    out
}
