//! Server-side apply: a manager states the fields it wants, the server keeps who owns what.
//!
//! Pure functions over values and schemas, after upstream's structured merge:
//!
//! * [`apply`] lays the applied fields over the live object, removes what this manager gave up and nobody else owns,
//!   and refuses to change what another manager owns, unless forced.
//! * [`track`] moves ownership when an object changes by another way.
//!
//! An object that nobody ever applied has no `managedFields`: most objects are written by controllers that never
//! apply, and the sets would be as large as the objects. The first apply to such an object gives all its fields to the manager
//! `before-first-apply`, as upstream does for objects older than the feature. From then on every write is tracked.

mod managers;
mod set;
#[cfg(test)]
mod tests;
mod typed;

use serde_json::Value;

use crate::facts::Schema;
use managers::{Manager, Operation, Owned};
use set::Set;
use typed::{Typed, compare, fields_of, merge, prune};

/// Who owns the fields of an object from before its first apply.
const BEFORE: &str = "before-first-apply";

/// Who writes what, and when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// `fieldManager`.
    pub name: &'a str,
    /// The version that the request speaks.
    pub api_version: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// The time now, RFC 3339 in whole seconds.
    pub now: &'a str,
}

/// A field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager, as upstream shows it.
    pub manager: String,
    /// The field, as `.spec.replicas`.
    pub field: String,
}

/// What must be forced or left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl std::fmt::Display for Conflicts {
    /// The message of upstream's 409.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let [Conflict { manager, field }] = &self.0[..] {
            return write!(f, "Apply failed with 1 conflict: conflict with {manager}: {field}");
        }
        let mut names: Vec<&String> = self.0.iter().map(|conflict| &conflict.manager).collect();
        names.sort_unstable();
        names.dedup();
        let mut lines = Vec::new();
        for name in names {
            lines.push(format!("conflicts with {name}:"));
            let theirs = self.0.iter().filter(|conflict| conflict.manager == *name);
            lines.extend(theirs.map(|conflict| format!("- {}", conflict.field)));
        }
        write!(f, "Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }
}

impl Conflicts {
    /// `details.causes` of the Status.
    pub fn causes(&self) -> Vec<Value> {
        let cause = |conflict: &Conflict| {
            serde_json::json!({ "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", conflict.manager), "field": conflict.field })
        };
        self.0.iter().map(cause).collect()
    }
}

/// The object after `applied`, its `managedFields` included.
///
/// # Errors
/// The fields that others own and that would change, unless `force`.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    schema: Option<&Schema>,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Conflicts> {
    let empty = Value::Object(serde_json::Map::new());
    let mut applied = applied.clone();
    strip_server_fields(&mut applied);
    let mut all = before_first_apply(live, schema, writer);
    let me = manager(writer, Operation::Apply);
    let wanted = fields_of(Typed { value: &applied, schema });
    let last = take(&mut all, &me);
    let old = Typed { value: live.unwrap_or(&empty), schema };
    let mut new = merge(old, Typed { value: &applied, schema });
    if let Some(last) = &last {
        let mut kept = wanted.clone();
        all.iter().for_each(|owned| kept.add(&owned.fields));
        keep_identity(&mut kept);
        prune(&mut new, schema, &last.fields, &kept);
    }
    let difference = compare(old, Typed { value: &new, schema });
    let conflicts = conflicts(&all, &difference.changed);
    if !conflicts.is_empty() && !force {
        return Err(Conflicts(conflicts));
    }
    for owned in &mut all {
        owned.fields = owned.fields.minus(&difference.changed).minus(&difference.removed);
    }
    let fields = owned_part(wanted, writer.subresource);
    let is_same = last.as_ref().is_some_and(|last| last.fields == fields && last.manager == me);
    let time = last.filter(|_| is_same).map_or_else(|| writer.now.to_owned(), |last| last.time);
    all.push(Owned { manager: me, time, fields });
    managers::write(&mut new, all);
    Ok(new)
}

/// Moves ownership for a write that is no apply. Does nothing for objects that nobody ever applied.
pub fn track(live: Option<&Value>, new: &mut Value, schema: Option<&Schema>, writer: Writer<'_>) {
    let mut all = managers::read(live);
    if all.is_empty() {
        return;
    }
    // A client says so by one empty entry.
    let is_reset =
        new.pointer("/metadata/managedFields").is_some_and(|given| *given == serde_json::json!([{}]));
    if is_reset {
        crate::object::meta_mut(new).shift_remove("managedFields");
        return;
    }
    let empty = Value::Null;
    let difference = compare(Typed { value: live.unwrap_or(&empty), schema }, Typed { value: new, schema });
    let changed = owned_part(difference.changed.clone(), writer.subresource);
    for owned in &mut all {
        owned.fields = owned.fields.minus(&changed).minus(&difference.removed);
    }
    let me = manager(writer, Operation::Update);
    if !changed.is_empty() {
        let mut fields = changed;
        if let Some(mine) = take(&mut all, &me) {
            fields.add(&mine.fields);
        }
        all.push(Owned { manager: me, time: writer.now.to_owned(), fields });
    }
    managers::write(new, all);
}

fn manager(writer: Writer<'_>, operation: Operation) -> Manager {
    Manager {
        name: writer.name.to_owned(),
        operation,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
    }
}

fn take(all: &mut Vec<Owned>, manager: &Manager) -> Option<Owned> {
    let at = all.iter().position(|owned| owned.manager.is(manager))?;
    Some(all.remove(at))
}

/// The managers of the live object; one for everything in it if nobody ever applied.
fn before_first_apply(live: Option<&Value>, schema: Option<&Schema>, writer: Writer<'_>) -> Vec<Owned> {
    let all = managers::read(live);
    let (true, Some(live)) = (all.is_empty(), live) else { return all };
    let manager = Manager {
        name: BEFORE.into(),
        operation: Operation::Update,
        api_version: writer.api_version.into(),
        subresource: String::new(),
    };
    let fields = owned_part(fields_of(Typed { value: live, schema }), "");
    vec![Owned { manager, time: writer.now.to_owned(), fields }]
}

fn conflicts(others: &[Owned], changed: &Set) -> Vec<Conflict> {
    let mut out = Vec::new();
    for owned in others {
        let manager = owned.manager.shown(&owned.time);
        let fields = owned.fields.and(changed).paths();
        out.extend(fields.into_iter().map(|field| Conflict { manager: manager.clone(), field }));
    }
    out
}

/// Fields of the metadata that only the server sets.
const SERVER_FIELDS: [&str; 7] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "selfLink",
    "managedFields",
    "deletionTimestamp",
];

fn strip_server_fields(applied: &mut Value) {
    if let Some(Value::Object(metadata)) = applied.get_mut("metadata") {
        // uid and resourceVersion stay: they are the client's preconditions.
        for name in SERVER_FIELDS.iter().filter(|name| !["uid", "resourceVersion"].contains(name)) {
            metadata.shift_remove(*name);
        }
    }
}

/// What can be owned: not the identity, nor what the server sets; under a subresource only its own part.
fn owned_part(mut fields: Set, subresource: &str) -> Set {
    fields.drop_element("f:apiVersion");
    fields.drop_element("f:kind");
    fields.within("f:metadata", |metadata| {
        for name in ["name", "namespace", "generateName"].iter().chain(&SERVER_FIELDS) {
            metadata.drop_element(&format!("f:{name}"));
        }
    });
    if subresource == "status" {
        fields.retain(|element| element == "f:status");
    }
    fields
}

/// The identity is never given up.
fn keep_identity(kept: &mut Set) {
    kept.put("f:metadata".into(), true, Set::default());
}
