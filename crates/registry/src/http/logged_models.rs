//! Logged models: what MLflow 3 makes of each `log_model`, before and beside the registry.

use serde_json::{Value, json};
use sqlx::any::{Any, AnyRow};
use sqlx::{Row, Transaction};

use super::metrics::shown;
use super::runs::list_below;
use crate::args::Args;
use crate::db::{Sql, sql};
use crate::error::{Doing, Error, Result};
use crate::filter::sql::{Child, Kind, Schema, number, text};
use crate::filter::{Entity, parse, parse_order};
use crate::page::Page;
use crate::{Context, now_ms, validate};

const STATUSES: [&str; 5] = [
    "LOGGED_MODEL_STATUS_UNSPECIFIED",
    "LOGGED_MODEL_PENDING",
    "LOGGED_MODEL_READY",
    "LOGGED_MODEL_UPLOAD_FAILED",
    "LOGGED_MODEL_ABORTED",
];

const SCHEMA: Schema = Schema {
    attributes: &[
        text(&["name"], "m.name"),
        text(&["model_id"], "m.model_id"),
        text(&["model_type"], "m.model_type"),
        text(&["status"], "m.status"),
        text(&["source_run_id"], "m.source_run_id"),
        number(&["creation_timestamp", "creation_time"], "m.creation_time"),
        number(&["last_updated_timestamp", "last_updated_time"], "m.last_update_time"),
    ],
    children: &[
        Child {
            entity: Entity::Metric,
            table: "ml_logged_model_metrics",
            on: "c.model_id = m.model_id",
            kind: Kind::Number,
        },
        Child {
            entity: Entity::Param,
            table: "ml_logged_model_params",
            on: "c.model_id = m.model_id",
            kind: Kind::Text,
        },
        Child {
            entity: Entity::Tag,
            table: "ml_logged_model_tags",
            on: "c.model_id = m.model_id",
            kind: Kind::Text,
        },
    ],
    datasets: None,
};

pub(super) async fn create(context: Context, args: Args) -> Result<Value> {
    let experiment_id = validate::experiment_id(&args.text("experiment_id")?)?;
    let experiment = super::experiments::load(&context, experiment_id).await?;
    let model_id = format!("m-{}", uuid::Uuid::new_v4().simple());
    let name = args.text_opt("name")?.filter(|name| !name.is_empty()).unwrap_or_else(|| model_id.clone());
    validate::logged_model_name(&name)?;
    let root = experiment["artifact_location"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    let now = now_ms();
    let mut tx = context.db().begin().await?;
    sql!(
        "INSERT INTO ml_logged_models (model_id, namespace, owner, experiment_id, name, artifact_uri, status, \
         status_message, model_type, source_run_id, lifecycle_stage, creation_time, last_update_time) \
         VALUES (?, ?, ?, ?, ?, ?, 'LOGGED_MODEL_PENDING', '', ?, ?, 'active', ?, ?)",
        &model_id,
        &context.namespace,
        &context.owner,
        experiment_id,
        &name,
        format!("{root}/models/{model_id}/artifacts"),
        args.text_or_empty("model_type")?,
        args.text_or_empty("source_run_id")?,
        now,
        now
    )
    .run(&mut *tx, "create the logged model")
    .await?;
    put_params(&context, &mut tx, &model_id, &args.pairs("params")?).await?;
    put_tags(&context, &mut tx, &model_id, &args.pairs("tags")?).await?;
    tx.commit().await.doing("create the logged model")?;
    Ok(json!({"model": load(&context, &model_id).await?}))
}

/// Row of an active logged model of this tenant.
pub(super) async fn row(context: &Context, model_id: &str) -> Result<AnyRow> {
    let mut rows = sql!(
        "SELECT * FROM ml_logged_models WHERE model_id = ? AND namespace = ? AND lifecycle_stage = 'active'",
        model_id,
        &context.namespace
    )
    .rows(context.db().read(), "read the logged model")
    .await?;
    rows.pop().ok_or_else(|| Error::NotFound(format!("Logged model with ID '{model_id}' not found.")))
}

async fn load(context: &Context, model_id: &str) -> Result<Value> {
    let row = row(context, model_id).await?;
    let model = complete(context, std::slice::from_ref(&row)).await?.pop();
    model.ok_or_else(|| Error::NotFound(format!("Logged model with ID '{model_id}' not found.")))
}

async fn complete(context: &Context, rows: &[AnyRow]) -> Result<Vec<Value>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = rows.iter().map(|row| row.get("model_id")).collect();
    let mut children = Vec::new();
    for table in ["ml_logged_model_tags", "ml_logged_model_params", "ml_logged_model_metrics"] {
        let mut sql = Sql::new("SELECT * FROM ");
        sql.push(table).push(" WHERE model_id IN ").bind_list(&ids);
        children.push(sql.rows(context.db().read(), "read what belongs to the logged models").await?);
    }
    let of = |table: usize, id: &str, shape: fn(&AnyRow) -> Value| -> Vec<Value> {
        children[table].iter().filter(|row| row.get::<String, _>("model_id") == id).map(shape).collect()
    };
    let models = rows.iter().map(|row| {
        let id: String = row.get("model_id");
        json!({
            "info": info(row, of(0, &id, pair)),
            "data": {"params": of(1, &id, pair), "metrics": of(2, &id, metric)},
        })
    });
    Ok(models.collect())
}

