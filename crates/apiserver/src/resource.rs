//! What the server knows of one served resource: names, scope, subresources, where it is stored.
//!
//! One entry serves built-in kinds ([`crate::builtin`]) and custom ones ([`crate::crd`]) alike, so that no handler asks
//! which of the two it has before it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::crd::Custom;

/// All the verbs of an ordinary resource, in the order discovery gives them.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// How an object in storage becomes one of the served version, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convert {
    /// Stored as served: bytes go out untouched.
    Same,
    /// Only `apiVersion` differs.
    ApiVersion,
    /// `autoscaling/v1` over a stored `autoscaling/v2`.
    AutoscalerV1,
    /// `events.k8s.io/v1` over a stored core `Event`.
    EventV1,
}

/// A part of a resource with a path of its own.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// Last element of the path.
    pub name: &'static str,
    /// Group, version and kind of its body; group and version empty when the parent's.
    pub group: &'static str,
    /// See `group`.
    pub version: &'static str,
    /// Kind of the body.
    pub kind: String,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

/// One resource at one version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version served here.
    pub version: String,
    /// Kind of an object.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Name in paths.
    pub plural: String,
    /// Name for people.
    pub singular: String,
    /// Abbreviations.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// In a namespace or in the cluster.
    pub namespaced: bool,
    /// Verbs of the resource itself.
    pub verbs: &'static [&'static str],
    /// Its subresources.
    pub subresources: Vec<Subresource>,
    /// First part of the storage key.
    pub storage_group: String,
    /// `apiVersion` in storage.
    pub storage_api_version: String,
    /// From storage to this version.
    pub convert: Convert,
    /// Present for kinds that come from a CustomResourceDefinition.
    pub custom: Option<Arc<Custom>>,
}

impl Resource {
    /// `apps/v1`, or `v1` for core.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// True when the resource has that subresource.
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|one| one.name == subresource)
    }

    /// True when `status` is written through its own path only.
    pub fn has_status(&self) -> bool {
        self.has("status")
    }

    /// Prefix of all keys, or of those in one namespace.
    pub fn prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() {
            format!("/{}/{}/", self.storage_group, self.plural)
        } else {
            format!("/{}/{}/{namespace}/", self.storage_group, self.plural)
        }
    }

    /// Storage key of one object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("/{}/{}/{namespace}/{name}", self.storage_group, self.plural)
        } else {
            format!("/{}/{}/{name}", self.storage_group, self.plural)
        }
    }

    /// The `(group, kind)` that behaviour hangs on.
    pub fn group_kind(&self) -> (&str, &str) {
        (&self.group, &self.kind)
    }

    /// The entries of a classic `APIResourceList`.
    pub fn discovery(&self) -> Vec<Value> {
        let mut own = json!({
            "name": self.plural, "singularName": self.singular, "namespaced": self.namespaced,
            "kind": self.kind, "verbs": self.verbs,
        });
        let map = own.as_object_mut().expect("made an object above");
        if !self.short_names.is_empty() {
            map.insert("shortNames".into(), json!(self.short_names));
        }
        if !self.categories.is_empty() {
            map.insert("categories".into(), json!(self.categories));
        }
        let mut out = vec![own];
        for sub in &self.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", self.plural, sub.name), "singularName": "",
                "namespaced": self.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            let map = entry.as_object_mut().expect("made an object above");
            if !sub.version.is_empty() {
                map.insert("version".into(), sub.version.into());
                map.insert("group".into(), sub.group.into());
            }
            out.push(entry);
        }
        out
    }

    /// The entry in an aggregated discovery document.
    pub fn aggregated(&self) -> Value {
        let subresources: Vec<Value> = self
            .subresources
            .iter()
            .map(|sub| {
                json!({
                    "subresource": sub.name,
                    "responseKind": self.response_kind(sub),
                    "verbs": sub.verbs,
                })
            })
            .collect();
        let mut out = json!({
            "resource": self.plural,
            "responseKind": { "group": self.group, "version": self.version, "kind": self.kind },
            "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": self.singular,
            "verbs": self.verbs,
        });
        let map = out.as_object_mut().expect("made an object above");
        if !self.short_names.is_empty() {
            map.insert("shortNames".into(), json!(self.short_names));
        }
        if !self.categories.is_empty() {
            map.insert("categories".into(), json!(self.categories));
        }
        if !subresources.is_empty() {
            map.insert("subresources".into(), subresources.into());
        }
        out
    }

    fn response_kind(&self, sub: &Subresource) -> Value {
        if sub.version.is_empty() {
            json!({ "group": self.group, "version": self.version, "kind": sub.kind })
        } else {
            json!({ "group": sub.group, "version": sub.version, "kind": sub.kind })
        }
    }
}

