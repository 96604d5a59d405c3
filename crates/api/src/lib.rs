//! The platform's own Kubernetes kinds: their documents, their typed specs, their validation.
//!
//! The documents under `crds/` are what the embedded API server loads and what `slipway install`
//! applies to a real cluster: one text for both worlds. Behaviour beyond the schema is a pure
//! admission function per family.
//!
//! Not here: what the kinds do. That is the controllers' business.

pub mod serving;
pub mod workflow;

/// Every `CustomResourceDefinition` document of the platform, as YAML, one document each.
pub fn crds() -> impl Iterator<Item = &'static str> {
    [
        include_str!("../crds/argoproj.io_workflows.yaml"),
        include_str!("../crds/argoproj.io_workflowtemplates.yaml"),
        include_str!("../crds/argoproj.io_clusterworkflowtemplates.yaml"),
        include_str!("../crds/argoproj.io_cronworkflows.yaml"),
        include_str!("../crds/argoproj.io_workflowtaskresults.yaml"),
        include_str!("../crds/slipway.dev_workflowjournals.yaml"),
        include_str!("../crds/serving.kserve.io_inferenceservices.yaml"),
        include_str!("../crds/serving.kserve.io_servingruntimes.yaml"),
        include_str!("../crds/serving.kserve.io_clusterservingruntimes.yaml"),
    ]
    .into_iter()
}

/// The install manifests, as YAML streams: ServiceAccounts, roles and bindings of each part.
pub fn install_manifests() -> impl Iterator<Item = &'static str> {
    [
        include_str!("../install/workflows.yaml"),
        include_str!("../install/pipelines.yaml"),
        include_str!("../install/objects.yaml"),
        include_str!("../install/registry.yaml"),
        include_str!("../install/serving.yaml"),
        include_str!("../install/gateway.yaml"),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_a_crd_with_a_schema_for_each_version() {
        for text in crds() {
            let document: serde_json::Value = serde_yaml_ng::from_str(text).unwrap();
            assert_eq!(document["kind"], "CustomResourceDefinition");
            let name = document["metadata"]["name"].as_str().unwrap();
            let (plural, group) = name.split_once('.').unwrap();
            assert_eq!(document["spec"]["names"]["plural"], plural);
            assert_eq!(document["spec"]["group"], group);
            for version in document["spec"]["versions"].as_array().unwrap() {
                assert_eq!(version["schema"]["openAPIV3Schema"]["type"], "object", "{name}");
            }
        }
    }

    #[test]
    fn every_install_manifest_is_a_stream_of_kubernetes_objects() {
        for stream in install_manifests() {
            for document in serde_yaml_ng::Deserializer::from_str(stream) {
                let object: serde_json::Value = serde::Deserialize::deserialize(document).unwrap();
                assert!(object["apiVersion"].is_string() && object["kind"].is_string());
                assert!(object["metadata"]["name"].is_string());
            }
        }
    }
}
