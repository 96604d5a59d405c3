//! What single built-in kinds do beyond their schema: what is set on create, kept on update, and checked.
//!
//! All functions here work on the stored form. Kinds that need more than a few lines have a file of their own.
//!
//! Not here: schema defaults and field validation ([`crate::facts`]), the platform's own kinds ([`crate::admission`]).

mod jobs;
mod meta;
mod pods;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::MutexGuard;

pub use meta::{metadata_errors, metadata_update_errors};

use crate::error::{ApiError, Result};
use crate::field::FieldError;
use crate::object;
use crate::resource::Resource;
use crate::server::ApiServer;

/// True for kinds whose `metadata.generation` counts changes of the spec.
pub fn has_generation(resource: &Resource) -> bool {
    resource.custom.is_some()
        || matches!(
            resource.group_kind(),
            ("", "Pod" | "ReplicationController")
                | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
                | ("batch", "Job" | "CronJob")
                | ("policy", "PodDisruptionBudget")
                | ("networking.k8s.io", "Ingress" | "IngressClass" | "NetworkPolicy")
                | ("discovery.k8s.io", "EndpointSlice")
                | ("apiextensions.k8s.io", "CustomResourceDefinition")
        )
}

/// Before anything else on create: what the client may not choose.
pub fn prepare_create(resource: &Resource, object: &mut Value) {
    let keeps_status = matches!(resource.group_kind(), ("", "Node"));
    if resource.has_status()
        && !keeps_status
        && let Some(map) = object.as_object_mut()
    {
        object::remove(map, "status");
    }
    match resource.group_kind() {
        ("", "Pod") => pods::prepare_create(object),
        ("", "Namespace") => {
            object::section(object, "status").insert("phase".into(), "Active".into());
            let finalizers = object::section(object, "spec").entry("finalizers").or_insert_with(|| json!([]));
            if let Some(list) = finalizers.as_array_mut()
                && !list.iter().any(|one| one == "kubernetes")
            {
                list.push("kubernetes".into());
            }
            let name = object::name(object).to_owned();
            set_label(object, "kubernetes.io/metadata.name", &name);
        }
        ("", "PersistentVolumeClaim" | "PersistentVolume") => {
            object::section(object, "status").insert("phase".into(), "Pending".into());
        }
        ("", "Service") => {
            object::section(object, "status").entry("loadBalancer").or_insert_with(|| json!({}));
        }
        ("", "Secret") => merge_string_data(object),
        ("batch", "Job") => jobs::prepare_create(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::prepare_create(object),
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("", "ReplicationController")
        | ("autoscaling", "HorizontalPodAutoscaler")
        | ("batch", "CronJob") => {
            object::section(object, "status");
        }
        _ => {}
    }
}

/// Before anything else on update: what goes over from the old object.
pub fn prepare_update(resource: &Resource, new: &mut Value, old: &Value) {
    if resource.has_status()
        && let Some(map) = new.as_object_mut()
    {
        match old.get("status") {
            Some(status) => drop(map.insert("status".into(), status.clone())),
            None => drop(object::remove(map, "status")),
        }
    }
    match resource.group_kind() {
        ("", "Secret") => merge_string_data(new),
        ("", "Service") => crate::services::keep_allocated(new, old),
        ("", "Namespace") => {
            let name = object::name(new).to_owned();
            set_label(new, "kubernetes.io/metadata.name", &name);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::prepare_update(new, old),
        _ => {}
    }
}

/// The old object with the new one's status.
pub fn with_status(resource: &Resource, old: &Value, new: Value) -> Value {
    let mut out = old.clone();
    let Value::Object(new) = new else { return out };
    let keeps_metadata =
        matches!(resource.group_kind(), ("", "Pod" | "Node" | "PersistentVolume" | "Namespace"));
    let status = new.get("status").cloned();
    if let (Some(map), Some(status)) = (out.as_object_mut(), status) {
        map.insert("status".into(), status);
    }
    if keeps_metadata {
        let new_meta = new.get("metadata").and_then(Value::as_object);
        for field in ["labels", "annotations", "finalizers"] {
            match new_meta.and_then(|meta| meta.get(field)) {
                Some(value) => drop(object::meta_mut(&mut out).insert(field.into(), value.clone())),
                None => drop(object::remove(object::meta_mut(&mut out), field)),
            }
        }
    }
    out
}

/// After defaults: what follows from the rest of the object.
pub fn finish(resource: &Resource, object: &mut Value, old: Option<&Value>) {
    match resource.group_kind() {
        ("", "Pod") => pods::finish(object, old),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::finish(object),
        _ => {}
    }
}

/// Checks that need the rest of the cluster or the old object, beyond [`crate::schema::validate`].
pub fn validate(
    server: &ApiServer,
    resource: &Resource,
    object: &Value,
    old: Option<&Value>,
) -> Vec<FieldError> {
    match resource.group_kind() {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::validate(server, object, old),
        ("", "ConfigMap" | "Secret") => immutable_data_errors(object, old),
        ("", "Pod") => pods::placement_errors(object, old),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => match old {
            Some(old) if old.get("roleRef") != object.get("roleRef") => {
                vec![FieldError::invalid("roleRef", object["roleRef"].clone(), "cannot change roleRef")]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What must be chosen under a lock that is held until the write is done.
///
/// # Errors
/// `Invalid` for a choice of the client that cannot be honoured; `InternalError` when a range is full.
pub async fn allocate<'a>(
    server: &'a ApiServer,
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<Option<MutexGuard<'a, ()>>> {
    if resource.group_kind() != ("", "Service") {
        return Ok(None);
    }
    let guard = server.allocation.lock().await;
    crate::services::allocate(server, object, old)?;
    Ok(Some(guard))
}

/// What starts when an object of some kinds was written.
pub fn after_write(server: &Arc<ApiServer>, resource: &Resource, object: &Value) {
    if resource.kind == "CustomResourceDefinition" && object::is_terminating(object) {
        crate::crd::spawn_deletion(server, object::name(object));
    }
}

/// True when an object on its way out has nothing left to wait for.
pub fn is_done_terminating(resource: &Resource, object: &Value) -> bool {
    let grace = object::int(object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    object::is_terminating(object)
        && object::finalizers(object).is_empty()
        && grace == 0
        && !holds_own_finalizer(resource, object)
}

/// A namespace waits for `spec.finalizers` too.
pub fn holds_own_finalizer(resource: &Resource, object: &Value) -> bool {
    resource.group_kind() == ("", "Namespace") && !object::items(object, "/spec/finalizers").is_empty()
}

/// Finalizers that the server itself puts on what is deleted.
pub fn add_deletion_finalizers(resource: &Resource, object: &mut Value) {
    if resource.kind == "CustomResourceDefinition" && !object::is_terminating(object) {
        crate::crd::add_finalizer(object);
    }
}

/// What an object looks like once it is going.
pub fn mark_terminating(resource: &Resource, object: &mut Value) {
    match resource.group_kind() {
        ("", "Namespace") => {
            object::section(object, "status").insert("phase".into(), "Terminating".into());
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::mark_terminating(object),
        _ => {}
    }
}

/// Kubernetes' own namespaces stay.
///
/// # Errors
/// `Forbidden`.
pub fn check_deletable(resource: &Resource, name: &str) -> Result<()> {
    let is_protected = matches!(name, "default" | "kube-system" | "kube-public");
    if resource.group_kind() == ("", "Namespace") && is_protected {
        return Err(ApiError::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}

fn set_label(object: &mut Value, key: &str, value: &str) {
    let labels = object::meta_mut(object).entry("labels").or_insert_with(|| json!({}));
    if let Some(map) = labels.as_object_mut() {
        map.insert(key.into(), value.into());
    }
}

/// `stringData` is write-only: it goes into `data`, encoded.
fn merge_string_data(object: &mut Value) {
    use base64::Engine as _;
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(plain)) = object::remove(map, "stringData") else { return };
    let data = object::section(object, "data");
    for (key, value) in plain {
        let text = value.as_str().unwrap_or("");
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
    }
}

fn immutable_data_errors(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return Vec::new() };
    let mut out = Vec::new();
    if object["immutable"] != true {
        out.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in ["data", "binaryData"] {
        if object.get(field) != old.get(field) {
            out.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
        }
    }
    out
}
