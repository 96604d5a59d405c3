//! Uploaded pipelines and their versions.
//!
//! A package is checked before it is stored (it can run), and stored as the API shows it. Creating from
//! a URL is left out: the server would fetch what a caller names.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Multipart, Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::error::{Doing, Error, Result};
use crate::list::{self, Kind, ListQuery, Table, Where};
use crate::package::{PACKAGE_BYTES_MAX, Package};
use crate::{Face, db, wire};

const PIPELINES: Table = Table {
    name: "kfp_pipelines",
    columns: &[
        ("created_at", "created_at", Kind::Time),
        ("id", "id", Kind::Text),
        ("pipeline_id", "id", Kind::Text),
        ("name", "name", Kind::Text),
        ("display_name", "display_name", Kind::Text),
        ("namespace", "namespace", Kind::Text),
    ],
};
const VERSIONS: Table = Table {
    name: "kfp_versions",
    columns: &[
        ("created_at", "created_at", Kind::Time),
        ("id", "id", Kind::Text),
        ("pipeline_version_id", "id", Kind::Text),
        ("name", "name", Kind::Text),
        ("display_name", "display_name", Kind::Text),
    ],
};

type App = State<Arc<Face>>;

/// The query of both upload calls.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct UploadQuery {
    name: String,
    display_name: String,
    description: String,
    namespace: String,
    pipelineid: String,
    tags: String,
}

impl UploadQuery {
    /// The resource's name and what is shown, from what was given, else the file's name.
    fn names(&self, file_name: &str) -> Result<(String, String)> {
        let file_name = file_name.trim_end_matches(".gz").trim_end_matches(".tar");
        let stem = file_name.rsplit_once('.').map_or(file_name, |(stem, _)| stem);
        let first = |options: [&str; 3]| {
            options.into_iter().find(|name| !name.trim().is_empty()).unwrap_or_default().to_owned()
        };
        let name = first([&self.name, &self.display_name, stem]);
        let display = first([&self.display_name, &self.name, stem]);
        check_name(&name)?;
        Ok((name, display))
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() || name.len() > 128 {
        return Err(Error::Invalid(format!("name `{name}`: 1 to 128 characters were expected")));
    }
    Ok(())
}

/// An error in the form that the upload calls answer with.
pub(crate) struct UploadError(Error);

impl From<Error> for UploadError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for UploadError {
    fn into_response(self) -> Response {
        let text = self.0.text();
        let body = json!({ "error_message": text, "error_details": text });
        (self.0.code().status(), Json(body)).into_response()
    }
}

async fn upload_file(mut form: Multipart) -> Result<(String, Bytes)> {
    let bad = |e: &dyn std::fmt::Display| Error::Invalid(format!("multipart body: {e}"));
    while let Some(field) = form.next_field().await.map_err(|e| bad(&e.body_text()))? {
        if field.name() == Some("uploadfile") {
            let name = field.file_name().unwrap_or("pipeline.yaml").to_owned();
            let bytes = field.bytes().await.map_err(|e| bad(&e.body_text()))?;
            if bytes.len() > PACKAGE_BYTES_MAX {
                return Err(Error::Invalid(format!("{name} is larger than {PACKAGE_BYTES_MAX} bytes")));
            }
            return Ok((name, bytes));
        }
    }
    Err(Error::Invalid("the multipart form has no field `uploadfile`".to_owned()))
}

pub(crate) async fn upload(
    State(face): App,
    Query(query): Query<UploadQuery>,
    form: Multipart,
) -> std::result::Result<Json<Value>, UploadError> {
    let (file_name, bytes) = upload_file(form).await?;
    let package = Package::read(&bytes, &file_name)?;
    let (name, display) = query.names(&file_name)?;
    let tags = tags(&query.tags)?;
    let pipeline = Pipeline {
        name: &name,
        display: &display,
        description: &query.description,
        namespace: &query.namespace,
        tags: &tags,
    };
    let id = insert_pipeline(&face, &pipeline, Some(&package)).await?;
    Ok(Json(message(&find(&face, &id).await?)?))
}

pub(crate) async fn upload_version(
    State(face): App,
    Query(query): Query<UploadQuery>,
    form: Multipart,
) -> std::result::Result<Json<Value>, UploadError> {
    if query.pipelineid.is_empty() {
        return Err(Error::Invalid("pipelineid: the id of a pipeline was expected".to_owned()).into());
    }
    let pipeline: String = find(&face, &query.pipelineid).await?.try_get("id").doing("read a pipeline")?;
    let (file_name, bytes) = upload_file(form).await?;
    let package = Package::read(&bytes, &file_name)?;
    let (name, display) = query.names(&file_name)?;
    let tags = tags(&query.tags)?;
    let mut tx = face.db.begin().await?;
    let id = insert_version(&mut tx, &pipeline, &name, &display, &query.description, &tags, &package).await?;
    tx.commit().await.doing("create a pipeline version")?;
    Ok(Json(version_message(&find_version(&face, &pipeline, &id).await?)?))
}

fn tags(text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let parsed: Map<String, Value> = serde_json::from_str(text)
        .map_err(|e| Error::Invalid(format!("tags: a JSON object was expected: {e}")))?;
    Ok(wire::object(Some(parsed)))
}

struct Pipeline<'a> {
    name: &'a str,
    display: &'a str,
    description: &'a str,
    namespace: &'a str,
    tags: &'a str,
}

