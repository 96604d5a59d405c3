//! Carries a decision out: creates what is missing, patches what differs, deletes what is too much, writes the status.
//!
//! An object that is there but belongs to somebody else is left alone, and the status says so by staying unready.

use api::serving::{InferenceService, LABEL};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::children::{Child, DIGEST};
use crate::decide::Decision;
use crate::error::Error;

const KINDS: [(&str, &str, &str); 3] =
    [("apps", "v1", "Deployment"), ("", "v1", "Service"), ("autoscaling", "v2", "HorizontalPodAutoscaler")];

fn api(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version, kind) =
        KINDS.into_iter().find(|(_, _, one)| *one == kind).expect("a kind of the list");
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Makes it so. Children first: the status may tell of them.
pub(crate) async fn act(
    client: &Client,
    service: &InferenceService,
    decision: &Decision,
) -> Result<(), Error> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    for child in &decision.children {
        ensure(client, namespace, service, child).await?;
    }
    remove_others(client, namespace, service, &decision.children).await?;
    write_status(client, namespace, service, &decision.status).await
}

async fn ensure(
    client: &Client,
    namespace: &str,
    service: &InferenceService,
    child: &Child,
) -> Result<(), Error> {
    let objects = api(client, namespace, child.kind);
    let what = || format!("{} {namespace}/{}", child.kind, child.name);
    let found = objects.get_opt(&child.name).await.map_err(Error::kube("read", what()))?;
    let Some(found) = found else {
        let object: DynamicObject =
            serde_json::from_value(child.object.clone()).expect("a child is an object");
        return match objects.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            // Made between our read and now: the watch brings us back.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(Error::kube("create", what())(error)),
        };
    };
    if !is_owned(&found, service) {
        tracing::warn!(object = %what(), service = %service.name_any(), "exists and belongs to somebody else");
        return Ok(());
    }
    let wanted = child.object.pointer(&format!("/metadata/annotations/{}", DIGEST.replace('/', "~1")));
    if found.annotations().get(DIGEST).map(String::as_str) == wanted.and_then(Value::as_str) {
        return Ok(());
    }
    // Lists are replaced whole by a merge patch, which is what "as wanted" means for containers and ports.
    objects
        .patch(&child.name, &PatchParams::default(), &Patch::Merge(&child.object))
        .await
        .map_err(Error::kube("patch", what()))?;
    Ok(())
}

fn is_owned(object: &DynamicObject, service: &InferenceService) -> bool {
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

async fn remove_others(
    client: &Client,
    namespace: &str,
    service: &InferenceService,
    wanted: &[Child],
) -> Result<(), Error> {
    let mine = ListParams::default().labels(&format!("{LABEL}={}", service.name_any()));
    for (_, _, kind) in KINDS {
        let objects = api(client, namespace, kind);
        let found = objects.list(&mine).await.map_err(Error::kube("list", kind))?;
        for object in found.items.iter().filter(|object| is_owned(object, service)) {
            let name = object.name_any();
            let stays = wanted.iter().any(|child| child.kind == kind && child.name == name);
            if stays || object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            match objects.delete(&name, &DeleteParams::background()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(Error::kube("delete", format!("{kind} {namespace}/{name}"))(error)),
            }
        }
    }
    Ok(())
}

async fn write_status(
    client: &Client,
    namespace: &str,
    service: &InferenceService,
    status: &Value,
) -> Result<(), Error> {
    if service.status == *status {
        return Ok(());
    }
    // A merge patch keeps what it does not name, so what is gone is named as null.
    let mut whole = status.clone();
    for (key, _) in service.status.as_object().into_iter().flatten() {
        if status.get(key).is_none() {
            whole[key] = Value::Null;
        }
    }
    for key in ["lastFailureInfo"] {
        if !service.status["modelStatus"][key].is_null()
            && status["modelStatus"].get(key).is_none()
            && !status["modelStatus"].is_null()
        {
            whole["modelStatus"][key] = Value::Null;
        }
    }
    let services: Api<InferenceService> = Api::namespaced(client.clone(), namespace);
    let name = service.name_any();
    match services.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": whole}))).await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => {
            Err(Error::kube("write the status of", format!("InferenceService {namespace}/{name}"))(error))
        }
    }
}
