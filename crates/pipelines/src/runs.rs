//! Runs: created as Workflows, listed from rows, read from the Workflow while there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::workflow::{KfpRun, RuntimeConfig, Workflow, admission, label};
use axum::Json;
use axum::extract::{Path, Query, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::io::AsyncReadExt;

use crate::error::{Doing, Error, Result};
use crate::list::{self, Kind, ListQuery, Table, Where};
use crate::package::Package;
use crate::{Face, catalog, experiments, row, rows, wire};

const TABLE: Table = Table {
    name: "kfp_runs",
    columns: &[
        ("created_at", "created_at", Kind::Time),
        ("id", "id", Kind::Text),
        ("run_id", "id", Kind::Text),
        ("display_name", "name", Kind::Text),
        ("name", "name", Kind::Text),
        ("namespace", "namespace", Kind::Text),
        ("experiment_id", "experiment_id", Kind::Text),
        ("scheduled_at", "scheduled_at", Kind::Time),
        ("finished_at", "finished_at", Kind::Time),
        ("state", "state", Kind::Text),
        ("status", "state", Kind::Text),
        ("storage_state", "storage_state", Kind::Text),
        ("pipeline_id", "pipeline_id", Kind::Text),
        ("pipeline_version_id", "version_id", Kind::Text),
        ("recurring_run_id", "recurring_run_id", Kind::Text),
    ],
};
/// Largest artifact that `:read` puts into one JSON answer, in bytes.
const READ_BYTES_MAX: u64 = 32 << 20;

type App = State<Arc<Face>>;

/// The fields of a Run message; what only the server sets is taken and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    #[serde(alias = "displayName")]
    display_name: String,
    description: String,
    #[serde(alias = "experimentId")]
    experiment_id: String,
    #[serde(alias = "pipelineSpec")]
    pipeline_spec: Option<Value>,
    #[serde(alias = "pipelineVersionId")]
    pipeline_version_id: String,
    #[serde(alias = "pipelineVersionReference")]
    pipeline_version_reference: Option<Reference>,
    #[serde(alias = "runtimeConfig")]
    runtime_config: Option<Config>,
    #[serde(alias = "serviceAccount")]
    service_account: String,
    #[serde(rename = "plugins_input", alias = "pluginsInput")]
    plugins_input: Option<Map<String, Value>>,
    #[serde(rename = "run_id", alias = "runId")]
    _run_id: Value,
    #[serde(rename = "storage_state", alias = "storageState")]
    _storage_state: Value,
    #[serde(rename = "created_at", alias = "createdAt")]
    _created_at: Value,
    #[serde(rename = "scheduled_at", alias = "scheduledAt")]
    _scheduled_at: Value,
    #[serde(rename = "finished_at", alias = "finishedAt")]
    _finished_at: Value,
    #[serde(rename = "state")]
    _state: Value,
    #[serde(rename = "error")]
    _error: Value,
    #[serde(rename = "run_details", alias = "runDetails")]
    _run_details: Value,
    #[serde(rename = "recurring_run_id", alias = "recurringRunId")]
    _recurring_run_id: Value,
    #[serde(rename = "state_history", alias = "stateHistory")]
    _state_history: Value,
    #[serde(rename = "plugins_output", alias = "pluginsOutput")]
    _plugins_output: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reference {
    #[serde(alias = "pipelineId")]
    pipeline_id: String,
    #[serde(alias = "pipelineVersionId")]
    pipeline_version_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    parameters: Option<Map<String, Value>>,
    #[serde(alias = "pipelineRoot")]
    pipeline_root: Option<String>,
}

/// What to run, and where it came from.
struct Source {
    package: Package,
    pipeline_id: String,
    version_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CreateQuery {
    experiment_id: String,
}

pub(crate) async fn create(
    State(face): App,
    Query(query): Query<CreateQuery>,
    body: Bytes,
) -> Result<Json<Value>> {
    let mut request: Request = wire::read(&body)?;
    if request.display_name.trim().is_empty() {
        return Err(Error::Invalid("display_name: the run's name was expected".to_owned()));
    }
    if request.plugins_input.take().is_some_and(|plugins| !plugins.is_empty()) {
        return Err(Error::NotYet("plugins_input"));
    }
    if request.experiment_id.is_empty() {
        request.experiment_id = query.experiment_id;
    }
    let source = source(&face, &request).await?;
    let (experiment, namespace) = experiment(&face, &request.experiment_id).await?;
    let workflow = workflow(&request, source, experiment, &namespace)?;
    let api = Api::<Workflow>::namespaced(face.client.clone(), &namespace);
    let created = api.create(&PostParams::default(), &workflow).await.doing("create the run's Workflow")?;
    // A crash before this line loses nothing: the watch finds the Workflow.
    let derived = row::derive(&created).ok_or_else(|| Error::Invalid("the Workflow is no run".to_owned()))?;
    rows::save(&face.db, &derived).await?;
    let row = rows::find(&face.db, &derived.run.run_id).await?;
    Ok(Json(message(&row, true)?))
}

async fn source(face: &Face, request: &Request) -> Result<Source> {
    let reference = request.pipeline_version_reference.as_ref();
    let pipeline = reference.map_or("", |r| r.pipeline_id.as_str());
    let version = match reference.map_or("", |r| r.pipeline_version_id.as_str()) {
        "" => request.pipeline_version_id.as_str(),
        version => version,
    };
    let referred = !pipeline.is_empty() || !version.is_empty();
    match &request.pipeline_spec {
        Some(_) if referred => {
            let text = "give either pipeline_spec or pipeline_version_reference, not both";
            Err(Error::Invalid(text.to_owned()))
        }
        Some(spec) => Ok(Source {
            package: Package::from_api(spec)?,
            pipeline_id: String::new(),
            version_id: String::new(),
        }),
        None if referred => {
            let row = match version {
                "" => catalog::newest_version(face, pipeline).await?,
                version => catalog::find_version(face, pipeline, version).await?,
            };
            let text = |name| row.try_get::<String, _>(name).doing("read a pipeline version");
            let spec = wire::stored("pipeline_spec", &text("spec")?)?;
            Ok(Source {
                package: Package::from_api(&spec)?,
                pipeline_id: text("pipeline_id")?,
                version_id: text("id")?,
            })
        }
        None => Err(Error::Invalid("pipeline_spec or pipeline_version_reference was expected".to_owned())),
    }
}

/// The experiment's id and the namespace that its runs live in.
async fn experiment(face: &Face, id: &str) -> Result<(String, String)> {
    let id = if id.is_empty() { experiments::ensure_default(face).await? } else { id.to_owned() };
    let row = experiments::find(face, &id).await?;
    let text = |name| row.try_get::<String, _>(name).doing("read an experiment");
    if text("storage_state")? == "ARCHIVED" {
        return Err(Error::Precondition(format!("experiment `{id}` is archived")));
    }
    let namespace = Some(text("namespace")?).filter(|namespace| !namespace.is_empty());
    Ok((text("id")?, namespace.unwrap_or_else(|| face.namespace.clone())))
}

/// The Workflow of a new run, checked as admission will check it, so that the error speaks KFP's language.
fn workflow(request: &Request, source: Source, experiment: String, namespace: &str) -> Result<Workflow> {
    let id = uuid::Uuid::new_v4().to_string();
    let created = wire::now();
    let config = request.runtime_config.as_ref();
    let mut parameters = config.and_then(|c| c.parameters.clone()).unwrap_or_default();
    for value in parameters.values_mut() {
        wire::whole_numbers(value);
        expand_macros(value, &id, created);
    }
    let pipeline_name = source.package.name().to_owned();
    let run = KfpRun {
        run_id: id.clone(),
        display_name: request.display_name.clone(),
        pipeline_name: pipeline_name.clone(),
        pipeline_spec: source.package.pipeline_spec,
        platform_spec: source.package.platform_spec,
        runtime_config: RuntimeConfig {
            parameters,
            pipeline_root: config.and_then(|c| c.pipeline_root.clone()).filter(|root| !root.is_empty()),
        },
        created_at: wire::time(created),
        experiment_id: experiment,
        pipeline_id: source.pipeline_id,
        pipeline_version_id: source.version_id,
        ..KfpRun::default()
    };
    let metadata = ObjectMeta {
        name: Some(workflow_name(&pipeline_name, &id)),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(label::RUN_ID.to_owned(), id)])),
        annotations: (!request.description.is_empty())
            .then(|| BTreeMap::from([(row::DESCRIPTION.to_owned(), request.description.clone())])),
        ..ObjectMeta::default()
    };
    let mut workflow = Workflow::for_run(metadata, &run);
    if !request.service_account.is_empty() {
        workflow.spec["serviceAccountName"] = request.service_account.clone().into();
    }
    admission::check_workflow_spec(&workflow.spec, "run")
        .map_err(|problems| Error::Invalid(problems.to_string()))?;
    Ok(workflow)
}

