//! What every write goes through between its decoded body and the store.
//!
//! create: identity -> defaults -> admission -> validation -> store. update: read -> transform -> keep what the client may
//! not change -> the same -> store, and again when another write came between and the client named no version.
//!
//! Not here: reading bodies ([`super::decode`]), patches ([`super::patch`]), rules of single kinds ([`crate::kinds`]).

use serde_json::Value;
use store::{Durability, Record};

use crate::admission::{self, Operation};
use crate::error::{ApiError, Result};
use crate::field::FieldError;
use crate::http::Ctx;
use crate::resource::Resource;
use crate::storage::{self, Write, WriteError};
use crate::{convert, kinds, names, object, schema};

/// How often an update that names no version is tried against others' writes.
const ATTEMPTS_MAX: usize = 8;

/// How often a generated name may meet a taken one.
const NAMES_MAX: usize = 8;

/// Creates an object; it comes back in the served form.
///
/// # Errors
/// Everything that upstream's create refuses.
pub async fn create(ctx: &Ctx, resource: &Resource, namespace: &str, body: Value) -> Result<Value> {
    let mut object = body;
    identify(resource, namespace, &mut object)?;
    let base = object::meta_str(&object, "generateName").to_owned();
    let is_generated = object::name(&object).is_empty() && !base.is_empty();
    for attempt in 1.. {
        let mut draft = object.clone();
        if is_generated {
            object::meta_mut(&mut draft).insert("name".into(), names::generate(&base).into());
        }
        match create_named(ctx, resource, namespace, draft).await {
            Err(error) if is_generated && error.reason == "AlreadyExists" => {
                if attempt == NAMES_MAX {
                    return Err(ApiError::generate_name_conflict(&resource.group, &resource.plural, &base));
                }
            }
            other => return other,
        }
    }
    Err(ApiError::internal("no name was tried"))
}

/// Checks and fixes namespace and type of a new object.
fn identify(resource: &Resource, namespace: &str, object: &mut Value) -> Result<()> {
    let given = object::namespace(object).to_owned();
    let meta = object::meta_mut(object);
    if resource.namespaced {
        if !given.is_empty() && given != namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        meta.insert("namespace".into(), namespace.into());
    } else {
        if !given.is_empty() {
            return Err(ApiError::bad_request("namespace is not allowed on this type"));
        }
        object::remove(meta, "namespace");
    }
    if !object::resource_version(object).is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    Ok(())
}

async fn create_named(ctx: &Ctx, resource: &Resource, namespace: &str, mut object: Value) -> Result<Value> {
    stamp(&mut object);
    convert::to_storage(resource, &mut object);
    kinds::prepare_create(resource, &mut object);
    if kinds::has_generation(resource) {
        object::meta_mut(&mut object).insert("generation".into(), 1.into());
    }
    schema::default(resource, &mut object);
    let name = object::name(&object).to_owned();
    admission::mutate(ctx, resource, Operation::Create, &mut object, None)?;
    kinds::finish(resource, &mut object, None);
    let mut errors = kinds::metadata_errors(resource, &object);
    errors.extend(schema::validate(resource, &object, None));
    errors.extend(kinds::validate(&ctx.server, resource, &object, None));
    errors.extend(admission::validate(ctx, resource, &object, None));
    refuse(resource, &name, errors)?;
    crate::authz::check_escalation(ctx, resource, &object)?;
    let key = resource.key(namespace, &name);
    let _allocation = kinds::allocate(&ctx.server, resource, &mut object, None).await?;
    if ctx.server.store.snapshot().get(&key).is_some() {
        return Err(ApiError::already_exists(&resource.group, &resource.plural, &name));
    }
    if !ctx.dry_run() {
        let written = storage::write(&ctx.server.store, &key, Write::Create(&object)).await;
        let record = written.map_err(|error| write_error(resource, &name, error))?;
        ctx.server.written(&key);
        stamp_revision(&mut object, &record);
        kinds::after_write(&ctx.server, resource, &object);
    }
    convert::from_storage(resource, &mut object);
    Ok(object)
}

