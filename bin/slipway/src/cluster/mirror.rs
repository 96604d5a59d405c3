//! The platform's own parts as pods of namespace `kubeflow`: `kubectl get pods -n kubeflow` shows what runs.
//!
//! They are mirror pods, as the kubelet makes for what it runs without the API: the node does not start them, deleting one
//! only brings it back. Faces are probed like any pod's readiness; a controller is ready while it runs, since its end
//! ends the process. Their logs are the parts' log files ([`super::streams`]).

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{NODE_NAME, PLATFORM_NAMESPACE};

/// As the kubelet marks them.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Which part's log file is the pod's log.
pub const PART: &str = "slipway.dev/part";
/// Seconds between two probes, as a pod's readiness probe has by default.
const PROBE_PERIOD: Duration = Duration::from_secs(10);

/// A face by its address name, and the path that it answers when it is well.
type Probe = Option<(&'static str, &'static str)>;

/// (pod name, as Kubeflow, Argo and KServe call it; the part; its probe).
const PODS: &[(&str, &str, Probe)] = &[
    ("kube-apiserver", "apiserver", None),
    ("kube-controller-manager", "workloads", None),
    ("node-agent", "node", None),
    ("workflow-controller", "workflows", None),
    ("ml-pipeline", "pipelines", Some(("pipelines", "/apis/v2beta1/healthz"))),
    ("metadata-db", "registry", Some(("mlflow", "/health"))),
    ("kserve-controller-manager", "serving", None),
    ("inference-gateway", "gateway", None),
    ("artifact-store", "objects", Some(("artifacts", "/healthz"))),
];

/// Keeps the mirror pods true until dropped.
pub async fn run(client: Client, addresses: BTreeMap<String, String>) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, PLATFORM_NAMESPACE);
    let http = reqwest::Client::builder().timeout(Duration::from_secs(1)).build()?;
    let started = Timestamp::now();
    let mut last: BTreeMap<&str, bool> = BTreeMap::new();
    let mut tick = tokio::time::interval(PROBE_PERIOD);
    loop {
        tick.tick().await;
        for (name, part, probe) in PODS {
            let ready = is_ready(&http, &addresses, *probe).await;
            let known = pods.get_opt(name).await.ok().flatten().is_some();
            if known && last.get(name) == Some(&ready) {
                continue;
            }
            match write(&pods, name, part, ready, started).await {
                Ok(()) => drop(last.insert(name, ready)),
                Err(error) => tracing::warn!("cannot write the mirror pod {name}: {error:#}"),
            }
        }
    }
}

async fn is_ready(http: &reqwest::Client, addresses: &BTreeMap<String, String>, probe: Probe) -> bool {
    let Some((face, path)) = probe else { return true };
    let Some(address) = addresses.get(face) else { return false };
    let answer = http.get(format!("{address}{path}")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

async fn write(pods: &Api<Pod>, name: &str, part: &str, ready: bool, started: Timestamp) -> Result<()> {
    if pods.get_opt(name).await?.is_none() {
        let pod: Pod = serde_json::from_value(manifest(name, part))?;
        pods.create(&PostParams::default(), &pod).await.with_context(|| format!("cannot create {name}"))?;
    }
    let found = pods.get(name).await?;
    let since = found.creation_timestamp().map_or(started, |time| time.0.max(started));
    let status = json!({ "status": status(name, ready, started, since) });
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

fn manifest(name: &str, part: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": PLATFORM_NAMESPACE,
            "labels": { "app.kubernetes.io/part-of": "slipway", "app": name },
            "annotations": { MIRROR: part, PART: part },
        },
        "spec": {
            "nodeName": NODE_NAME,
            "hostNetwork": true,
            "automountServiceAccountToken": false,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": name, "image": format!("slipway/{part}:{}", env!("CARGO_PKG_VERSION")) }],
        },
    })
}

fn status(name: &str, ready: bool, started: Timestamp, since: Timestamp) -> Value {
    let truth = if ready { "True" } else { "False" };
    let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "lastTransitionTime": seconds(since) });
    json!({
        "phase": "Running",
        "startTime": seconds(started),
        "conditions": [
            condition("PodScheduled", "True"), condition("Initialized", "True"),
            condition("ContainersReady", truth), condition("Ready", truth),
        ],
        "containerStatuses": [{
            "name": name, "ready": ready, "started": true, "restartCount": 0, "image": "slipway", "imageID": "",
            "state": { "running": { "startedAt": seconds(started) } },
        }],
    })
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
