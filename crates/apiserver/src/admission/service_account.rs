//! Every pod runs as a ServiceAccount and finds its token where client libraries look.

use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::http::Ctx;
use crate::names;
use crate::object;

/// Where client libraries look.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Validity of the projected token, in seconds; upstream's 1 hour and 7 seconds.
const TOKEN_SECONDS: i64 = 3607;

/// Sets the account and mounts its token.
///
/// # Errors
/// `Forbidden` when the account does not exist.
pub fn admit(ctx: &Ctx, pod: &mut Value) -> Result<()> {
    let is_mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    if is_mirror {
        return Ok(());
    }
    let mut account = object::text(pod, "/spec/serviceAccountName").to_owned();
    if account.is_empty() {
        account = match object::text(pod, "/spec/serviceAccount") {
            "" => "default".into(),
            old => old.into(),
        };
    }
    let namespace = object::namespace(pod).to_owned();
    let Some(found) = ctx.server.read_key(&format!("/core/serviceaccounts/{namespace}/{account}")) else {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
        );
        return Err(ApiError::forbidden("", "pods", object::name(pod), &why));
    };
    let spec = object::section(pod, "spec");
    spec.insert("serviceAccountName".into(), account.as_str().into());
    spec.insert("serviceAccount".into(), account.as_str().into());
    let secrets = found.get("imagePullSecrets").cloned();
    if let (None, Some(secrets)) = (spec.get("imagePullSecrets"), secrets) {
        spec.insert("imagePullSecrets".into(), secrets);
    }
    let of_pod = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    let of_account = found.get("automountServiceAccountToken").and_then(Value::as_bool);
    if of_pod.or(of_account).unwrap_or(true) {
        mount(pod);
    }
    Ok(())
}

fn mount(pod: &mut Value) {
    let volumes = object::items(pod, "/spec/volumes");
    let is_there = volumes.iter().any(|one| object::text(one, "/name").starts_with("kube-api-access-"));
    let volume = format!("kube-api-access-{}", names::random_suffix());
    let mut used = false;
    for group in ["containers", "initContainers"] {
        let Some(list) = pod.pointer_mut(&format!("/spec/{group}")).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in list {
            let mounts = object::items(container, "/volumeMounts");
            if mounts.iter().any(|one| object::text(one, "/mountPath") == MOUNT_PATH) {
                continue;
            }
            let mount = json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH });
            let Some(map) = container.as_object_mut() else { continue };
            if let Some(list) = map.entry("volumeMounts").or_insert_with(|| json!([])).as_array_mut() {
                list.push(mount);
                used = true;
            }
        }
    }
    if !used || is_there {
        return;
    }
    let spec = object::section(pod, "spec");
    if let Some(list) = spec.entry("volumes").or_insert_with(|| json!([])).as_array_mut() {
        list.push(json!({
            "name": volume,
            "projected": { "defaultMode": 420, "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{
                    "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ] },
        }));
    }
}
