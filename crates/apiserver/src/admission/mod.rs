//! What changes or refuses a write beyond its kind's schema.
//!
//! The platform's own kinds bring pure functions behind [`Admission`]; Kubernetes' own plugins that matter here
//! (namespace lifecycle, ServiceAccount, priority) are in this folder.

mod service_account;

use serde_json::Value;

use crate::error::{ApiError, Result};
use crate::field::FieldError;
use crate::http::Ctx;
use crate::object;
use crate::resource::Resource;

/// Defaults and rules of a family of kinds, pure: called in process here, as webhooks elsewhere.
pub trait Admission: Send + Sync {
    /// True for the kinds that this implementation is about.
    fn handles(&self, group: &str, kind: &str) -> bool;

    /// Sets defaults beyond the schema's.
    fn defaults(&self, group: &str, version: &str, kind: &str, object: &mut Value);

    /// What is wrong with the object; `old` is the state before on updates.
    fn validate(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        object: &Value,
        old: Option<&Value>,
    ) -> Vec<FieldError>;
}

/// Which write is being admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed one.
    Update,
}

/// Changes and refuses before validation.
///
/// # Errors
/// `NotFound` or `Forbidden` in upstream's words.
pub fn mutate(
    ctx: &Ctx,
    resource: &Resource,
    operation: Operation,
    object: &mut Value,
    _old: Option<&Value>,
) -> Result<()> {
    if operation == Operation::Create {
        namespace_lifecycle(ctx, resource, object)?;
        if resource.group_kind() == ("", "Pod") {
            service_account::admit(ctx, object)?;
            priority(ctx, object)?;
        }
    }
    for plugin in of(ctx, resource) {
        plugin.defaults(&resource.group, &resource.version, &resource.kind, object);
    }
    Ok(())
}

/// What the plugins of the kind find wrong.
pub fn validate(ctx: &Ctx, resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    of(ctx, resource)
        .flat_map(|plugin| plugin.validate(&resource.group, &resource.version, &resource.kind, object, old))
        .collect()
}

fn of<'a>(ctx: &'a Ctx, resource: &'a Resource) -> impl Iterator<Item = &'a dyn Admission> {
    let all = ctx.server.admission.iter().map(AsRef::as_ref);
    all.filter(|plugin: &&dyn Admission| plugin.handles(&resource.group, &resource.kind))
}

/// A new object needs a namespace that is there and stays.
fn namespace_lifecycle(ctx: &Ctx, resource: &Resource, object: &Value) -> Result<()> {
    if !resource.namespaced {
        return Ok(());
    }
    let name = object::namespace(object);
    let Some(namespace) = ctx.server.read_key(&format!("/core/namespaces/{name}")) else {
        return Err(ApiError::not_found("", "namespaces", name));
    };
    let is_going =
        object::is_terminating(&namespace) || object::text(&namespace, "/status/phase") == "Terminating";
    if is_going {
        return Err(ApiError::namespace_terminating(
            &resource.group,
            &resource.plural,
            object::name(object),
            name,
        ));
    }
    Ok(())
}

/// The number behind a priority class's name.
fn priority(ctx: &Ctx, pod: &mut Value) -> Result<()> {
    let class = object::text(pod, "/spec/priorityClassName").to_owned();
    let (value, policy) = match class.as_str() {
        "system-node-critical" => (2_000_001_000, None),
        "system-cluster-critical" => (2_000_000_000, None),
        "" => (0, None),
        name => {
            let key = format!("/scheduling.k8s.io/priorityclasses/{name}");
            let found = ctx.server.read_key(&key).ok_or_else(|| {
                let why = format!("no PriorityClass with name {name} was found");
                ApiError::forbidden("", "pods", object::name(pod), &why)
            })?;
            (object::int(&found, "/value").unwrap_or(0), found.get("preemptionPolicy").cloned())
        }
    };
    let spec = object::section(pod, "spec");
    spec.insert("priority".into(), value.into());
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
    spec.entry("preemptionPolicy").or_insert(policy);
    Ok(())
}