/// `<pipeline>-<eight digits of the run id>`, short enough for pod names and labels.
fn workflow_name(pipeline: &str, run_id: &str) -> String {
    let stem: String = pipeline.chars().take(40).collect();
    format!("{}-{}", stem.trim_end_matches('-'), &run_id[..8])
}

/// KFP's macros in text parameters: `[[RunUUID]]`, `[[CurrentTime]]`, `[[ScheduledTime]]`, `[[Index]]`.
fn expand_macros(value: &mut Value, run_id: &str, now: i64) {
    let Value::String(text) = value else { return };
    if text.contains("[[") {
        let time =
            jiff::Timestamp::from_microsecond(now).unwrap_or_default().strftime("%Y%m%d%H%M%S").to_string();
        *text = text
            .replace("[[RunUUID]]", run_id)
            .replace("[[CurrentTime]]", &time)
            .replace("[[ScheduledTime]]", &time)
            .replace("[[Index]]", "1");
    }
}

pub(crate) async fn list(State(face): App, Query(query): Query<ListQuery>) -> Result<Json<Value>> {
    let mut fixed = Where::default();
    fixed.and("storage_state", "<>", rows::DELETED);
    if !query.experiment_id.is_empty() {
        fixed.and("experiment_id", "=", query.experiment_id.as_str());
    }
    if !query.namespace.is_empty() {
        fixed.and("namespace", "=", query.namespace.as_str());
    }
    let page = list::page(&face.db, &TABLE, &query, fixed).await?;
    let runs = page.rows.iter().map(|row| message(row, false)).collect::<Result<Vec<_>>>()?;
    Ok(Json(wire::without_zeros(
        json!({ "runs": runs, "total_size": page.total, "next_page_token": page.next }),
    )))
}

