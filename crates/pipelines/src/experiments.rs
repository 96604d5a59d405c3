//! Experiments: names that runs are grouped under. `Default` always exists.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::error::{Doing, Error, Result};
use crate::list::{self, Kind, ListQuery, Table, Where};
use crate::{Face, db, wire};

/// The experiment of runs that name none.
pub(crate) const DEFAULT: &str = "Default";

const TABLE: Table = Table {
    name: "kfp_experiments",
    columns: &[
        ("created_at", "created_at", Kind::Time),
        ("id", "id", Kind::Text),
        ("experiment_id", "id", Kind::Text),
        ("display_name", "name", Kind::Text),
        ("name", "name", Kind::Text),
        ("namespace", "namespace", Kind::Text),
        ("last_run_created_at", "last_run_created_at", Kind::Time),
        ("storage_state", "storage_state", Kind::Text),
    ],
};

/// The fields of an Experiment message; what the server sets is taken and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    #[serde(alias = "displayName")]
    display_name: String,
    description: String,
    namespace: String,
    #[serde(rename = "experiment_id", alias = "experimentId")]
    _experiment_id: Value,
    #[serde(rename = "created_at", alias = "createdAt")]
    _created_at: Value,
    #[serde(rename = "storage_state", alias = "storageState")]
    _storage_state: Value,
    #[serde(rename = "last_run_created_at", alias = "lastRunCreatedAt")]
    _last_run_created_at: Value,
}

type App = State<Arc<Face>>;

/// Makes `Default` unless it exists; its id.
pub(crate) async fn ensure_default(face: &Face) -> Result<String> {
    let sql = "SELECT id FROM kfp_experiments WHERE namespace = '' AND name = $1".to_owned();
    if let Some(row) = face.db.row(sql, &[DEFAULT.into()], "find the default experiment").await? {
        return row.try_get("id").doing("find the default experiment");
    }
    match insert(face, DEFAULT, "All runs created without specifying an experiment will be grouped here", "")
        .await
    {
        Err(Error::Exists { .. }) => Box::pin(ensure_default(face)).await,
        other => other,
    }
}

async fn insert(face: &Face, name: &str, description: &str, namespace: &str) -> Result<String> {
    let id = uuid::Uuid::new_v4().to_string();
    let sql = "INSERT INTO kfp_experiments (id, namespace, name, description, created_at, last_run_created_at, \
               storage_state) VALUES ($1, $2, $3, $4, $5, 0, 'AVAILABLE')";
    let binds = [id.clone().into(), namespace.into(), name.into(), description.into(), wire::now().into()];
    match face.db.write(sql, &binds, "create an experiment").await {
        Err(error) if db::is_taken(&error) => {
            Err(Error::Exists { what: "experiment", name: name.to_owned() })
        }
        other => other.map(|_| id),
    }
}

pub(crate) async fn create(State(face): App, body: Bytes) -> Result<Json<Value>> {
    let request: Request = wire::read(&body)?;
    if request.display_name.trim().is_empty() || request.display_name.len() > 128 {
        return Err(Error::Invalid("display_name: 1 to 128 characters were expected".to_owned()));
    }
    let id = insert(&face, &request.display_name, &request.description, &request.namespace).await?;
    Ok(Json(message(&find(&face, &id).await?)?))
}

pub(crate) async fn get(State(face): App, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(message(&find(&face, &id).await?)?))
}

pub(crate) async fn list(State(face): App, Query(query): Query<ListQuery>) -> Result<Json<Value>> {
    let mut fixed = Where::default();
    if !query.namespace.is_empty() {
        fixed.and("namespace", "=", query.namespace.as_str());
    }
    let page = list::page(&face.db, &TABLE, &query, fixed).await?;
    let experiments = page.rows.iter().map(message).collect::<Result<Vec<_>>>()?;
    Ok(Json(wire::without_zeros(
        json!({ "experiments": experiments, "total_size": page.total, "next_page_token": page.next }),
    )))
}

/// `POST /experiments/{id}:archive` and `:unarchive`.
pub(crate) async fn act(State(face): App, Path(id_and_verb): Path<String>) -> Result<Json<Value>> {
    let (id, verb) = id_and_verb.split_once(':').unwrap_or((&id_and_verb, ""));
    let id = find(&face, id).await?.try_get::<String, _>("id").doing("read an experiment")?;
    let state = match verb {
        "archive" => "ARCHIVED",
        "unarchive" => "AVAILABLE",
        _ => return Err(Error::NotFound { what: "call", id: format!("experiments:{verb}") }),
    };
    let doing = "archive an experiment";
    let mut tx = face.db.begin().await?;
    let binds = [state.into(), id.into()];
    db::execute(&mut tx, "UPDATE kfp_experiments SET storage_state = $1 WHERE id = $2", &binds, doing)
        .await?;
    if state == "ARCHIVED" {
        // As upstream: its runs go with it, and do not come back with it.
        let sql =
            "UPDATE kfp_runs SET storage_state = $1 WHERE experiment_id = $2 AND storage_state <> 'DELETED'";
        db::execute(&mut tx, sql, &binds, doing).await?;
    }
    tx.commit().await.doing(doing)?;
    Ok(Json(json!({})))
}

pub(crate) async fn delete(State(face): App, Path(id): Path<String>) -> Result<Json<Value>> {
    let id = wire::id("experiment", &id)?;
    let binds = [id.as_str().into()];
    let touched = face.db.write("DELETE FROM kfp_experiments WHERE id = $1", &binds, "delete an experiment");
    match touched.await? {
        0 => Err(Error::NotFound { what: "experiment", id }),
        _ => Ok(Json(json!({}))),
    }
}

/// The row of an experiment.
pub(crate) async fn find(face: &Face, id: &str) -> Result<AnyRow> {
    let id = wire::id("experiment", id)?;
    let sql = "SELECT * FROM kfp_experiments WHERE id = $1".to_owned();
    let row = face.db.row(sql, &[id.as_str().into()], "read an experiment").await?;
    row.ok_or(Error::NotFound { what: "experiment", id })
}

fn message(row: &AnyRow) -> Result<Value> {
    let text = |name| row.try_get::<String, _>(name).doing("read an experiment");
    let time = |name| row.try_get::<i64, _>(name).map(wire::time).doing("read an experiment");
    Ok(wire::without_zeros(json!({
        "experiment_id": text("id")?,
        "display_name": text("name")?,
        "description": text("description")?,
        "created_at": time("created_at")?,
        "namespace": text("namespace")?,
        "storage_state": text("storage_state")?,
        "last_run_created_at": time("last_run_created_at")?,
    })))
}
