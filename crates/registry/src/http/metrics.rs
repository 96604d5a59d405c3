//! Metrics: how they are written, what "latest" means, and their histories.
//!
//! NaN has a flag of its own, since SQL compares it in two ways and JSON has none; infinities are kept as the largest
//! doubles, as upstream keeps them. An exact repeat of a metric is no new row.

use serde_json::{Value, json};
use sqlx::any::{Any, AnyRow};
use sqlx::{Row, Transaction};

use crate::Context;
use crate::args::Args;
use crate::db::{Sql, sql};
use crate::error::{Error, Result};
use crate::page::Page;
use crate::validate;

/// Rows of one insert. SQLite finds a named placeholder (`$n`) by walking a list, so the cost of a statement grows faster
/// than its rows; short statements also stay in the cache of prepared ones.
const INSERT_ROWS: usize = 50;
/// Runs of one bulk history.
const BULK_RUNS_MAX: usize = 100;

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metric {
    pub(crate) key: String,
    pub(crate) value: f64,
    pub(crate) timestamp: i64,
    pub(crate) step: i64,
    pub(crate) model_id: String,
    pub(crate) dataset_name: String,
    pub(crate) dataset_digest: String,
}

impl Metric {
    /// From the fields of `log-metric` or of an element of `log-batch`.
    pub(super) fn from_args(args: &Args) -> Result<Self> {
        let key = args.text("key")?;
        validate::key("Metric", &key)?;
        let timestamp = args.int("timestamp")?;
        validate::metric_time(&key, timestamp)?;
        Ok(Self {
            value: args.double("value")?,
            step: args.int_opt("step")?.unwrap_or(0),
            model_id: args.text_or_empty("model_id")?,
            dataset_name: args.text_or_empty("dataset_name")?,
            dataset_digest: args.text_or_empty("dataset_digest")?,
            key,
            timestamp,
        })
    }

    fn stored(&self) -> (f64, i64) {
        if self.value.is_nan() { (0.0, 1) } else { (self.value.clamp(f64::MIN, f64::MAX), 0) }
    }

    /// What decides which of two values is the latest.
    fn rank(&self) -> (i64, i64, f64) {
        (self.step, self.timestamp, self.stored().0)
    }
}

/// A stored value as JSON.
pub(super) fn shown(value: f64, is_nan: i64) -> Value {
    if is_nan != 0 { json!("NaN") } else { json!(value) }
}

/// The latest value of each key, in the order of first appearance: one upsert may not meet a key twice.
fn latest(metrics: &[Metric]) -> Vec<&Metric> {
    let mut kept: Vec<&Metric> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for metric in metrics {
        match places.get(metric.key.as_str()) {
            None => {
                places.insert(metric.key.as_str(), kept.len());
                kept.push(metric);
            }
            Some(&place) if kept[place].rank() < metric.rank() => kept[place] = metric,
            Some(_) => {}
        }
    }
    kept
}

/// Writes metrics of a run, and of the logged models they name.
pub(crate) async fn write(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
    metrics: &[Metric],
) -> Result<()> {
    for chunk in metrics.chunks(INSERT_ROWS) {
        let mut sql = insert_into("ml_metrics", context, run_id, chunk.iter());
        sql.push(" ON CONFLICT DO NOTHING");
        sql.run(&mut **tx, "log metrics").await?;
    }
    for chunk in latest(metrics).chunks(INSERT_ROWS) {
        let mut sql = insert_into("ml_latest_metrics", context, run_id, chunk.iter().copied());
        sql.push(
            " ON CONFLICT (run_id, key) DO UPDATE SET timestamp = excluded.timestamp, step = excluded.step, \
             value = excluded.value, is_nan = excluded.is_nan WHERE (excluded.step, excluded.timestamp, excluded.value) > \
             (ml_latest_metrics.step, ml_latest_metrics.timestamp, ml_latest_metrics.value)",
        );
        sql.run(&mut **tx, "log metrics").await?;
    }
    for metric in metrics.iter().filter(|metric| !metric.model_id.is_empty()) {
        write_of_model(context, tx, run_id, metric).await?;
    }
    Ok(())
}

fn insert_into<'a>(
    table: &str,
    context: &Context,
    run_id: &str,
    metrics: impl Iterator<Item = &'a Metric>,
) -> Sql {
    let mut sql = Sql::new("INSERT INTO ");
    sql.push(table).push(" (run_id, key, timestamp, step, value, is_nan, namespace, owner) VALUES ");
    for (at, metric) in metrics.enumerate() {
        let (value, is_nan) = metric.stored();
        sql.push(if at == 0 { "(" } else { ", (" });
        sql.bind(run_id)
            .push(", ")
            .bind(&metric.key)
            .push(", ")
            .bind(metric.timestamp)
            .push(", ")
            .bind(metric.step);
        sql.push(", ").bind(value).push(", ").bind(is_nan).push(", ").bind(&context.namespace).push(", ");
        sql.bind(&context.owner).push(")");
    }
    sql
}

