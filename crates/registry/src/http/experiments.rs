//! Experiments: a name, a place for artifacts, tags.
//!
//! Ids count from 0 in each tenant, so each is like an MLflow server of its own; 0 is `Default`, which clients use
//! without asking for it.

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::Transaction;
use sqlx::any::{Any, AnyRow};

use crate::args::Args;
use crate::db::Sql;
use crate::error::{Doing, Error, Result};
use crate::filter::sql::{Child, Kind, Schema, number, text};
use crate::filter::{Entity, parse, parse_order};
use crate::page::Page;
use crate::{Context, now_ms, validate};

const COLUMNS: &str = "SELECT e.id, e.name, e.artifact_location, e.lifecycle_stage, e.creation_time, e.last_update_time FROM ml_experiments e";

const SCHEMA: Schema = Schema {
    attributes: &[
        text(&["name"], "e.name"),
        number(&["experiment_id"], "e.id"),
        number(&["creation_time"], "e.creation_time"),
        number(&["last_update_time"], "e.last_update_time"),
    ],
    children: &[Child {
        entity: Entity::Tag,
        table: "ml_experiment_tags",
        on: "c.namespace = e.namespace AND c.experiment_id = e.id",
        kind: Kind::Text,
    }],
    datasets: None,
};

/// Makes experiment 0 of the tenant unless it is there.
pub(crate) async fn ensure_default(context: &Context) -> Result<()> {
    let found = Sql::new("SELECT id FROM ml_experiments WHERE id = 0 AND namespace = ")
        .bind(context.namespace.as_str())
        .take()
        .rows(context.db().read(), "look for the default experiment")
        .await?;
    if !found.is_empty() {
        return Ok(());
    }
    let mut tx = context.db().begin_allocating().await?;
    insert(context, &mut tx, 0, "Default", "mlflow-artifacts:/0", now_ms()).await?;
    tx.commit().await.doing("create the default experiment")
}

async fn insert(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    id: i64,
    name: &str,
    location: &str,
    now: i64,
) -> Result<()> {
    let mut sql = Sql::new(
        "INSERT INTO ml_experiments (namespace, owner, id, name, artifact_location, lifecycle_stage, creation_time, \
         last_update_time) VALUES (",
    );
    sql.bind(context.namespace.as_str())
        .push(", ")
        .bind(context.owner.as_str())
        .push(", ")
        .bind(id)
        .push(", ");
    sql.bind(name).push(", ").bind(location).push(", 'active', ").bind(now).push(", ").bind(now);
    sql.push(") ON CONFLICT DO NOTHING");
    sql.run(&mut **tx, "create the experiment").await?;
    Ok(())
}

/// The id of the active experiment of that name, made when it is not there.
pub(crate) async fn ensure(context: &Context, name: &str) -> Result<i64> {
    let mut tx = context.db().begin_allocating().await?;
    if let Some((id, _)) = find(context, &mut tx, name).await? {
        return Ok(id);
    }
    let id = allocate(context, &mut tx, name, "", now_ms()).await?;
    tx.commit().await.doing("create the experiment")?;
    Ok(id)
}

