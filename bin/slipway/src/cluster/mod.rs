//! The cluster in a process: wires the parts, runs them, ends them in order.
//!
//! The order of the start is the order of dependencies: what has state first (store, database, artifacts), then the
//! Kubernetes API, then what talks to it (controllers, node), then the faces that people use. Everything listens before
//! `ready` is called. Not here: what any part does.

mod admission;
pub mod config;
pub mod folder;
mod gate;
mod identity;
mod install;
pub mod kubeconfig;
mod mirror;
mod pipelines_cache;
mod streams;

use std::{collections::BTreeMap, net::TcpListener, sync::Arc};

use anyhow::{Context, Result};
use apiserver::ApiServer;
use axum::Router;
use node::network::Network;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::faces::{self, Trust};
use config::{Config, NetworkKind};
use folder::{Folder, State};

/// Parts with a log of their own: the crate names that events come from.
pub const PARTS: &[&str] = &[
    "apiserver",
    "workloads",
    "node",
    "workflows",
    "pipelines",
    "registry",
    "serving",
    "gateway",
    "objects",
];
/// Namespace of the platform's own objects.
const PLATFORM_NAMESPACE: &str = "kubeflow";
/// Name of the one node.
const NODE_NAME: &str = "slipway";
/// Most pods at a time; a process costs less than a kubelet's pod, so more than its 110.
const PODS_MAX: u32 = 500;

/// Ports that are taken before anything else starts, so that two parts cannot race for one.
struct Listeners {
    kubernetes: TcpListener,
    pipelines: TcpListener,
    mlflow: TcpListener,
    gateway: TcpListener,
    artifacts: TcpListener,
}

impl Listeners {
    fn open(config: &Config) -> Result<Self> {
        Ok(Self {
            kubernetes: config.ports.kubernetes.listen("kubernetes")?,
            pipelines: config.ports.pipelines.listen("pipelines")?,
            mlflow: config.ports.mlflow.listen("mlflow")?,
            gateway: config.ports.gateway.listen("gateway")?,
            artifacts: config.ports.artifacts.listen("artifacts")?,
        })
    }

    fn addresses(&self) -> Result<BTreeMap<String, String>> {
        let url = |scheme: &str, listener: &TcpListener| -> Result<String> {
            Ok(format!("{scheme}://{}", listener.local_addr()?))
        };
        Ok(BTreeMap::from([
            ("kubernetes".to_owned(), url("https", &self.kubernetes)?),
            ("pipelines".to_owned(), url("http", &self.pipelines)?),
            ("mlflow".to_owned(), url("http", &self.mlflow)?),
            ("gateway".to_owned(), url("http", &self.gateway)?),
            ("artifacts".to_owned(), url("http", &self.artifacts)?),
        ]))
    }
}

/// Runs the cluster until it is told to end. `ready` is called once everything answers.
pub async fn run(folder: Folder, config: Config, ready: impl FnOnce(&State)) -> Result<()> {
    // Taken first: a signal during the start must end it in order too.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let mut parts: JoinSet<(&'static str, Result<()>)> = JoinSet::new();

    let state = start(&folder, config, &shutdown, &mut parts).await?;
    folder.write_state(&state)?;
    ready(&state);

    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = parts.join_next() => ended_early(ended),
    };
    shutdown.cancel();
    result
}

