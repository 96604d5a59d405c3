//! What comes before a container's start and may take long: the pod's surroundings once, each attempt's spec.
//!
//! Runs beside the pod's task, so that a slow image or a missing secret never delays its end.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::Api;
use pod_protocol::shim::{PodSpec, VERSION, folder};

use super::env::{self, Facts, Lookups};
use super::spec::{self, Parts};
use crate::Context;
use crate::cgroups;
use crate::folder::{self as files, PodFolder};
use crate::network::{Attach, PodAddress};
use crate::shim::{self, Events, Shim};
use crate::volumes::{Source, Tokens};

/// What all containers of a pod share.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where it is in the network.
    pub address: PodAddress,
    /// Its volumes.
    pub volumes: Arc<BTreeMap<String, Source>>,
}

/// Why something could not be prepared: reason and message for the container's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `CreateContainerConfigError`, `ErrImagePull`, …
    pub reason: String,
    /// In words.
    pub message: String,
}

impl Failure {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// What the pod's fields are read from.
pub fn facts<'a>(context: &Context, pod: &'a Pod, address: Option<&PodAddress>) -> Facts<'a> {
    Facts {
        pod,
        pod_ip: address.map(|address| address.ip.to_string()).unwrap_or_default(),
        host_ip: context.config.network.host_ip().to_string(),
        node_cpus: context.capacity.cpus,
        node_memory: context.capacity.memory_bytes,
    }
}

/// The pod's address.
pub async fn attach(context: &Context, pod: &Pod) -> Result<PodAddress, Failure> {
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let attached = context.config.network.attach(Attach { uid, host_network }).await;
    attached.map_err(|error| {
        Failure::new("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"))
    })
}

/// Address, volumes and generated files.
pub async fn surroundings(
    context: &Context,
    pod: &Pod,
    folder: &PodFolder,
    tokens: &mut Tokens,
) -> Result<Surroundings, Failure> {
    folder.create().map_err(|error| Failure::new("CreatePodFolderError", error.to_string()))?;
    let address = attach(context, pod).await?;
    let facts = facts(context, pod, Some(&address));
    let volumes = context.maker.prepare(pod, &facts, folder, tokens).await.map_err(|failure| {
        let message =
            format!("MountVolume.SetUp failed for volume \"{}\" : {}", failure.volume, failure.message);
        Failure::new(if failure.refused { "CreateContainerError" } else { "FailedMount" }, message)
    })?;
    write_etc(context, pod, folder, &address)
        .map_err(|error| Failure::new("CreateContainerError", error.to_string()))?;
    Ok(Surroundings { address, volumes: Arc::new(volumes) })
}

/// Starts the pod's shim.
pub async fn start_shim(
    context: &Context,
    pod: &Pod,
    folder: &PodFolder,
    address: &PodAddress,
) -> Result<(Shim, Events), Failure> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let spec = PodSpec {
        version: VERSION,
        uid: text(&pod.metadata.uid),
        namespace: text(&pod.metadata.namespace),
        name: text(&pod.metadata.name),
        netns: address.netns.as_ref().map(|path| path.to_string_lossy().into_owned()),
    };
    let started = shim::spawn(&context.pod_binary, folder, &spec).await;
    started.map_err(|error| {
        Failure::new("CreateContainerError", format!("cannot start the pod's shim: {error}"))
    })
}