async fn find(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    name: &str,
) -> Result<Option<(i64, String)>> {
    let mut sql = Sql::new("SELECT id, lifecycle_stage FROM ml_experiments WHERE namespace = ");
    sql.bind(context.namespace.as_str()).push(" AND name = ").bind(name);
    let rows = sql.rows(&mut **tx, "look for the experiment").await?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

async fn allocate(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    name: &str,
    location: &str,
    now: i64,
) -> Result<i64> {
    let mut sql = Sql::new("SELECT COALESCE(MAX(id), 0) + 1 FROM ml_experiments WHERE namespace = ");
    sql.bind(context.namespace.as_str());
    let id: i64 = sql.rows(&mut **tx, "allocate an experiment id").await?[0].get(0);
    let own = format!("mlflow-artifacts:/{id}");
    insert(context, tx, id, name, if location.is_empty() { &own } else { location }, now).await?;
    Ok(id)
}

pub(super) async fn create(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    validate::experiment_name(&name)?;
    let location = args.text_or_empty("artifact_location")?;
    if !location.is_empty() {
        validate::artifact_location(&location)?;
    }
    let mut tx = context.db().begin_allocating().await?;
    if let Some((_, stage)) = find(&context, &mut tx, &name).await? {
        let hint = if stage == "deleted" {
            " in deleted state. You can restore the experiment, or permanently delete it to create a new one"
        } else {
            ""
        };
        return Err(Error::Exists(format!("Experiment '{name}' already exists{hint}.")));
    }
    let id = allocate(&context, &mut tx, &name, &location, now_ms()).await?;
    for (key, value) in args.pairs("tags")? {
        put_tag(&context, &mut tx, id, &key, &value).await?;
    }
    tx.commit().await.doing("create the experiment")?;
    Ok(json!({"experiment_id": id.to_string()}))
}

/// One experiment; an error when it is not there.
pub(crate) async fn load(context: &Context, id: i64) -> Result<Value> {
    let mut sql = Sql::new(COLUMNS);
    sql.push(" WHERE e.namespace = ").bind(context.namespace.as_str()).push(" AND e.id = ").bind(id);
    let rows = sql.rows(context.db().read(), "read the experiment").await?;
    match with_tags(context, &rows).await?.pop() {
        Some(experiment) => Ok(experiment),
        None => Err(Error::NotFound(format!("No Experiment with id={id} exists"))),
    }
}

async fn with_tags(context: &Context, rows: &[AnyRow]) -> Result<Vec<Value>> {
    let mut sql = Sql::new("SELECT experiment_id, key, value FROM ml_experiment_tags WHERE namespace = ");
    sql.bind(context.namespace.as_str()).push(" AND experiment_id IN ");
    sql.bind_list(rows.iter().map(|row| row.get::<i64, _>(0)));
    let tags = if rows.is_empty() { Vec::new() } else { sql.rows(context.db().read(), "read tags").await? };
    let tags_of = |id: i64| -> Vec<Value> {
        tags.iter()
            .filter(|tag| tag.get::<i64, _>(0) == id)
            .map(|tag| json!({"key": tag.get::<String, _>(1), "value": tag.get::<String, _>(2)}))
            .collect()
    };
    Ok(rows
        .iter()
        .map(|row| {
            json!({
                "experiment_id": row.get::<i64, _>(0).to_string(),
                "name": row.get::<String, _>(1),
                "artifact_location": row.get::<String, _>(2),
                "lifecycle_stage": row.get::<String, _>(3),
                "creation_time": row.get::<i64, _>(4),
                "last_update_time": row.get::<i64, _>(5),
                "tags": tags_of(row.get(0)),
                "workspace": context.namespace,
            })
        })
        .collect())
}

pub(super) async fn get(context: Context, args: Args) -> Result<Value> {
    let id = validate::experiment_id(&args.text("experiment_id")?)?;
    ensure_default(&context).await?;
    Ok(json!({"experiment": load(&context, id).await?}))
}

pub(super) async fn get_by_name(context: Context, args: Args) -> Result<Value> {
    let name = args.text("experiment_name")?;
    ensure_default(&context).await?;
    let mut sql = Sql::new(COLUMNS);
    sql.push(" WHERE e.namespace = ")
        .bind(context.namespace.as_str())
        .push(" AND e.name = ")
        .bind(name.as_str());
    let rows = sql.rows(context.db().read(), "read the experiment").await?;
    match with_tags(&context, &rows).await?.pop() {
        Some(experiment) => Ok(json!({"experiment": experiment})),
        None => Err(Error::NotFound(format!("Could not find experiment with name '{name}'"))),
    }
}

/// SQL for `view_type`, on the alias given.
pub(super) fn view_type(sql: &mut Sql, args: &Args, key: &str, column: &str) -> Result<()> {
    match args.text_opt(key)?.as_deref() {
        None | Some("" | "ACTIVE_ONLY" | "1") => sql.push(" AND ").push(column).push(" = 'active'"),
        Some("DELETED_ONLY" | "2") => sql.push(" AND ").push(column).push(" = 'deleted'"),
        Some("ALL" | "3") => sql,
        Some(other) => {
            return Err(Error::Invalid(format!(
                "Invalid value '{other}' for parameter '{key}': expected ACTIVE_ONLY, DELETED_ONLY or ALL"
            )));
        }
    };
    Ok(())
}

pub(super) async fn search(context: Context, args: Args) -> Result<Value> {
    ensure_default(&context).await?;
    let page = Page::from_args(&args, 1000, 50_000)?;
    let mut sql = Sql::new(COLUMNS);
    sql.push(" WHERE e.namespace = ").bind(context.namespace.as_str());
    view_type(&mut sql, &args, "view_type", "e.lifecycle_stage")?;
    SCHEMA.filter(&mut sql, &parse(&args.text_or_empty("filter")?)?)?;
    let orders =
        args.texts("order_by")?.iter().map(|order| parse_order(order)).collect::<Result<Vec<_>>>()?;
    SCHEMA.order(&mut sql, &orders, "e.creation_time DESC, e.id ASC")?;
    page.append(&mut sql);
    let rows = sql.rows(context.db().read(), "search experiments").await?;
    Ok(page.answer("experiments", with_tags(&context, &rows).await?))
}

async fn set_stage(context: Context, args: Args, from: &str, to: &str) -> Result<Value> {
    let id = validate::experiment_id(&args.text("experiment_id")?)?;
    if id == 0 && to == "deleted" {
        return Err(Error::Invalid("Cannot delete the default experiment '0'".to_owned()));
    }
    let mut tx = context.db().begin().await?;
    let now = now_ms();
    let mut sql = Sql::new("UPDATE ml_experiments SET lifecycle_stage = ");
    sql.bind(to).push(", last_update_time = ").bind(now).push(" WHERE namespace = ");
    sql.bind(context.namespace.as_str())
        .push(" AND id = ")
        .bind(id)
        .push(" AND lifecycle_stage = ")
        .bind(from);
    if sql.run(&mut *tx, "change the experiment").await? == 0 {
        return Err(Error::NotFound(format!("No Experiment with id={id} in state '{from}' exists")));
    }
    let mut runs = Sql::new("UPDATE ml_runs SET lifecycle_stage = ");
    runs.bind(to)
        .push(", deleted_time = ")
        .bind((to == "deleted").then_some(now))
        .push(" WHERE namespace = ");
    runs.bind(context.namespace.as_str()).push(" AND experiment_id = ").bind(id);
    runs.run(&mut *tx, "change the experiment's runs").await?;
    tx.commit().await.doing("change the experiment")?;
    Ok(json!({}))
}

pub(super) async fn delete(context: Context, args: Args) -> Result<Value> {
    set_stage(context, args, "active", "deleted").await
}

pub(super) async fn restore(context: Context, args: Args) -> Result<Value> {
    set_stage(context, args, "deleted", "active").await
}

pub(super) async fn update(context: Context, args: Args) -> Result<Value> {
    let id = validate::experiment_id(&args.text("experiment_id")?)?;
    let name = args.text("new_name")?;
    validate::experiment_name(&name)?;
    let mut tx = context.db().begin().await?;
    if find(&context, &mut tx, &name).await?.is_some_and(|(other, _)| other != id) {
        return Err(Error::Exists(format!("Experiment '{name}' already exists.")));
    }
    let mut sql = Sql::new("UPDATE ml_experiments SET name = ");
    sql.bind(name).push(", last_update_time = ").bind(now_ms()).push(" WHERE namespace = ");
    sql.bind(context.namespace.as_str()).push(" AND id = ").bind(id).push(" AND lifecycle_stage = 'active'");
    if sql.run(&mut *tx, "rename the experiment").await? == 0 {
        return Err(Error::NotFound(format!("No active Experiment with id={id} exists")));
    }
    tx.commit().await.doing("rename the experiment")?;
    Ok(json!({}))
}

async fn put_tag(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    id: i64,
    key: &str,
    value: &str,
) -> Result<()> {
    validate::model_tag(key, value)?;
    let mut sql =
        Sql::new("INSERT INTO ml_experiment_tags (namespace, owner, experiment_id, key, value) VALUES (");
    sql.bind(context.namespace.as_str())
        .push(", ")
        .bind(context.owner.as_str())
        .push(", ")
        .bind(id)
        .push(", ");
    sql.bind(key).push(", ").bind(value);
    sql.push(") ON CONFLICT (namespace, experiment_id, key) DO UPDATE SET value = excluded.value");
    sql.run(&mut **tx, "set the tag").await?;
    Ok(())
}

pub(super) async fn set_tag(context: Context, args: Args) -> Result<Value> {
    let id = validate::experiment_id(&args.text("experiment_id")?)?;
    load(&context, id).await?;
    let mut tx = context.db().begin().await?;
    put_tag(&context, &mut tx, id, &args.text("key")?, &args.text_or_empty("value")?).await?;
    tx.commit().await.doing("set the tag")?;
    Ok(json!({}))
}

pub(super) async fn delete_tag(context: Context, args: Args) -> Result<Value> {
    let id = validate::experiment_id(&args.text("experiment_id")?)?;
    let key = args.text("key")?;
    let mut tx = context.db().begin().await?;
    let mut sql = Sql::new("DELETE FROM ml_experiment_tags WHERE namespace = ");
    sql.bind(context.namespace.as_str())
        .push(" AND experiment_id = ")
        .bind(id)
        .push(" AND key = ")
        .bind(key.as_str());
    if sql.run(&mut *tx, "delete the tag").await? == 0 {
        return Err(Error::NotFound(format!("No tag with name: {key} in experiment with id {id}")));
    }
    tx.commit().await.doing("delete the tag")?;
    Ok(json!({}))
}