async fn insert_pipeline(face: &Face, pipeline: &Pipeline<'_>, package: Option<&Package>) -> Result<String> {
    let id = uuid::Uuid::new_v4().to_string();
    let doing = "create a pipeline";
    let mut tx = face.db.begin().await?;
    let sql = "INSERT INTO kfp_pipelines (id, namespace, name, display_name, description, created_at, tags) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let binds = [
        id.clone().into(),
        pipeline.namespace.into(),
        pipeline.name.into(),
        pipeline.display.into(),
        pipeline.description.into(),
        wire::now().into(),
        pipeline.tags.into(),
    ];
    match db::execute(&mut tx, sql, &binds, doing).await {
        Err(error) if db::is_taken(&error) => {
            return Err(Error::Exists { what: "pipeline", name: pipeline.name.to_owned() });
        }
        other => other?,
    };
    if let Some(package) = package {
        insert_version(
            &mut tx,
            &id,
            pipeline.name,
            pipeline.display,
            pipeline.description,
            pipeline.tags,
            package,
        )
        .await?;
    }
    tx.commit().await.doing(doing)?;
    Ok(id)
}

async fn insert_version(
    tx: &mut sqlx::Transaction<'static, sqlx::Any>,
    pipeline: &str,
    name: &str,
    display: &str,
    description: &str,
    tags: &str,
    package: &Package,
) -> Result<String> {
    let id = uuid::Uuid::new_v4().to_string();
    let sql = "INSERT INTO kfp_versions (id, pipeline_id, name, display_name, description, created_at, tags, spec) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let binds = [
        id.clone().into(),
        pipeline.into(),
        name.into(),
        display.into(),
        description.into(),
        wire::now().into(),
        tags.into(),
        package.to_api().to_string().into(),
    ];
    match db::execute(tx, sql, &binds, "create a pipeline version").await {
        Err(error) if db::is_taken(&error) => {
            Err(Error::Exists { what: "pipeline version", name: name.to_owned() })
        }
        other => other.map(|_| id),
    }
}

/// The fields of a Pipeline message.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PipelineRequest {
    name: String,
    #[serde(alias = "displayName")]
    display_name: String,
    description: String,
    namespace: String,
    tags: Option<Map<String, Value>>,
    #[serde(rename = "pipeline_id", alias = "pipelineId")]
    _pipeline_id: Value,
    #[serde(rename = "created_at", alias = "createdAt")]
    _created_at: Value,
}

pub(crate) async fn create(State(face): App, body: Bytes) -> Result<Json<Value>> {
    let request: PipelineRequest = wire::read(&body)?;
    let or = |first: &str, second: &str| if first.is_empty() { second.to_owned() } else { first.to_owned() };
    let name = or(&request.name, &request.display_name);
    let display = or(&request.display_name, &request.name);
    check_name(&name)?;
    let tags = wire::object(request.tags);
    let pipeline = Pipeline {
        name: &name,
        display: &display,
        description: &request.description,
        namespace: &request.namespace,
        tags: &tags,
    };
    let id = insert_pipeline(&face, &pipeline, None).await?;
    Ok(Json(message(&find(&face, &id).await?)?))
}

/// `POST /pipelines/create` and `POST /pipelines/{id}/versions`: from a URL.
pub(crate) async fn create_from_url() -> Error {
    Error::NotYet("creating a pipeline from a package URL (upload the file instead)")
}

pub(crate) async fn list(State(face): App, Query(query): Query<ListQuery>) -> Result<Json<Value>> {
    let mut fixed = Where::default();
    if !query.namespace.is_empty() {
        fixed.and("namespace", "=", query.namespace.as_str());
    }
    let page = list::page(&face.db, &PIPELINES, &query, fixed).await?;
    let pipelines = page.rows.iter().map(message).collect::<Result<Vec<_>>>()?;
    Ok(Json(wire::without_zeros(
        json!({ "pipelines": pipelines, "total_size": page.total, "next_page_token": page.next }),
    )))
}

pub(crate) async fn get(State(face): App, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(message(&find(&face, &id).await?)?))
}

