//! Model versions: a source, the run that made it, a stage.
//!
//! A version whose source lies under the artifacts of a pipeline run belongs to that run even when the caller does not
//! say so: the run's id is part of the URI, and its row is made on the spot if the recorder has not been here yet.

use serde_json::{Value, json};
use sqlx::any::{Any, AnyRow};
use sqlx::{Row, Transaction};

use super::{logged_models, models};
use crate::args::Args;
use crate::db::sql;
use crate::error::{Doing, Error, Result};
use crate::{Context, artifacts, lineage, now_ms, validate};

const STAGES: [&str; 4] = ["None", "Staging", "Production", "Archived"];
/// Tag and placeholder of versions that are prompts: they have no artifacts.
const PROMPT_TAG: &str = "mlflow.prompt.is_prompt";

fn no_version(name: &str, version: i64) -> Error {
    Error::NotFound(format!("Model Version (name={name}, version={version}) not found"))
}

/// Refuses unless the version exists.
pub(super) async fn require(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    name: &str,
    version: i64,
) -> Result<()> {
    let changed = sql!(
        "UPDATE ml_model_versions SET last_update_time = ? WHERE namespace = ? AND name = ? AND version = ?",
        now_ms(),
        &context.namespace,
        name,
        version
    )
    .run(&mut **tx, "change the model version")
    .await?;
    if changed == 0 { Err(no_version(name, version)) } else { Ok(()) }
}

/// MLflow's `ModelVersion` of each row.
pub(super) async fn complete(context: &Context, rows: &[AnyRow]) -> Result<Vec<Value>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = rows.iter().map(|row| row.get("name")).collect();
    names.sort_unstable();
    names.dedup();
    let mut tags =
        sql!("SELECT * FROM ml_model_version_tags WHERE namespace = ? AND name IN ", &context.namespace);
    let tags = tags.bind_list(&names).take().rows(context.db().read(), "read the versions' tags").await?;
    let mut aliases = sql!("SELECT * FROM ml_aliases WHERE namespace = ? AND name IN ", &context.namespace);
    let aliases =
        aliases.bind_list(&names).take().rows(context.db().read(), "read the versions' aliases").await?;
    let place = |row: &AnyRow| (row.get::<String, _>("name"), row.get::<i64, _>("version"));
    let versions = rows.iter().map(|row| {
        let mine = place(row);
        let tags: Vec<Value> = tags
            .iter()
            .filter(|tag| place(tag) == mine)
            .map(|tag| json!({"key": tag.get::<String, _>("key"), "value": tag.get::<String, _>("value")}))
            .collect();
        let aliases: Vec<String> =
            aliases.iter().filter(|alias| place(alias) == mine).map(|alias| alias.get("alias")).collect();
        json!({
            "name": mine.0,
            "version": mine.1.to_string(),
            "creation_timestamp": row.get::<i64, _>("creation_time"),
            "last_updated_timestamp": row.get::<i64, _>("last_update_time"),
            "user_id": row.get::<String, _>("user_id"),
            "current_stage": row.get::<String, _>("current_stage"),
            "description": row.get::<String, _>("description"),
            "source": row.get::<String, _>("source"),
            "run_id": row.get::<String, _>("run_id"),
            "run_link": row.get::<String, _>("run_link"),
            "model_id": row.get::<String, _>("model_id"),
            "status": row.get::<String, _>("status"),
            "tags": tags,
            "aliases": aliases,
            "workspace": context.namespace,
        })
    });
    Ok(versions.collect())
}

async fn row(context: &Context, name: &str, version: i64) -> Result<AnyRow> {
    let mut rows = sql!(
        "SELECT * FROM ml_model_versions WHERE namespace = ? AND name = ? AND version = ?",
        &context.namespace,
        name,
        version
    )
    .rows(context.db().read(), "read the model version")
    .await?;
    rows.pop().ok_or_else(|| no_version(name, version))
}

/// One version; an error when it is not there.
pub(super) async fn load(context: &Context, name: &str, version: i64) -> Result<Value> {
    let row = row(context, name, version).await?;
    complete(context, std::slice::from_ref(&row)).await?.pop().ok_or_else(|| no_version(name, version))
}

/// Where a version comes from, once its source is judged.
struct Origin {
    storage: String,
    run_id: String,
    model_id: String,
}

