//! Registered models: a name that versions gather under.

use serde_json::{Value, json};
use sqlx::any::{Any, AnyRow};
use sqlx::{Row, Transaction};

use super::versions_search;
use crate::args::Args;
use crate::db::{Sql, sql};
use crate::error::{Doing, Error, Result};
use crate::filter::sql::{Child, Kind, Schema, number, text};
use crate::filter::{Clause, Entity, Op, Operand, parse, parse_order};
use crate::page::Page;
use crate::{Context, now_ms, validate};

const SCHEMA: Schema = Schema {
    attributes: &[
        text(&["name"], "m.name"),
        number(&["timestamp", "last_updated_timestamp"], "m.last_update_time"),
        number(&["creation_timestamp"], "m.creation_time"),
    ],
    children: &[Child {
        entity: Entity::Tag,
        table: "ml_registered_model_tags",
        on: "c.namespace = m.namespace AND c.name = m.name",
        kind: Kind::Text,
    }],
    datasets: None,
};

pub(super) fn no_model(name: &str) -> Error {
    Error::NotFound(format!("Registered Model with name={name} not found"))
}

/// The model's row; an error when it is not there.
async fn row(context: &Context, name: &str) -> Result<AnyRow> {
    let mut rows =
        sql!("SELECT * FROM ml_registered_models WHERE namespace = ? AND name = ?", &context.namespace, name)
            .rows(context.db().read(), "read the registered model")
            .await?;
    rows.pop().ok_or_else(|| no_model(name))
}

/// Notes a change of the model, and refuses when it is not there.
pub(super) async fn touch(context: &Context, tx: &mut Transaction<'static, Any>, name: &str) -> Result<()> {
    let changed = sql!(
        "UPDATE ml_registered_models SET last_update_time = ? WHERE namespace = ? AND name = ?",
        now_ms(),
        &context.namespace,
        name
    )
    .run(&mut **tx, "change the registered model")
    .await?;
    if changed == 0 { Err(no_model(name)) } else { Ok(()) }
}

/// Models with their latest versions, aliases and tags.
async fn complete(context: &Context, rows: &[AnyRow]) -> Result<Vec<Value>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = rows.iter().map(|row| row.get("name")).collect();
    let read = |table: &'static str| {
        let mut sql = Sql::new("SELECT * FROM ");
        sql.push(table)
            .push(" WHERE namespace = ")
            .bind(&context.namespace)
            .push(" AND name IN ")
            .bind_list(&names);
        sql.rows(context.db().read(), "read what belongs to the registered models")
    };
    let tags = read("ml_registered_model_tags").await?;
    let aliases = read("ml_aliases").await?;
    let mut latest = versions_search::latest_of(context, &names, &[]).await?;
    let models = rows.iter().zip(&names).map(|(row, name)| {
        let mine = |row: &&AnyRow| row.get::<String, _>("name") == *name;
        let tags: Vec<Value> = tags
            .iter()
            .filter(mine)
            .map(|tag| json!({"key": tag.get::<String, _>("key"), "value": tag.get::<String, _>("value")}))
            .collect();
        let aliases: Vec<Value> = aliases
            .iter()
            .filter(mine)
            .map(|row| {
                json!({"alias": row.get::<String, _>("alias"), "version": row.get::<i64, _>("version").to_string()})
            })
            .collect();
        json!({
            "name": name,
            "creation_timestamp": row.get::<i64, _>("creation_time"),
            "last_updated_timestamp": row.get::<i64, _>("last_update_time"),
            "description": row.get::<String, _>("description"),
            "latest_versions": latest.remove(name).unwrap_or_default(),
            "tags": tags,
            "aliases": aliases,
            "workspace": context.namespace,
        })
    });
    Ok(models.collect())
}

async fn load(context: &Context, name: &str) -> Result<Value> {
    let row = row(context, name).await?;
    complete(context, std::slice::from_ref(&row)).await?.pop().ok_or_else(|| no_model(name))
}

pub(super) async fn create(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    validate::model_name(&name)?;
    let now = now_ms();
    let mut tx = context.db().begin().await?;
    let added = sql!(
        "INSERT INTO ml_registered_models (namespace, name, owner, description, creation_time, last_update_time) \
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        &context.namespace,
        &name,
        &context.owner,
        args.text_or_empty("description")?,
        now,
        now
    )
    .run(&mut *tx, "create the registered model")
    .await?;
    if added == 0 {
        return Err(Error::Exists(format!("Registered Model (name={name}) already exists.")));
    }
    for (key, value) in args.pairs("tags")? {
        put_tag(&context, &mut tx, &name, &key, &value).await?;
    }
    tx.commit().await.doing("create the registered model")?;
    Ok(json!({"registered_model": load(&context, &name).await?}))
}

pub(super) async fn get(context: Context, args: Args) -> Result<Value> {
    Ok(json!({"registered_model": load(&context, &args.text("name")?).await?}))
}

