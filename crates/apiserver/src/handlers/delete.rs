//! DELETE: at once, after finalizers, or after a pod's grace.
//!
//! [`decide`] is the rule, on values only; what it says is carried out by one conditional write, tried again when the
//! object changed in between.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::write::{self, Part, Target};
use super::{object_response, update};
use crate::error::{ApiError, Result};
use crate::http::{self as wire, Ctx};
use crate::resource::Resource;
use crate::selectors::Selector;
use crate::storage::{self, Write, WriteError};
use crate::{convert, kinds, object};

/// Seconds a pod gets when neither it nor the request says.
const POD_GRACE_SECONDS: i64 = 30;

const ATTEMPTS_MAX: usize = 16;

/// `metav1.DeleteOptions`, as far as it has an effect.
#[derive(Debug, Clone, Default)]
pub struct Options {
    grace: Option<i64>,
    propagation: String,
    uid: String,
    version: String,
    dry_run: bool,
}

impl Options {
    fn read(ctx: &Ctx, body: &Bytes) -> Result<Self> {
        let value = if body.is_empty() { json!({}) } else { wire::parse_object(&ctx.headers, body)? };
        let text = |pointer| object::text(&value, pointer).to_owned();
        let mut propagation = text("/propagationPolicy");
        if propagation.is_empty() {
            propagation = ctx.query.get("propagationPolicy").to_owned();
        }
        let orphan = value.get("orphanDependents").and_then(Value::as_bool);
        if let (true, Some(orphan)) = (propagation.is_empty(), orphan) {
            propagation = if orphan { "Orphan" } else { "Background" }.into();
        }
        if !matches!(propagation.as_str(), "" | "Orphan" | "Foreground" | "Background") {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            let error = crate::field::FieldError::not_supported("propagationPolicy", propagation, &known);
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", vec![error]));
        }
        let grace = match object::int(&value, "/gracePeriodSeconds") {
            Some(grace) => Some(grace),
            None => ctx.query.int("gracePeriodSeconds")?,
        };
        Ok(Self {
            // Upstream takes any negative grace for one second.
            grace: grace.map(|seconds| if seconds < 0 { 1 } else { seconds }),
            propagation,
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            dry_run: ctx.dry_run()
                || value.get("dryRun").is_some_and(|all| all.as_array().is_some_and(|all| !all.is_empty())),
        })
    }
}

/// What becomes of an object that is asked to go.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It goes now.
    Remove,
    /// It stays, changed, until its finalizers or its grace are over.
    Mark(Value),
    /// It is on its way already; nothing changes.
    Wait,
}

/// Decides by the object's state, in storage form.
pub fn decide(resource: &Resource, current: &Value, options: &Options, now: Timestamp) -> Verdict {
    let mut marked = current.clone();
    set_finalizers(&mut marked, &options.propagation);
    kinds::add_deletion_finalizers(resource, &mut marked);
    let grace = grace(resource, current, options);
    let was_terminating = object::is_terminating(current);
    let pending = !object::finalizers(&marked).is_empty() || kinds::holds_own_finalizer(resource, &marked);
    if grace == 0 && !pending {
        return Verdict::Remove;
    }
    let old_grace = object::int(current, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    if was_terminating && grace >= old_grace {
        return if marked == *current { Verdict::Wait } else { Verdict::Mark(marked) };
    }
    let at = now + SignedDuration::from_secs(grace);
    let generation = object::int(current, "/metadata/generation");
    let meta = object::meta_mut(&mut marked);
    meta.insert("deletionTimestamp".into(), object::time(at).into());
    meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = generation.filter(|generation| *generation > 0) {
        meta.insert("generation".into(), (generation + 1).into());
    }
    kinds::mark_terminating(resource, &mut marked);
    Verdict::Mark(marked)
}

fn grace(resource: &Resource, current: &Value, options: &Options) -> i64 {
    if resource.group_kind() != ("", "Pod") {
        return 0;
    }
    let is_placed = !object::text(current, "/spec/nodeName").is_empty();
    let is_over = matches!(object::text(current, "/status/phase"), "Succeeded" | "Failed");
    if !is_placed || is_over {
        return 0;
    }
    let own = object::int(current, "/spec/terminationGracePeriodSeconds").unwrap_or(POD_GRACE_SECONDS);
    options.grace.unwrap_or(own).max(0)
}

fn set_finalizers(object: &mut Value, propagation: &str) {
    if propagation.is_empty() {
        return;
    }
    let mut all: Vec<String> = object::finalizers(object)
        .into_iter()
        .filter(|one| *one != "orphan" && *one != "foregroundDeletion")
        .map(Into::into)
        .collect();
    match propagation {
        "Orphan" => all.push("orphan".into()),
        "Foreground" => all.push("foregroundDeletion".into()),
        _ => {}
    }
    let meta = object::meta_mut(object);
    if all.is_empty() {
        object::remove(meta, "finalizers");
    } else {
        meta.insert("finalizers".into(), json!(all));
    }
}

/// What the client is told of a deletion.
enum Done {
    Removed(Value),
    Marked(Value),
}

async fn delete_one(ctx: &Ctx, target: Target<'_>, options: &Options) -> Result<Done> {
    let Target { resource, name, .. } = target;
    for _ in 0..ATTEMPTS_MAX {
        let (current, revision) = write::read(ctx, target)?;
        kinds::check_deletable(resource, name)?;
        check_preconditions(target, &current, options)?;
        let verdict = decide(resource, &current, options, Timestamp::now());
        let (mut object, write_kind) = match verdict {
            Verdict::Wait => return Ok(Done::Marked(current)),
            Verdict::Mark(marked) => (marked, false),
            Verdict::Remove => (current, true),
        };
        if options.dry_run {
            return Ok(if write_kind { Done::Removed(object) } else { Done::Marked(object) });
        }
        let change =
            if write_kind { Write::Delete(&object, revision) } else { Write::Update(&object, revision) };
        let key = target.key();
        match storage::write(&ctx.server.store, &key, change).await {
            Ok(record) => {
                ctx.server.written(&key);
                write::stamp_revision(&mut object, &record);
                kinds::after_write(&ctx.server, resource, &object);
                return Ok(if write_kind { Done::Removed(object) } else { Done::Marked(object) });
            }
            Err(WriteError::Conflict) => {}
            Err(error) => return Err(write::write_error(resource, name, error)),
        }
    }
    Err(ApiError::modified(&resource.group, &resource.plural, name))
}

fn check_preconditions(target: Target<'_>, current: &Value, options: &Options) -> Result<()> {
    let resource = target.resource;
    let fail = |what: &str, wanted: &str, have: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}");
        Err(ApiError::conflict(&resource.group, &resource.plural, target.name, &why))
    };
    if !options.uid.is_empty() && options.uid != object::uid(current) {
        return fail("UID", &options.uid, object::uid(current));
    }
    if !options.version.is_empty() && options.version != object::resource_version(current) {
        return fail("ResourceVersion", &options.version, object::resource_version(current));
    }
    Ok(())
}