async fn origin(context: &Context, source: &str, run_id: String, model_id: String) -> Result<Origin> {
    validate::model_source(source)?;
    let refuse = |field: &str| {
        Error::Invalid(format!(
            "Invalid model version source: '{source}'. It has to lie within the artifacts of what '{field}' names."
        ))
    };
    if let Some(id) =
        source.strip_prefix("models:/").filter(|rest| rest.starts_with("m-") && !rest.contains('/'))
    {
        if !model_id.is_empty() && model_id != id {
            return Err(refuse("model_id"));
        }
        let row = logged_models::row(context, id).await?;
        let run_id = if run_id.is_empty() { row.get("source_run_id") } else { run_id };
        return Ok(Origin { storage: row.get("artifact_uri"), run_id, model_id: id.to_owned() });
    }
    if let Some((name, version)) = source.strip_prefix("models:/").and_then(|rest| rest.split_once('/')) {
        let row = row(context, name, validate::version(version)?).await?;
        let run_id = if run_id.is_empty() { row.get("run_id") } else { run_id };
        let model_id = if model_id.is_empty() { row.get("model_id") } else { model_id };
        return Ok(Origin { storage: row.get("storage_location"), run_id, model_id });
    }
    if let Some((run, path)) = source.strip_prefix("runs:/").and_then(|rest| rest.split_once('/')) {
        let storage = run_root(context, run).await?.ok_or_else(|| refuse("run_id"))?;
        return Ok(Origin { storage: format!("{storage}/{path}"), run_id: run.to_owned(), model_id });
    }
    if artifacts::proxied_path(source).is_some() {
        return proxied_origin(context, source, run_id, model_id).await?.ok_or_else(|| refuse("run_id"));
    }
    let run_id = if run_id.is_empty() {
        lineage::run_of_uri(context, source).await?.unwrap_or_default()
    } else {
        run_id
    };
    Ok(Origin { storage: source.to_owned(), run_id, model_id })
}

/// Artifacts of this server may only be named by those of the run or the logged model they belong to.
async fn proxied_origin(
    context: &Context,
    source: &str,
    run_id: String,
    model_id: String,
) -> Result<Option<Origin>> {
    let within = |root: &str| source == root || source.starts_with(&format!("{root}/"));
    if !model_id.is_empty() {
        let row = logged_models::row(context, &model_id).await?;
        let run_id = if run_id.is_empty() { row.get("source_run_id") } else { run_id };
        let inside = within(&row.get::<String, _>("artifact_uri"));
        return Ok(inside.then(|| Origin { storage: source.to_owned(), run_id, model_id }));
    }
    let inside = match run_root(context, &run_id).await? {
        Some(root) => within(&root),
        None => false,
    };
    Ok(inside.then(|| Origin { storage: source.to_owned(), run_id, model_id }))
}

async fn run_root(context: &Context, run_id: &str) -> Result<Option<String>> {
    let rows = sql!(
        "SELECT artifact_uri FROM ml_runs WHERE run_id = ? AND namespace = ?",
        run_id,
        &context.namespace
    )
    .rows(context.db().read(), "read the run")
    .await?;
    Ok(rows.first().map(|row| row.get(0)))
}

pub(super) async fn create(context: Context, args: Args) -> Result<Value> {
    let (name, source) = (args.text("name")?, args.text("source")?);
    let (run_id, model_id) = (args.text_or_empty("run_id")?, args.text_or_empty("model_id")?);
    let tags = args.pairs("tags")?;
    let is_prompt = tags.iter().any(|(key, value)| key == PROMPT_TAG && value.eq_ignore_ascii_case("true"));
    let origin = if is_prompt {
        Origin { storage: source.clone(), run_id, model_id }
    } else {
        origin(&context, &source, run_id, model_id).await?
    };
    let now = now_ms();
    let mut tx = context.db().begin_allocating().await?;
    models::touch(&context, &mut tx, &name).await?;
    let rows = sql!(
        "SELECT COALESCE(MAX(version), 0) + 1 FROM ml_model_versions WHERE namespace = ? AND name = ?",
        &context.namespace,
        &name
    )
    .rows(&mut *tx, "allocate a version")
    .await?;
    let version: i64 = rows[0].get(0);
    sql!(
        "INSERT INTO ml_model_versions (namespace, name, version, owner, description, user_id, current_stage, source, \
         storage_location, run_id, run_link, model_id, status, creation_time, last_update_time) \
         VALUES (?, ?, ?, ?, ?, '', 'None', ?, ?, ?, ?, ?, 'READY', ?, ?)",
        &context.namespace,
        &name,
        version,
        &context.owner,
        args.text_or_empty("description")?,
        &source,
        &origin.storage,
        &origin.run_id,
        args.text_or_empty("run_link")?,
        &origin.model_id,
        now,
        now
    )
    .run(&mut *tx, "create the model version")
    .await?;
    for (key, value) in &tags {
        put_tag(&context, &mut tx, &name, version, key, value).await?;
    }
    tx.commit().await.doing("create the model version")?;
    Ok(json!({"model_version": load(&context, &name, version).await?}))
}

fn place(args: &Args) -> Result<(String, i64)> {
    Ok((args.text("name")?, validate::version(&args.text("version")?)?))
}

pub(super) async fn get(context: Context, args: Args) -> Result<Value> {
    let (name, version) = place(&args)?;
    Ok(json!({"model_version": load(&context, &name, version).await?}))
}

