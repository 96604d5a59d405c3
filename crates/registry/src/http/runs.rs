//! Runs: create, read, update, delete, restore, and the listing of their artifacts.

use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use sqlx::any::Any;
use sqlx::{Row, Transaction};

use super::runs_read::{self, run_info};
use crate::args::Args;
use crate::db::sql;
use crate::error::{Doing, Error, Result};
use crate::{Context, artifacts, now_ms, validate};

/// The names of MLflow's run states, by their protobuf numbers from 1.
const STATUSES: [&str; 5] = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"];
/// The tag that mirrors a run's name.
const NAME_TAG: &str = "mlflow.runName";

const ADJECTIVES: [&str; 16] = [
    "amber", "brisk", "calm", "clever", "eager", "fleet", "gentle", "hardy", "jolly", "keen", "lucid",
    "nimble", "quiet", "sturdy", "swift", "vivid",
];
const NOUNS: [&str; 16] = [
    "anchor", "beacon", "berth", "breeze", "buoy", "cable", "compass", "current", "dock", "harbor", "keel",
    "lantern", "mast", "rudder", "sail", "tide",
];

/// What a new run is made of.
pub(crate) struct NewRun {
    pub(crate) run_id: String,
    pub(crate) experiment_id: i64,
    pub(crate) name: String,
    pub(crate) user_id: String,
    pub(crate) status: &'static str,
    pub(crate) start_time: Option<i64>,
    pub(crate) tags: Vec<(String, String)>,
}

/// Writes the run; a run of that id that is there already stays as it is.
pub(crate) async fn insert(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run: &NewRun,
) -> Result<bool> {
    let location = artifact_root(context, tx, run.experiment_id).await?;
    let uri = format!("{location}/{}/artifacts", run.run_id);
    let added = sql!(
        "INSERT INTO ml_runs (run_id, namespace, owner, experiment_id, name, user_id, status, start_time, lifecycle_stage, \
         artifact_uri) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'active', ?) ON CONFLICT DO NOTHING",
        &run.run_id,
        &context.namespace,
        &context.owner,
        run.experiment_id,
        &run.name,
        &run.user_id,
        run.status,
        run.start_time,
        uri
    )
    .run(&mut **tx, "create the run")
    .await?;
    for (key, value) in &run.tags {
        put_tag(context, tx, &run.run_id, key, value).await?;
    }
    put_tag(context, tx, &run.run_id, NAME_TAG, &run.name).await?;
    Ok(added > 0)
}

async fn artifact_root(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    experiment_id: i64,
) -> Result<String> {
    let rows = sql!(
        "SELECT artifact_location, lifecycle_stage FROM ml_experiments WHERE namespace = ? AND id = ?",
        &context.namespace,
        experiment_id
    )
    .rows(&mut **tx, "read the experiment")
    .await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::NotFound(format!("No Experiment with id={experiment_id} exists")))?;
    if row.get::<String, _>(1) != "active" {
        return Err(Error::Invalid(format!(
            "The experiment {experiment_id} must be in the 'active' state. Current state is deleted."
        )));
    }
    Ok(row.get::<String, _>(0).trim_end_matches('/').to_owned())
}

/// Sets a tag of a run.
pub(crate) async fn put_tag(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
    key: &str,
    value: &str,
) -> Result<()> {
    let value = validate::tag(key, value.to_owned())?;
    sql!(
        "INSERT INTO ml_tags (run_id, key, value, namespace, owner) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value",
        run_id,
        key,
        value,
        &context.namespace,
        &context.owner
    )
    .run(&mut **tx, "set the tag")
    .await?;
    Ok(())
}

/// Refuses unless the run exists and is active.
pub(crate) async fn require_active(
    context: &Context,
    tx: &mut Transaction<'static, Any>,
    run_id: &str,
) -> Result<()> {
    let rows = sql!(
        "SELECT lifecycle_stage FROM ml_runs WHERE run_id = ? AND namespace = ?",
        run_id,
        &context.namespace
    )
    .rows(&mut **tx, "read the run")
    .await?;
    match rows.first().map(|row| row.get::<String, _>(0)).as_deref() {
        Some("active") => Ok(()),
        Some(other) => Err(Error::Invalid(format!(
            "The run {run_id} must be in the 'active' state. Current state is {other}."
        ))),
        None => Err(no_run(run_id)),
    }
}

pub(super) fn no_run(run_id: &str) -> Error {
    Error::NotFound(format!("Run with id={run_id} not found"))
}

pub(super) async fn create(context: Context, args: Args) -> Result<Value> {
    let experiment_id = match args.text_opt("experiment_id")?.filter(|id| !id.is_empty()) {
        Some(id) => validate::experiment_id(&id)?,
        None => 0,
    };
    if experiment_id == 0 {
        super::experiments::ensure_default(&context).await?;
    }
    let mut tags = args.pairs("tags")?;
    let tagged = tags.iter().find(|(key, _)| key == NAME_TAG).map(|(_, value)| value.clone());
    let named = args.text_opt("run_name")?.filter(|name| !name.is_empty());
    if let (Some(name), Some(tag)) = (&named, &tagged)
        && name != tag
    {
        return Err(Error::Invalid(format!(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values \
             (run_name='{name}', mlflow.runName='{tag}')."
        )));
    }
    tags.retain(|(key, _)| key != NAME_TAG);
    let run = NewRun {
        run_id: uuid::Uuid::new_v4().simple().to_string(),
        experiment_id,
        name: named.or(tagged).unwrap_or_else(random_name),
        user_id: args.text_or_empty("user_id")?,
        status: "RUNNING",
        start_time: Some(args.int_opt("start_time")?.unwrap_or_else(now_ms)),
        tags,
    };
    let mut tx = context.db().begin().await?;
    insert(&context, &mut tx, &run).await?;
    tx.commit().await.doing("create the run")?;
    Ok(json!({"run": runs_read::load(&context, &run.run_id).await?}))
}

