//! The rows of runs: written from what Workflows say, and only when that changed.

use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::db::{self, Bind, Db};
use crate::error::{Doing, Error, Result};
use crate::row::{self, Derived};
use crate::wire;

/// Storage state of a run that was deleted while its Workflow may still be there: nobody sees it, and late events of the
/// Workflow cannot bring it back. The watch removes the row when the Workflow is gone.
pub(crate) const DELETED: &str = "DELETED";

/// The row of a run.
pub(crate) async fn find(db: &Db, id: &str) -> Result<AnyRow> {
    let sql = "SELECT * FROM kfp_runs WHERE id = $1 AND storage_state <> 'DELETED'".to_owned();
    let row = db.row(sql, &[id.into()], "read a run").await?;
    row.ok_or_else(|| Error::NotFound { what: "run", id: id.to_owned() })
}

/// Writes what a Workflow says; whether anything was new. A final state is never left again.
pub(crate) async fn save(db: &Db, derived: &Derived) -> Result<bool> {
    let doing = "save a run";
    let mut tx = db.begin().await?;
    let sql = "SELECT storage_state, workflow_uid, state, state_history, error, task_details FROM kfp_runs WHERE id = $1";
    let old = db::row_in(&mut tx, sql, &[derived.run.run_id.as_str().into()], doing).await?;
    let tasks = derived.task_details.to_string();
    let Some(old) = old else {
        insert(&mut tx, derived, &tasks).await?;
        tx.commit().await.doing(doing)?;
        return Ok(true);
    };
    let text = |name| old.try_get::<String, _>(name).doing(doing);
    // Another Workflow with the same run id (a copy that a user applied) is no business of this run.
    if text("storage_state")? == DELETED || text("workflow_uid")? != derived.workflow_uid {
        return Ok(false);
    }
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
    let sql = "UPDATE kfp_runs SET storage_state = $1 WHERE id = $2 AND storage_state <> 'DELETED'";
    match db.write(sql, &[state.into(), id.into()], "archive a run").await? {
        0 => Err(Error::NotFound { what: "run", id: id.to_owned() }),
        _ => Ok(()),
    }
}

/// Hides a run for good; [`purge`] removes it once its Workflow is gone.
pub(crate) async fn hide(db: &Db, id: &str) -> Result<()> {
    set_storage_state(db, id, DELETED).await
}

/// Takes [`hide`] back: the Workflow could not be deleted.
pub(crate) async fn unhide(db: &Db, id: &str) -> Result<()> {
    let sql = "UPDATE kfp_runs SET storage_state = 'AVAILABLE' WHERE id = $1 AND storage_state = 'DELETED'";
    db.write(sql, &[id.into()], "delete a run").await.map(|_| ())
}

/// Removes the hidden row of a Workflow that is gone; whether there was one.
pub(crate) async fn purge(db: &Db, workflow_uid: &str) -> Result<bool> {
    let sql = "DELETE FROM kfp_runs WHERE workflow_uid = $1 AND storage_state = 'DELETED'";
    Ok(db.write(sql, &[workflow_uid.into()], "delete a run").await? > 0)
}
