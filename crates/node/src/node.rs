//! The node as a whole: it registers, watches the pods bound to it, and gives each one a task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use pod_protocol::shim::{Event, Request, folder};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroups::Support;
use crate::events::Recorder;
use crate::folder::{self as files, PodFolder};
use crate::images::{self, Images};
use crate::logs;
use crate::network::Network;
use crate::pod::worker::{self, Handle, Message};
use crate::register::{self, Capacity};
use crate::shim;
use crate::streams::{self, Exec};
use crate::volumes::{self, Maker};

/// How long `stop_all` waits for a shim that was told to end.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// What a node needs to know.
pub struct NodeConfig {
    /// `DATA`: pods, volumes and images live under it.
    pub data_dir: PathBuf,
    /// Name of the `Node` object.
    pub name: String,
    /// A client with the identity `system:node:<name>`.
    pub client: kube::Client,
    /// The network that pods are attached to.
    pub network: Arc<dyn Network>,
    /// What image names mean.
    pub images: images::Config,
    /// Host paths (and what is below them) that pods may mount.
    pub host_paths: Vec<PathBuf>,
    /// Host and port of the API server as pods reach it, when there is no Service `default/kubernetes`.
    pub api_address: Option<(String, u16)>,
    /// The network's name server answers; otherwise pods get the host's.
    pub cluster_dns: bool,
    /// Most pods at a time; the kubelet's default is 110.
    pub pods_max: u32,
}

/// What the parts of a node share.
pub struct Context {
    pub(crate) config: NodeConfig,
    pub(crate) images: Images,
    pub(crate) maker: Maker,
    pub(crate) events: Recorder,
    pub(crate) services: Store<Service>,
    pub(crate) capacity: Capacity,
    pub(crate) cgroups: Support,
    pub(crate) pod_binary: PathBuf,
    pub(crate) work: Work,
}

