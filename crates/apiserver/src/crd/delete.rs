//! The end of a kind: its instances are asked to go, and when the last is gone the definition goes too.
//!
//! It waits on the watch of the instances, so finalizers may take as long as they need; a restart takes up where the
//! deletion was.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{FINALIZER, PREFIX};
use crate::error::Result;
use crate::object;
use crate::server::ApiServer;
use crate::storage::{self, Write, WriteError};

/// Keeps a definition until its instances are gone.
pub fn add_finalizer(definition: &mut Value) {
    let list = object::meta_mut(definition).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|one| one == FINALIZER)
    {
        list.push(FINALIZER.into());
    }
}

/// Goes on with deletions that a stop of the server interrupted.
pub fn resume(server: &Arc<ApiServer>) {
    for definition in storage::read_all(&server.store, PREFIX) {
        if object::is_terminating(&definition) {
            spawn(server, object::name(&definition));
        }
    }
}

/// Starts the removal of a kind's instances.
pub fn spawn(server: &Arc<ApiServer>, name: &str) {
    let (server, name) = (Arc::downgrade(server), name.to_owned());
    tokio::spawn(async move {
        let Some(server) = server.upgrade() else { return };
        if let Err(error) = run(&server, &name).await {
            tracing::warn!(%name, %error, "a custom kind could not be removed");
        }
    });
}

async fn run(server: &Arc<ApiServer>, name: &str) -> Result<()> {
    let key = format!("{PREFIX}{name}");
    let Some(definition) = server.read_key(&key) else { return Ok(()) };
    if !object::finalizers(&definition).contains(&FINALIZER) {
        return Ok(());
    }
    let group = object::text(&definition, "/spec/group");
    let plural = object::text(&definition, "/spec/names/plural");
    let prefix = format!("/{group}/{plural}/");
    let mut watch = server.store.watch(&prefix, server.store.revision())?;
    remove_instances(server, &prefix).await?;
    while server.store.snapshot().range(&prefix, None).next().is_some() {
        // Something has a finalizer: look again when one of them changes.
        match watch.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => watch = server.store.watch(&prefix, server.store.revision())?,
            None => return Ok(()),
        }
    }
    release(server, &key).await
}

/// Removes what has no finalizers and marks what has.
async fn remove_instances(server: &ApiServer, prefix: &str) -> Result<()> {
    let snapshot = server.store.snapshot();
    for record in snapshot.range(prefix, None) {
        let mut instance = storage::parse(&record.value)?;
        let write = if object::finalizers(&instance).is_empty() {
            Write::Delete(&instance, record.modified)
        } else if object::is_terminating(&instance) {
            continue;
        } else {
            let meta = object::meta_mut(&mut instance);
            meta.insert("deletionTimestamp".into(), object::now().into());
            meta.insert("deletionGracePeriodSeconds".into(), 0.into());
            Write::Update(&instance, record.modified)
        };
        if let Err(WriteError::Other(error)) = storage::write(&server.store, &record.key, write).await {
            return Err(error);
        }
    }
    Ok(())
}

/// Takes the finalizer away; the definition goes with its last one.
async fn release(server: &ApiServer, key: &str) -> Result<()> {
    loop {
        let Some(record) = server.store.snapshot().get(key).cloned() else { return Ok(()) };
        let mut definition = storage::parse(&record.value)?;
        let rest: Vec<String> = object::finalizers(&definition)
            .into_iter()
            .filter(|one| *one != FINALIZER)
            .map(Into::into)
            .collect();
        let is_last = rest.is_empty();
        object::meta_mut(&mut definition).insert("finalizers".into(), json!(rest));
        let write = if is_last {
            Write::Delete(&definition, record.modified)
        } else {
            Write::Update(&definition, record.modified)
        };
        match storage::write(&server.store, key, write).await {
            Err(WriteError::Conflict) => {}
            Err(WriteError::Other(error)) => return Err(error),
            Ok(_) | Err(WriteError::NotFound) => {
                server.written(key);
                return Ok(());
            }
        }
    }
}
