//! Datasets and models that a run used or made.

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::Transaction;
use sqlx::any::Any;

use super::runs::require_active;
use crate::Context;
use crate::args::Args;
use crate::db::sql;
use crate::error::{Doing, Result};
use crate::validate;

/// The tag of an input that says what the dataset was used for.
const CONTEXT_TAG: &str = "mlflow.data.context";

pub(super) async fn log_inputs(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    for input in args.objects("datasets")? {
        write_dataset(&context, &mut tx, &run_id, &input).await?;
    }
    for model in args.objects("models")? {
        write_model(&context, &mut tx, &run_id, "INPUT", &model.text("model_id")?, 0).await?;
    }
    tx.commit().await.doing("log the inputs")?;
    Ok(json!({}))
}

async fn write_dataset(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
    input: &Args,
) -> Result<()> {
    let dataset = input.object("dataset")?;
    let tags = input.pairs("tags")?;
    let used_for =
        tags.iter().find(|(key, _)| key == CONTEXT_TAG).map(|(_, value)| value.clone()).unwrap_or_default();
    let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    sql!(
        "INSERT INTO ml_run_datasets (run_id, name, digest, source_type, source, schema, profile, tags, context, namespace, \
         owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        run_id,
        dataset.text("name")?,
        dataset.text("digest")?,
        dataset.text_or_empty("source_type")?,
        dataset.text_or_empty("source")?,
        dataset.text_or_empty("schema")?,
        dataset.text_or_empty("profile")?,
        json!(tags).to_string(),
        used_for,
        &context.namespace,
        &context.owner
    )
    .run(&mut **tx, "log the dataset")
    .await?;
    Ok(())
}

/// Says that a run used (`INPUT`) or made (`OUTPUT`) a logged model.
pub(super) async fn write_model(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
    direction: &str,
    model_id: &str,
    step: i64,
) -> Result<()> {
    sql!(
        "INSERT INTO ml_run_models (run_id, direction, model_id, step, namespace, owner) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
        run_id,
        direction,
        model_id,
        step,
        &context.namespace,
        &context.owner
    )
    .run(&mut **tx, "log the model of the run")
    .await?;
    Ok(())
}

pub(super) async fn log_outputs(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    for model in args.objects("models")? {
        let step = model.int_opt("step")?.unwrap_or(0);
        write_model(&context, &mut tx, &run_id, "OUTPUT", &model.text("model_id")?, step).await?;
    }
    tx.commit().await.doing("log the outputs")?;
    Ok(json!({}))
}

/// Which datasets the runs of some experiments used.
pub(super) async fn search(context: Context, args: Args) -> Result<Value> {
    let ids = args
        .texts("experiment_ids")?
        .iter()
        .map(|id| validate::experiment_id(id))
        .collect::<Result<Vec<_>>>()?;
    let mut sql = sql!(
        "SELECT DISTINCT r.experiment_id, d.name, d.digest, d.context FROM ml_run_datasets d \
         JOIN ml_runs r ON r.run_id = d.run_id WHERE r.namespace = ? AND r.experiment_id IN ",
        &context.namespace
    );
    sql.bind_list(ids).push(" ORDER BY d.name, d.digest LIMIT 1000");
    let rows = sql.rows(context.db().read(), "search datasets").await?;
    let summaries: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "experiment_id": row.get::<i64, _>(0).to_string(),
                "name": row.get::<String, _>(1),
                "digest": row.get::<String, _>(2),
                "context": row.get::<String, _>(3),
            })
        })
        .collect();
    Ok(json!({"dataset_summaries": summaries}))
}
