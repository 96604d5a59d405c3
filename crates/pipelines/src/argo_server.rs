//! The part of Argo's REST API that scripts and Hera use: workflows listed, read, created, submitted from a template, stopped, deleted.
//!
//! A thin translation: the objects are Kubernetes', so every call becomes one on the API server and answers with what that
//! said. Not here: the stream of events, logs, archived workflows, and retry and resubmit (the engine has neither yet).

use std::sync::Arc;

use api::workflow::{API_VERSION, Workflow, label};
use axum::extract::{Path, Query, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use bytes::Bytes;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Face;
use crate::error::{Doing, Error, Result};
use crate::wire;

type App = State<Arc<Face>>;

/// Argo's paths below `/api/v1`.
pub(crate) fn router() -> Router<Arc<Face>> {
    let one = get(read).delete(delete);
    Router::new()
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/workflows/{namespace}", get(list).post(create))
        .route("/workflows/{namespace}/submit", axum::routing::post(submit))
        .route("/workflows/{namespace}/{name}", one)
        .route("/workflows/{namespace}/{name}/{verb}", put(act))
}

async fn version() -> Json<Value> {
    // Clients compare it with their own: the version whose behaviour the engine follows.
    Json(json!({ "version": "v4.1.2", "platform": "slipway" }))
}

async fn info() -> Json<Value> {
    Json(json!({}))
}

/// Untyped: what the user wrote comes back as it was.
fn workflows(face: &Face, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(face.client.clone(), namespace, &ApiResource::erase::<Workflow>(&()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListQuery {
    #[serde(rename = "listOptions.labelSelector")]
    labels: String,
    #[serde(rename = "listOptions.fieldSelector")]
    fields: String,
    #[serde(rename = "listOptions.limit")]
    limit: Option<u32>,
    #[serde(rename = "listOptions.continue")]
    next: String,
}

async fn list(
    State(face): App,
    Path(namespace): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>> {
    let mut params = ListParams::default().labels(&query.labels).fields(&query.fields);
    params.limit = query.limit.filter(|limit| *limit > 0);
    params.continue_token = Some(query.next).filter(|next| !next.is_empty());
    let found = workflows(&face, &namespace).list(&params).await.doing("list the workflows")?;
    let metadata = serde_json::to_value(&found.metadata).unwrap_or_default();
    // Argo says null for an empty list.
    let items = if found.items.is_empty() { Value::Null } else { json!(found.items) };
    Ok(Json(
        json!({ "apiVersion": API_VERSION, "kind": "WorkflowList", "metadata": metadata, "items": items }),
    ))
}

async fn read(State(face): App, Path((namespace, name)): Path<(String, String)>) -> Result<Json<Value>> {
    let found = workflows(&face, &namespace).get(&name).await.doing("read the workflow")?;
    Ok(Json(json!(found)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CreateRequest {
    workflow: Value,
    server_dry_run: bool,
}

async fn create(State(face): App, Path(namespace): Path<String>, body: Bytes) -> Result<Json<Value>> {
    let request: CreateRequest = wire::read(&body)?;
    if !request.workflow.is_object() {
        return Err(Error::Invalid("workflow: an object was expected".to_owned()));
    }
    make(&face, &namespace, request.workflow, request.server_dry_run).await
}

async fn make(face: &Face, namespace: &str, mut workflow: Value, dry_run: bool) -> Result<Json<Value>> {
    workflow["apiVersion"] = API_VERSION.into();
    workflow["kind"] = "Workflow".into();
    workflow["metadata"]["namespace"] = namespace.into();
    let object: DynamicObject =
        serde_json::from_value(workflow).map_err(|e| Error::Invalid(format!("workflow: {e}")))?;
    let params = PostParams { dry_run, ..PostParams::default() };
    let created = workflows(face, namespace).create(&params, &object).await.doing("create the workflow")?;
    Ok(Json(json!(created)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SubmitRequest {
    resource_kind: String,
    resource_name: String,
    submit_options: SubmitOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SubmitOptions {
    name: String,
    generate_name: String,
    #[serde(alias = "entrypoint")]
    entry_point: String,
    parameters: Vec<String>,
    service_account: String,
    labels: String,
    dry_run: bool,
    server_dry_run: bool,
}

async fn submit(State(face): App, Path(namespace): Path<String>, body: Bytes) -> Result<Json<Value>> {
    let request: SubmitRequest = wire::read(&body)?;
    let dry_run = request.submit_options.dry_run || request.submit_options.server_dry_run;
    make(&face, &namespace, submitted(&request)?, dry_run).await
}

/// The Workflow that a submission stands for.
fn submitted(request: &SubmitRequest) -> Result<Value> {
    let kind = request.resource_kind.to_ascii_lowercase();
    let cluster_scope = match kind.as_str() {
        "workflowtemplate" | "workflowtemplates" | "wftmpl" => false,
        "clusterworkflowtemplate" | "clusterworkflowtemplates" | "cwft" => true,
        "cronworkflow" | "cronworkflows" | "cronwf" => {
            return Err(Error::NotYet("submitting a CronWorkflow"));
        }
        other => {
            return Err(Error::Invalid(format!(
                "resourceKind `{other}`: WorkflowTemplate or ClusterWorkflowTemplate was expected"
            )));
        }
    };
    let options = &request.submit_options;
    let mut workflow = json!({
        "metadata": {},
        "spec": { "workflowTemplateRef": { "name": request.resource_name } },
    });
    if cluster_scope {
        workflow["spec"]["workflowTemplateRef"]["clusterScope"] = true.into();
    }
    if options.name.is_empty() {
        let prefix = Some(options.generate_name.clone()).filter(|given| !given.is_empty());
        workflow["metadata"]["generateName"] =
            prefix.unwrap_or_else(|| format!("{}-", request.resource_name)).into();
    } else {
        workflow["metadata"]["name"] = options.name.as_str().into();
    }
    let template_label =
        if cluster_scope { label::CLUSTER_WORKFLOW_TEMPLATE } else { label::WORKFLOW_TEMPLATE };
    let mut labels = pairs(options.labels.split(',').filter(|pair| !pair.is_empty()), "labels")?;
    labels.push((template_label.to_owned(), request.resource_name.clone()));
    workflow["metadata"]["labels"] =
        labels.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    if !options.entry_point.is_empty() {
        workflow["spec"]["entrypoint"] = options.entry_point.as_str().into();
    }
    if !options.service_account.is_empty() {
        workflow["spec"]["serviceAccountName"] = options.service_account.as_str().into();
    }
    let parameters = pairs(options.parameters.iter().map(String::as_str), "parameters")?;
    if !parameters.is_empty() {
        let parameters = parameters.into_iter().map(|(name, value)| json!({ "name": name, "value": value }));
        workflow["spec"]["arguments"] = json!({ "parameters": parameters.collect::<Vec<_>>() });
    }
    Ok(workflow)
}

fn pairs<'a>(texts: impl Iterator<Item = &'a str>, field: &str) -> Result<Vec<(String, String)>> {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::Invalid(format!("submitOptions.{field} `{text}`: key=value was expected"))),
    };
    texts.map(pair).collect()
}

/// `PUT …/{name}/suspend|resume|stop|terminate`: switches in the spec that the controller watches.
async fn act(
    State(face): App,
    Path((namespace, name, verb)): Path<(String, String, String)>,
) -> Result<Json<Value>> {
    let spec = match verb.as_str() {
        "suspend" => json!({ "suspend": true }),
        "resume" => json!({ "suspend": null }),
        "stop" => json!({ "shutdown": "Stop" }),
        "terminate" => json!({ "shutdown": "Terminate" }),
        "retry" => return Err(Error::NotYet("retrying a workflow")),
        "resubmit" => return Err(Error::NotYet("resubmitting a workflow")),
        "set" => return Err(Error::NotYet("setting a suspended node's outputs")),
        _ => return Err(Error::NotFound { what: "call", id: verb }),
    };
    let patch = Patch::Merge(json!({ "spec": spec }));
    let patched = workflows(&face, &namespace).patch(&name, &PatchParams::default(), &patch).await;
    Ok(Json(json!(patched.doing("change the workflow")?)))
}

async fn delete(State(face): App, Path((namespace, name)): Path<(String, String)>) -> Result<Json<Value>> {
    workflows(&face, &namespace)
        .delete(&name, &DeleteParams::background())
        .await
        .doing("delete the workflow")?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_is_a_workflow_that_refers_to_its_template() {
        let request: SubmitRequest = wire::read(
            br#"{"resourceKind":"WorkflowTemplate","resourceName":"train","submitOptions":{"parameters":["a=1=2"],"labels":"x=y"}}"#,
        )
        .unwrap();
        let workflow = submitted(&request).unwrap();
        assert_eq!(workflow["metadata"]["generateName"], "train-");
        assert_eq!(workflow["metadata"]["labels"]["x"], "y");
        assert_eq!(workflow["metadata"]["labels"][label::WORKFLOW_TEMPLATE], "train");
        assert_eq!(workflow["spec"]["workflowTemplateRef"], json!({"name": "train"}));
        assert_eq!(workflow["spec"]["arguments"]["parameters"][0], json!({"name": "a", "value": "1=2"}));
        let bad = SubmitRequest { resource_kind: "Pod".into(), ..SubmitRequest::default() };
        assert!(submitted(&bad).is_err());
    }
}
