//! The rows of runs: written from what Workflows say, and only when that changed.

use api::workflow::Workflow;
use futures::TryStreamExt;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::db::{self, Bind, Db};
use crate::error::{Doing, Error, Result};
use crate::row::{self, Derived};
use crate::wire;

/// The row of a run.
pub(crate) async fn find(db: &Db, id: &str) -> Result<AnyRow> {
    let row = db.row("SELECT * FROM kfp_runs WHERE id = $1".to_owned(), &[id.into()], "read a run").await?;
    row.ok_or_else(|| Error::NotFound { what: "run", id: id.to_owned() })
}

/// Writes what a Workflow says; whether anything was new. A final state is never left again.
pub(crate) async fn save(db: &Db, derived: &Derived) -> Result<bool> {
    let doing = "save a run";
    let mut tx = db.begin().await?;
    let sql = "SELECT state, state_history, error, task_details, finished_at FROM kfp_runs WHERE id = $1";
    let old = db::row_in(&mut tx, sql, &[derived.run.run_id.as_str().into()], doing).await?;
    let tasks = derived.task_details.to_string();
    let Some(old) = old else {
        insert(&mut tx, derived, &tasks).await?;
        tx.commit().await.doing(doing)?;
        return Ok(true);
    };
    let text = |name| old.try_get::<String, _>(name).doing(doing);
    let state = text("state")?;
    let same = state == derived.state && text("error")? == derived.error && text("task_details")? == tasks;
    if same || (row::is_final(&state) && !row::is_final(derived.state)) {
        return Ok(false);
    }
    let history =
        row::with_state(wire::stored("state_history", &text("state_history")?)?, derived.state, wire::now());
    let sql = "UPDATE kfp_runs SET state = $1, state_history = $2, error = $3, task_details = $4, finished_at = $5 \
               WHERE id = $6";
    let binds: [Bind; 6] = [
        derived.state.into(),
        history.to_string().into(),
        derived.error.as_str().into(),
        tasks.into(),
        derived.finished_at.into(),
        derived.run.run_id.as_str().into(),
    ];
    db::execute(&mut tx, sql, &binds, doing).await?;
    tx.commit().await.doing(doing)?;
    Ok(true)
}

async fn insert(
    tx: &mut sqlx::Transaction<'static, sqlx::Any>,
    derived: &Derived,
    tasks: &str,
) -> Result<()> {
    let run = &derived.run;
    let history = row::with_state(Value::Null, derived.state, wire::now());
    let sql = "INSERT INTO kfp_runs (id, namespace, experiment_id, name, description, storage_state, pipeline_id, \
               version_id, spec, runtime_config, service_account, recurring_run_id, created_at, scheduled_at, \
               finished_at, state, state_history, error, task_details, workflow, workflow_uid) VALUES ($1, $2, $3, \
               $4, $5, 'AVAILABLE', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)";
    let binds: [Bind; 20] = [
        run.run_id.as_str().into(),
        derived.namespace.as_str().into(),
        run.experiment_id.as_str().into(),
        run.display_name.as_str().into(),
        derived.description.as_str().into(),
        run.pipeline_id.as_str().into(),
        run.pipeline_version_id.as_str().into(),
        derived.spec_column().into(),
        derived.runtime_config_column().into(),
        derived.service_account.as_str().into(),
        run.recurring_run_id.as_str().into(),
        derived.created_at.into(),
        derived.scheduled_at.into(),
        derived.finished_at.into(),
        derived.state.into(),
        history.to_string().into(),
        derived.error.as_str().into(),
        tasks.into(),
        derived.workflow.as_str().into(),
        derived.workflow_uid.as_str().into(),
    ];
    db::execute(tx, sql, &binds, "save a run").await?;
    let sql =
        "UPDATE kfp_experiments SET last_run_created_at = $1 WHERE id = $2 AND last_run_created_at < $1";
    db::execute(tx, sql, &[derived.created_at.into(), run.experiment_id.as_str().into()], "save a run")
        .await?;
    Ok(())
}

