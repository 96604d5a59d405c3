//! A cluster in the test's process: the real API server and a real node with real processes.

use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Config, Ipv4Range, Pki, PortRange, UserInfo};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource};
use node::network::Loopback;
use node::{Node, NodeConfig, images, logs};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use store::Store;

/// How long a state may take to come about: far more than it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster whose node can be stopped and started again; the data folder goes with it.
pub struct Cluster {
    pub client: Client,
    pub dir: tempfile::TempDir,
    pub server: Arc<ApiServer>,
    pub node: Option<Node>,
}

impl Cluster {
    /// Starts it.
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
        let mut cluster = Self { client, dir, server, node: None };
        cluster.create::<ServiceAccount>(json!({"metadata": {"name": "default"}})).await;
        cluster
            .create::<ConfigMap>(json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "PEM"}}))
            .await;
        cluster
            .create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"colour": "blue"}}))
            .await;
        cluster
            .create::<Secret>(json!({"metadata": {"name": "key"}, "stringData": {"word": "sesame"}}))
            .await;
        cluster.start_node().await;
        cluster
    }

    /// Starts the node on the data folder.
    pub async fn start_node(&mut self) {
        let network = Arc::new(Loopback::open(self.dir.path()).unwrap());
        let user = UserInfo::new("system:node:here", &["system:nodes", "system:authenticated"]);
        let config = NodeConfig {
            data_dir: self.dir.path().to_path_buf(),
            name: "here".into(),
            client: self.server.client(user),
            network,
            images: images::Config::new(Vec::new()),
            host_paths: Vec::new(),
            api_address: Some(("127.0.0.1".into(), 6443)),
            cluster_dns: false,
            pods_max: 110,
        };
        self.node = Some(Node::start(config).await.unwrap());
    }

    /// What a kill of the server does to the node: it is gone, and the pods' processes are not told.
    pub async fn lose_node(&mut self) {
        if let Some(node) = self.node.take() {
            node.shutdown().await;
        }
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

    /// Creates a pod on the node that runs a shell script; `spec` is merged over the usual.
    pub async fn run(&self, name: &str, script: &str, spec: Value) -> Pod {
        let mut container = json!({"name": "main", "image": "busybox", "command": ["sh", "-c", script]});
        let mut pod =
            json!({"nodeName": "here", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1});
        for (key, value) in spec.as_object().unwrap() {
            match key.strip_prefix("main.") {
                Some(key) => container[key] = value.clone(),
                None => pod[key] = value.clone(),
            }
        }
        pod["containers"] = json!([container]);
        self.create(json!({"metadata": {"name": name}, "spec": pod})).await
    }

    /// Waits until a pod of `default` is so; panics with what it was last.
    pub async fn wait(&self, name: &str, so: impl Fn(&Pod) -> bool) -> Pod {
        self.watch(name, |pod| pod.is_some_and(&so)).await.unwrap()
    }

    /// Waits until a pod of `default` is in a phase.
    pub async fn wait_phase(&self, name: &str, phase: &str) -> Pod {
        self.wait(name, |pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase))
            .await
    }

    /// Waits until a pod of `default` is gone.
    pub async fn wait_gone(&self, name: &str) {
        self.watch(name, |pod| pod.is_none()).await;
    }

    async fn watch(&self, name: &str, so: impl Fn(Option<&Pod>) -> bool) -> Option<Pod> {
        let mut last = None;
        let states = async {
            let mut states = watcher::watch_object(self.api::<Pod>(), name).boxed();
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
            Err(_) => panic!("{name} did not become so; it is {last:#?}\n{}", self.shim_logs()),
        }
    }

    fn shim_logs(&self) -> String {
        let pods = std::fs::read_dir(self.dir.path().join("pods")).into_iter().flatten().flatten();
        pods.map(|pod| std::fs::read_to_string(pod.path().join("shim.log")).unwrap_or_default()).collect()
    }

    /// The whole log of a container.
    pub async fn log(&self, pod: &str, options: logs::Options) -> String {
        let log = self.node.as_ref().unwrap().logs("default", pod, None, options).unwrap();
        let chunks: Vec<_> = log.collect().await;
        chunks.into_iter().map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).collect()
    }

    /// What the pod's container left in its attempt's folder.
    pub fn attempt_file(&self, pod: &Pod, attempt: u32, file: &str) -> Value {
        let uid = pod.metadata.uid.as_deref().unwrap();
        let path = self.dir.path().join(format!("pods/{uid}/containers/main/{attempt}/{file}"));
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = stop_all(self.dir.path());
        assert!(stopped.is_ok(), "{stopped:?}");
    }
}

fn stop_all(data_dir: &Path) -> std::thread::Result<usize> {
    let data_dir = data_dir.to_path_buf();
    // A runtime of its own, as this may run inside of one.
    let ending = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(node::stop_all(&data_dir, Duration::ZERO))
    });
    ending.join()
}
