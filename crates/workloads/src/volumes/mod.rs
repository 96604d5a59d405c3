//! Binds claims to volumes, and makes volumes as folders of this machine: the local provisioner.
//!
//! The class `standard` is made at the start and is the default. Its volumes are folders `volumes_dir/<volume>`, which exist
//! before the volume does and go with its claim (`reclaimPolicy: Delete`). The size is recorded, not enforced: a folder has
//! no quota.
//!
//! Not here: mounting (the node), block volumes, resizing, snapshots.

pub mod decide;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cache::Key;
use crate::context::Context;
use crate::error::{Doing, Error, status};
use crate::events::Note;
use crate::objects::{is_deleting, is_finished};
use crate::queue::{Queue, work};
use decide::{ClaimStep, PROVISIONER, VolumeStep, claim_ref, claim_step, class_name, volume_step};

const COMPONENT: &str = "persistentvolume-controller";
const WORKERS: usize = 4;
const STANDARD: &str = "standard";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// The volume controller of one cluster. Keys without a namespace are volumes, the others are claims.
pub struct Volumes {
    context: Arc<Context>,
    volumes_dir: PathBuf,
    queue: Queue<Key>,
}

impl Volumes {
    /// A controller that keeps its folders in `volumes_dir`. It starts with `run`.
    pub fn new(context: &Arc<Context>, volumes_dir: PathBuf) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), volumes_dir, queue: Queue::default() });
        let queue = controller.queue.clone();
        context.claims.on_change(move |change| {
            let Some(claim) = change.latest() else { return };
            queue.add(Key::of(claim.as_ref()));
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone());
            volume.into_iter().for_each(|name| queue.add(Key::new("", name)));
        });
        let to = controller.clone();
        context.volumes.on_change(move |change| {
            let Some(volume) = change.latest() else { return };
            to.queue.add(Key::of(volume.as_ref()));
            match volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()) {
                Some(of) => {
                    to.queue.add(Key::new(of.namespace.unwrap_or_default(), of.name.unwrap_or_default()))
                }
                None => to.wake_unbound(),
            }
        });
        let to = controller.clone();
        context.classes.on_change(move |_| to.wake_unbound());
        let queue = controller.queue.clone();
        // A claim that is being deleted waits for the pods that use it.
        context.pods.on_change(move |change| {
            let ended = change.new.is_none_or(|pod| is_finished(pod));
            let pod = change.latest().filter(|_| ended);
            pod.into_iter().flat_map(|pod| claims_of(pod)).for_each(|key| queue.add(key));
        });
        controller
    }

    fn wake_unbound(&self) {
        let all = self.context.claims.all();
        let unbound =
            all.iter().filter(|claim| claim.spec.as_ref().is_none_or(|spec| spec.volume_name.is_none()));
        unbound.for_each(|claim| self.queue.add(Key::of(claim.as_ref())));
    }

    /// Works until it is dropped.
    pub async fn run(self: Arc<Self>) {
        self.make_standard_class().await;
        let (controller, queue) = (self.clone(), self.queue.clone());
        work(COMPONENT, queue, WORKERS, move |key| {
            let controller = controller.clone();
            async move {
                if key.namespace.is_empty() {
                    controller.reconcile_volume(&key).await
                } else {
                    controller.reconcile_claim(&key).await
                }
            }
        })
        .await;
    }

    /// A class of that name which is there already is someone's choice and stays.
    async fn make_standard_class(&self) {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": PROVISIONER,
            "metadata": {"name": STANDARD, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
        });
        let Ok(class) = cluster::read::<StorageClass>(&class) else { return };
        let api: Api<StorageClass> = Api::all(self.context.client.clone());
        match api.create(&PostParams::default(), &class).await {
            Ok(created) => self.context.classes.observe(created),
            Err(error) if status(&error) == Some(409) => {}
            Err(error) => tracing::warn!(%error, "the storage class \"{STANDARD}\" was not made"),
        }
    }

    async fn reconcile_claim(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(claim) = self.context.claims.get(key) else { return Ok(None) };
        if is_deleting(&claim.metadata) {
            self.let_claim_go(&claim).await?;
            return Ok(None);
        }
        let volumes = self.context.volumes.all();
        let classes = self.context.classes.all();
        match claim_step(&claim, &volumes, &classes, &self.volumes_dir) {
            ClaimStep::Nothing => {}
            ClaimStep::Bind(name) => {
                if let Some(volume) = self.context.volumes.get(&Key::new("", name)) {
                    self.bind(&claim, &volume).await?;
                }
            }
            ClaimStep::Provision(volume) => self.provision(&claim, *volume).await?,
            ClaimStep::Lost => {
                let words = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                self.write_claim_status(&claim, "Lost", None).await?;
                self.tell(&claim, Note::warning("ClaimLost", words));
            }
            ClaimStep::Wait(reason, words, warning) => {
                let note = if warning { Note::warning(reason, words) } else { Note::normal(reason, words) };
                self.tell(&claim, note);
            }
        }
        Ok(None)
    }

    fn tell(&self, claim: &PersistentVolumeClaim, note: Note) {
        self.context.recorder.tell(claim, COMPONENT, note);
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, volume: PersistentVolume) -> Result<(), Error> {
        let name = volume.name_any();
        let folder = self.volumes_dir.join(&name);
        let disk =
            |source| Error::Disk { doing: format!("make the folder \"{}\"", folder.display()), source };
        tokio::fs::create_dir_all(&folder).await.map_err(disk)?;
        open_to_all(&folder).map_err(disk)?;
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let created = match api.create(&PostParams::default(), &volume).await {
            // Made by an earlier attempt of ours: the name holds the claim's uid.
            Err(error) if status(&error) == Some(409) => api.get(&name).await,
            other => other,
        };
        let created = created.doing(|| format!("create volume \"{name}\""))?;
        self.context.volumes.observe(created.clone());
        self.tell(
            claim,
            Note::normal("ProvisioningSucceeded", format!("Successfully provisioned volume {name}")),
        );
        self.bind(claim, &created).await
    }

    /// The volume first: a claim never names a volume that does not name it.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Error> {
        let (namespace, name, volume_name) =
            (claim.namespace().unwrap_or_default(), claim.name_any(), volume.name_any());
        let doing = || format!("bind claim \"{namespace}/{name}\" to volume \"{volume_name}\"");
        let tied =
            volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|of| of.uid.as_ref());
        if tied != claim.metadata.uid.as_ref() {
            let version = volume.resource_version();
            let patch =
                json!({"metadata": {"resourceVersion": version}, "spec": {"claimRef": claim_ref(claim)}});
            let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
            let written = api.patch(&volume_name, &PatchParams::default(), &Patch::Merge(patch)).await;
            self.context.volumes.observe(written.doing(doing)?);
        }
        let bound_already =
            claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) == Some(&volume_name);
        let mut claim = claim.clone();
        if !bound_already {
            let mut spec = json!({"volumeName": volume_name});
            let class = class_name(&claim, &self.context.classes.all());
            if claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_none()) && class.is_some() {
                spec["storageClassName"] = json!(class);
            }
            let annotations = json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
            let patch = json!({"metadata": {"annotations": annotations}, "spec": spec});
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &namespace);
            claim = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.doing(doing)?;
            self.context.claims.observe(claim.clone());
        }
        self.write_claim_status(&claim, "Bound", Some(volume)).await
    }

    async fn write_claim_status(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        let spec = volume.and_then(|volume| volume.spec.clone());
        let next_status = PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            access_modes: spec.as_ref().and_then(|spec| spec.access_modes.clone()),
            capacity: spec.and_then(|spec| spec.capacity),
            ..claim.status.clone().unwrap_or_default()
        };
        if claim.status.as_ref() == Some(&next_status) {
            return Ok(());
        }
        let mut next = claim.clone();
        next.status = Some(next_status);
        self.context.write_status(&self.context.claims, next).await
    }

    /// A claim goes when no pod that still runs uses it.
    async fn let_claim_go(&self, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let key = Key::of(claim);
        let pods = self.context.pods.in_namespace(&key.namespace);
        let used = pods.iter().any(|pod| !is_finished(pod) && claims_of(pod).any(|of| of == key));
        if used || !claim.finalizers().iter().any(|finalizer| finalizer == CLAIM_FINALIZER) {
            return Ok(());
        }
        let kept: Vec<&String> = claim.finalizers().iter().filter(|has| *has != CLAIM_FINALIZER).collect();
        let patch = json!({"metadata": {"finalizers": kept, "resourceVersion": claim.resource_version()}});
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let result = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        unless_gone(result.map(drop), || format!("let claim \"{key}\" go"))
    }

    async fn reconcile_volume(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(volume) = self.context.volumes.get(key) else { return Ok(None) };
        let of = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()).unwrap_or_default();
        let claim_key = Key::new(of.namespace.unwrap_or_default(), of.name.unwrap_or_default());
        let claim = self.context.claims.get(&claim_key).filter(|claim| claim.metadata.uid == of.uid);
        match volume_step(&volume, claim.as_deref()) {
            VolumeStep::Remove => self.remove(&volume).await?,
            VolumeStep::Phase(phase) => {
                if is_deleting(&volume.metadata) && phase != "Bound" {
                    self.let_volume_go(&volume).await?;
                } else {
                    self.write_phase(&volume, phase).await?;
                }
            }
        }
        Ok(None)
    }

    async fn write_phase(&self, volume: &PersistentVolume, phase: &str) -> Result<(), Error> {
        let current = volume.status.clone().unwrap_or_default();
        if current.phase.as_deref() == Some(phase) {
            return Ok(());
        }
        let mut next = volume.clone();
        next.status = Some(PersistentVolumeStatus { phase: Some(phase.to_owned()), ..current });
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let written = api.replace_status(&volume.name_any(), &PostParams::default(), &next).await;
        let gone = written.as_ref().is_err_and(|error| status(error) == Some(404));
        if !gone {
            let written =
                written.doing(|| format!("write the status of volume \"{}\"", volume.name_any()))?;
            self.context.volumes.observe(written);
        }
        Ok(())
    }

    /// The data first: a volume that is still listed is one whose folder may still be there.
    async fn remove(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let name = volume.name_any();
        let folder = self.volumes_dir.join(&name);
        let said = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.host_path.as_ref())
            .map(|host| PathBuf::from(&host.path));
        // Only what this provisioner made, whatever the object says by now.
        if said.as_ref() == Some(&folder) && name.starts_with("pvc-") && !name.contains('/') {
            match tokio::fs::remove_dir_all(&folder).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let note = Note::warning("VolumeFailedDelete", error.to_string());
                    self.context.recorder.tell(volume, COMPONENT, note);
                    let doing = format!("remove the folder \"{}\"", folder.display());
                    return Err(Error::Disk { doing, source: error });
                }
                _ => {}
            }
        }
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let result = api.delete(&name, &DeleteParams::default()).await;
        unless_gone(result.map(drop), || format!("delete volume \"{name}\""))?;
        self.let_volume_go(volume).await
    }

    async fn let_volume_go(&self, volume: &PersistentVolume) -> Result<(), Error> {
        if !volume.finalizers().iter().any(|finalizer| finalizer == VOLUME_FINALIZER) {
            return Ok(());
        }
        let kept: Vec<&String> = volume.finalizers().iter().filter(|has| *has != VOLUME_FINALIZER).collect();
        let patch = Patch::Merge(json!({"metadata": {"finalizers": kept}}));
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let result = api.patch(&volume.name_any(), &PatchParams::default(), &patch).await;
        unless_gone(result.map(drop), || format!("let volume \"{}\" go", volume.name_any()))
    }
}

/// The claims that a pod uses.
fn claims_of(pod: &Pod) -> impl Iterator<Item = Key> {
    let namespace = pod.namespace().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    let names: BTreeMap<&str, ()> = names.map(|claim| (claim.claim_name.as_str(), ())).collect();
    let names: Vec<String> = names.into_keys().map(ToOwned::to_owned).collect();
    names.into_iter().map(move |name| Key::new(&namespace, name))
}

/// Pods of any user write into the folder, as upstream's local provisioners allow.
fn open_to_all(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777))
}

fn unless_gone(result: kube::Result<()>, deed: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        Err(error) if status(&error) == Some(404) => Ok(()),
        other => other.doing(deed),
    }
}
