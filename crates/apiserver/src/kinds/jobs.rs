//! Jobs: the selector and labels by which a Job knows its pods.

use serde_json::{Value, json};

use crate::object;

/// Gives a Job its generated selector unless the user manages one.
pub fn prepare_create(job: &mut Value) {
    object::section(job, "status");
    if job.pointer("/spec/manualSelector").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let (uid, name) = (object::uid(job).to_owned(), object::name(job).to_owned());
    let spec = object::section(job, "spec");
    let has_selector = spec.get("selector").is_some_and(|selector| !selector.is_null());
    if has_selector {
        // The user's own selector is refused by validation, as upstream does.
        return;
    }
    spec.insert("selector".into(), json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } }));
    let template = spec.entry("template").or_insert_with(|| json!({}));
    let labels = object::meta_mut(template).entry("labels").or_insert_with(|| json!({}));
    let Some(labels) = labels.as_object_mut() else { return };
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        labels.entry(key).or_insert_with(|| value.clone().into());
    }
}