/// A part that ends by itself is a fault of ours: the process ends, and pods go on for the next server.
fn ended_early(ended: Result<(&'static str, Result<()>), tokio::task::JoinError>) -> Result<()> {
    match ended {
        Ok((part, Ok(()))) => anyhow::bail!("{part} ended by itself"),
        Ok((part, Err(error))) => Err(error.context(format!("{part} ended"))),
        Err(error) => Err(error).context("a part panicked"),
    }
}

async fn start(
    folder: &Folder,
    config: Config,
    shutdown: &CancellationToken,
    parts: &mut JoinSet<(&'static str, Result<()>)>,
) -> Result<State> {
    let listeners = Listeners::open(&config)?;
    let addresses = listeners.addresses()?;
    let network = open_network(folder, &config).await?;
    let api = start_api(folder, &listeners, network.as_ref()).await?;
    serve_api(&api, listeners.kubernetes, network.as_ref(), shutdown, parts)?;
    install::apply(&identity::admin(&api)).await.context("cannot install the platform's kinds")?;
    write_kubeconfig(folder, &config, &api, &addresses["kubernetes"])?;

    let artifacts = objects::ArtifactStore::open(folder.path().join("artifacts"))?;
    let trust = Arc::new(Trust::of_owner(api_token(folder)?));
    let faces = Faces { trust, shutdown: shutdown.clone() };

    let gate = Arc::new(gate::KubernetesGate::new(identity::part(&api, "objects")));
    faces.serve(
        parts,
        "artifacts",
        listeners.artifacts,
        objects::face::router(artifacts.clone(), gate),
        false,
    )?;

    let mlflow_store =
        object_store::local::LocalFileSystem::new_with_prefix(made(folder.path().join("artifacts/mlflow"))?)?;
    let registry_config = registry::Config::new(config.database_url.clone(), Arc::new(mlflow_store));
    let registry = registry::Registry::open(registry_config).await.context("cannot open the registry")?;
    faces.serve(parts, "mlflow", listeners.mlflow, registry.router(), false)?;
    let recorder = registry::lineage::recorder::run(identity::part(&api, "registry"), registry.clone());
    parts.spawn(async move {
        ("registry", {
            recorder.await;
            Ok(())
        })
    });

    let pipelines = pipelines::Pipelines::open(pipelines::Config {
        database_url: config.database_url.clone(),
        client: identity::part(&api, "pipelines"),
        artifacts: artifacts.clone(),
        namespace: "default".to_owned(),
    })
    .await
    .context("cannot open the pipelines")?;
    let follow = pipelines.clone().follow_workflows();
    parts.spawn(async move { ("pipelines", follow.await.map_err(Into::into)) });
    faces.serve(parts, "pipelines", listeners.pipelines, pipelines.router(), false)?;

    let (gateway, follow) = gateway::start(identity::part(&api, "gateway"));
    parts.spawn(async move {
        ("gateway", {
            follow.await;
            Ok(())
        })
    });
    faces.serve(parts, "gateway", listeners.gateway, gateway, true)?;

    start_controllers(folder, &config, &api, &addresses, pipelines, parts);
    start_node(folder, &config, &api, network, parts).await?;
    let mirror = mirror::run(identity::admin(&api), addresses.clone());
    parts.spawn(async move { ("mirror", mirror.await) });

    let pid = std::process::id();
    Ok(State {
        pid,
        start_ticks: folder::start_ticks(pid)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: match config.network {
            NetworkKind::Loopback => "loopback".to_owned(),
            NetworkKind::Bridge => "bridge".to_owned(),
        },
        addresses,
    })
}

async fn open_network(folder: &Folder, config: &Config) -> Result<Arc<dyn Network>> {
    match config.network {
        NetworkKind::Loopback => Ok(Arc::new(node::network::Loopback::open(folder.path())?)),
        NetworkKind::Bridge => Ok(Arc::new(node::network::Bridge::open(folder.path()).await?)),
    }
}

async fn start_api(folder: &Folder, listeners: &Listeners, network: &dyn Network) -> Result<Arc<ApiServer>> {
    let store = store::Store::open(folder.path(), store::Options::default())
        .context("cannot open the cluster's state")?;
    let pki = apiserver::pki::Pki::open(&folder.path().join("pki"))?;
    let api_config = apiserver::Config {
        advertise: listeners.kubernetes.local_addr()?,
        service_range: apiserver::Ipv4Range {
            base: network.service_range().base(),
            prefix: network.service_range().prefix_bits(),
        },
        node_ports: apiserver::PortRange { first: 30_000, last: 32_767 },
        admin_token: None,
        namespaces: vec![PLATFORM_NAMESPACE.to_owned()],
    };
    let admission: Vec<Arc<dyn apiserver::admission::Admission>> = admission::all();
    ApiServer::start(store, pki, api_config, admission).await.context("cannot start the Kubernetes API")
}

fn serve_api(
    api: &Arc<ApiServer>,
    listener: TcpListener,
    network: &dyn Network,
    shutdown: &CancellationToken,
    parts: &mut JoinSet<(&'static str, Result<()>)>,
) -> Result<()> {
    // Pods reach the API at the first Service address, which the `kubernetes` Service has.
    let service_ip = network.service_range().nth(1).context("the Service range is empty")?;
    let tls = api.pki().server_tls(&[service_ip.into(), network.host_ip().into()], &[])?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let served = Arc::clone(api).serve(listener, tls, shutdown.clone());
    parts.spawn(async move {
        ("the Kubernetes API", {
            served.await;
            Ok(())
        })
    });
    Ok(())
}

fn write_kubeconfig(folder: &Folder, config: &Config, api: &ApiServer, address: &str) -> Result<()> {
    let context = kubeconfig::context_name(folder);
    let text = api.pki().kubeconfig(address, &context);
    folder::write_atomically(&folder.kubeconfig(), text.as_bytes(), 0o600)?;
    if !config.merge_kubeconfig {
        return Ok(());
    }
    let Some(file) = kubeconfig::user_file().filter(|file| *file != folder.kubeconfig()) else {
        return Ok(());
    };
    if let Err(error) = kubeconfig::merge_into(&file, &text, &context) {
        // The cluster is whole without it; `slipway env` points at its own kubeconfig.
        tracing::warn!("the kubeconfig was not merged: {error:#}");
    }
    Ok(())
}

/// The token for callers of the faces that are not the owner; made once, for its owner's eyes only.
fn api_token(folder: &Folder) -> Result<String> {
    let path = folder.path().join("pki/faces-token");
    if let Ok(token) = std::fs::read_to_string(&path) {
        return Ok(token);
    }
    let mut bytes = [0_u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    folder::write_atomically(&path, token.as_bytes(), 0o600)?;
    Ok(token)
}

fn made(path: std::path::PathBuf) -> Result<std::path::PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// How every face is served.
struct Faces {
    trust: Arc<Trust>,
    shutdown: CancellationToken,
}

impl Faces {
    fn serve(
        &self,
        parts: &mut JoinSet<(&'static str, Result<()>)>,
        name: &'static str,
        listener: TcpListener,
        router: Router,
        any_host: bool,
    ) -> Result<()> {
        let rules = faces::Rules { trust: Arc::clone(&self.trust), any_host, render: faces::renderer(name) };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let served = faces::serve(listener, router, rules, self.shutdown.clone());
        parts.spawn(async move { (name, served.await.map_err(Into::into)) });
        Ok(())
    }
}

fn start_controllers(
    folder: &Folder,
    config: &Config,
    api: &Arc<ApiServer>,
    addresses: &BTreeMap<String, String>,
    pipelines: pipelines::Pipelines,
    parts: &mut JoinSet<(&'static str, Result<()>)>,
) {
    let workloads = workloads::run_all(workloads::Config {
        controllers: identity::user(api, "system:kube-controller-manager"),
        scheduler: identity::user(api, "system:kube-scheduler"),
        overcommit: config.overcommit,
        root_ca_pem: api.pki().ca_certificate().to_owned(),
        volumes_dir: folder.path().join("volumes"),
    });
    parts.spawn(async move {
        ("workloads", {
            workloads.await;
            Ok(())
        })
    });
    let workflows = workflows::run(
        identity::part(api, "workflows"),
        workflows::Config {
            artifacts_url: addresses["artifacts"].clone(),
            tracking_uri: addresses["mlflow"].clone(),
            bucket: "mlpipeline".to_owned(),
            pod_image: format!("slipway/pod:{}", env!("CARGO_PKG_VERSION")),
            cache: Arc::new(pipelines_cache::Cache(pipelines)),
        },
    );
    parts.spawn(async move {
        ("workflows", {
            workflows.await;
            Ok(())
        })
    });
    let serving = serving::run(
        identity::part(api, "serving"),
        serving::Config {
            artifacts_url: addresses["artifacts"].clone(),
            tracking_uri: addresses["mlflow"].clone(),
            // One machine, one owner: the user's own files may be served.
            allow_file_uris: true,
            own_images: own_servers(),
            ..serving::Config::default()
        },
    );
    parts.spawn(async move {
        ("serving", {
            serving.await;
            Ok(())
        })
    });
}

async fn start_node(
    folder: &Folder,
    config: &Config,
    api: &Arc<ApiServer>,
    network: Arc<dyn Network>,
    parts: &mut JoinSet<(&'static str, Result<()>)>,
) -> Result<()> {
    let client = identity::node(api, NODE_NAME);
    let proxy = node::network::proxy::run(client.clone(), Arc::clone(&network));
    parts.spawn(async move {
        ("the Service proxy", {
            proxy.await;
            Ok(())
        })
    });
    let names = match node::network::dns::Server::bind(network.as_ref(), "cluster.local").await {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!("pods get no cluster names: {:#}", anyhow::Error::from(error));
            None
        }
    };
    for image in &config.images {
        node::images::store::add(folder.path(), image.clone())?;
    }
    let mut images = node::images::Config::new(builtin_images());
    images.strict = config.strict_images;
    let node = node::Node::start(node::NodeConfig {
        data_dir: folder.path().to_path_buf(),
        name: NODE_NAME.to_owned(),
        client: client.clone(),
        network,
        images,
        host_paths: config.host_paths.clone(),
        api_address: None,
        // Resolvers ask port 53 only; without the right to it pods keep the host's name servers.
        cluster_dns: names.as_ref().is_some_and(|server| server.address().port() == 53),
        pods_max: PODS_MAX,
    })
    .await
    .context("cannot start the node")?;
    if let Some(names) = names {
        let served = names.run(client);
        parts.spawn(async move {
            ("the name server", {
                served.await;
                Ok(())
            })
        });
    }
    api.set_pod_streams(Arc::new(streams::NodeStreams::new(node, folder.logs())));
    Ok(())
}

/// Images of known servers that this very binary is, and as which of its commands.
fn builtin_images() -> Vec<node::images::Builtin> {
    let commands = [
        ("kserve/sklearnserver*", "serve"),
        ("kserve/xgbserver*", "serve"),
        ("kserve/lgbserver*", "serve"),
        ("kserve/pmmlserver*", "serve"),
        ("kserve/slipway*", "serve"),
        ("slipway/serve*", "serve"),
        ("tensorflow/serving*", "tensorflow_model_server"),
        ("kserve/storage-initializer*", "storage-initializer"),
    ];
    let image = |(pattern, command): (&str, &str)| node::images::Builtin {
        pattern: pattern.to_owned(),
        argv: vec!["/usr/local/bin/slipway".to_owned(), command.to_owned()],
    };
    commands.into_iter().map(image).collect()
}

/// The images among them that take the model server's own flags.
fn own_servers() -> Vec<String> {
    let serves = |image: &node::images::Builtin| image.argv.get(1).is_some_and(|command| command == "serve");
    builtin_images().into_iter().filter(serves).map(|image| image.pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_that_is_installed_has_its_image_here() {
        let images = builtin_images();
        for runtime in api::serving::runtime::builtin() {
            let image = runtime.spec["containers"][0]["image"].as_str().expect("a runtime has an image");
            let is_known = images.iter().any(|known| image.starts_with(known.pattern.trim_end_matches('*')));
            assert!(is_known, "{image} of {}", runtime.name);
        }
    }
}