/// Gives a new object its identity.
fn stamp(object: &mut Value) {
    let meta = object::meta_mut(object);
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"]
    {
        object::remove(meta, field);
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), object::now().into());
}

/// Writes the record's version into the object.
pub fn stamp_revision(object: &mut Value, record: &Record) {
    object::meta_mut(object).insert("resourceVersion".into(), record.modified.to_string().into());
}

fn refuse(resource: &Resource, name: &str, errors: Vec<FieldError>) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&resource.group, &resource.kind, name, errors))
}

/// A failed write as an answer.
pub fn write_error(resource: &Resource, name: &str, error: WriteError) -> ApiError {
    match error {
        WriteError::Conflict => ApiError::already_exists(&resource.group, &resource.plural, name),
        WriteError::NotFound => ApiError::not_found(&resource.group, &resource.plural, name),
        WriteError::Other(error) => error,
    }
}

/// Which part of an object an update may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// Spec and metadata, by the server itself: a binding, an eviction.
    Internal,
}

/// Where an update goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// Its namespace, empty for cluster scope.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What may change.
    pub part: Part,
}

impl Target<'_> {
    /// Storage key.
    pub fn key(&self) -> String {
        self.resource.key(self.namespace, self.name)
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, self.name)
    }

    fn modified(&self) -> ApiError {
        ApiError::modified(&self.resource.group, &self.resource.plural, self.name)
    }
}

/// Reads the current state in storage form, with its version.
///
/// # Errors
/// `NotFound`.
pub fn read(ctx: &Ctx, target: Target<'_>) -> Result<(Value, u64)> {
    let record = ctx.server.store.snapshot().get(&target.key()).cloned().ok_or_else(|| target.not_found())?;
    Ok((storage::parse(&record.value)?, record.modified))
}

/// Changes an object: `transform` gets it in the served form and gives back what it should be.
///
/// # Errors
/// Everything that upstream's update refuses.
pub async fn update<F>(ctx: &Ctx, target: Target<'_>, mut transform: F) -> Result<Value>
where
    F: FnMut(&Value) -> Result<Value>,
{
    for attempt in 1.. {
        let (old, revision) = read(ctx, target)?;
        let mut served = old.clone();
        convert::from_storage(target.resource, &mut served);
        let wanted = transform(&served)?;
        check_preconditions(&served, &wanted, target)?;
        match update_once(ctx, target, old, revision, wanted).await {
            Err(Attempt::Overtaken) if attempt == ATTEMPTS_MAX => return Err(target.modified()),
            Err(Attempt::Overtaken) => {}
            Err(Attempt::Failed(error)) => return Err(error),
            Ok(object) => return Ok(object),
        }
    }
    Err(target.modified())
}

/// Checks the version and uid that the client named. A patch carries the version it started from, so it passes and may
/// be tried again; a body with a version of its own fails once that is old.
fn check_preconditions(current: &Value, wanted: &Value, target: Target<'_>) -> Result<()> {
    let (uid, have) = (object::uid(wanted), object::uid(current));
    if !uid.is_empty() && uid != have {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}");
        return Err(ApiError::conflict(&target.resource.group, &target.resource.plural, target.name, &why));
    }
    let version = object::resource_version(wanted);
    if !version.is_empty() && version != object::resource_version(current) {
        return Err(target.modified());
    }
    Ok(())
}

/// Why one attempt to update did not succeed.
enum Attempt {
    Overtaken,
    Failed(ApiError),
}

