//! May this user do that? Role-based access control over the stored roles and bindings.
//!
//! [`rules`] evaluates, on parsed policy; [`Policy`] keeps the parsed policy until a write changes it; [`bootstrap`] holds
//! the roles that every cluster has. `system:masters` may do everything, before any role is looked at.

pub mod bootstrap;
pub mod rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use crate::authn::UserInfo;
use crate::error::{ApiError, Result};
use crate::http::Ctx;
use crate::object;
use crate::request::RequestInfo;
use crate::resource::Resource;
use crate::server::ApiServer;
use rules::{Rule, Rules};

/// The parsed policy, made anew when a role or binding was written.
#[derive(Default)]
pub struct Policy {
    writes: AtomicU64,
    parsed: Mutex<Option<(u64, Arc<Rules>)>>,
}

impl Policy {
    /// A role or binding was written.
    pub fn invalidate(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    /// The policy as of now.
    pub fn rules(&self, server: &ApiServer) -> Arc<Rules> {
        // Read before the snapshot: a write in between makes the next call parse again.
        let writes = self.writes.load(Ordering::SeqCst);
        let mut parsed = self.parsed.lock();
        if let Some((at, rules)) = parsed.as_ref()
            && *at == writes
        {
            return rules.clone();
        }
        let rules = Arc::new(Rules::read(&server.store));
        *parsed = Some((writes, rules.clone()));
        rules
    }
}

/// What is asked of the policy.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// Verb.
    pub verb: String,
    /// Group of the resource.
    pub group: String,
    /// Resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Object.
    pub name: String,
    /// Namespace; empty for cluster scope.
    pub namespace: String,
    /// The path, for what is no resource.
    pub path: Option<String>,
}

impl Attributes {
    /// The attributes of a request.
    pub fn of(info: &RequestInfo) -> Self {
        Self {
            verb: info.verb.clone(),
            group: info.group.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            name: info.name.clone(),
            namespace: info.namespace.clone(),
            path: (!info.is_resource).then(|| info.path.clone()),
        }
    }

    /// `pods/log`.
    pub fn whole_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// Whether a user may.
pub fn allows(server: &ApiServer, user: &UserInfo, attributes: &Attributes) -> bool {
    user.is_master() || server.policy.rules(server).allows(user, attributes)
}

/// Refuses what the user may not.
///
/// # Errors
/// `Forbidden` in upstream's words.
pub fn require(server: &ApiServer, user: &UserInfo, info: &RequestInfo) -> Result<()> {
    require_attributes(server, user, &Attributes::of(info))
}

fn require_attributes(server: &ApiServer, user: &UserInfo, attributes: &Attributes) -> Result<()> {
    if allows(server, user, attributes) {
        return Ok(());
    }
    let Attributes { verb, group, resource, name, namespace, .. } = attributes;
    if let Some(path) = &attributes.path {
        let text = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
        return Err(ApiError::forbidden_path(text));
    }
    let scope = if namespace.is_empty() {
        " at the cluster scope".to_owned()
    } else {
        format!(" in the namespace {namespace:?}")
    };
    let why = format!(
        "User {:?} cannot {verb} resource {:?} in API group {group:?}{scope}",
        user.name,
        attributes.whole_resource()
    );
    Err(ApiError::forbidden(group, resource, name, &why))
}

/// The right to create, for an apply that finds no object.
///
/// # Errors
/// `Forbidden`.
pub fn require_create(ctx: &Ctx) -> Result<()> {
    let mut attributes = Attributes::of(&ctx.info);
    attributes.verb = "create".into();
    require_attributes(&ctx.server, &ctx.user, &attributes)
}

/// The right to act as another.
///
/// # Errors
/// `Forbidden`.
pub fn require_impersonation(
    server: &ApiServer,
    user: &UserInfo,
    name: &str,
    groups: &[String],
) -> Result<()> {
    let ask = |resource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            verb: "impersonate".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Attributes::default()
        };
        require_attributes(server, user, &attributes)
    };
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => ask("serviceaccounts", namespace, account)?,
        None => ask("users", "", name)?,
    }
    groups.iter().try_for_each(|group| ask("groups", "", group))
}

/// Nobody gives rights that he does not have, by a role or by a binding, unless allowed to.
///
/// # Errors
/// `Forbidden` that lists what is missing.
pub fn check_escalation(ctx: &Ctx, resource: &Resource, object: &Value) -> Result<()> {
    if resource.group != "rbac.authorization.k8s.io" || ctx.user.is_master() {
        return Ok(());
    }
    let rules = ctx.server.policy.rules(&ctx.server);
    let namespace = object::namespace(object);
    let (verb, granted) = match resource.kind.as_str() {
        "Role" | "ClusterRole" => ("escalate", Rule::list(object)),
        _ => {
            let is_cluster = object::text(object, "/roleRef/kind") == "ClusterRole";
            let name = object::text(object, "/roleRef/name");
            (
                "bind",
                rules
                    .role(if is_cluster { None } else { Some(namespace) }, name)
                    .unwrap_or_default()
                    .to_vec(),
            )
        }
    };
    let role_resource = match (verb, resource.kind.as_str()) {
        ("bind", _) if object::text(object, "/roleRef/kind") == "Role" => "roles",
        ("bind", _) | (_, "ClusterRole") => "clusterroles",
        _ => "roles",
    };
    let name = if verb == "bind" { object::text(object, "/roleRef/name") } else { object::name(object) };
    let attributes = Attributes {
        verb: verb.into(),
        group: resource.group.clone(),
        resource: role_resource.into(),
        name: name.into(),
        namespace: namespace.into(),
        ..Attributes::default()
    };
    if rules.allows(&ctx.user, &attributes) {
        return Ok(());
    }
    let own = rules.rules_of(&ctx.user, namespace);
    let missing: Vec<String> =
        granted.iter().filter(|rule| !rule.is_covered_by(&own)).map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        ctx.user.name,
        ctx.user.groups,
        missing.join("\n")
    );
    Err(ApiError::forbidden(&resource.group, &resource.plural, object::name(object), &why))
}