/// The tasks of pods: none of them does anything any more once [`Node::shutdown`] has returned, so that the next
/// server finds the data folder to itself.
#[derive(Default)]
pub(crate) struct Work {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Work {
    /// Runs a task until it is done or the node ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            // Cut off or done, there is nothing to tell.
            let _ = stop.run_until_cancelled_owned(task).await;
        })
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Why a node does not start, or cannot do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder.
    #[error("cannot use the data folder \"{path}\"")]
    Data {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The `Node` object.
    #[error("cannot register node \"{name}\"")]
    Register {
        /// Which.
        name: String,
        /// The cause.
        source: kube::Error,
    },
    /// No such pod here.
    #[error("pod \"{namespace}/{name}\" is not on this node")]
    NoSuchPod {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// No such container in the pod.
    #[error("container {container} is not valid for pod {pod}")]
    NoSuchContainer {
        /// Container.
        container: String,
        /// Pod.
        pod: String,
    },
    /// The container exists and has not started.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    NotStarted {
        /// Container.
        container: String,
        /// Pod.
        pod: String,
        /// The waiting reason, e.g. `ContainerCreating`.
        reason: String,
    },
    /// `previous` and there is none.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// Container.
        container: String,
        /// Pod.
        pod: String,
    },
    /// A stream could not be made.
    #[error("cannot {doing}")]
    Stream {
        /// What.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// A running node. Dropping it (or [`Node::shutdown`]) leaves its pods running.
pub struct Node {
    context: Arc<Context>,
    pods: watch::Receiver<Arc<Pods>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Registers the node and takes over the pods bound to it, adopting those that still run from before.
    pub async fn start(config: NodeConfig) -> Result<Self, Error> {
        let data = |source| Error::Data { path: config.data_dir.clone(), source };
        for part in ["pods", "volumes", "images"] {
            std::fs::create_dir_all(config.data_dir.join(part)).map_err(data)?;
        }
        let pod_binary = files::pod_binary(&config.data_dir).map_err(data)?;
        let (services, writer) = reflector::store();
        let context = Arc::new(Context {
            images: Images::new(&config.data_dir, config.images.clone(), pod_binary.clone()),
            maker: Maker {
                client: config.client.clone(),
                data_dir: config.data_dir.clone(),
                host_paths: config.host_paths.clone(),
            },
            events: Recorder::start(config.client.clone(), config.name.clone()),
            services,
            capacity: Capacity::detect(config.pods_max),
            cgroups: Support::detect(&key_of(&config.data_dir)),
            pod_binary,
            work: Work::default(),
            config,
        });
        if let Support::None(why) = &context.cgroups {
            tracing::info!(why, "requests and limits of pods are not enforced");
        }
        let name = context.config.name.clone();
        register::register(&context).await.map_err(|source| Error::Register { name, source })?;
        let (told, pods) = watch::channel(Arc::default());
        let warm = context.clone();
        let tasks = vec![
            tokio::spawn(watch_services(context.config.client.clone(), writer)),
            tokio::spawn(register::heartbeat(context.clone())),
            tokio::spawn(async move { warm.images.warm_up().await }),
            tokio::spawn(watch_pods(context.clone(), told)),
        ];
        Ok(Self { context, pods, tasks })
    }

    /// Ends the node's work; its pods run on and are adopted by the next server.
    pub async fn shutdown(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        self.context.work.end().await;
    }

    /// What the machine offers to pods.
    pub fn capacity(&self) -> Capacity {
        self.context.capacity
    }

    /// Why requests and limits are not enforced; none: they are.
    pub fn unenforced(&self) -> Option<&str> {
        match &self.context.cgroups {
            Support::None(why) => Some(why),
            Support::Unified(_) | Support::Split { .. } => None,
        }
    }

    /// A container's log. Without a name, the pod's only container.
    pub fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        options: logs::Options,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, Error> {
        let (pod, folder, container) = self.find(namespace, name, container)?;
        let attempts = folder.attempts(&container);
        let (pod_name, container_name) = (name.to_owned(), container.clone());
        let current = attempts.last.map(|(number, _, _)| number);
        let number =
            if options.previous { current.and_then(|current| current.checked_sub(1)) } else { current };
        let number = match (number, options.previous) {
            (Some(number), _) => number,
            (None, true) => return Err(Error::NoPrevious { container: container_name, pod: pod_name }),
            (None, false) => {
                let reason = waiting_reason(&pod, &container);
                return Err(Error::NotStarted { container: container_name, pod: pod_name, reason });
            }
        };
        Ok(logs::read(&folder, &container, number, options))
    }

    /// Runs a program in a container.
    pub fn exec(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        argv: Vec<String>,
        stdin: bool,
        tty: bool,
    ) -> Result<Exec, Error> {
        let (_, folder, container) = self.find(namespace, name, container)?;
        streams::exec(&folder, &container, argv, stdin, tty)
            .map_err(|source| Error::Stream { doing: format!("exec in container \"{container}\""), source })
    }

    /// A connection to a port of a pod.
    pub async fn port_forward(&self, namespace: &str, name: &str, port: u16) -> Result<TcpStream, Error> {
        let (pod, _, _) = self.find(namespace, name, None)?;
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
        let connected = TcpStream::connect((ip.as_str(), port)).await;
        connected.map_err(|source| Error::Stream {
            doing: format!("connect to port {port} of pod \"{name}\""),
            source,
        })
    }

    /// The pod, its folder, and the container meant (the first one when none is named).
    fn find(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
    ) -> Result<(Arc<Pod>, PodFolder, String), Error> {
        let key = (namespace.to_owned(), name.to_owned());
        let pod = self.pods.borrow().get(&key).cloned();
        let pod = pod.ok_or_else(|| Error::NoSuchPod { namespace: namespace.into(), name: name.into() })?;
        let spec = pod.spec.clone().unwrap_or_default();
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let found = match container.filter(|container| !container.is_empty()) {
            Some(wanted) => all.find(|container| container.name == wanted),
            None => all.next(),
        };
        let found = found.map(|container| container.name.clone()).ok_or_else(|| Error::NoSuchContainer {
            container: container.unwrap_or_default().to_owned(),
            pod: name.to_owned(),
        })?;
        let folder = PodFolder::new(&self.context.config.data_dir, pod.metadata.uid.as_deref().unwrap_or(""));
        Ok((pod, folder, found))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.context.work.stop.cancel();
    }
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let status = pod.status.as_ref();
    let statuses = status.iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let mut states =
        statuses.filter(|status| status.name == container).filter_map(|status| status.state.clone());
    states.find_map(|state| state.waiting?.reason).unwrap_or_else(|| "ContainerCreating".into())
}

/// Tells data folders apart in names outside of them.
fn key_of(data_dir: &Path) -> String {
    use sha2::{Digest, Sha256};
    let path = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_path_buf());
    hex::encode(&Sha256::digest(path.to_string_lossy().as_bytes())[..4])
}

async fn watch_services(client: kube::Client, writer: reflector::store::Writer<Service>) {
    let services: Api<Service> = Api::all(client);
    let stream = reflector::reflector(writer, cluster::watch(services, watcher::Config::default()));
    let mut stream = pin!(stream);
    while stream.next().await.is_some() {}
}

type Told = watch::Sender<Arc<Pods>>;
/// By namespace and name.
type Pods = BTreeMap<(String, String), Arc<Pod>>;