fn info(row: &AnyRow, tags: Vec<Value>) -> Value {
    json!({
        "model_id": row.get::<String, _>("model_id"),
        "experiment_id": row.get::<i64, _>("experiment_id").to_string(),
        "name": row.get::<String, _>("name"),
        "creation_timestamp_ms": row.get::<i64, _>("creation_time"),
        "last_updated_timestamp_ms": row.get::<i64, _>("last_update_time"),
        "artifact_uri": row.get::<String, _>("artifact_uri"),
        "status": row.get::<String, _>("status"),
        "status_message": row.get::<String, _>("status_message"),
        "model_type": row.get::<String, _>("model_type"),
        "source_run_id": row.get::<String, _>("source_run_id"),
        "tags": tags,
    })
}

fn pair(row: &AnyRow) -> Value {
    json!({"key": row.get::<String, _>("key"), "value": row.get::<String, _>("value")})
}

fn metric(row: &AnyRow) -> Value {
    json!({
        "key": row.get::<String, _>("key"),
        "value": shown(row.get("value"), row.get("is_nan")),
        "timestamp": row.get::<i64, _>("timestamp"),
        "step": row.get::<i64, _>("step"),
        "model_id": row.get::<String, _>("model_id"),
        "run_id": row.get::<String, _>("run_id"),
        "dataset_name": row.get::<String, _>("dataset_name"),
        "dataset_digest": row.get::<String, _>("dataset_digest"),
    })
}

pub(super) async fn get(context: Context, args: Args) -> Result<Value> {
    Ok(json!({"model": load(&context, &args.text("model_id")?).await?}))
}

pub(super) async fn finalize(context: Context, args: Args) -> Result<Value> {
    let model_id = args.text("model_id")?;
    let text = args.text("status")?;
    let by_number = text.parse::<usize>().ok().and_then(|number| STATUSES.get(number));
    let status =
        by_number.or_else(|| STATUSES.iter().find(|name| **name == text)).copied().ok_or_else(|| {
            Error::Invalid(format!("Invalid model status: '{text}'. Expected one of {}", STATUSES.join(", ")))
        })?;
    row(&context, &model_id).await?;
    let mut tx = context.db().begin().await?;
    sql!(
        "UPDATE ml_logged_models SET status = ?, last_update_time = ? WHERE model_id = ? AND namespace = ?",
        status,
        now_ms(),
        &model_id,
        &context.namespace
    )
    .run(&mut *tx, "finish the logged model")
    .await?;
    tx.commit().await.doing("finish the logged model")?;
    Ok(json!({"model": load(&context, &model_id).await?}))
}

pub(super) async fn delete(context: Context, args: Args) -> Result<Value> {
    let model_id = args.text("model_id")?;
    row(&context, &model_id).await?;
    let mut tx = context.db().begin().await?;
    sql!(
        "UPDATE ml_logged_models SET lifecycle_stage = 'deleted', last_update_time = ? WHERE model_id = ? AND namespace = ?",
        now_ms(),
        &model_id,
        &context.namespace
    )
    .run(&mut *tx, "delete the logged model")
    .await?;
    tx.commit().await.doing("delete the logged model")?;
    Ok(json!({}))
}

