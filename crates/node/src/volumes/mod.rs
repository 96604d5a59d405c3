//! A pod's volumes: each becomes a folder (or file) of the host that containers bind.
//!
//! Only folders that the node made, and host paths in its allowed list, are ever handed out.

pub mod projected;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, PersistentVolume,
    PersistentVolumeClaim, Pod, Secret, ServiceAccount, Volume, VolumeProjection,
};
use kube::Api;
use kube::api::PostParams;

use crate::folder::PodFolder;
use crate::pod::env::{self, Facts};
use projected::Files;

/// What a volume is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Folder or file.
    pub path: PathBuf,
    /// Not writable, whatever the mount says.
    pub read_only: bool,
}

/// A volume that cannot be had now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The volume.
    pub volume: String,
    /// Why, in the kubelet's words where it has some.
    pub message: String,
    /// Trying again makes no sense before the pod changes.
    pub refused: bool,
}

/// What volumes are made with.
#[derive(Clone)]
pub struct Maker {
    /// Of the node.
    pub client: kube::Client,
    /// Claims live under it.
    pub data_dir: PathBuf,
    /// Host paths (and what is below them) that pods may mount.
    pub host_paths: Vec<PathBuf>,
}

/// Tokens in use: by service account, audience and seconds; with the time to ask for a new one.
pub type Tokens = BTreeMap<String, (String, Instant)>;

impl Maker {
    /// Makes (or brings up to date) all volumes of a pod.
    pub async fn prepare(
        &self,
        pod: &Pod,
        facts: &Facts<'_>,
        folder: &PodFolder,
        tokens: &mut Tokens,
    ) -> Result<BTreeMap<String, Source>, Failure> {
        let mut sources = BTreeMap::new();
        let spec = pod.spec.clone().unwrap_or_default();
        for volume in spec.volumes.iter().flatten() {
            let fail = |message: String| Failure { volume: volume.name.clone(), message, refused: false };
            let source = match &volume.host_path {
                Some(host_path) => {
                    self.host_path(host_path).map_err(|message| Failure { refused: true, ..fail(message) })?
                }
                None => self.one(pod, facts, folder, volume, tokens).await.map_err(fail)?,
            };
            let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
            if let Some(group) = group.filter(|_| volume.host_path.is_none()) {
                own_by_group(&source.path, group as u32);
            }
            sources.insert(volume.name.clone(), source);
        }
        Ok(sources)
    }

    async fn one(
        &self,
        pod: &Pod,
        facts: &Facts<'_>,
        folder: &PodFolder,
        volume: &Volume,
        tokens: &mut Tokens,
    ) -> Result<Source, String> {
        let place = folder.path().join("volumes").join(&volume.name);
        if let Some(empty) = &volume.empty_dir {
            let in_memory = empty.medium.as_deref() == Some("Memory");
            let path = if in_memory { memory_folder(pod).join(&volume.name) } else { place };
            return empty_dir(&path).map_err(|error| error.to_string());
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            return self.claim(pod, &claim.claim_name, claim.read_only == Some(true)).await;
        }
        let mut files = Files::new();
        if let Some(projection) = as_projection(volume) {
            let mode = default_mode(volume);
            for source in projection {
                self.project(pod, facts, &source, mode, &mut files, tokens).await?;
            }
            projected::write(&place, &files).map_err(|error| error.to_string())?;
            return Ok(Source { path: place, read_only: true });
        }
        Err("this kind of volume is not supported by this node; use emptyDir, configMap, secret, downwardAPI, \
             projected, hostPath or persistentVolumeClaim"
            .into())
    }

