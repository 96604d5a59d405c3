//! `runs/search`: the filter becomes one statement that gives ids, which are then read as a page.

use serde_json::Value;
use sqlx::Row;

use super::experiments::view_type;
use super::runs_read;
use crate::Context;
use crate::args::Args;
use crate::db::Sql;
use crate::error::Result;
use crate::filter::sql::{Child, Kind, Schema, number, text};
use crate::filter::{Entity, parse, parse_order};
use crate::page::Page;
use crate::validate;

const SCHEMA: Schema = Schema {
    attributes: &[
        text(&["run_id"], "r.run_id"),
        text(&["run_name", "run name", "Run name", "Run Name"], "r.name"),
        text(&["status"], "r.status"),
        text(&["user_id"], "r.user_id"),
        text(&["artifact_uri"], "r.artifact_uri"),
        number(&["start_time", "created", "Created"], "r.start_time"),
        number(&["end_time"], "r.end_time"),
        number(&["experiment_id"], "r.experiment_id"),
    ],
    children: &[
        Child {
            entity: Entity::Metric,
            table: "ml_latest_metrics",
            on: "c.run_id = r.run_id",
            kind: Kind::Number,
        },
        Child { entity: Entity::Param, table: "ml_params", on: "c.run_id = r.run_id", kind: Kind::Text },
        Child { entity: Entity::Tag, table: "ml_tags", on: "c.run_id = r.run_id", kind: Kind::Text },
    ],
    datasets: Some("c.run_id = r.run_id"),
};

pub(super) async fn search(context: Context, args: Args) -> Result<Value> {
    let page = Page::from_args(&args, 1000, 50_000)?;
    let mut sql = Sql::new("SELECT r.run_id FROM ml_runs r WHERE r.namespace = ");
    sql.bind(context.namespace.as_str());
    let experiments = args
        .texts("experiment_ids")?
        .iter()
        .map(|id| validate::experiment_id(id))
        .collect::<Result<Vec<_>>>()?;
    sql.push(" AND r.experiment_id IN ").bind_list(experiments);
    view_type(&mut sql, &args, "run_view_type", "r.lifecycle_stage")?;
    SCHEMA.filter(&mut sql, &parse(&args.text_or_empty("filter")?)?)?;
    let orders =
        args.texts("order_by")?.iter().map(|order| parse_order(order)).collect::<Result<Vec<_>>>()?;
    SCHEMA.order(&mut sql, &orders, "r.start_time DESC, r.run_id ASC")?;
    page.append(&mut sql);
    let ids: Vec<String> =
        sql.rows(context.db().read(), "search runs").await?.iter().map(|row| row.get(0)).collect();
    let rows = runs_read::rows(&context, &ids).await?;
    Ok(page.answer("runs", runs_read::complete(&context, &rows).await?))
}