pub(crate) async fn get(State(face): App, Path(id): Path<String>) -> Result<Json<Value>> {
    let id = wire::id("run", &id)?;
    refresh(&face, &id).await?;
    Ok(Json(message(&rows::find(&face.db, &id).await?, true)?))
}

/// Brings the row up to the Workflow's present state, so that a reader never sees an older one than the cluster's.
async fn refresh(face: &Face, id: &str) -> Result<()> {
    let row = rows::find(&face.db, id).await?;
    let text = |name| row.try_get::<String, _>(name).doing("read a run");
    if row::is_final(&text("state")?) {
        return Ok(());
    }
    let api = Api::<Workflow>::namespaced(face.client.clone(), &text("namespace")?);
    let found = api.get_opt(&text("workflow")?).await.doing("read the run's Workflow")?;
    match found.as_ref().and_then(row::derive).filter(|derived| derived.run.run_id == id) {
        Some(derived) => rows::save(&face.db, &derived).await.map(|_| ()),
        None => rows::lost(&face.db, id).await,
    }
}

/// `POST /runs/{id}:archive|:unarchive|:terminate|:retry`.
pub(crate) async fn act(State(face): App, Path(id_and_verb): Path<String>) -> Result<Json<Value>> {
    let (id, verb) = id_and_verb.split_once(':').unwrap_or((&id_and_verb, ""));
    let id = wire::id("run", id)?;
    match verb {
        "archive" => rows::set_storage_state(&face.db, &id, "ARCHIVED").await?,
        "unarchive" => rows::set_storage_state(&face.db, &id, "AVAILABLE").await?,
        "terminate" => terminate(&face, &id).await?,
        "retry" => return Err(Error::NotYet("retrying a run")),
        _ => return Err(Error::NotFound { what: "call", id: format!("runs:{verb}") }),
    }
    Ok(Json(json!({})))
}