    async fn project(
        &self,
        pod: &Pod,
        facts: &Facts<'_>,
        source: &VolumeProjection,
        mode: u32,
        files: &mut Files,
        tokens: &mut Tokens,
    ) -> Result<(), String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        if let Some(map) = &source.config_map {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
            let found = api.get_opt(&map.name).await.map_err(|error| error.to_string())?;
            let data = found.map(|found| {
                let mut all: BTreeMap<String, Vec<u8>> = found
                    .data
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(key, value)| (key, value.into_bytes()))
                    .collect();
                all.extend(
                    found.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)),
                );
                all
            });
            take("configmap", &map.name, data, map.items.as_deref(), map.optional, mode, files)?;
        }
        if let Some(secret) = &source.secret {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let found = api.get_opt(&secret.name).await.map_err(|error| error.to_string())?;
            let data = found.map(|found| {
                found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
            });
            take("secret", &secret.name, data, secret.items.as_deref(), secret.optional, mode, files)?;
        }
        if let Some(downward) = &source.downward_api {
            for item in downward.items.iter().flatten() {
                let text = downward_text(pod, item, facts)?;
                files.insert(
                    item.path.clone(),
                    (text.into_bytes(), item.mode.map_or(mode, |mode| mode as u32)),
                );
            }
        }
        if let Some(token) = &source.service_account_token {
            let seconds = token.expiration_seconds.unwrap_or(3600);
            let text = self.token(pod, token.audience.as_deref().unwrap_or(""), seconds, tokens).await?;
            files.insert(token.path.clone(), (text.into_bytes(), mode));
        }
        Ok(())
    }

    /// A token of the pod's service account, bound to the pod; a new one after 80 % of its life.
    async fn token(
        &self,
        pod: &Pod,
        audience: &str,
        seconds: i64,
        tokens: &mut Tokens,
    ) -> Result<String, String> {
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let key = format!("{account}\0{audience}\0{seconds}");
        if let Some((token, renew)) = tokens.get(&key)
            && *renew > Instant::now()
        {
            return Ok(token.clone());
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let bound = k8s_openapi::api::authentication::v1::BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let audiences = if audience.is_empty() { Vec::new() } else { vec![audience.to_owned()] };
        let spec =
            TokenRequestSpec { audiences, bound_object_ref: Some(bound), expiration_seconds: Some(seconds) };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = api.create_token_request(account, &PostParams::default(), &request).await;
        let status = answer.map_err(|error| format!("failed to fetch token: {error}"))?.status;
        let token = status.ok_or("failed to fetch token: the answer has no status")?.token;
        let renew = Instant::now() + Duration::from_secs(seconds.max(60) as u64 * 4 / 5);
        tokens.insert(key, (token.clone(), renew));
        Ok(token)
    }

    async fn claim(&self, pod: &Pod, name: &str, read_only: bool) -> Result<Source, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = claims.get_opt(name).await.map_err(|error| error.to_string())?;
        let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
        let volume = claim.spec.and_then(|spec| spec.volume_name).filter(|volume| !volume.is_empty());
        let volume = volume.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" is not bound yet"))?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let spec = volumes.get(&volume).await.map_err(|error| error.to_string())?.spec.unwrap_or_default();
        let path = match (&spec.host_path, &spec.local) {
            (Some(host_path), _) => PathBuf::from(&host_path.path),
            (_, Some(local)) => PathBuf::from(&local.path),
            _ => return Err(format!("persistentvolume \"{volume}\" is neither hostPath nor local")),
        };
        let own = self.data_dir.join("volumes");
        if path.starts_with(&own) && !path.components().any(|part| part.as_os_str() == "..") {
            if !path.exists() {
                empty_dir(&path).map_err(|error| error.to_string())?;
            }
        } else {
            self.allowed(&path)?;
        }
        Ok(Source { path, read_only })
    }

    fn host_path(&self, source: &HostPathVolumeSource) -> Result<Source, String> {
        let path = PathBuf::from(&source.path);
        self.allowed(&path)?;
        let kind = source.type_.as_deref().unwrap_or("");
        let made = match kind {
            "DirectoryOrCreate" => std::fs::create_dir_all(&path),
            "FileOrCreate" => std::fs::OpenOptions::new().create(true).append(true).open(&path).map(drop),
            _ => Ok(()),
        };
        made.map_err(|error| format!("hostPath \"{}\": {error}", source.path))?;
        let fits = match kind {
            "Directory" | "DirectoryOrCreate" => path.is_dir(),
            "File" | "FileOrCreate" => path.is_file(),
            _ => path.exists(),
        };
        if !fits {
            return Err(format!(
                "hostPath type check failed: {} is not a {}",
                source.path,
                kind.to_lowercase()
            ));
        }
        Ok(Source { path, read_only: false })
    }

    /// The allowed list is about where a path really leads, so links are resolved first.
    fn allowed(&self, path: &Path) -> Result<(), String> {
        let real = existing_part(path);
        let allowed = self.host_paths.iter().any(|root| real.starts_with(existing_part(root)));
        let lexical = !path.components().any(|part| part.as_os_str() == "..");
        if allowed && lexical && path.is_absolute() {
            return Ok(());
        }
        Err(format!(
            "hostPath \"{}\" is not allowed on this node; start it with `--allow-host-path {}` to allow it",
            path.display(),
            path.display()
        ))
    }
}

