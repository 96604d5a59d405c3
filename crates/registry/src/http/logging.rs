//! What runs log: metrics, params, tags, in ones and in batches. A batch is one transaction: all of it or nothing.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::any::Any;
use sqlx::{Row, Transaction};

use super::metrics::{self, Metric};
use super::runs::{put_tag, require_active};
use crate::Context;
use crate::args::Args;
use crate::db::{Sql, sql};
use crate::error::{Doing, Error, Result};
use crate::validate;

/// Metrics, params, tags of one batch, and all of them together.
const METRICS_MAX: usize = 1000;
const PARAMS_MAX: usize = 100;
const TAGS_MAX: usize = 100;
const ENTITIES_MAX: usize = 1000;

pub(super) async fn log_metric(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let metric = Metric::from_args(&args)?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    metrics::write(&context, &mut tx, &run_id, std::slice::from_ref(&metric)).await?;
    tx.commit().await.doing("log the metric")?;
    Ok(json!({}))
}

pub(super) async fn log_param(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let pair = (args.text("key")?, args.text_or_empty("value")?);
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    write_params(&context, &mut tx, &run_id, vec![pair]).await?;
    tx.commit().await.doing("log the param")?;
    Ok(json!({}))
}

pub(super) async fn log_batch(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let metrics = args.objects("metrics")?;
    let params = args.pairs("params")?;
    let tags = args.pairs("tags")?;
    validate::batch("metrics", METRICS_MAX, metrics.len())?;
    validate::batch("params", PARAMS_MAX, params.len())?;
    validate::batch("tags", TAGS_MAX, tags.len())?;
    validate::batch("metrics, params, and tags", ENTITIES_MAX, metrics.len() + params.len() + tags.len())?;
    let metrics = metrics.iter().map(Metric::from_args).collect::<Result<Vec<_>>>()?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    write_params(&context, &mut tx, &run_id, params).await?;
    metrics::write(&context, &mut tx, &run_id, &metrics).await?;
    for (key, value) in &tags {
        write_tag(&context, &mut tx, &run_id, key, value).await?;
    }
    tx.commit().await.doing("log the batch")?;
    Ok(json!({}))
}

/// Writes params; one that is there already must have the same value.
pub(crate) async fn write_params(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
    params: Vec<(String, String)>,
) -> Result<()> {
    if params.is_empty() {
        return Ok(());
    }
    let mut wanted: HashMap<String, String> = HashMap::with_capacity(params.len());
    for (key, value) in params {
        let value = validate::param(&key, value)?;
        if wanted.get(&key).is_some_and(|other| *other != value) {
            return Err(Error::Invalid(format!(
                "Duplicate parameter keys have been submitted: ['{key}']. Please ensure the request contains only one \
                 param value per param key."
            )));
        }
        wanted.insert(key, value);
    }
    let mut sql = sql!("SELECT key, value FROM ml_params WHERE run_id = ? AND key IN ", run_id);
    sql.bind_list(wanted.keys());
    for row in sql.rows(&mut **tx, "read the params").await? {
        let (key, old): (String, String) = (row.get(0), row.get(1));
        match wanted.remove(&key) {
            Some(new) if new != old => {
                return Err(Error::Invalid(format!(
                    "Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}' \
                     for run ID='{run_id}'. Attempted logging new value '{new}'."
                )));
            }
            _ => {}
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO ml_params (run_id, key, value, namespace, owner) VALUES ");
    for (at, (key, value)) in wanted.iter().enumerate() {
        sql.push(if at == 0 { "(" } else { ", (" }).bind(run_id).push(", ").bind(key).push(", ").bind(value);
        sql.push(", ").bind(&context.namespace).push(", ").bind(&context.owner).push(")");
    }
    sql.push(" ON CONFLICT DO NOTHING");
    sql.run(&mut **tx, "log params").await?;
    Ok(())
}

/// A tag, and the run's name when the tag is the name.
async fn write_tag(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
    key: &str,
    value: &str,
) -> Result<()> {
    if key == "mlflow.runName" {
        sql!("UPDATE ml_runs SET name = ? WHERE run_id = ?", value, run_id)
            .run(&mut **tx, "rename the run")
            .await?;
    }
    put_tag(context, tx, run_id, key, value).await
}

pub(super) async fn set_tag(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    write_tag(&context, &mut tx, &run_id, &args.text("key")?, &args.text_or_empty("value")?).await?;
    tx.commit().await.doing("set the tag")?;
    Ok(json!({}))
}

pub(super) async fn delete_tag(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let key = args.text("key")?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    let gone = sql!("DELETE FROM ml_tags WHERE run_id = ? AND key = ?", &run_id, &key)
        .run(&mut *tx, "delete the tag")
        .await?;
    if gone == 0 {
        return Err(Error::NotFound(format!("No tag with name: {key} in run with id {run_id}")));
    }
    tx.commit().await.doing("delete the tag")?;
    Ok(json!({}))
}

/// MLflow 2's way to say that a run made a model: a list in a tag.
pub(super) async fn log_model(context: Context, args: Args) -> Result<Value> {
    const TAG: &str = "mlflow.log-model.history";
    let run_id = args.run_id()?;
    let text = args.text("model_json")?;
    let model: Value = serde_json::from_str(&text).map_err(|error| {
        Error::Invalid(format!("Malformed model info. 'model_json' is not JSON: {error}"))
    })?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    let rows = sql!("SELECT value FROM ml_tags WHERE run_id = ? AND key = ?", &run_id, TAG)
        .rows(&mut *tx, "read the run's models")
        .await?;
    let old = rows.first().and_then(|row| serde_json::from_str(&row.get::<String, _>(0)).ok());
    let mut history: Vec<Value> = old.unwrap_or_default();
    history.push(model);
    put_tag(&context, &mut tx, &run_id, TAG, &json!(history).to_string()).await?;
    tx.commit().await.doing("log the model")?;
    Ok(json!({}))
}