/// `group/version`, or the version alone for core.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits `group/version`.
pub fn split_api_version(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("", text))
}

/// Everything that is served now. Replaced as a whole when a CustomResourceDefinition changes.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    /// By group, version (in order of preference) and resource.
    groups: Vec<Group>,
    by_path: BTreeMap<(String, String, String), Arc<Resource>>,
}

/// One API group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Empty for core.
    pub name: String,
    /// Preferred first.
    pub versions: Vec<Version>,
}

/// One version of a group.
#[derive(Debug, Clone)]
pub struct Version {
    /// Such as `v1`.
    pub name: String,
    /// What it serves, by name.
    pub resources: Vec<Arc<Resource>>,
    /// The fingerprint of its OpenAPI document, once somebody asked; a registry never changes.
    pub openapi_hash: OnceLock<String>,
}

impl Registry {
    /// Adds a resource behind those of its group that are there.
    pub fn add(&mut self, resource: Arc<Resource>) {
        let path = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        self.by_path.insert(path, resource.clone());
        let index = match self.groups.iter().position(|group| group.name == resource.group) {
            Some(index) => index,
            None => {
                self.groups.push(Group { name: resource.group.clone(), versions: Vec::new() });
                self.groups.len() - 1
            }
        };
        let versions = &mut self.groups[index].versions;
        match versions.iter_mut().find(|version| version.name == resource.version) {
            Some(version) => version.resources.push(resource),
            None => versions.push(Version {
                name: resource.version.clone(),
                resources: vec![resource],
                openapi_hash: OnceLock::new(),
            }),
        }
    }

    /// Puts the versions of custom groups in order of preference: GA before beta before alpha, higher first.
    pub fn sort_versions(&mut self) {
        for group in &mut self.groups {
            group.versions.sort_by_key(|version| std::cmp::Reverse(version_rank(&version.name)));
        }
    }

    /// The resource at a path.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let path = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_path.get(&path).cloned()
    }

    /// The resource of a kind, for owner references and bodies.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let (group, version) = split_api_version(api_version);
        self.by_path
            .values()
            .find(|one| one.group == group && one.version == version && one.kind == kind)
            .cloned()
    }

    /// The preferred version's resource of that name.
    pub fn by_group(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        let group = self.groups.iter().find(|one| one.name == group)?;
        let mut all = group.versions.iter().flat_map(|version| &version.resources);
        all.find(|one| one.plural == plural).cloned()
    }

    /// One version of a group.
    pub fn version(&self, group: &str, version: &str) -> Option<&Version> {
        let group = self.groups.iter().find(|one| one.name == group)?;
        group.versions.iter().find(|one| one.name == version)
    }

    /// All groups, core among them.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Every resource at its preferred version, each stored thing once.
    pub fn stored(&self) -> Vec<Arc<Resource>> {
        let mut seen = std::collections::BTreeSet::new();
        let mut out = Vec::new();
        for group in &self.groups {
            for version in &group.versions {
                for resource in &version.resources {
                    let has_objects = resource.verbs.contains(&"list");
                    if has_objects && seen.insert((resource.storage_group.clone(), resource.plural.clone())) {
                        out.push(resource.clone());
                    }
                }
            }
        }
        out
    }
}

/// Sorts as upstream's `CompareKubeAwareVersionStrings`: the greater is preferred.
pub fn version_rank(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Ok(major) = rest[..digits].parse::<u64>() else { return other };
    let tail = &rest[digits..];
    let (stage, minor) = if tail.is_empty() {
        (3, "0")
    } else if let Some(minor) = tail.strip_prefix("beta") {
        (2, minor)
    } else if let Some(minor) = tail.strip_prefix("alpha") {
        (1, minor)
    } else {
        return other;
    };
    let minor = if minor.is_empty() { "0" } else { minor };
    match minor.parse::<u64>() {
        Ok(minor) => (stage, major, minor, std::cmp::Reverse(String::new())),
        Err(_) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_upstream() {
        let mut all = vec![
            "foo10",
            "v1",
            "v11alpha2",
            "v10",
            "v3beta1",
            "v12alpha1",
            "v2",
            "foo1",
            "v11beta2",
            "v10beta3",
        ];
        all.sort_by_key(|one| std::cmp::Reverse(version_rank(one)));
        let want =
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        assert_eq!(all, want);
    }
}