pub(super) async fn rename(context: Context, args: Args) -> Result<Value> {
    let (name, new_name) = (args.text("name")?, args.text("new_name")?);
    validate::model_name(&new_name)?;
    let mut tx = context.db().begin().await?;
    touch(&context, &mut tx, &name).await?;
    let taken = sql!(
        "SELECT 1 FROM ml_registered_models WHERE namespace = ? AND name = ?",
        &context.namespace,
        &new_name
    )
    .rows(&mut *tx, "look for the new name")
    .await?;
    if !taken.is_empty() && new_name != name {
        return Err(Error::Exists(format!("Registered Model (name={new_name}) already exists.")));
    }
    sql!(
        "UPDATE ml_registered_models SET name = ? WHERE namespace = ? AND name = ?",
        &new_name,
        &context.namespace,
        &name
    )
    .run(&mut *tx, "rename the registered model")
    .await?;
    tx.commit().await.doing("rename the registered model")?;
    Ok(json!({"registered_model": load(&context, &new_name).await?}))
}

pub(super) async fn update(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    let mut tx = context.db().begin().await?;
    touch(&context, &mut tx, &name).await?;
    sql!(
        "UPDATE ml_registered_models SET description = ? WHERE namespace = ? AND name = ?",
        args.text_or_empty("description")?,
        &context.namespace,
        &name
    )
    .run(&mut *tx, "update the registered model")
    .await?;
    tx.commit().await.doing("update the registered model")?;
    Ok(json!({"registered_model": load(&context, &name).await?}))
}

pub(super) async fn delete(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    let mut tx = context.db().begin().await?;
    let gone =
        sql!("DELETE FROM ml_registered_models WHERE namespace = ? AND name = ?", &context.namespace, &name)
            .run(&mut *tx, "delete the registered model")
            .await?;
    if gone == 0 {
        return Err(no_model(&name));
    }
    tx.commit().await.doing("delete the registered model")?;
    Ok(json!({}))
}

/// The tag by which MLflow marks a registered model as a prompt.
const PROMPT_TAG: &str = "mlflow.prompt.is_prompt";

/// Appends the clauses. `tag.p != 'true'` for prompts means "is not a prompt", also for models without the tag.
fn filter(sql: &mut Sql, clauses: Vec<Clause>) -> Result<()> {
    let not_a_prompt = |clause: &Clause| {
        clause.entity == Entity::Tag
            && clause.key == PROMPT_TAG
            && clause.op == Op::Ne
            && clause.operand == Operand::Text("true".to_owned())
    };
    let (prompts, others): (Vec<_>, Vec<_>) = clauses.into_iter().partition(not_a_prompt);
    if !prompts.is_empty() {
        sql.push(
            " AND NOT EXISTS (SELECT 1 FROM ml_registered_model_tags p WHERE p.namespace = m.namespace AND p.name = m.name \
             AND p.value = 'true' AND p.key = ",
        );
        sql.bind(PROMPT_TAG).push(")");
    }
    SCHEMA.filter(sql, &others)
}

pub(super) async fn search(context: Context, args: Args) -> Result<Value> {
    let page = Page::from_args(&args, 100, 1000)?;
    let mut sql = sql!("SELECT m.* FROM ml_registered_models m WHERE m.namespace = ?", &context.namespace);
    filter(&mut sql, parse(&args.text_or_empty("filter")?)?)?;
    let orders =
        args.texts("order_by")?.iter().map(|order| parse_order(order)).collect::<Result<Vec<_>>>()?;
    SCHEMA.order(&mut sql, &orders, "m.name ASC")?;
    page.append(&mut sql);
    let rows = sql.rows(context.db().read(), "search registered models").await?;
    Ok(page.answer("registered_models", complete(&context, &rows).await?))
}

async fn put_tag(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    name: &str,
    key: &str,
    value: &str,
) -> Result<()> {
    validate::model_tag(key, value)?;
    sql!(
        "INSERT INTO ml_registered_model_tags (namespace, name, key, value, owner) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (namespace, name, key) DO UPDATE SET value = excluded.value",
        &context.namespace,
        name,
        key,
        value,
        &context.owner
    )
    .run(&mut **tx, "set the tag")
    .await?;
    Ok(())
}

pub(super) async fn set_tag(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    let mut tx = context.db().begin().await?;
    touch(&context, &mut tx, &name).await?;
    put_tag(&context, &mut tx, &name, &args.text("key")?, &args.text_or_empty("value")?).await?;
    tx.commit().await.doing("set the tag")?;
    Ok(json!({}))
}

pub(super) async fn delete_tag(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    let mut tx = context.db().begin().await?;
    touch(&context, &mut tx, &name).await?;
    sql!(
        "DELETE FROM ml_registered_model_tags WHERE namespace = ? AND name = ? AND key = ?",
        &context.namespace,
        &name,
        args.text("key")?
    )
    .run(&mut *tx, "delete the tag")
    .await?;
    tx.commit().await.doing("delete the tag")?;
    Ok(json!({}))
}