async fn terminate(face: &Face, id: &str) -> Result<()> {
    refresh(face, id).await?;
    let row = rows::find(&face.db, id).await?;
    let text = |name| row.try_get::<String, _>(name).doing("read a run");
    let state = text("state")?;
    if row::is_final(&state) {
        return Err(Error::Precondition(format!("run `{id}` has ended: {state}")));
    }
    let api = Api::<Workflow>::namespaced(face.client.clone(), &text("namespace")?);
    // The uid makes the patch fail on another Workflow of the same name.
    let patch = json!({ "metadata": { "uid": text("workflow_uid")? }, "spec": { "shutdown": "Terminate" } });
    let patched = api.patch(&text("workflow")?, &PatchParams::default(), &Patch::Merge(&patch)).await;
    let patched = patched.doing("terminate the run's Workflow")?;
    if let Some(derived) = row::derive(&patched) {
        rows::save(&face.db, &derived).await?;
    }
    Ok(())
}

pub(crate) async fn delete(State(face): App, Path(id): Path<String>) -> Result<Json<Value>> {
    let id = wire::id("run", &id)?;
    let row = rows::find(&face.db, &id).await?;
    let text = |name| row.try_get::<String, _>(name).doing("read a run");
    // First the durable word that it is deleted, then the Workflow: a crash between them shows no run that comes back.
    rows::hide(&face.db, &id).await?;
    let api = Api::<Workflow>::namespaced(face.client.clone(), &text("namespace")?);
    let uid = Some(text("workflow_uid")?);
    let params =
        DeleteParams::background().preconditions(kube::api::Preconditions { uid, resource_version: None });
    match api.delete(&text("workflow")?, &params).await {
        Ok(_) => {}
        // Gone, or another one of that name. The row stays hidden: events from before may still be on their way.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => {
            rows::unhide(&face.db, &id).await?;
            return Err(error).doing("delete the run's Workflow");
        }
    }
    Ok(Json(json!({})))
}

/// `GET /runs/{run}/nodes/{node}/artifacts/{name}:read`.
pub(crate) async fn read_artifact(
    State(face): App,
    Path((run, node, name)): Path<(String, String, String)>,
) -> Result<Json<Value>> {
    let Some(name) = name.strip_suffix(":read") else {
        return Err(Error::NotFound { what: "call", id: name });
    };
    let run = wire::id("run", &run)?;
    let row = rows::find(&face.db, &run).await?;
    let text = |name| row.try_get::<String, _>(name).doing("read a run");
    let api = Api::<Workflow>::namespaced(face.client.clone(), &text("namespace")?);
    let workflow = api.get(&text("workflow")?).await.doing("read the run's Workflow")?;
    let place = crate::argo::place_of(&workflow, &node, name, false)?;
    let (file, meta) = face.artifacts.get(&place).await?;
    if meta.size > READ_BYTES_MAX {
        let text = format!("artifact `{name}` has {} bytes; fetch it from /artifacts/…", meta.size);
        return Err(Error::Precondition(text));
    }
    let mut bytes = Vec::new();
    let read = file.take(READ_BYTES_MAX).read_to_end(&mut bytes).await;
    read.map_err(|e| Error::Invalid(format!("artifact `{name}`: {e}")))?;
    Ok(Json(json!({ "data": STANDARD.encode(bytes) })))
}