pub(super) async fn download_uri(context: Context, args: Args) -> Result<Value> {
    let (name, version) = place(&args)?;
    let row = row(&context, &name, version).await?;
    Ok(json!({"artifact_uri": row.get::<String, _>("storage_location")}))
}

pub(super) async fn update(context: Context, args: Args) -> Result<Value> {
    let (name, version) = place(&args)?;
    let mut tx = context.db().begin().await?;
    require(&context, &mut tx, &name, version).await?;
    sql!(
        "UPDATE ml_model_versions SET description = ? WHERE namespace = ? AND name = ? AND version = ?",
        args.text_or_empty("description")?,
        &context.namespace,
        &name,
        version
    )
    .run(&mut *tx, "update the model version")
    .await?;
    tx.commit().await.doing("update the model version")?;
    Ok(json!({"model_version": load(&context, &name, version).await?}))
}

pub(super) async fn delete(context: Context, args: Args) -> Result<Value> {
    let (name, version) = place(&args)?;
    let mut tx = context.db().begin().await?;
    require(&context, &mut tx, &name, version).await?;
    for text in [
        "DELETE FROM ml_aliases WHERE namespace = ? AND name = ? AND version = ?",
        "DELETE FROM ml_model_versions WHERE namespace = ? AND name = ? AND version = ?",
    ] {
        sql!(text, &context.namespace, &name, version).run(&mut *tx, "delete the model version").await?;
    }
    models::touch(&context, &mut tx, &name).await?;
    tx.commit().await.doing("delete the model version")?;
    Ok(json!({}))
}

pub(super) async fn transition_stage(context: Context, args: Args) -> Result<Value> {
    let (name, version) = place(&args)?;
    let text = args.text("stage")?;
    let stage = STAGES.iter().find(|stage| stage.eq_ignore_ascii_case(&text)).copied().ok_or_else(|| {
        Error::Invalid(format!(
            "Invalid Model Version stage: {text}. Value must be one of {}.",
            STAGES.join(", ")
        ))
    })?;
    let archive = args.flag("archive_existing_versions")?;
    if archive && !matches!(stage, "Staging" | "Production") {
        return Err(Error::Invalid(format!(
            "Model version transition cannot archive existing model versions because '{stage}' is not an Active stage. \
             Valid stages are Staging, Production"
        )));
    }
    let mut tx = context.db().begin().await?;
    require(&context, &mut tx, &name, version).await?;
    if archive {
        sql!(
            "UPDATE ml_model_versions SET current_stage = 'Archived', last_update_time = ? \
             WHERE namespace = ? AND name = ? AND current_stage = ? AND version != ?",
            now_ms(),
            &context.namespace,
            &name,
            stage,
            version
        )
        .run(&mut *tx, "archive other versions")
        .await?;
    }
    sql!(
        "UPDATE ml_model_versions SET current_stage = ? WHERE namespace = ? AND name = ? AND version = ?",
        stage,
        &context.namespace,
        &name,
        version
    )
    .run(&mut *tx, "change the stage")
    .await?;
    models::touch(&context, &mut tx, &name).await?;
    tx.commit().await.doing("change the stage")?;
    Ok(json!({"model_version": load(&context, &name, version).await?}))
}

async fn put_tag(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    name: &str,
    version: i64,
    key: &str,
    value: &str,
) -> Result<()> {
    validate::model_tag(key, value)?;
    sql!(
        "INSERT INTO ml_model_version_tags (namespace, name, version, key, value, owner) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (namespace, name, version, key) DO UPDATE SET value = excluded.value",
        &context.namespace,
        name,
        version,
        key,
        value,
        &context.owner
    )
    .run(&mut **tx, "set the tag")
    .await?;
    Ok(())
}

/// Tags take a version, or a stage or alias instead of it, in old clients; only the version is read.
pub(super) async fn set_tag(context: Context, args: Args) -> Result<Value> {
    let (name, version) = place(&args)?;
    let mut tx = context.db().begin().await?;
    require(&context, &mut tx, &name, version).await?;
    put_tag(&context, &mut tx, &name, version, &args.text("key")?, &args.text_or_empty("value")?).await?;
    tx.commit().await.doing("set the tag")?;
    Ok(json!({}))
}

pub(super) async fn delete_tag(context: Context, args: Args) -> Result<Value> {
    let (name, version) = place(&args)?;
    let mut tx = context.db().begin().await?;
    require(&context, &mut tx, &name, version).await?;
    sql!(
        "DELETE FROM ml_model_version_tags WHERE namespace = ? AND name = ? AND version = ? AND key = ?",
        &context.namespace,
        &name,
        version,
        args.text("key")?
    )
    .run(&mut *tx, "delete the tag")
    .await?;
    tx.commit().await.doing("delete the tag")?;
    Ok(json!({}))
}