impl From<ApiError> for Attempt {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

async fn update_once(
    ctx: &Ctx,
    target: Target<'_>,
    old: Value,
    revision: u64,
    wanted: Value,
) -> Result<Value, Attempt> {
    let Target { resource, name, part, .. } = target;
    let key = target.key();
    let mut new = settle(ctx, target, &old, wanted)?;
    let _allocation = kinds::allocate(&ctx.server, resource, &mut new, Some(&old)).await?;
    if is_same(&old, &new) {
        new = old;
        convert::from_storage(resource, &mut new);
        return Ok(new);
    }
    if part != Part::Status && kinds::has_generation(resource) && spec_differs(&old, &new) {
        let generation = object::int(&old, "/metadata/generation").unwrap_or(0) + 1;
        object::meta_mut(&mut new).insert("generation".into(), generation.into());
    }
    if !ctx.dry_run() {
        let write = if kinds::is_done_terminating(resource, &new) {
            Write::Delete(&new, revision)
        } else {
            Write::Update(&new, revision)
        };
        let written = if is_pod_status_of_node(ctx, target) {
            storage::write_with(&ctx.server.store, &key, write, Durability::Exempt).await
        } else {
            storage::write(&ctx.server.store, &key, write).await
        };
        let record = match written {
            Ok(record) => record,
            Err(WriteError::Conflict) => return Err(Attempt::Overtaken),
            Err(error) => return Err(write_error(resource, name, error).into()),
        };
        ctx.server.written(&key);
        stamp_revision(&mut new, &record);
        kinds::after_write(&ctx.server, resource, &new);
    }
    convert::from_storage(resource, &mut new);
    Ok(new)
}

/// What the node tells of a pod it can tell again from the shim, so it need not wait for the disk (ARCHITECTURE.md,
/// invariant 5).
fn is_pod_status_of_node(ctx: &Ctx, target: Target<'_>) -> bool {
    let is_status = target.part == Part::Status && target.resource.group_kind() == ("", "Pod");
    is_status && ctx.user.name.starts_with("system:node:")
}

/// From what the client wants to what will be stored, checked.
fn settle(ctx: &Ctx, target: Target<'_>, old: &Value, wanted: Value) -> Result<Value> {
    let Target { resource, name, part, .. } = target;
    let mut new = wanted;
    convert::to_storage(resource, &mut new);
    match part {
        Part::Status => new = kinds::with_status(resource, old, new),
        Part::Main | Part::Internal => kinds::prepare_update(resource, &mut new, old),
    }
    keep_identity(&mut new, old);
    schema::default(resource, &mut new);
    if part == Part::Main {
        admission::mutate(ctx, resource, Operation::Update, &mut new, Some(old))?;
    }
    kinds::finish(resource, &mut new, Some(old));
    schema::track(ctx, resource, old, &mut new);
    let mut errors = kinds::metadata_errors(resource, &new);
    errors.extend(kinds::metadata_update_errors(&new, old));
    errors.extend(schema::validate(resource, &new, Some(old)));
    if part == Part::Main {
        errors.extend(kinds::validate(&ctx.server, resource, &new, Some(old)));
        errors.extend(admission::validate(ctx, resource, &new, Some(old)));
    }
    refuse(resource, name, errors)?;
    if part == Part::Main {
        crate::authz::check_escalation(ctx, resource, &new)?;
    }
    Ok(new)
}

/// What no client may change, whatever it sent.
fn keep_identity(new: &mut Value, old: &Value) {
    let kept = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "namespace",
    ];
    let old_meta = object::meta(old).cloned().unwrap_or_default();
    let meta = object::meta_mut(new);
    object::remove(meta, "selfLink");
    for field in kept {
        match old_meta.get(field) {
            Some(value) => drop(meta.insert(field.into(), value.clone())),
            None => drop(object::remove(meta, field)),
        }
    }
    meta.insert("resourceVersion".into(), old_meta.get("resourceVersion").cloned().unwrap_or_default());
}

/// True when a write would change nothing: then there is none, and no event.
fn is_same(old: &Value, new: &Value) -> bool {
    old == new
}

fn spec_differs(old: &Value, new: &Value) -> bool {
    let parts = |object: &Value| -> serde_json::Map<String, Value> {
        let all = object.as_object().cloned().unwrap_or_default();
        all.into_iter().filter(|(key, _)| key != "metadata" && key != "status").collect()
    };
    parts(old) != parts(new)
}
