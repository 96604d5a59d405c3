//! A cluster in the test's process: the real API server, the real controllers, and a hollow node.
//!
//! The hollow node does what a node would say about pods without running them: a pod bound to it gets an address and runs; one
//! whose image is `true` succeeds at once and one whose image is `false` fails; a deleted pod goes.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use apiserver::{ApiServer, Config, Ipv4Range, Pki, PortRange, UserInfo};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::Store;
use tokio::task::JoinSet;

/// How long a state may take to come about: far more than it does.
const PATIENCE: Duration = Duration::from_secs(10);

/// One running cluster; everything ends with it.
pub struct Cluster {
    pub client: Client,
    pub dir: tempfile::TempDir,
    pub server: Arc<ApiServer>,
    _parts: JoinSet<()>,
}

impl Cluster {
    /// Starts it with one node of 4 CPUs and 8 GiB.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        let pki = Pki::open(&dir.path().join("pki")).unwrap();
        let config = Config {
            advertise: "127.0.0.1:6443".parse().unwrap(),
            service_range: Ipv4Range { base: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 },
            node_ports: PortRange::default(),
            admin_token: None,
            namespaces: Vec::new(),
        };
        let server = ApiServer::start(store, pki, config, Vec::new()).await.unwrap();
        let client = server.client(UserInfo::admin());
        let mut parts = JoinSet::new();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "1000"}}});
        let nodes: Api<Node> = Api::all(client.clone());
        let made = nodes
            .create(&PostParams::default(), &serde_json::from_value(node.clone()).unwrap())
            .await
            .unwrap();
        let mut with_status: Node = serde_json::from_value(node).unwrap();
        with_status.metadata = made.metadata;
        nodes.replace_status("node", &PostParams::default(), &with_status).await.unwrap();
        parts.spawn(hollow_node(client.clone()));
        parts.spawn(workloads::run_all(workloads::Config {
            controllers: server
                .client(UserInfo::new("system:kube-controller-manager", &["system:authenticated"])),
            scheduler: server.client(UserInfo::new("system:kube-scheduler", &["system:authenticated"])),
            overcommit: false,
            root_ca_pem: "PEM".to_owned(),
            volumes_dir: dir.path().join("volumes"),
        }));
        let cluster = Self { client, dir, server, _parts: parts };
        cluster.wait::<k8s_openapi::api::core::v1::ServiceAccount>("default", "default", |_| true).await;
        cluster
    }

    /// Access to a kind in `default`.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object in `default`.
    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + DeserializeOwned + serde::Serialize + Debug,
    {
        self.api().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    /// Waits until the object is so; panics with what it was last.
    pub async fn wait<K>(&self, namespace: &str, name: &str, so: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        wait_in(api, name, |object| object.is_some_and(&so)).await.unwrap()
    }

    /// Waits until the object of `default` is gone.
    pub async fn wait_gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        wait_in(self.api::<K>(), name, |object| object.is_none()).await;
    }
}

/// Watches one object until it is so.
pub async fn wait_in<K>(api: Api<K>, name: &str, so: impl Fn(Option<&K>) -> bool) -> Option<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut last = None;
    let states = async {
        let mut states = watcher::watch_object(api, name).boxed();
        while let Some(state) = states.next().await {
            let state = state.unwrap();
            if so(state.as_ref()) {
                return state;
            }
            last = state;
        }
        None
    };
    match tokio::time::timeout(PATIENCE, states).await {
        Ok(state) => state,
        Err(_) => panic!("{name} did not become so; it is {last:#?}"),
    }
}

async fn hollow_node(client: Client) {
    let addresses = AtomicU32::new(1);
    let pods: Api<Pod> = Api::all(client.clone());
    let mut changes = watcher(pods, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(change) = changes.next().await {
        let Ok(pod) = change else { continue };
        tokio::spawn(serve(client.clone(), pod, addresses.fetch_add(1, Ordering::Relaxed)));
    }
}

async fn serve(client: Client, pod: Pod, number: u32) {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        drop(api.delete(&name, &DeleteParams::default().grace_period(0)).await);
        return;
    }
    let spec = pod.spec.clone().unwrap();
    let phase = pod.status.clone().unwrap_or_default().phase.unwrap_or_default();
    if spec.node_name.is_none() || phase != "Pending" && !phase.is_empty() {
        return;
    }
    let image = spec.containers[0].image.clone().unwrap_or_default();
    let (phase, ready) = match image.as_str() {
        "true" => ("Succeeded", "False"),
        "false" => ("Failed", "False"),
        "starting" => ("Running", "False"),
        _ => ("Running", "True"),
    };
    let ip = Ipv4Addr::from(0x0a01_0000 + number).to_string();
    let status = json!({"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [
        {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let patch = Patch::Strategic(json!({"status": status}));
    drop(api.patch_status(&name, &PatchParams::default(), &patch).await);
}