/// Deletes the object that the path names.
///
/// # Errors
/// `NotFound`, failed preconditions.
pub async fn delete(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let options = Options::read(ctx, &body)?;
    let target = Target { part: Part::Main, ..update::target(ctx, resource) };
    match delete_one(ctx, target, &options).await? {
        Done::Marked(mut object) => {
            convert::from_storage(resource, &mut object);
            Ok(object_response(ctx, resource, StatusCode::OK, &object))
        }
        // A removed pod comes back as itself, as upstream's graceful resources do.
        Done::Removed(object) if resource.group_kind() == ("", "Pod") => {
            Ok(object_response(ctx, resource, StatusCode::OK, &object))
        }
        Done::Removed(object) => {
            let mut details = json!({ "name": target.name });
            if !resource.group.is_empty() {
                details["group"] = resource.group.clone().into();
            }
            details["kind"] = resource.plural.clone().into();
            details["uid"] = object::uid(&object).into();
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(wire::encode(StatusCode::OK, &status, ctx.accept))
        }
    }
}

/// Deletes every object that the selectors match.
///
/// # Errors
/// The first refusal; what was deleted before it stays deleted, as upstream.
pub async fn collection(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let options = Options::read(ctx, &body)?;
    let selector = Selector::parse(ctx.query.get("labelSelector"), ctx.query.get("fieldSelector"), resource)?;
    let prefix = resource.prefix(super::list::namespace(ctx, resource));
    let snapshot = ctx.server.store.snapshot();
    let mut items = Vec::new();
    for record in snapshot.range(&prefix, None) {
        let mut object = storage::parse(&record.value)?;
        convert::from_storage(resource, &mut object);
        if selector.matches(resource, &object) {
            items.push(object);
        }
    }
    for item in &items {
        let namespace = if resource.namespaced { object::namespace(item) } else { "" };
        let target = Target { resource, namespace, name: object::name(item), part: Part::Main };
        match delete_one(ctx, target, &options).await {
            Err(error) if error.reason == "NotFound" => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    let list = json!({
        "kind": resource.list_kind, "apiVersion": resource.api_version(),
        "metadata": { "resourceVersion": ctx.server.store.revision().to_string() }, "items": items,
    });
    Ok(wire::encode(StatusCode::OK, &list, ctx.accept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(plural: &str, object: Value, grace: Option<i64>, policy: &str) -> Verdict {
        let registry = crate::builtin::registry();
        let resource = registry.get("", "v1", plural).unwrap();
        let options = Options { grace, propagation: policy.into(), ..Options::default() };
        decide(&resource, &object, &options, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn each_case_goes_marks_or_waits() {
        let meta = |verdict: Verdict| match verdict {
            Verdict::Mark(object) => object["metadata"].clone(),
            other => panic!("{other:?}"),
        };
        let config = json!({"metadata": {"name": "x"}});
        assert_eq!(check("configmaps", config.clone(), None, ""), Verdict::Remove);
        assert_eq!(
            meta(check("configmaps", config, None, "Foreground"))["finalizers"],
            json!(["foregroundDeletion"])
        );
        let placed =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        let marked = meta(check("pods", placed.clone(), None, ""));
        assert_eq!(marked["deletionTimestamp"], "1970-01-01T00:00:05Z");
        assert_eq!(check("pods", placed, Some(0), ""), Verdict::Remove);
        assert_eq!(check("pods", json!({"metadata": {}, "spec": {}}), None, ""), Verdict::Remove);
        let going = json!({
            "metadata": {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 5}, "spec": {"nodeName": "n"}
        });
        assert_eq!(check("pods", going, Some(9), ""), Verdict::Wait);
    }
}
