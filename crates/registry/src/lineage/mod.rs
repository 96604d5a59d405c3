//! Lineage: which run made what.
//!
//! * [`run_of_uri`] finds the run that an artifact's URI names, so that a model version knows its run from its source.
//! * [`recorder`] watches Workflows and writes what their status says; deriving it again changes nothing.

pub mod derive;
pub mod recorder;
mod write;

use sqlx::Row;

use crate::db::sql;
use crate::error::{Doing, Result};
use crate::http::{experiments, runs};
use crate::{Context, now_ms};

/// MLflow's form of a Kubernetes or KFP id: 32 hex digits, no dashes. Ids that are no UUIDs stay as they are.
#[must_use]
pub fn run_id_of(id: &str) -> String {
    uuid::Uuid::parse_str(id).map_or_else(|_| id.to_owned(), |uuid| uuid.simple().to_string())
}

/// The pipeline and the run that an artifact URI names: KFP's keys are `…/<pipeline>/<run id>/<task>/…`.
fn pipeline_and_run(uri: &str) -> Option<(String, String)> {
    let (_, path) = uri.split_once("://")?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let is_run_id = |part: &&str| part.len() >= 32 && uuid::Uuid::try_parse(part).is_ok();
    let at = parts.iter().position(is_run_id)?;
    // The part before the id is the pipeline, unless that is the bucket itself.
    let pipeline = if at >= 2 { parts[at - 1] } else { "Default" };
    Some((pipeline.to_owned(), run_id_of(parts[at])))
}

/// The id of the run that made the artifact at `uri`, its row made when it is not there yet.
///
/// Artifacts recorded from a Workflow's status are known by their exact URI or a folder above it; else the run's id in
/// the URI itself tells.
pub(crate) async fn run_of_uri(context: &Context, uri: &str) -> Result<Option<String>> {
    let rows = sql!(
        "SELECT t.parent_run_id FROM ml_task_artifacts a JOIN ml_tasks t ON t.workflow_uid = a.workflow_uid AND \
         t.node_id = a.node_id AND t.attempt = a.attempt WHERE a.namespace = ? AND a.uri = ? AND a.direction = 'OUTPUT'",
        &context.namespace,
        uri
    )
    .rows(context.db().read(), "look for the artifact's run")
    .await?;
    if let Some(row) = rows.first() {
        return Ok(Some(row.get(0)));
    }
    let Some((pipeline, run_id)) = pipeline_and_run(uri) else { return Ok(None) };
    let experiment_id = experiments::ensure(context, &pipeline).await?;
    let mut tx = context.db().begin().await?;
    let found = sql!("SELECT namespace FROM ml_runs WHERE run_id = ?", &run_id)
        .rows(&mut *tx, "look for the run")
        .await?;
    if let Some(row) = found.first() {
        // A run of another tenant is none of the caller's business.
        return Ok((row.get::<String, _>(0) == context.namespace).then_some(run_id));
    }
    let run = runs::NewRun {
        name: format!("{pipeline}-{}", &run_id[..5]),
        run_id: run_id.clone(),
        experiment_id,
        user_id: context.owner.clone(),
        status: "RUNNING",
        start_time: Some(now_ms()),
        tags: Vec::new(),
    };
    runs::insert(context, &mut tx, &run).await?;
    tx.commit().await.doing("create the pipeline's run")?;
    Ok(Some(run_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_is_read_from_the_artifacts_uri() {
        let id = "0b5d4e1c-7c1f-4f8e-9d5e-111122223333";
        let table = [
            (format!("minio://mlpipeline/v2/artifacts/default/iris/{id}/train/model"), Some("iris")),
            (format!("minio://mlpipeline/default/iris/{id}/x"), Some("iris")),
            (format!("minio://{id}/x"), Some("Default")),
            ("s3://bucket/models/iris".to_owned(), None),
            ("dummy".to_owned(), None),
        ];
        for (uri, pipeline) in table {
            let expected = pipeline.map(|name| (name.to_owned(), id.replace('-', "")));
            assert_eq!(pipeline_and_run(&uri), expected, "{uri}");
        }
    }

    #[test]
    fn a_uuid_loses_its_dashes_and_other_ids_stay() {
        assert_eq!(run_id_of("0B5D4E1C-7C1F-4F8E-9D5E-111122223333"), "0b5d4e1c7c1f4f8e9d5e111122223333");
        assert_eq!(run_id_of("run-1"), "run-1");
    }
}
