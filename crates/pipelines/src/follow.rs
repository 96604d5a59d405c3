//! The watch that keeps the rows of runs up with their Workflows.
//!
//! Events may come twice, late or not at all: each one only says "look at this Workflow", and the list that begins a
//! watch repairs what was missed.

use std::collections::BTreeSet;

use api::workflow::Workflow;
use futures::TryStreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher::{self, Event};
use sqlx::Row;

use crate::db::Db;
use crate::error::{Doing, Error, Result};
use crate::{row, rows, wire};

/// Follows the Workflows of all namespaces until the stream ends (it does not, it retries with back-off).
///
/// A row that cannot be written now is written by the next event or by the next list, so failures are only told.
pub(crate) async fn run(db: &Db, client: kube::Client) -> Result<()> {
    // Untyped, so that one object that does not fit the type is skipped instead of ending every list.
    let kind = ApiResource::erase::<Workflow>(&());
    let api = Api::<DynamicObject>::all_with(client, &kind);
    let config = watcher::Config::default().labels(api::workflow::label::RUN_ID);
    let mut events = cluster::watch_with(api, &kind, config);
    let mut listed: Option<BTreeSet<String>> = None;
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
                listed = Some(BTreeSet::new());
                Ok(())
            }
            Event::InitApply(workflow) => {
                if let (Some(listed), Some(uid)) = (&mut listed, &workflow.metadata.uid) {
                    listed.insert(uid.clone());
                }
                apply(db, workflow).await
            }
            Event::Apply(workflow) => apply(db, workflow).await,
            Event::Delete(workflow) => delete(db, workflow).await,
            Event::InitDone => lose_all_but(db, listed.take().unwrap_or_default()).await,
        };
        if let Err(error) = done {
            tracing::warn!(error = %error.text(), "saving a run");
        }
    }
}

fn derived(workflow: DynamicObject) -> Option<row::Derived> {
    let name = workflow.metadata.name.clone().unwrap_or_default();
    let typed = serde_json::to_value(workflow).and_then(|tree| cluster::read::<Workflow>(&tree));
    match typed {
        Ok(workflow) => row::derive(&workflow),
        Err(error) => {
            tracing::warn!(workflow = name, %error, "a Workflow that cannot be read");
            None
        }
    }
}

async fn apply(db: &Db, workflow: DynamicObject) -> Result<()> {
    match derived(workflow) {
        Some(derived) => rows::save(db, &derived).await.map(|_| ()),
        None => Ok(()),
    }
}

/// The Workflow is gone: its last state counts, and a run that had none has failed.
async fn delete(db: &Db, workflow: DynamicObject) -> Result<()> {
    let Some(derived) = derived(workflow) else { return Ok(()) };
    if rows::purge(db, &derived.workflow_uid).await? {
        return Ok(());
    }
    let done = match rows::find(db, &derived.run.run_id).await {
        Ok(row) if row.try_get::<String, _>("workflow_uid").doing("read a run")? != derived.workflow_uid => {
            Ok(())
        }
        Ok(_) if row::is_final(derived.state) => rows::save(db, &derived).await.map(|_| ()),
        Ok(_) => rows::lost(db, &derived.run.run_id).await,
        Err(error) => Err(error),
    };
    match done {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// After a full list: what lost its Workflow while nobody watched.
async fn lose_all_but(db: &Db, listed: BTreeSet<String>) -> Result<()> {
    let doing = "list running runs";
    let sql = "SELECT id, workflow_uid, storage_state FROM kfp_runs WHERE created_at < $1 AND \
               (storage_state = 'DELETED' OR state IN ('PENDING', 'RUNNING', 'CANCELING', 'PAUSED'))";
    // A run of this very moment may be younger than the list.
    let before = wire::now() - 60_000_000;
    for row in db.rows(sql.to_owned(), &[before.into()], doing).await? {
        let text = |name| row.try_get::<String, _>(name).doing(doing);
        let uid = text("workflow_uid")?;
        if listed.contains(&uid) {
            continue;
        }
        if text("storage_state")? == rows::DELETED {
            rows::purge(db, &uid).await?;
        } else {
            rows::lost(db, &text("id")?).await?;
        }
    }
    Ok(())
}