pub(crate) async fn get_by_name(
    State(face): App,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>> {
    let sql = "SELECT * FROM kfp_pipelines WHERE name = $1 AND namespace = $2".to_owned();
    let row = face.db.row(sql, &[name.as_str().into(), query.namespace.into()], "read a pipeline").await?;
    Ok(Json(message(&row.ok_or(Error::NotFound { what: "pipeline", id: name })?)?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DeleteQuery {
    cascade: bool,
}

pub(crate) async fn delete(
    State(face): App,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Value>> {
    let id: String = find(&face, &id).await?.try_get("id").doing("read a pipeline")?;
    let doing = "delete a pipeline";
    let mut tx = face.db.begin().await?;
    let binds = [id.as_str().into()];
    let left =
        db::row_in(&mut tx, "SELECT id FROM kfp_versions WHERE pipeline_id = $1 LIMIT 1", &binds, doing)
            .await?;
    if left.is_some() && !query.cascade {
        let text = format!("pipeline `{id}` has versions; delete them first, or ask with cascade=true");
        return Err(Error::Precondition(text));
    }
    db::execute(&mut tx, "DELETE FROM kfp_versions WHERE pipeline_id = $1", &binds, doing).await?;
    db::execute(&mut tx, "DELETE FROM kfp_pipelines WHERE id = $1", &binds, doing).await?;
    tx.commit().await.doing(doing)?;
    Ok(Json(json!({})))
}

pub(crate) async fn versions(
    State(face): App,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>> {
    let id: String = find(&face, &id).await?.try_get("id").doing("read a pipeline")?;
    let mut fixed = Where::default();
    fixed.and("pipeline_id", "=", id);
    let page = list::page(&face.db, &VERSIONS, &query, fixed).await?;
    let versions = page.rows.iter().map(version_message).collect::<Result<Vec<_>>>()?;
    Ok(Json(wire::without_zeros(
        json!({ "pipeline_versions": versions, "total_size": page.total, "next_page_token": page.next }),
    )))
}

pub(crate) async fn version(
    State(face): App,
    Path((pipeline, id)): Path<(String, String)>,
) -> Result<Json<Value>> {
    Ok(Json(version_message(&find_version(&face, &pipeline, &id).await?)?))
}

pub(crate) async fn delete_version(
    State(face): App,
    Path((pipeline, id)): Path<(String, String)>,
) -> Result<Json<Value>> {
    let id: String =
        find_version(&face, &pipeline, &id).await?.try_get("id").doing("read a pipeline version")?;
    face.db
        .write("DELETE FROM kfp_versions WHERE id = $1", &[id.into()], "delete a pipeline version")
        .await?;
    Ok(Json(json!({})))
}

async fn find(face: &Face, id: &str) -> Result<AnyRow> {
    let id = wire::id("pipeline", id)?;
    let sql = "SELECT * FROM kfp_pipelines WHERE id = $1".to_owned();
    let row = face.db.row(sql, &[id.as_str().into()], "read a pipeline").await?;
    row.ok_or(Error::NotFound { what: "pipeline", id })
}

/// The row of a version; an empty `pipeline` finds it by its own id alone.
pub(crate) async fn find_version(face: &Face, pipeline: &str, id: &str) -> Result<AnyRow> {
    let id = wire::id("pipeline version", id)?;
    let sql = "SELECT * FROM kfp_versions WHERE id = $1 AND ($2 = '' OR pipeline_id = $2)".to_owned();
    let row = face.db.row(sql, &[id.as_str().into(), pipeline.into()], "read a pipeline version").await?;
    row.ok_or(Error::NotFound { what: "pipeline version", id })
}

/// The row of a pipeline's newest version.
pub(crate) async fn newest_version(face: &Face, pipeline: &str) -> Result<AnyRow> {
    let id: String = find(face, pipeline).await?.try_get("id").doing("read a pipeline")?;
    let sql = "SELECT * FROM kfp_versions WHERE pipeline_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1"
        .to_owned();
    let row = face.db.row(sql, &[id.as_str().into()], "read a pipeline version").await?;
    row.ok_or_else(|| Error::Invalid(format!("pipeline `{id}` has no version to run")))
}

fn message(row: &AnyRow) -> Result<Value> {
    let text = |name| row.try_get::<String, _>(name).doing("read a pipeline");
    Ok(wire::without_zeros(json!({
        "pipeline_id": text("id")?,
        "name": text("name")?,
        "display_name": text("display_name")?,
        "description": text("description")?,
        "created_at": wire::time(row.try_get("created_at").doing("read a pipeline")?),
        "namespace": text("namespace")?,
        "tags": wire::stored("tags", &text("tags")?)?,
    })))
}

fn version_message(row: &AnyRow) -> Result<Value> {
    let text = |name| row.try_get::<String, _>(name).doing("read a pipeline version");
    Ok(wire::without_zeros(json!({
        "pipeline_id": text("pipeline_id")?,
        "pipeline_version_id": text("id")?,
        "name": text("name")?,
        "display_name": text("display_name")?,
        "description": text("description")?,
        "created_at": wire::time(row.try_get("created_at").doing("read a pipeline version")?),
        "pipeline_spec": wire::stored("pipeline_spec", &text("spec")?)?,
        "tags": wire::stored("tags", &text("tags")?)?,
    })))
}
