//! How the commands reach a running cluster: its record and its own kubeconfig.

use anyhow::{Context, Result, bail};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    config::{KubeConfigOptions, Kubeconfig},
};

use super::DataFolder;
use crate::cluster::folder::State;

/// A running cluster as a command sees it.
pub struct Cluster {
    /// The server's record.
    pub state: State,
    /// A client with the admin's certificate.
    pub client: Client,
}

/// Connects to the cluster of the folder.
///
/// # Errors
/// When no server runs there; the text says how to start one.
pub async fn cluster(data: &DataFolder) -> Result<Cluster> {
    let folder = data.folder()?;
    let Some(state) = folder.running() else {
        bail!(
            "no server runs on {0}; start one with `slipway up --detach --data {0}`",
            folder.path().display()
        );
    };
    let file = Kubeconfig::read_from(folder.kubeconfig()).context("cannot read the cluster's kubeconfig")?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Cluster { state, client: Client::try_from(config)? })
}

impl Cluster {
    /// URL of a part.
    pub fn address(&self, part: &str) -> Result<&str> {
        let address = self.state.addresses.get(part).map(String::as_str);
        address.with_context(|| format!("this server has no {part:?}; `slipway status` lists its parts"))
    }

    /// Objects of a kind that this crate has no types for.
    pub fn dynamic(&self, group: &str, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// InferenceServices of a namespace.
    pub fn inference_services(&self, namespace: &str) -> Api<DynamicObject> {
        self.dynamic("serving.kserve.io", "v1beta1", "InferenceService", namespace)
    }

    /// Workflows of a namespace.
    pub fn workflows(&self, namespace: &str) -> Api<DynamicObject> {
        self.dynamic("argoproj.io", "v1alpha1", "Workflow", namespace)
    }
}

/// The condition of a type in an object's status: (status, reason, message).
pub fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    Some((text("status"), text("reason"), text("message")))
}