/// A Run message. Lists leave the tasks out: 200 runs of 100 tasks are more than a page should weigh.
fn message(row: &AnyRow, with_tasks: bool) -> Result<Value> {
    let text = |name| row.try_get::<String, _>(name).doing("read a run");
    let number = |name| row.try_get::<i64, _>(name).doing("read a run");
    let json_of = |name| wire::stored(name, &text(name)?);
    let finished = match number("finished_at")? {
        // Upstream's word for "not yet".
        0 => "1970-01-01T00:00:00Z".to_owned(),
        at => wire::time(at),
    };
    let error = match text("error")? {
        empty if empty.is_empty() => Value::Null,
        message => json!({ "code": 2, "message": message, "details": [] }),
    };
    let reference = wire::without_zeros(
        json!({ "pipeline_id": text("pipeline_id")?, "pipeline_version_id": text("version_id")? }),
    );
    let details = if with_tasks { json_of("task_details")? } else { Value::Null };
    Ok(wire::without_zeros(json!({
        "experiment_id": text("experiment_id")?,
        "run_id": text("id")?,
        "display_name": text("name")?,
        "storage_state": text("storage_state")?,
        "description": text("description")?,
        "pipeline_spec": json_of("spec")?,
        "pipeline_version_reference": reference,
        "runtime_config": json_of("runtime_config")?,
        "service_account": text("service_account")?,
        "created_at": wire::time(number("created_at")?),
        "scheduled_at": wire::time(number("scheduled_at")?),
        "finished_at": finished,
        "state": text("state")?,
        "error": error,
        "run_details": wire::without_zeros(json!({ "task_details": details })),
        "recurring_run_id": text("recurring_run_id")?,
        "state_history": json_of("state_history")?,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(parameters: Value) -> Result<Workflow> {
        let package = Package::read(crate::package::tests::HELLO.as_bytes(), "hello.yaml").unwrap();
        let parameters = parameters.as_object().cloned();
        let request = Request {
            display_name: "first".into(),
            runtime_config: Some(Config { parameters, pipeline_root: None }),
            ..Request::default()
        };
        let source = Source { package, pipeline_id: String::new(), version_id: String::new() };
        workflow(&request, source, "e".into(), "team")
    }

    #[test]
    fn root_parameters_are_checked_before_anything_is_created() {
        let good = made(json!({"text": "run [[RunUUID]]", "count": 2.0})).unwrap();
        let run = good.kfp().unwrap();
        assert_eq!(run.runtime_config.parameters["text"], format!("run {}", run.run_id));
        assert_eq!(run.runtime_config.parameters["count"], json!(2));
        assert_eq!(good.metadata.labels.unwrap()[label::RUN_ID], run.run_id);
        assert!(good.metadata.name.unwrap().starts_with("hello-"));
        for bad in [
            json!({}),
            json!({"text": 1}),
            json!({"text": "x", "extra": 1}),
            json!({"text": "x", "count": "2"}),
        ] {
            let error = made(bad.clone()).expect_err(&bad.to_string());
            assert!(matches!(error, Error::Invalid(_)), "{error}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_in_both_spellings_of_the_known() {
        for (body, good) in [
            (r#"{"display_name":"x","pipeline_spec":{}}"#, true),
            (r#"{"displayName":"x","runtimeConfig":{"pipelineRoot":"r"},"service_account":null}"#, true),
            (r#"{"display_name":"x","surprise":1}"#, false),
            (r#"{"runtime_config":{"params":{}}}"#, false),
            ("[", false),
        ] {
            assert_eq!(wire::read::<Request>(body.as_bytes()).is_ok(), good, "{body}");
        }
    }
}
