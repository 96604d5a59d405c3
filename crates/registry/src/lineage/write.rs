//! Writes derived rows: upserts by their keys in one transaction, so that writing twice changes nothing.

use sqlx::Transaction;
use sqlx::any::Any;

use super::derive::{RunRecord, TaskRecord};
use crate::db::sql;
use crate::error::{Doing, Result};
use crate::http::metrics::{self, Metric};
use crate::http::{experiments, runs};
use crate::{Context, validate};

/// Writes all rows of a Workflow.
pub(super) async fn write(context: &Context, record: &RunRecord) -> Result<()> {
    let experiment_id = experiments::ensure(context, &record.experiment).await?;
    let mut tx = context.db().begin().await?;
    let row = Row {
        run_id: &record.run_id,
        experiment_id,
        name: &record.name,
        status: record.status,
        started: record.started,
        finished: record.finished,
    };
    put_run(context, &mut tx, row, &record.tags, &record.params).await?;
    for task in &record.tasks {
        put_task(context, &mut tx, record, task, experiment_id).await?;
    }
    let all: Vec<Metric> = record.tasks.iter().flat_map(task_metrics).collect();
    metrics::write(context, &mut tx, &record.run_id, &all).await?;
    tx.commit().await.doing("record the workflow")
}

struct Row<'a> {
    run_id: &'a str,
    experiment_id: i64,
    name: &'a str,
    status: &'static str,
    started: Option<i64>,
    finished: Option<i64>,
}

async fn put_run(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    row: Row<'_>,
    tags: &[(String, String)],
    params: &[(String, String)],
) -> Result<()> {
    let run = runs::NewRun {
        run_id: row.run_id.to_owned(),
        experiment_id: row.experiment_id,
        name: row.name.to_owned(),
        user_id: context.owner.clone(),
        status: row.status,
        start_time: row.started,
        tags: tags.iter().map(|(key, value)| (key_text(key), value.clone())).collect(),
    };
    runs::insert(context, tx, &run).await?;
    sql!(
        "UPDATE ml_runs SET experiment_id = ?, name = ?, status = ?, start_time = COALESCE(?, start_time), end_time = ? \
         WHERE run_id = ? AND namespace = ?",
        row.experiment_id,
        row.name,
        row.status,
        row.started,
        row.finished,
        row.run_id,
        &context.namespace
    )
    .run(&mut **tx, "update the recorded run")
    .await?;
    for (key, value) in params {
        let key = key_text(key);
        sql!(
            "INSERT INTO ml_params (run_id, key, value, namespace, owner) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value",
            row.run_id,
            &key,
            validate::param(&key, value.clone())?,
            &context.namespace,
            &context.owner
        )
        .run(&mut **tx, "record the params")
        .await?;
    }
    Ok(())
}

/// Names come from users' pipelines: what MLflow's keys do not allow becomes `_`, rather than losing the row.
fn key_text(name: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | ':' | '/');
    let text: String = name.chars().take(250).map(|c| if allowed(c) { c } else { '_' }).collect();
    if validate::key("Param", &text).is_ok() { text } else { text.replace(['/', '.'], "_") }
}

fn task_metrics(task: &TaskRecord) -> Vec<Metric> {
    let timestamp = task.finished.or(task.started).unwrap_or(0);
    let metric = |(key, value): &(String, f64)| Metric {
        key: key_text(key),
        value: *value,
        timestamp,
        step: 0,
        model_id: String::new(),
        dataset_name: String::new(),
        dataset_digest: String::new(),
    };
    task.metrics.iter().map(metric).collect()
}

fn task_tags(record: &RunRecord, task: &TaskRecord) -> Vec<(String, String)> {
    let mut tags = vec![
        ("mlflow.parentRunId".to_owned(), record.run_id.clone()),
        ("mlflow.source.type".to_owned(), "JOB".to_owned()),
        ("mlflow.source.name".to_owned(), task.template.clone()),
        ("slipway.dev/node-id".to_owned(), task.node_id.clone()),
        ("slipway.dev/attempt".to_owned(), task.attempt.to_string()),
        ("slipway.dev/pod".to_owned(), task.pod.clone()),
        ("slipway.dev/phase".to_owned(), task.phase.clone()),
        ("slipway.dev/cached".to_owned(), task.cached.to_string()),
    ];
    let optional = [
        ("slipway.dev/message", &task.message),
        ("slipway.dev/image", &task.facts.image),
        (super::derive::STAND_IN_ANNOTATION, &task.facts.stand_in),
    ];
    // Once the pod is gone its facts are empty; what was recorded before stays.
    tags.extend(
        optional
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| ((*key).to_owned(), (*value).clone())),
    );
    for artifact in &task.artifacts {
        let side = artifact.direction.to_lowercase();
        tags.push((format!("slipway.dev/{side}-artifact/{}", artifact.name), artifact.uri.clone()));
    }
    tags
}

async fn put_task(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    record: &RunRecord,
    task: &TaskRecord,
    experiment_id: i64,
) -> Result<()> {
    let row = Row {
        run_id: &task.run_id,
        experiment_id,
        name: &task.name,
        status: task.status,
        started: task.started,
        finished: task.finished,
    };
    put_run(context, tx, row, &task_tags(record, task), &task.params).await?;
    metrics::write(context, tx, &task.run_id, &task_metrics(task)).await?;
    sql!(
        "INSERT INTO ml_tasks (workflow_uid, node_id, attempt, namespace, owner, run_id, parent_run_id, name, template, \
         phase, message, pod, image, image_stand_in, started_at, finished_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workflow_uid, node_id, attempt) DO UPDATE SET \
         phase = excluded.phase, message = excluded.message, pod = excluded.pod, \
         image = CASE WHEN excluded.image = '' THEN ml_tasks.image ELSE excluded.image END, \
         image_stand_in = CASE WHEN excluded.image = '' THEN ml_tasks.image_stand_in ELSE excluded.image_stand_in END, \
         started_at = excluded.started_at, finished_at = excluded.finished_at",
        &record.workflow_uid,
        &task.node_id,
        task.attempt,
        &context.namespace,
        &context.owner,
        &task.run_id,
        &record.run_id,
        &task.name,
        &task.template,
        &task.phase,
        &task.message,
        &task.pod,
        &task.facts.image,
        &task.facts.stand_in,
        task.started,
        task.finished
    )
    .run(&mut **tx, "record the task")
    .await?;
    put_artifacts(context, tx, record, task).await
}

async fn put_artifacts(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    record: &RunRecord,
    task: &TaskRecord,
) -> Result<()> {
    for artifact in &task.artifacts {
        sql!(
            "INSERT INTO ml_task_artifacts (workflow_uid, node_id, attempt, direction, name, namespace, owner, run_id, uri) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (workflow_uid, node_id, attempt, direction, name) DO UPDATE SET uri = excluded.uri",
            &record.workflow_uid,
            &task.node_id,
            task.attempt,
            artifact.direction,
            &artifact.name,
            &context.namespace,
            &context.owner,
            &task.run_id,
            &artifact.uri
        )
        .run(&mut **tx, "record the artifact")
        .await?;
        if artifact.direction == "OUTPUT" {
            // A version made before its run was known gets its run now.
            sql!(
                "UPDATE ml_model_versions SET run_id = ? WHERE namespace = ? AND run_id = '' AND source = ?",
                &record.run_id,
                &context.namespace,
                &artifact.uri
            )
            .run(&mut **tx, "link model versions")
            .await?;
        }
    }
    Ok(())
}