async fn write_of_model(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
    metric: &Metric,
) -> Result<()> {
    let (value, is_nan) = metric.stored();
    sql!(
        "INSERT INTO ml_logged_model_metrics (model_id, key, timestamp, step, value, is_nan, run_id, dataset_name, \
         dataset_digest, namespace, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (model_id, key, timestamp, step, run_id) DO UPDATE SET value = excluded.value",
        &metric.model_id,
        &metric.key,
        metric.timestamp,
        metric.step,
        value,
        is_nan,
        run_id,
        &metric.dataset_name,
        &metric.dataset_digest,
        &context.namespace,
        &context.owner
    )
    .run(&mut **tx, "log the model's metrics")
    .await?;
    Ok(())
}

fn point(row: &AnyRow) -> Value {
    json!({
        "key": row.get::<String, _>("key"),
        "value": shown(row.get("value"), row.get("is_nan")),
        "timestamp": row.get::<i64, _>("timestamp"),
        "step": row.get::<i64, _>("step"),
        "run_id": row.get::<String, _>("run_id"),
    })
}

pub(super) async fn history(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let key = args.text("metric_key")?;
    // Without a limit upstream gives the whole history.
    let paged = args.has("max_results") || args.has("page_token");
    let page = Page::from_args(&args, 25_000, 1_000_000_000)?;
    let exists =
        sql!("SELECT 1 FROM ml_runs WHERE run_id = ? AND namespace = ?", &run_id, &context.namespace)
            .rows(context.db().read(), "read the run")
            .await?;
    if exists.is_empty() {
        return Err(super::runs::no_run(&run_id));
    }
    let mut sql = sql!(
        "SELECT * FROM ml_metrics WHERE run_id = ? AND key = ? ORDER BY timestamp, step, value",
        &run_id,
        &key
    );
    if paged {
        page.append(&mut sql);
    }
    let points: Vec<Value> =
        sql.rows(context.db().read(), "read the metric's history").await?.iter().map(point).collect();
    if paged { Ok(page.answer("metrics", points)) } else { Ok(json!({"metrics": points})) }
}

fn bulk_runs(args: &Args) -> Result<Vec<String>> {
    let mut runs = args.texts("run_id")?;
    runs.extend(args.texts("run_ids")?);
    if runs.is_empty() {
        return Err(crate::args::missing("run_ids"));
    }
    if runs.len() > BULK_RUNS_MAX {
        return Err(Error::Invalid(format!(
            "GetMetricHistoryBulk request must specify at most {BULK_RUNS_MAX} run_ids. Received {} run_ids.",
            runs.len()
        )));
    }
    Ok(runs)
}

async fn bulk(context: &Context, args: &Args) -> Result<Vec<AnyRow>> {
    let runs = bulk_runs(args)?;
    let mut sql = sql!(
        "SELECT * FROM ml_metrics WHERE namespace = ? AND key = ? AND run_id IN ",
        &context.namespace,
        args.text("metric_key")?
    );
    sql.bind_list(&runs);
    if let Some(start) = args.int_opt("start_step")? {
        sql.push(" AND step >= ").bind(start);
    }
    if let Some(end) = args.int_opt("end_step")? {
        sql.push(" AND step <= ").bind(end);
    }
    sql.push(" ORDER BY run_id, step, timestamp, value LIMIT ").bind(25_000_i64);
    sql.rows(context.db().read(), "read the metric's histories").await
}

pub(super) async fn history_bulk(context: Context, args: Args) -> Result<Value> {
    let points: Vec<Value> = bulk(&context, &args).await?.iter().map(point).collect();
    Ok(json!({"metrics": points}))
}

/// Thins each run's history to `max_results` points, keeping its first and last.
pub(super) async fn history_bulk_interval(context: Context, args: Args) -> Result<Value> {
    let most = usize::try_from(args.int_opt("max_results")?.unwrap_or(320).clamp(1, 2500)).unwrap_or(320);
    let rows = bulk(&context, &args).await?;
    let mut points = Vec::new();
    for run in rows.chunk_by(|a, b| a.get::<String, _>("run_id") == b.get::<String, _>("run_id")) {
        let last = run.len() - 1;
        let stride = run.len().div_ceil(most).max(1);
        points.extend(
            run.iter()
                .enumerate()
                .filter(|(at, _)| at % stride == 0 || *at == last)
                .map(|(_, row)| point(row)),
        );
    }
    Ok(json!({"metrics": points}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(key: &str, value: f64, timestamp: i64, step: i64) -> Metric {
        Metric {
            key: key.into(),
            value,
            timestamp,
            step,
            model_id: String::new(),
            dataset_name: String::new(),
            dataset_digest: String::new(),
        }
    }

    #[test]
    fn latest_is_by_step_then_time_then_value() {
        let all = [
            metric("a", 9.0, 100, 1),
            metric("a", 1.0, 50, 2),
            metric("b", 1.0, 1, 0),
            metric("b", 2.0, 1, 0),
            metric("a", 5.0, 40, 2),
        ];
        let kept: Vec<_> = latest(&all).iter().map(|m| (m.key.as_str(), m.value)).collect();
        assert_eq!(kept, [("a", 1.0), ("b", 2.0)]);
    }

    #[test]
    fn nan_and_infinities_have_a_stored_form() {
        assert_eq!(metric("a", f64::NAN, 0, 0).stored(), (0.0, 1));
        assert_eq!(metric("a", f64::INFINITY, 0, 0).stored(), (f64::MAX, 0));
        assert_eq!(shown(0.0, 1), json!("NaN"));
    }
}