async fn put_tags(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    id: &str,
    tags: &[(String, String)],
) -> Result<()> {
    for (key, value) in tags {
        let value = validate::tag(key, value.clone())?;
        sql!(
            "INSERT INTO ml_logged_model_tags (model_id, key, value, namespace, owner) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value",
            id,
            key,
            value,
            &context.namespace,
            &context.owner
        )
        .run(&mut **tx, "set the tag")
        .await?;
    }
    Ok(())
}

async fn put_params(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    id: &str,
    params: &[(String, String)],
) -> Result<()> {
    for (key, value) in params {
        let value = validate::param(key, value.clone())?;
        sql!(
            "INSERT INTO ml_logged_model_params (model_id, key, value, namespace, owner) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (model_id, key) DO UPDATE SET value = excluded.value",
            id,
            key,
            value,
            &context.namespace,
            &context.owner
        )
        .run(&mut **tx, "log the param")
        .await?;
    }
    Ok(())
}

pub(super) async fn set_tags(context: Context, args: Args) -> Result<Value> {
    let model_id = args.text("model_id")?;
    row(&context, &model_id).await?;
    let mut tx = context.db().begin().await?;
    put_tags(&context, &mut tx, &model_id, &args.pairs("tags")?).await?;
    tx.commit().await.doing("set the tags")?;
    Ok(json!({}))
}

pub(super) async fn delete_tag(context: Context, args: Args) -> Result<Value> {
    let (model_id, key) = (args.text("model_id")?, args.text("tag_key")?);
    row(&context, &model_id).await?;
    let mut tx = context.db().begin().await?;
    let gone = sql!("DELETE FROM ml_logged_model_tags WHERE model_id = ? AND key = ?", &model_id, &key)
        .run(&mut *tx, "delete the tag")
        .await?;
    if gone == 0 {
        return Err(Error::NotFound(format!(
            "No tag with key '{key}' found for model with ID '{model_id}'."
        )));
    }
    tx.commit().await.doing("delete the tag")?;
    Ok(json!({}))
}

pub(super) async fn log_params(context: Context, args: Args) -> Result<Value> {
    let model_id = args.text("model_id")?;
    row(&context, &model_id).await?;
    let mut tx = context.db().begin().await?;
    put_params(&context, &mut tx, &model_id, &args.pairs("params")?).await?;
    tx.commit().await.doing("log the params")?;
    Ok(json!({}))
}

pub(super) async fn list_artifacts(context: Context, args: Args) -> Result<Value> {
    let row = row(&context, &args.text("model_id")?).await?;
    let path = validate::artifact_path(&args.text_or_empty("artifact_directory_path")?)?;
    let root: String = row.get("artifact_uri");
    let files = list_below(&context, &root, &path).await?;
    Ok(json!({"root_uri": root, "files": files}))
}

/// `order_by` here is a list of `{field_name, ascending}`.
pub(super) async fn search(context: Context, args: Args) -> Result<Value> {
    let page = Page::from_args(&args, 50, 50_000)?;
    let ids = args
        .texts("experiment_ids")?
        .iter()
        .map(|id| validate::experiment_id(id))
        .collect::<Result<Vec<_>>>()?;
    let mut sql = sql!(
        "SELECT m.* FROM ml_logged_models m WHERE m.namespace = ? AND m.lifecycle_stage = 'active' AND m.experiment_id IN ",
        &context.namespace
    );
    sql.bind_list(ids);
    SCHEMA.filter(&mut sql, &parse(&args.text_or_empty("filter")?)?)?;
    let mut orders = Vec::new();
    for entry in args.objects("order_by")? {
        let mut order = parse_order(&entry.text("field_name")?)?;
        order.descending = entry.has("ascending") && !entry.flag("ascending")?;
        orders.push(order);
    }
    SCHEMA.order(&mut sql, &orders, "m.creation_time DESC, m.model_id ASC")?;
    page.append(&mut sql);
    let rows = sql.rows(context.db().read(), "search logged models").await?;
    Ok(page.answer("models", complete(&context, &rows).await?))
}