/// The Workflow is gone: a run that had not ended has failed.
pub(crate) async fn lost(db: &Db, id: &str) -> Result<()> {
    let row = find(db, id).await?;
    let text = |name| row.try_get::<String, _>(name).doing("read a run");
    if row::is_final(&text("state")?) {
        return Ok(());
    }
    let now = wire::now();
    let history = row::with_state(wire::stored("state_history", &text("state_history")?)?, "FAILED", now);
    let sql = "UPDATE kfp_runs SET state = 'FAILED', finished_at = $1, state_history = $2, error = $3 WHERE id = $4";
    let error = "the run's Workflow was deleted before it ended";
    let binds = [now.into(), history.to_string().into(), error.into(), id.into()];
    db.write(sql, &binds, "save a run").await.map(|_| ())
}

/// Archives or brings back.
pub(crate) async fn set_storage_state(db: &Db, id: &str, state: &str) -> Result<()> {
    let sql = "UPDATE kfp_runs SET storage_state = $1 WHERE id = $2";
    match db.write(sql, &[state.into(), id.into()], "archive a run").await? {
        0 => Err(Error::NotFound { what: "run", id: id.to_owned() }),
        _ => Ok(()),
    }
}

/// Follows the Workflows of all namespaces until the stream ends (it does not, it retries with back-off).
///
/// A row that cannot be written now is written by the next event or by the next list, so failures are only told.
pub(crate) async fn follow(db: &Db, client: kube::Client) -> Result<()> {
    let api = Api::<Workflow>::all(client);
    let config = watcher::Config::default().labels(api::workflow::label::RUN_ID);
    let mut events = Box::pin(watcher::watcher(api, config).default_backoff());
    let mut listed: Option<std::collections::BTreeSet<String>> = None;
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "watching Workflows");
                continue;
            }
        };
        let done = match event {
            Event::Init => {
                listed = Some(std::collections::BTreeSet::new());
                Ok(())
            }
            Event::InitApply(workflow) => {
                if let (Some(listed), Some(run)) = (&mut listed, workflow.kfp()) {
                    listed.insert(run.run_id);
                }
                apply(db, &workflow).await
            }
            Event::Apply(workflow) => apply(db, &workflow).await,
            Event::Delete(workflow) => delete(db, &workflow).await,
            Event::InitDone => lose_all_but(db, listed.take().unwrap_or_default()).await,
        };
        if let Err(error) = done {
            tracing::warn!(error = %error.text(), "saving a run");
        }
    }
}

async fn apply(db: &Db, workflow: &Workflow) -> Result<()> {
    match row::derive(workflow) {
        Some(derived) => save(db, &derived).await.map(|_| ()),
        None => Ok(()),
    }
}

async fn delete(db: &Db, workflow: &Workflow) -> Result<()> {
    let Some(derived) = row::derive(workflow) else { return Ok(()) };
    if row::is_final(derived.state) {
        return save_if_known(db, &derived).await;
    }
    match lost(db, &derived.run.run_id).await {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// A deleted run's row is not brought back by its Workflow's last event.
async fn save_if_known(db: &Db, derived: &Derived) -> Result<()> {
    match find(db, &derived.run.run_id).await {
        Ok(_) => save(db, derived).await.map(|_| ()),
        Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// After a full list: runs that have not ended and have no Workflow lost it while nobody watched.
async fn lose_all_but(db: &Db, listed: std::collections::BTreeSet<String>) -> Result<()> {
    let sql = "SELECT id FROM kfp_runs WHERE state IN ('PENDING', 'RUNNING', 'CANCELING', 'PAUSED') AND created_at < $1";
    // A run of this very moment may be younger than the list.
    let before = wire::now() - 60_000_000;
    for row in db.rows(sql.to_owned(), &[before.into()], "list running runs").await? {
        let id: String = row.try_get("id").doing("list running runs")?;
        if !listed.contains(&id) {
            lost(db, &id).await?;
        }
    }
    Ok(())
}
