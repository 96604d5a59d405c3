//! Finding model versions: by filter, and the latest of each stage.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::versions::complete;
use crate::Context;
use crate::args::Args;
use crate::db::sql;
use crate::error::Result;
use crate::filter::sql::{Child, Kind, Schema, number, text};
use crate::filter::{Entity, parse, parse_order};
use crate::page::Page;

const SCHEMA: Schema = Schema {
    attributes: &[
        text(&["name"], "v.name"),
        number(&["version_number", "version"], "v.version"),
        text(&["run_id"], "v.run_id"),
        text(&["source_path", "source"], "v.source"),
        number(&["creation_timestamp"], "v.creation_time"),
        number(&["last_updated_timestamp"], "v.last_update_time"),
    ],
    children: &[Child {
        entity: Entity::Tag,
        table: "ml_model_version_tags",
        on: "c.namespace = v.namespace AND c.name = v.name AND c.version = v.version",
        kind: Kind::Text,
    }],
    datasets: None,
};

pub(super) async fn search(context: Context, args: Args) -> Result<Value> {
    let page = Page::from_args(&args, 10_000, 200_000)?;
    let mut sql = sql!("SELECT v.* FROM ml_model_versions v WHERE v.namespace = ?", &context.namespace);
    SCHEMA.filter(&mut sql, &parse(&args.text_or_empty("filter")?)?)?;
    let orders =
        args.texts("order_by")?.iter().map(|order| parse_order(order)).collect::<Result<Vec<_>>>()?;
    SCHEMA.order(&mut sql, &orders, "v.last_update_time DESC, v.name ASC, v.version DESC")?;
    page.append(&mut sql);
    let rows = sql.rows(context.db().read(), "search model versions").await?;
    Ok(page.answer("model_versions", complete(&context, &rows).await?))
}

/// The newest version of each stage, by model; all stages when none is asked for.
pub(super) async fn latest_of(
    context: &Context,
    names: &[String],
    stages: &[String],
) -> Result<HashMap<String, Vec<Value>>> {
    let mut sql = sql!(
        "SELECT v.* FROM ml_model_versions v WHERE v.namespace = ? AND v.version = (SELECT MAX(o.version) FROM \
         ml_model_versions o WHERE o.namespace = v.namespace AND o.name = v.name AND o.current_stage = v.current_stage) \
         AND v.name IN ",
        &context.namespace
    );
    sql.bind_list(names);
    let rows = sql.rows(context.db().read(), "read the latest versions").await?;
    let wanted = |row: &AnyRow| {
        let stage: String = row.get("current_stage");
        stages.is_empty() || stages.iter().any(|wanted| wanted.eq_ignore_ascii_case(&stage))
    };
    let rows: Vec<AnyRow> = rows.into_iter().filter(wanted).collect();
    let mut found: HashMap<String, Vec<Value>> = HashMap::new();
    for version in complete(context, &rows).await? {
        let name = version["name"].as_str().unwrap_or_default().to_owned();
        found.entry(name).or_default().push(version);
    }
    Ok(found)
}

pub(super) async fn latest(context: Context, args: Args) -> Result<Value> {
    let name = args.text("name")?;
    super::models::get(context.clone(), Args::from_pairs([("name".to_owned(), name.clone())])).await?;
    let found = latest_of(&context, std::slice::from_ref(&name), &args.texts("stages")?).await?.remove(&name);
    Ok(json!({"model_versions": found.unwrap_or_default()}))
}
