//! What is served, as clients discover it: the classic documents and the aggregated one that kubectl asks for first.

use serde_json::{Value, json};

use crate::resource::{Group, Registry, Resource, api_version};

/// Media type of aggregated discovery at its stable version.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The version that `/version` tells; the API's shape is that of this Kubernetes.
pub fn version() -> Value {
    let platform = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    json!({
        "major": "1", "minor": "34",
        "emulationMajor": "1", "emulationMinor": "34",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "33",
        "gitVersion": concat!("v1.34.2+slipway", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": platform,
    })
}

/// `/api`.
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

/// `/apis`.
pub fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> =
        registry.groups().iter().filter(|one| !one.name.is_empty()).map(group_entry).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let group = registry.groups().iter().find(|one| one.name == name && !name.is_empty())?;
    let mut out = json!({ "kind": "APIGroup", "apiVersion": "v1" });
    let entry = group_entry(group);
    let (Value::Object(out_map), Value::Object(entry)) = (&mut out, entry) else { return None };
    out_map.extend(entry);
    Some(out)
}

fn group_entry(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|one| json!({ "groupVersion": api_version(&group.name, &one.name), "version": one.name }))
        .collect();
    json!({ "name": group.name, "preferredVersion": versions.first(), "versions": versions })
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let found = registry.groups().iter().find(|one| one.name == group)?;
    let version = found.versions.iter().find(|one| one.name == version)?;
    let resources: Vec<Value> = version.resources.iter().flat_map(|one| one.discovery()).collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": api_version(group, &version.name), "resources": resources,
    }))
}

/// `/api` or `/apis` in the aggregated form.
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> = registry
        .groups()
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = version
                        .resources
                        .iter()
                        .map(|one: &std::sync::Arc<Resource>| one.aggregated())
                        .collect();
                    json!({ "version": version.name, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let metadata = if core {
                json!({ "creationTimestamp": null })
            } else {
                json!({ "name": group.name, "creationTimestamp": null })
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_discovery_tell_the_same_resources() {
        let registry = crate::builtin::registry();
        let list = resource_list(&registry, "apps", "v1").unwrap();
        let plain = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| !one["name"].as_str().unwrap().contains('/'));
        let all = aggregated(&registry, false);
        let apps =
            all["items"].as_array().unwrap().iter().find(|one| one["metadata"]["name"] == "apps").unwrap();
        assert_eq!(apps["versions"][0]["resources"].as_array().unwrap().len(), plain.count());
        assert!(group(&registry, "apps").unwrap()["preferredVersion"]["groupVersion"] == "apps/v1");
        assert!(group(&registry, "").is_none());
    }
}
