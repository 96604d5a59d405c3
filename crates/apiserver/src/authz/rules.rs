//! Roles and bindings, parsed, and the question whether they allow something.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Value, json};
use store::Store;

use super::Attributes;
use crate::authn::UserInfo;
use crate::{object, selectors, storage};

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs or `*`.
    pub verbs: Vec<String>,
    /// API groups or `*`.
    pub groups: Vec<String>,
    /// Resources such as `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Names; empty means all.
    pub names: Vec<String>,
    /// Paths, maybe with `*` at the end.
    pub paths: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    fn read(value: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            let items = object::items(value, &format!("/{field}")).iter();
            items.filter_map(Value::as_str).map(Into::into).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// The rules of a role.
    pub fn list(role: &Value) -> Vec<Self> {
        object::items(role, "/rules").iter().map(Self::read).collect()
    }

    fn allows(&self, asked: &Attributes) -> bool {
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if let Some(path) = &asked.path {
            return self.paths.iter().any(|pattern| path_matches(pattern, path));
        }
        has(&self.groups, &asked.group)
            && self.has_resource(&asked.whole_resource(), &asked.subresource)
            && (self.names.is_empty() || self.names.contains(&asked.name))
    }

    fn has_resource(&self, whole: &str, subresource: &str) -> bool {
        let any_parent = format!("*/{subresource}");
        self.resources
            .iter()
            .any(|one| one == "*" || one == whole || (!subresource.is_empty() && *one == any_parent))
    }

    /// True when others together allow all that this rule allows.
    pub fn is_covered_by(&self, others: &[Self]) -> bool {
        let names = if self.names.is_empty() { vec![String::new()] } else { self.names.clone() };
        let resources_held = self.verbs.iter().all(|verb| {
            self.groups.iter().all(|group| {
                self.resources.iter().all(|resource| {
                    names
                        .iter()
                        .all(|name| others.iter().any(|other| other.holds(verb, group, resource, name)))
                })
            })
        });
        let paths_held = self.verbs.iter().all(|verb| {
            self.paths.iter().all(|path| {
                others.iter().any(|other| {
                    has(&other.verbs, verb) && other.paths.iter().any(|own| path_matches(own, path))
                })
            })
        });
        resources_held && paths_held
    }

    fn holds(&self, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let subresource = resource.split_once('/').map_or("", |(_, sub)| sub);
        has(&self.verbs, verb)
            && has(&self.groups, group)
            && self.has_resource(resource, subresource)
            && (self.names.is_empty() || (!name.is_empty() && self.names.iter().any(|own| own == name)))
    }

    /// The rule as the authorization API tells it.
    pub fn to_value(&self) -> Value {
        if self.paths.is_empty() {
            let mut out =
                json!({ "verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources });
            if !self.names.is_empty() {
                out["resourceNames"] = json!(self.names);
            }
            out
        } else {
            json!({ "verbs": self.verbs, "nonResourceURLs": self.paths })
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (name, list) in [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.paths),
            ("Verbs", &self.verbs),
        ] {
            if !list.is_empty() {
                parts.push(format!("{name}:{list:?}"));
            }
        }
        write!(f, "{{{}}}", parts.join(", "))
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[derive(Debug, Clone)]
enum Subject {
    User(String),
    Group(String),
}

impl Subject {
    fn read(value: &Value, namespace: &str) -> Option<Self> {
        let name = object::text(value, "/name").to_owned();
        match object::text(value, "/kind") {
            "User" => Some(Self::User(name)),
            "Group" => Some(Self::Group(name)),
            "ServiceAccount" => {
                let own = object::text(value, "/namespace");
                let namespace = if own.is_empty() { namespace } else { own };
                Some(Self::User(format!("system:serviceaccount:{namespace}:{name}")))
            }
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => *name == user.name,
            Self::Group(name) => user.groups.contains(name),
        }
    }
}

#[derive(Debug)]
struct Binding {
    /// `None` for the whole cluster.
    namespace: Option<String>,
    subjects: Vec<Subject>,
    /// `None` for a ClusterRole, else the Role's namespace.
    role: (Option<String>, String),
}

impl Binding {
    fn read(value: &Value) -> Self {
        let namespace = Some(object::namespace(value)).filter(|one| !one.is_empty()).map(ToOwned::to_owned);
        let is_cluster = object::text(value, "/roleRef/kind") == "ClusterRole";
        let role_namespace = if is_cluster { None } else { namespace.clone() };
        let own = namespace.clone().unwrap_or_default();
        Self {
            subjects: object::items(value, "/subjects")
                .iter()
                .filter_map(|one| Subject::read(one, &own))
                .collect(),
            namespace,
            role: (role_namespace, object::text(value, "/roleRef/name").to_owned()),
        }
    }
}

/// All roles and bindings of the cluster.
#[derive(Debug, Default)]
pub struct Rules {
    roles: HashMap<(Option<String>, String), Vec<Rule>>,
    bindings: Vec<Binding>,
}

impl Rules {
    /// Parses what is stored.
    pub fn read(store: &Store) -> Self {
        let all = |plural: &str| storage::read_all(store, &format!("/rbac.authorization.k8s.io/{plural}/"));
        Self::of(&all("clusterroles"), &all("roles"), &all("clusterrolebindings"), &all("rolebindings"))
    }

    /// Parses given objects.
    pub fn of(
        cluster_roles: &[Value],
        roles: &[Value],
        cluster_bindings: &[Value],
        bindings: &[Value],
    ) -> Self {
        let mut out = Self::default();
        for role in cluster_roles {
            out.roles.insert((None, object::name(role).to_owned()), aggregated(role, cluster_roles));
        }
        for role in roles {
            let namespace = Some(object::namespace(role).to_owned());
            out.roles.insert((namespace, object::name(role).to_owned()), Rule::list(role));
        }
        out.bindings = cluster_bindings.iter().chain(bindings).map(Binding::read).collect();
        out
    }

    /// The rules of a role.
    pub fn role(&self, namespace: Option<&str>, name: &str) -> Option<&[Rule]> {
        self.roles.get(&(namespace.map(Into::into), name.to_owned())).map(Vec::as_slice)
    }

    /// Whether a user may.
    pub fn allows(&self, user: &UserInfo, asked: &Attributes) -> bool {
        let namespace = if asked.path.is_some() { "" } else { asked.namespace.as_str() };
        self.bound(user, namespace).any(|rule| rule.allows(asked))
    }

    /// Everything that a user may in a namespace; empty for the cluster's scope.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.bound(user, namespace).cloned().collect()
    }

    fn bound<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Rule> {
        let applies = move |binding: &&Binding| {
            let in_scope = binding.namespace.as_deref().is_none_or(|own| own == namespace);
            in_scope && binding.subjects.iter().any(|subject| subject.is(user))
        };
        self.bindings.iter().filter(applies).filter_map(|binding| self.roles.get(&binding.role)).flatten()
    }
}

/// A role's own rules, or those of the roles that its selectors gather (also through other gathering roles).
fn aggregated(role: &Value, all: &[Value]) -> Vec<Rule> {
    let mut seen = vec![object::name(role)];
    let mut out = Vec::new();
    gather(role, all, &mut seen, &mut out);
    out
}

fn gather<'a>(role: &'a Value, all: &'a [Value], seen: &mut Vec<&'a str>, out: &mut Vec<Rule>) {
    for rule in Rule::list(role) {
        if !out.contains(&rule) {
            out.push(rule);
        }
    }
    for selector in object::items(role, "/aggregationRule/clusterRoleSelectors") {
        let Some(requirements) = selectors::from_selector_object(selector) else { continue };
        for other in all {
            let labels = object::meta(other).and_then(|meta| meta.get("labels")).and_then(Value::as_object);
            let name = object::name(other);
            if !seen.contains(&name) && selectors::labels_match(&requirements, labels) {
                seen.push(name);
                gather(other, all, seen, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Rules {
        let cluster_roles = [
            json!({"metadata": {"name": "view", "labels": {"agg": "x"}}, "rules": [
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]}),
            json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "x"}}]}}),
            json!({"metadata": {"name": "info"}, "rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}]}),
        ];
        let roles = [json!({"metadata": {"name": "one", "namespace": "a"}, "rules": [
            {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"]}]})];
        let everyone = json!([{"kind": "Group", "name": "system:authenticated"}]);
        let bindings = [
            json!({"metadata": {"name": "b", "namespace": "a"}, "roleRef": {"kind": "ClusterRole", "name": "all"},
                "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
            json!({"metadata": {"name": "c", "namespace": "a"}, "roleRef": {"kind": "Role", "name": "one"},
                "subjects": [{"kind": "User", "name": "u"}]}),
        ];
        let cluster = [
            json!({"metadata": {"name": "i"}, "roleRef": {"kind": "ClusterRole", "name": "info"}, "subjects": everyone}),
        ];
        Rules::of(&cluster_roles, &roles, &cluster, &bindings)
    }

    #[test]
    fn rights_follow_bindings_names_and_scopes() {
        let policy = policy();
        let account = UserInfo::service_account("n", "s");
        let user = UserInfo::new("u", &[]);
        let ask = |user: &UserInfo, verb: &str, group: &str, resource: &str, namespace: &str, name: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let asked = Attributes {
                verb: verb.into(),
                group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: namespace.into(),
                name: name.into(),
                path: None,
            };
            policy.allows(user, &asked)
        };
        assert!(ask(&account, "get", "", "pods/log", "a", "p"));
        assert!(!ask(&account, "get", "", "pods", "b", "p"));
        assert!(!ask(&account, "delete", "", "pods", "a", "p"));
        assert!(ask(&user, "patch", "apps", "deployments", "a", "web"));
        assert!(!ask(&user, "patch", "apps", "deployments", "a", "other"));
        let path =
            |path: &str| Attributes { verb: "get".into(), path: Some(path.into()), ..Attributes::default() };
        assert!(policy.allows(&user, &path("/api/v1")) && policy.allows(&user, &path("/healthz")));
        assert!(!policy.allows(&UserInfo::anonymous(), &path("/healthz")));
    }

    #[test]
    fn a_rule_is_covered_only_by_what_is_at_least_as_wide() {
        let rule = |verbs: &[&str], names: &[&str]| Rule {
            verbs: verbs.iter().map(ToString::to_string).collect(),
            groups: vec!["".into()],
            resources: vec!["pods".into()],
            names: names.iter().map(ToString::to_string).collect(),
            paths: vec![],
        };
        assert!(rule(&["get", "list"], &[]).is_covered_by(&[rule(&["get"], &[]), rule(&["list"], &[])]));
        assert!(!rule(&["*"], &[]).is_covered_by(&[rule(&["get"], &[])]));
        assert!(!rule(&["get"], &[]).is_covered_by(&[rule(&["get"], &["x"])]));
        assert!(rule(&["get"], &["x"]).is_covered_by(&[rule(&["*"], &[])]));
    }
}
