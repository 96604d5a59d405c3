//! Reads runs with all that belongs to them, a page at a time.
//!
//! Each kind of child is one query for the whole page; a query a run is what makes upstream's search slow.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::metrics::shown;
use crate::Context;
use crate::db::Sql;
use crate::error::Result;

/// Runs asked for in one statement; SQLite takes 32,766 values, and short statements stay in its cache.
const CHUNK: usize = 500;

/// The rows of `ml_runs`, in the order of `ids`; ids of other tenants are left out.
pub(crate) async fn rows(context: &Context, ids: &[String]) -> Result<Vec<AnyRow>> {
    let mut found: HashMap<String, AnyRow> = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let mut sql = Sql::new("SELECT * FROM ml_runs WHERE namespace = ");
        sql.bind(context.namespace.as_str()).push(" AND run_id IN ").bind_list(chunk);
        for row in sql.rows(context.db().read(), "read runs").await? {
            found.insert(row.get("run_id"), row);
        }
    }
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

/// One run; an error when it is not there.
pub(crate) async fn load(context: &Context, run_id: &str) -> Result<Value> {
    let rows = rows(context, &[run_id.to_owned()]).await?;
    complete(context, &rows).await?.pop().ok_or_else(|| super::runs::no_run(run_id))
}

/// MLflow's `RunInfo`.
pub(crate) fn run_info(row: &AnyRow) -> Value {
    let id: String = row.get("run_id");
    let mut info = json!({
        "run_uuid": id,
        "run_id": id,
        "experiment_id": row.get::<i64, _>("experiment_id").to_string(),
        "run_name": row.get::<String, _>("name"),
        "user_id": row.get::<String, _>("user_id"),
        "status": row.get::<String, _>("status"),
        "artifact_uri": row.get::<String, _>("artifact_uri"),
        "lifecycle_stage": row.get::<String, _>("lifecycle_stage"),
    });
    for key in ["start_time", "end_time"] {
        if let Some(time) = row.get::<Option<i64>, _>(key) {
            info[key] = json!(time);
        }
    }
    info
}

/// `{info, data, inputs, outputs}` of each row.
pub(crate) async fn complete(context: &Context, rows: &[AnyRow]) -> Result<Vec<Value>> {
    let ids: Vec<String> = rows.iter().map(|row| row.get("run_id")).collect();
    let pair =
        |row: &AnyRow| json!({"key": row.get::<String, _>("key"), "value": row.get::<String, _>("value")});
    let mut metrics = children(context, "SELECT * FROM ml_latest_metrics", &ids, metric).await?;
    let mut params = children(context, "SELECT * FROM ml_params", &ids, pair).await?;
    let mut tags = children(context, "SELECT * FROM ml_tags", &ids, pair).await?;
    let mut datasets = children(context, "SELECT * FROM ml_run_datasets", &ids, dataset).await?;
    let mut models = children(context, "SELECT * FROM ml_run_models", &ids, model).await?;
    let runs = rows.iter().zip(&ids).map(|(row, id)| {
        let (inputs, outputs): (Vec<_>, Vec<_>) =
            models.remove(id).unwrap_or_default().into_iter().partition(|model| model["direction"] == "INPUT");
        json!({
            "info": run_info(row),
            "data": {
                "metrics": metrics.remove(id).unwrap_or_default(),
                "params": params.remove(id).unwrap_or_default(),
                "tags": tags.remove(id).unwrap_or_default(),
            },
            "inputs": {
                "dataset_inputs": datasets.remove(id).unwrap_or_default(),
                "model_inputs": inputs.iter().map(|model| json!({"model_id": model["model_id"]})).collect::<Vec<_>>(),
            },
            "outputs": {
                "model_outputs": outputs
                    .iter()
                    .map(|model| json!({"model_id": model["model_id"], "step": model["step"]}))
                    .collect::<Vec<_>>(),
            },
        })
    });
    Ok(runs.collect())
}

async fn children(
    context: &Context,
    select: &str,
    ids: &[String],
    shape: impl Fn(&AnyRow) -> Value,
) -> Result<HashMap<String, Vec<Value>>> {
    let mut found: HashMap<String, Vec<Value>> = HashMap::new();
    for chunk in ids.chunks(CHUNK) {
        let mut sql = Sql::new(select);
        sql.push(" WHERE run_id IN ").bind_list(chunk);
        for row in sql.rows(context.db().read(), "read what belongs to the runs").await? {
            found.entry(row.get("run_id")).or_default().push(shape(&row));
        }
    }
    Ok(found)
}

fn metric(row: &AnyRow) -> Value {
    json!({
        "key": row.get::<String, _>("key"),
        "value": shown(row.get("value"), row.get("is_nan")),
        "timestamp": row.get::<i64, _>("timestamp"),
        "step": row.get::<i64, _>("step"),
    })
}

fn dataset(row: &AnyRow) -> Value {
    let tags: Value = serde_json::from_str(&row.get::<String, _>("tags")).unwrap_or_else(|_| json!([]));
    json!({
        "tags": tags,
        "dataset": {
            "name": row.get::<String, _>("name"),
            "digest": row.get::<String, _>("digest"),
            "source_type": row.get::<String, _>("source_type"),
            "source": row.get::<String, _>("source"),
            "schema": row.get::<String, _>("schema"),
            "profile": row.get::<String, _>("profile"),
        },
    })
}

fn model(row: &AnyRow) -> Value {
    json!({
        "direction": row.get::<String, _>("direction"),
        "model_id": row.get::<String, _>("model_id"),
        "step": row.get::<i64, _>("step"),
    })
}