fn random_name() -> String {
    let mut rng = rand::rng();
    let pick = |words: &'static [&'static str], rng: &mut rand::rngs::ThreadRng| {
        *words.choose(rng).unwrap_or(&"run")
    };
    format!("{}-{}-{}", pick(&ADJECTIVES, &mut rng), pick(&NOUNS, &mut rng), rand::random_range(0..1000))
}

pub(super) async fn get(context: Context, args: Args) -> Result<Value> {
    Ok(json!({"run": runs_read::load(&context, &args.run_id()?).await?}))
}

fn status(text: &str) -> Result<&'static str> {
    let by_number = text.parse::<usize>().ok().and_then(|number| STATUSES.get(number.wrapping_sub(1)));
    by_number.or_else(|| STATUSES.iter().find(|name| **name == text)).copied().ok_or_else(|| {
        Error::Invalid(format!(
            "Invalid value '{text}' for parameter 'status': expected one of {}",
            STATUSES.join(", ")
        ))
    })
}

pub(super) async fn update(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let mut tx = context.db().begin().await?;
    require_active(&context, &mut tx, &run_id).await?;
    if let Some(text) = args.text_opt("status")?.filter(|text| !text.is_empty()) {
        sql!("UPDATE ml_runs SET status = ? WHERE run_id = ?", status(&text)?, &run_id)
            .run(&mut *tx, "update the run")
            .await?;
    }
    if let Some(end) = args.int_opt("end_time")? {
        sql!("UPDATE ml_runs SET end_time = ? WHERE run_id = ?", end, &run_id)
            .run(&mut *tx, "update the run")
            .await?;
    }
    if let Some(name) = args.text_opt("run_name")?.filter(|name| !name.is_empty()) {
        sql!("UPDATE ml_runs SET name = ? WHERE run_id = ?", &name, &run_id)
            .run(&mut *tx, "update the run")
            .await?;
        put_tag(&context, &mut tx, &run_id, NAME_TAG, &name).await?;
    }
    tx.commit().await.doing("update the run")?;
    let rows = runs_read::rows(&context, std::slice::from_ref(&run_id)).await?;
    Ok(json!({"run_info": rows.first().map(run_info)}))
}

async fn set_stage(context: Context, args: Args, from: &str, to: &str) -> Result<Value> {
    let run_id = args.run_id()?;
    let deleted = (to == "deleted").then(now_ms);
    let mut tx = context.db().begin().await?;
    let changed = sql!(
        "UPDATE ml_runs SET lifecycle_stage = ?, deleted_time = ? WHERE run_id = ? AND namespace = ? AND lifecycle_stage = ?",
        to,
        deleted,
        &run_id,
        &context.namespace,
        from
    )
    .run(&mut *tx, "change the run")
    .await?;
    if changed == 0 {
        // Deleting what is deleted is refused as MLflow does; an unknown run is another error.
        let rows =
            sql!("SELECT 1 FROM ml_runs WHERE run_id = ? AND namespace = ?", &run_id, &context.namespace)
                .rows(&mut *tx, "read the run")
                .await?;
        return Err(if rows.is_empty() {
            no_run(&run_id)
        } else {
            Error::Invalid(format!("The run {run_id} must be in the '{from}' state. Current state is {to}."))
        });
    }
    tx.commit().await.doing("change the run")?;
    Ok(json!({}))
}

pub(super) async fn delete(context: Context, args: Args) -> Result<Value> {
    set_stage(context, args, "active", "deleted").await
}

pub(super) async fn restore(context: Context, args: Args) -> Result<Value> {
    set_stage(context, args, "deleted", "active").await
}

pub(super) async fn list_artifacts(context: Context, args: Args) -> Result<Value> {
    let run_id = args.run_id()?;
    let path = validate::artifact_path(&args.text_or_empty("path")?)?;
    let rows = runs_read::rows(&context, std::slice::from_ref(&run_id)).await?;
    let root: String = rows.first().ok_or_else(|| no_run(&run_id))?.get("artifact_uri");
    let files = list_below(&context, &root, &path).await?;
    Ok(json!({"root_uri": root, "files": files}))
}

/// `FileInfo`s below an artifact root, their paths relative to the root.
pub(super) async fn list_below(context: &Context, root: &str, path: &str) -> Result<Vec<Value>> {
    let Some(folder) = artifacts::proxied_path(root) else {
        return Err(Error::Invalid(format!(
            "Artifacts of '{root}' are not kept by this server; list them at their store"
        )));
    };
    let entries = context.artifacts().list(&context.namespace, &format!("{folder}/{path}")).await?;
    Ok(entries.iter().map(|entry| entry.file_info(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_name_or_its_number() {
        assert_eq!(status("FINISHED").unwrap(), "FINISHED");
        assert_eq!(status("3").unwrap(), "FINISHED");
        assert!(status("0").is_err() && status("6").is_err() && status("done").is_err());
    }
}
