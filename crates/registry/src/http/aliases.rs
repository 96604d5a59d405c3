//! Aliases: names that point to one version of a model, `models:/churn@champion`.

use serde_json::{Value, json};
use sqlx::Row;

use super::{models, versions};
use crate::args::Args;
use crate::db::sql;
use crate::error::{Doing, Error, Result};
use crate::{Context, validate};

pub(super) async fn set(context: Context, args: Args) -> Result<Value> {
    let (name, alias) = (args.text("name")?, args.text("alias")?);
    validate::alias(&alias)?;
    let version = validate::version(&args.text("version")?)?;
    let mut tx = context.db().begin().await?;
    versions::require(&context, &mut tx, &name, version).await?;
    sql!(
        "INSERT INTO ml_aliases (namespace, name, alias, version, owner) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (namespace, name, alias) DO UPDATE SET version = excluded.version",
        &context.namespace,
        &name,
        &alias,
        version,
        &context.owner
    )
    .run(&mut *tx, "set the alias")
    .await?;
    models::touch(&context, &mut tx, &name).await?;
    tx.commit().await.doing("set the alias")?;
    Ok(json!({}))
}

pub(super) async fn get(context: Context, args: Args) -> Result<Value> {
    let (name, alias) = (args.text("name")?, args.text("alias")?);
    let rows = sql!(
        "SELECT version FROM ml_aliases WHERE namespace = ? AND name = ? AND alias = ?",
        &context.namespace,
        &name,
        &alias
    )
    .rows(context.db().read(), "read the alias")
    .await?;
    // MLflow answers an unknown alias as a bad value, and an unknown model as not found.
    match rows.first() {
        Some(row) => {
            Ok(json!({"model_version": versions::load(&context, &name, row.get::<i64, _>(0)).await?}))
        }
        None => {
            models::get(context, Args::from_pairs([("name".to_owned(), name)])).await?;
            Err(Error::Invalid(format!("Registered model alias {alias} not found.")))
        }
    }
}

pub(super) async fn delete(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    let mut tx = context.db().begin().await?;
    models::touch(&context, &mut tx, &name).await?;
    sql!(
        "DELETE FROM ml_aliases WHERE namespace = ? AND name = ? AND alias = ?",
        &context.namespace,
        &name,
        args.text("alias")?
    )
    .run(&mut *tx, "delete the alias")
    .await?;
    tx.commit().await.doing("delete the alias")?;
    Ok(json!({}))
}