/// The path with links resolved in the part of it that exists.
fn existing_part(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return real.join(rest);
        }
    }
    path.to_path_buf()
}

/// Where a pod's in-memory volumes are: a tmpfs that all its containers can share across restarts.
pub fn memory_folder(pod: &Pod) -> PathBuf {
    memory_folder_of(pod.metadata.uid.as_deref().unwrap_or("unknown"))
}

/// The same by uid.
pub fn memory_folder_of(uid: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/slipway-{uid}"))
}

fn empty_dir(path: &Path) -> io::Result<Source> {
    if !path.exists() {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777))?;
    }
    Ok(Source { path: path.to_path_buf(), read_only: false })
}

/// As far as allowed; a plain user's node has one group only, which is the container's.
fn own_by_group(path: &Path, group: u32) {
    if std::os::unix::fs::chown(path, None, Some(group)).is_ok()
        && let Ok(data) = std::fs::metadata(path)
    {
        let mode = data.permissions().mode() | 0o2070;
        let _ = std::fs::set_permissions(path, PermissionsExt::from_mode(mode));
    }
}

fn default_mode(volume: &Volume) -> u32 {
    let config_map = volume.config_map.as_ref().and_then(|source| source.default_mode);
    let secret = volume.secret.as_ref().and_then(|source| source.default_mode);
    let downward = volume.downward_api.as_ref().and_then(|source| source.default_mode);
    let projected = volume.projected.as_ref().and_then(|source| source.default_mode);
    config_map.or(secret).or(downward).or(projected).map_or(0o644, |mode| mode as u32)
}

/// Every kind of small files as the general one.
fn as_projection(volume: &Volume) -> Option<Vec<VolumeProjection>> {
    use k8s_openapi::api::core::v1::{ConfigMapProjection, DownwardAPIProjection, SecretProjection};
    let mut one = VolumeProjection::default();
    if let Some(source) = &volume.config_map {
        let (name, items, optional) = (source.name.clone(), source.items.clone(), source.optional);
        one.config_map = Some(ConfigMapProjection { name, items, optional });
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let (items, optional) = (source.items.clone(), source.optional);
        one.secret = Some(SecretProjection { name, items, optional });
    } else if let Some(source) = &volume.downward_api {
        one.downward_api = Some(DownwardAPIProjection { items: source.items.clone() });
    } else {
        return Some(volume.projected.as_ref()?.sources.clone().unwrap_or_default());
    }
    Some(vec![one])
}

fn take(
    kind: &str,
    name: &str,
    data: Option<BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: u32,
    files: &mut Files,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let Some(mut data) = data else {
        return if optional { Ok(()) } else { Err(format!("{kind} \"{name}\" not found")) };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        files.extend(data.into_iter().map(|(key, value)| (key, (value, mode))));
        return Ok(());
    };
    for item in items {
        match data.remove(&item.key) {
            Some(value) => {
                files.insert(item.path.clone(), (value, item.mode.map_or(mode, |mode| mode as u32)));
            }
            None if optional => {}
            None => return Err(format!("references non-existent {kind} key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward_text(pod: &Pod, item: &DownwardAPIVolumeFile, facts: &Facts<'_>) -> Result<String, String> {
    if let Some(reference) = &item.field_ref {
        return env::field(&reference.field_path, facts);
    }
    let reference =
        item.resource_field_ref.as_ref().ok_or("an item has neither fieldRef nor resourceFieldRef")?;
    let name = reference.container_name.as_deref().unwrap_or("");
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let container = containers.find(|container| container.name == name);
    let container = container.ok_or_else(|| format!("container {name} not found"))?;
    let divisor = reference.divisor.as_ref().map(|quantity| quantity.0.as_str());
    env::resource(container, &reference.resource, divisor, facts)
}
