//! The calls that a workflow's task makes: pods, claims, status, results.

use std::time::Duration;

use api::workflow::{Workflow, WorkflowStatus, WorkflowTaskResult, label};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use plan::order::PodOrder;
use pod_protocol::launch::LaunchReport;
use serde_json::{Value, json};

use crate::build::{FINALIZER, Owner, PYTHON_CLAIM, build_pod, owner_reference};
use crate::{Config, Error};

/// Size asked for a namespace's Python environments.
const PYTHON_CLAIM_SIZE: &str = "10Gi";
/// Pauses between tries of a call that the API server could not serve.
const RETRY_PAUSES_MS: [u64; 6] = [50, 200, 500, 1000, 2000, 5000];

/// How the API server says that a pod's account is not there.
const NO_ACCOUNT: &str = "error looking up service account";
/// How often and after what pause a pod is tried again for want of its account.
const ACCOUNT_TRIES: u32 = 20;
const ACCOUNT_PAUSE_MS: u64 = 100;

/// What came of ordering a pod.
#[derive(Debug)]
pub enum Ordered {
    /// It is there.
    Made,
    /// It can never be: why.
    Refused(String),
}

/// Calls for one workflow.
#[derive(Clone)]
pub struct Rim {
    pub client: kube::Client,
    pub config: Config,
    pub owner: Owner,
}

impl Rim {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.owner.namespace)
    }

    fn workflows(&self) -> Api<Workflow> {
        Api::namespaced(self.client.clone(), &self.owner.namespace)
    }

    /// Creates the pod of an attempt; again does no harm.
    pub async fn start_pod(&self, order: &PodOrder, token: u32) -> Ordered {
        let object = match build_pod(order, token, &self.owner, &self.config) {
            Ok(object) => object,
            Err(why) => return Ordered::Refused(why),
        };
        let pod: Pod = match cluster::read(&object) {
            Ok(pod) => pod,
            Err(error) => return Ordered::Refused(format!("the pod is not valid: {error}")),
        };
        if order.python_cache
            && let Err(why) = self.ensure_python_claim().await
        {
            return Ordered::Refused(why);
        }
        let mut accounts = 0;
        let mut pauses = RETRY_PAUSES_MS.iter().chain(std::iter::repeat(&RETRY_PAUSES_MS[5]));
        loop {
            match self.pods().create(&PostParams::default(), &pod).await {
                Ok(_) => return Ordered::Made,
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    return self.check_owner(&order.name).await;
                }
                // A namespace's account is made a moment after the namespace.
                Err(kube::Error::Api(status))
                    if status.message.contains(NO_ACCOUNT) && accounts < ACCOUNT_TRIES =>
                {
                    accounts += 1;
                    tokio::time::sleep(Duration::from_millis(ACCOUNT_PAUSE_MS)).await;
                }
                Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                    return Ordered::Refused(status.message);
                }
                Err(error) => {
                    tracing::warn!(pod = %order.name, %error, "cannot create the pod, trying again");
                    let pause = pauses.next().copied().unwrap_or(1000);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
    }

    async fn check_owner(&self, name: &str) -> Ordered {
        let found = self.pods().get_opt(name).await.ok().flatten();
        let owners = found.and_then(|pod| pod.metadata.owner_references).unwrap_or_default();
        if owners.is_empty() || owners.iter().any(|owner| owner.uid == self.owner.uid) {
            return Ordered::Made;
        }
        Ordered::Refused(format!("pod '{name}' exists and belongs to another object"))
    }

    async fn ensure_python_claim(&self) -> Result<(), String> {
        let claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": { "name": PYTHON_CLAIM, "namespace": self.owner.namespace },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": PYTHON_CLAIM_SIZE } },
            },
        });
        self.ensure_claim(PYTHON_CLAIM, claim).await
    }

    async fn ensure_claim(&self, name: &str, claim: Value) -> Result<(), String> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.owner.namespace);
        if matches!(api.get_opt(name).await, Ok(Some(_))) {
            return Ok(());
        }
        let claim = cluster::read(&claim).map_err(|error| format!("claim '{name}': {error}"))?;
        match api.create(&PostParams::default(), &claim).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(format!("cannot create claim '{name}': {error}")),
        }
    }

    /// Makes the claims of `volumeClaimTemplates`, named `<workflow>-<name>`, owned by the workflow.
    pub async fn ensure_claims(&self, templates: &[Value]) -> Result<(), String> {
        for template in templates {
            let own = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let name = format!("{}-{own}", self.owner.name);
            let claim = json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": name,
                    "namespace": self.owner.namespace,
                    "labels": { label::WORKFLOW: self.owner.name },
                    "ownerReferences": [owner_reference(&self.owner)],
                },
                "spec": template.get("spec").cloned().unwrap_or_default(),
            });
            self.ensure_claim(&name, claim).await?;
        }
        Ok(())
    }

    /// The workflow's pods.
    pub async fn list_pods(&self) -> Result<Vec<Pod>, Error> {
        let selector = format!("{}={}", label::WORKFLOW, self.owner.name);
        let list = self.pods().list(&ListParams::default().labels(&selector)).await;
        let mut pods = list.map_err(Error::api("list pods"))?.items;
        pods.retain(|pod| {
            let owners = pod.metadata.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == self.owner.uid)
        });
        Ok(pods)
    }

    /// Deletes a pod.
    pub async fn stop_pod(&self, name: &str) {
        match self.pods().delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => tracing::warn!(pod = name, %error, "cannot delete the pod"),
        }
    }

    /// Lets a pod go whose end is in the journal.
    pub async fn release_pod(&self, name: &str) {
        release(&self.pods(), name).await;
    }

    /// The report that did not fit the termination message.
    pub async fn task_result(&self, node_id: &str) -> Option<LaunchReport> {
        let api: Api<WorkflowTaskResult> = Api::namespaced(self.client.clone(), &self.owner.namespace);
        let found = api.get_opt(node_id).await.ok().flatten()?;
        serde_json::from_value(found.report?).ok()
    }

    /// Writes the projection, with the labels that clients select by. `false`: the workflow is gone.
    pub async fn write_status(&self, status: &WorkflowStatus) -> bool {
        let done = status.finished_at.is_some();
        let mut labels = json!({ label::PHASE: status.phase });
        if done {
            labels[label::COMPLETED] = json!("true");
        }
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels }, "status": status }));
        for pause in RETRY_PAUSES_MS {
            match self.workflows().patch(&self.owner.name, &PatchParams::default(), &patch).await {
                Ok(_) => return true,
                Err(kube::Error::Api(status)) if status.is_not_found() => return false,
                Err(error) => tracing::warn!(workflow = %self.owner.name, %error, "cannot write the status"),
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        true
    }

    /// Deletes the workflow (its time to live is over).
    pub async fn delete_workflow(&self) {
        let params = DeleteParams::background();
        if let Err(error) = self.workflows().delete(&self.owner.name, &params).await {
            tracing::debug!(workflow = %self.owner.name, %error, "workflow stays");
        }
    }
}

/// Takes our finalizer from a pod and marks it as seen.
pub async fn release(pods: &Api<Pod>, name: &str) {
    let Ok(Some(pod)) = pods.get_opt(name).await else { return };
    let held = pod.metadata.finalizers.clone().unwrap_or_default();
    let kept: Vec<&String> = held.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let labels = json!({ label::COMPLETED: "true" });
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": kept, "labels": labels } }));
    match pods.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => tracing::warn!(pod = name, %error, "cannot release the pod"),
    }
}