/// The pod's host name.
pub fn hostname(pod: &Pod) -> String {
    let own = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = own.unwrap_or_else(|| pod.metadata.name.clone().unwrap_or_default());
    // The kernel takes 64 bytes, a DNS label 63; a cut name must not end in a separator.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

fn etc_folder(folder: &PodFolder) -> PathBuf {
    folder.path().join("etc")
}

fn write_etc(context: &Context, pod: &Pod, folder: &PodFolder, address: &PodAddress) -> std::io::Result<()> {
    let etc = etc_folder(folder);
    if etc.join("resolv.conf").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(&etc)?;
    let spec = pod.spec.clone().unwrap_or_default();
    let hostname = hostname(pod);
    let mut hosts = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    match &spec.subdomain {
        Some(subdomain) if !subdomain.is_empty() => hosts.push_str(&format!(
            "{}\t{hostname}.{subdomain}.{namespace}.svc.cluster.local\t{hostname}\n",
            address.ip
        )),
        _ => hosts.push_str(&format!("{}\t{hostname}\n", address.ip)),
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        hosts.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    std::fs::write(etc.join("hosts"), hosts)?;
    std::fs::write(etc.join("hostname"), format!("{hostname}\n"))?;
    let resolver = resolver(context, &spec, namespace);
    std::fs::write(etc.join("resolv.conf"), resolver)
}

fn resolver(context: &Context, spec: &k8s_openapi::api::core::v1::PodSpec, namespace: &str) -> String {
    let host = || std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network == Some(true);
    let mut text = match policy {
        "None" => String::new(),
        "Default" => host(),
        "ClusterFirst" if host_network => host(),
        _ if !context.config.cluster_dns => host(),
        _ => format!(
            "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {}\noptions ndots:5\n",
            context.config.network.dns_ip()
        ),
    };
    if let Some(own) = &spec.dns_config {
        for server in own.nameservers.iter().flatten() {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if let Some(searches) = own.searches.as_ref().filter(|searches| !searches.is_empty()) {
            text.push_str(&format!("search {}\n", searches.join(" ")));
        }
    }
    text
}

/// A container whose spec is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What the status calls its image.
    pub image_id: String,
    /// What stands in for the image, if anything does.
    pub stand_in: Option<String>,
}

/// Resolves the image and everything the container refers to, and writes its spec into the pod folder.
pub async fn attempt(
    context: &Context,
    pod: &Pod,
    container: &Container,
    number: u32,
    folder: &PodFolder,
    surroundings: &Surroundings,
) -> Result<Prepared, Failure> {
    let name = container.image.as_deref().unwrap_or("");
    let image =
        context.images.resolve(name, container.image_pull_policy.as_deref()).await.map_err(|error| {
            if !matches!(error, crate::images::Error::NeverPull { .. }) {
                context.events.warning(
                    pod,
                    Some(&container.name),
                    "Failed",
                    format!("Failed to pull image \"{name}\": {error}"),
                );
            }
            Failure::new(error.reason(), error.to_string())
        })?;
    if number == 0 {
        let message = format!("Container image \"{name}\" already present on machine");
        context.events.normal(pod, Some(&container.name), "Pulled", message);
    }
    if let (0, Some(what)) = (number, &image.stand_in) {
        let message = format!("Image \"{name}\" is stood in for by {what}");
        context.events.normal(pod, Some(&container.name), "ImageStandIn", message);
    }
    let config = |message: String| Failure::new("CreateContainerConfigError", message);
    let lookups = lookups(context, pod, container).await.map_err(config)?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let mut services = env::service_variables(&context.services.state(), namespace, links);
    if !services.iter().any(|(name, _)| name == "KUBERNETES_SERVICE_HOST")
        && let Some((host, port)) = &context.config.api_address
    {
        services.push(("KUBERNETES_SERVICE_HOST".into(), host.clone()));
        services.push(("KUBERNETES_SERVICE_PORT".into(), port.to_string()));
        services.push(("KUBERNETES_SERVICE_PORT_HTTPS".into(), port.to_string()));
    }
    services.extend(own_address(&surroundings.address, context.config.network.host_ip()));
    let facts = facts(context, pod, Some(&surroundings.address));
    let env = env::build(container, &facts, &lookups, &services).map_err(config)?;
    let place = folder.attempt(&container.name, number);
    std::fs::create_dir_all(&place)
        .map_err(|error| Failure::new("CreateContainerError", error.to_string()))?;
    let termination_log = place.join("termination-log");
    let opened = OpenOptions::new().create(true).append(true).mode(0o666).open(&termination_log);
    let opened = opened.and_then(|file| file.set_permissions(PermissionsExt::from_mode(0o666)));
    opened.map_err(|error| Failure::new("CreateContainerError", error.to_string()))?;
    let prepared = Prepared { image_id: image.id.clone(), stand_in: image.stand_in.clone() };
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    let (cgroups, oom_score_adj) = cgroups::prepare(context, uid, pod, container);
    let etc = etc_folder(folder);
    let spec = spec::build(Parts {
        pod,
        container,
        attempt: number,
        image,
        env,
        volumes: &surroundings.volumes,
        hostname: hostname(pod),
        etc: &etc,
        termination_log: &termination_log,
        cgroups,
        oom_score_adj,
    })
    .map_err(config)?;
    files::write(&place.join(folder::SPEC), &spec)
        .map_err(|error| Failure::new("CreateContainerError", error.to_string()))?;
    Ok(prepared)
}

/// Where pods share the host's ports, the platform's own servers listen on their pod's address alone, or the second
/// one could not start. Others may do the same.
fn own_address(address: &PodAddress, host: Ipv4Addr) -> Option<(String, String)> {
    let is_own = address.netns.is_none() && address.ip != host;
    is_own.then(|| ("SLIPWAY_POD_IP".to_owned(), address.ip.to_string()))
}

async fn lookups(context: &Context, pod: &Pod, container: &Container) -> Result<Lookups, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut lookups = Lookups::default();
    let (config_maps, secrets) = env::references(container);
    for name in config_maps {
        let api: Api<ConfigMap> = Api::namespaced(context.config.client.clone(), namespace);
        let found = api.get_opt(&name).await.map_err(|error| error.to_string())?;
        lookups.config_maps.insert(name, found);
    }
    for name in secrets {
        let api: Api<Secret> = Api::namespaced(context.config.client.clone(), namespace);
        let found = api.get_opt(&name).await.map_err(|error| error.to_string())?;
        lookups.secrets.insert(name, found);
    }
    Ok(lookups)
}