/// Keeps one task for each pod bound to this node. Aborting it aborts the pods' tasks and leaves their processes.
async fn watch_pods(context: Arc<Context>, told: Told) {
    let pods: Api<Pod> = Api::all(context.config.client.clone());
    let selector = format!("spec.nodeName={}", context.config.name);
    let config = watcher::Config::default().fields(&selector);
    let mut stream = cluster::watch(pods, config);
    let mut tasks = Tasks { context, told, known: BTreeMap::new(), workers: BTreeMap::new() };
    let mut listed: Option<BTreeSet<String>> = None;
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = Some(BTreeSet::new()),
            Ok(watcher::Event::InitApply(pod)) => {
                if let (Some(listed), Some(uid)) = (&mut listed, &pod.metadata.uid) {
                    listed.insert(uid.clone());
                }
                tasks.apply(pod).await;
            }
            Ok(watcher::Event::InitDone) => {
                let listed = listed.take().unwrap_or_default();
                tasks.keep(&listed).await;
            }
            Ok(watcher::Event::Apply(pod)) => tasks.apply(pod).await,
            Ok(watcher::Event::Delete(pod)) => tasks.gone(pod.metadata.uid.as_deref().unwrap_or("")).await,
            Err(error) => tracing::warn!(%error, "the watch of pods broke; it is taken up again"),
        }
    }
}

struct Tasks {
    context: Arc<Context>,
    told: Told,
    /// Keys by uid.
    known: BTreeMap<String, (String, String)>,
    workers: BTreeMap<String, Handle>,
}

impl Tasks {
    async fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let key = (
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
        );
        // Mirrors of the platform's own parts are told by somebody else and run nowhere.
        let is_mirror =
            |annotations: &BTreeMap<String, String>| annotations.contains_key("kubernetes.io/config.mirror");
        if pod.metadata.annotations.as_ref().is_some_and(is_mirror) {
            return;
        }
        let pod = Arc::new(pod);
        self.known.insert(uid.clone(), key.clone());
        self.told.send_modify(|pods| drop(Arc::make_mut(pods).insert(key, pod.clone())));
        match self.workers.get(&uid) {
            Some(worker) if !worker.task.is_finished() => {
                let _ = worker.inbox.send(Message::Pod(pod)).await;
            }
            _ => {
                self.workers.insert(uid, worker::start(self.context.clone(), pod));
            }
        }
    }

    async fn gone(&mut self, uid: &str) {
        if let Some(key) = self.known.remove(uid) {
            self.told.send_modify(|pods| {
                let same = pods.get(&key).is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid));
                if same {
                    Arc::make_mut(pods).remove(&key);
                }
            });
        }
        if let Some(worker) = self.workers.remove(uid) {
            let _ = worker.inbox.send(Message::Gone).await;
            // The task ends by itself once nothing of the pod is left; it must not be aborted before.
            drop(worker.task);
        }
    }

    /// After a list: pods that are not in it are gone, also those of which only a folder is left.
    async fn keep(&mut self, listed: &BTreeSet<String>) {
        let missing: Vec<String> =
            self.workers.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in missing {
            self.gone(&uid).await;
        }
        for (uid, folder) in files::all(&self.context.config.data_dir) {
            if !listed.contains(&uid) && !self.workers.contains_key(&uid) {
                self.context.work.spawn(remove_orphan(self.context.clone(), uid, folder));
            }
        }
        if let Err(error) = self.context.config.network.retain(listed).await {
            tracing::warn!(%error, "addresses of old pods were not taken back");
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for worker in self.workers.values() {
            worker.task.abort();
        }
    }
}

/// Ends and removes a pod whose object is gone.
async fn remove_orphan(context: Arc<Context>, uid: String, folder: PodFolder) {
    tracing::info!(pod = uid, "removing a pod whose object is gone");
    stop(&folder, Duration::from_secs(1)).await;
    let _ = context.config.network.detach(&uid).await;
    crate::cgroups::remove(&context.cgroups, &uid);
    let _ = std::fs::remove_dir_all(volumes::memory_folder_of(&uid));
    if let Err(error) = folder.remove() {
        tracing::warn!(pod = uid, %error, "the folder of a removed pod stays");
    }
}

/// Ends the processes of all pods of a data folder, also when no server lives. Their folders stay, so that a later
/// server knows how they ended. Returns how many pods had processes.
pub async fn stop_all(data_dir: &Path, grace: Duration) -> usize {
    let all = files::all(data_dir).into_iter().map(|(_, folder)| async move { stop(&folder, grace).await });
    futures::future::join_all(all).await.into_iter().filter(|stopped| *stopped).count()
}

/// Ends one pod's processes; `false`: it had none.
async fn stop(folder: &PodFolder, grace: Duration) -> bool {
    let Some(record) = folder.shim().filter(shim::is_alive) else {
        return false;
    };
    let ended = async {
        let (shim, mut events) = shim::adopt(folder).await?;
        shim.ask(Request::Shutdown { grace_ms: grace.as_millis() as u64 }).await;
        // Closed when the shim has left, and with it the last container.
        while let Some(event) = events.recv().await {
            if let Event::Exited { container, .. } = event {
                tracing::debug!(container, "stopped");
            }
        }
        Some(())
    };
    let _ = tokio::time::timeout(grace + STOP_WAIT, ended).await;
    if shim::is_alive(&record) {
        let pid = nix::unistd::Pid::from_raw(record.pid as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        for started in folder.running() {
            shim::end_orphan(&started).await;
        }
    }
    let _ = std::fs::remove_file(folder.path().join(folder::SOCKET));
    true
}
