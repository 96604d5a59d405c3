//! What a claim needs next, and what becomes of a volume: pure.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use types::quantity::Quantity;

use crate::objects::{is_deleting, selector};

/// The provisioner that this controller is.
pub const PROVISIONER: &str = "slipway.dev/local";
/// The annotation that says who made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What a claim needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimStep {
    /// Nothing: it is bound, or on its way out.
    Nothing,
    /// Tie it to this volume, in both objects.
    Bind(String),
    /// Make this volume and its folder, then bind.
    Provision(Box<PersistentVolume>),
    /// Its volume is gone.
    Lost,
    /// It waits; the reason and words of the event, and whether it is a warning.
    Wait(&'static str, String, bool),
}

/// What becomes of a volume.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeStep {
    /// Its status must say this phase.
    Phase(&'static str),
    /// Its claim is gone: remove its data and itself.
    Remove,
}

/// The class that a claim names or gets: `None` when it wants none.
pub fn class_name(claim: &PersistentVolumeClaim, classes: &[Arc<StorageClass>]) -> Option<String> {
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
    match named {
        Some(name) => Some(name).filter(|name| !name.is_empty()),
        None => {
            let is_default = |class: &&Arc<StorageClass>| {
                class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true")
            };
            let mut defaults: Vec<&Arc<StorageClass>> = classes.iter().filter(is_default).collect();
            // The newest wins, as upstream has it.
            defaults.sort_by_key(|class| class.metadata.creation_timestamp.as_ref().map(|at| at.0));
            defaults.last().map(|class| class.name_any())
        }
    }
}

/// The next step of a claim.
pub fn claim_step(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    classes: &[Arc<StorageClass>],
    volumes_dir: &Path,
) -> ClaimStep {
    if is_deleting(&claim.metadata) {
        return ClaimStep::Nothing;
    }
    let spec = claim.spec.clone().unwrap_or_default();
    let named = spec.volume_name.clone().filter(|name| !name.is_empty());
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("");
    if let Some(name) = named {
        let volume = volumes.iter().find(|volume| volume.name_any() == name);
        return match volume {
            None if phase == "Bound" => ClaimStep::Lost,
            None => ClaimStep::Wait("FailedBinding", format!("volume \"{name}\" not found"), false),
            Some(volume) if !is_free_for(volume, claim) => {
                let words = format!("volume \"{name}\" already bound to a different claim.");
                ClaimStep::Wait("FailedBinding", words, true)
            }
            Some(volume) if phase == "Bound" && is_tied(volume, claim) => ClaimStep::Nothing,
            Some(_) => ClaimStep::Bind(name),
        };
    }
    let class = class_name(claim, classes);
    if let Some(volume) = best_match(claim, class.as_deref(), volumes) {
        return ClaimStep::Bind(volume.name_any());
    }
    let Some(class) = class else {
        let words = "no persistent volumes available for this claim and no storage class is set";
        return ClaimStep::Wait("FailedBinding", words.to_owned(), false);
    };
    match classes.iter().find(|of| of.name_any() == class) {
        None => {
            let words = format!("storageclass.storage.k8s.io \"{class}\" not found");
            ClaimStep::Wait("ProvisioningFailed", words, true)
        }
        Some(class) if class.provisioner == PROVISIONER => provision(claim, class, volumes_dir),
        Some(class) => {
            let words =
                format!("waiting for a volume to be created by the provisioner '{}'", class.provisioner);
            ClaimStep::Wait("ExternalProvisioning", words, false)
        }
    }
}

fn provision(claim: &PersistentVolumeClaim, class: &StorageClass, volumes_dir: &Path) -> ClaimStep {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        let words = format!("{PROVISIONER} has no block volumes; volumeMode must be Filesystem");
        return ClaimStep::Wait("ProvisioningFailed", words, true);
    }
    let name = format!("pvc-{}", claim.uid().unwrap_or_default());
    let capacity = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let host_path = HostPathVolumeSource {
        path: volumes_dir.join(&name).to_string_lossy().into_owned(),
        type_: Some("DirectoryOrCreate".to_owned()),
    };
    ClaimStep::Provision(Box::new(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            capacity: Some(capacity),
            access_modes: spec.access_modes,
            persistent_volume_reclaim_policy: Some(
                class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned()),
            ),
            storage_class_name: Some(class.name_any()),
            volume_mode: Some("Filesystem".to_owned()),
            claim_ref: Some(claim_ref(claim)),
            host_path: Some(host_path),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }))
}

/// How a volume names its claim.
pub fn claim_ref(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.namespace(),
        name: Some(claim.name_any()),
        uid: claim.uid(),
        ..ObjectReference::default()
    }
}

/// Whether the volume is nobody's, or reserved for this claim.
fn is_free_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(of) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return true };
    let same_name = of.name == claim.metadata.name && of.namespace == claim.metadata.namespace;
    same_name && of.uid.as_ref().is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
}

/// Whether the volume names exactly this claim.
fn is_tied(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    of.is_some_and(|of| of.uid.is_some() && of.uid == claim.metadata.uid)
}

/// The volume reserved for the claim, else the smallest free one that suffices.
fn best_match<'a>(
    claim: &PersistentVolumeClaim,
    class: Option<&str>,
    volumes: &'a [Arc<PersistentVolume>],
) -> Option<&'a Arc<PersistentVolume>> {
    let spec = claim.spec.clone().unwrap_or_default();
    let wanted = storage(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let selector = spec.selector.as_ref().map(selector);
    let fits = |volume: &&Arc<PersistentVolume>| {
        let Some(of) = &volume.spec else { return false };
        let modes = of.access_modes.clone().unwrap_or_default();
        let has_modes = spec.access_modes.iter().flatten().all(|mode| modes.contains(mode));
        let selected = match &selector {
            None => true,
            Some(Ok(selector)) => selector.matches(volume.labels()),
            Some(Err(_)) => false,
        };
        let same_class = of.storage_class_name.as_deref().filter(|name| !name.is_empty()) == class;
        let alive = !is_deleting(&volume.metadata);
        alive
            && has_modes
            && selected
            && same_class
            && is_free_for(volume, claim)
            && storage(of.capacity.as_ref()) >= wanted
    };
    let reserved =
        |volume: &Arc<PersistentVolume>| volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none());
    let mut candidates: Vec<&Arc<PersistentVolume>> = volumes.iter().filter(fits).collect();
    candidates.sort_by_key(|volume| {
        let size = storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
        (reserved(volume), size, volume.name_any())
    });
    candidates.first().copied()
}

type Amounts = std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

fn storage(amounts: Option<&Amounts>) -> Quantity {
    amounts
        .and_then(|amounts| amounts.get("storage"))
        .and_then(|amount| amount.0.parse().ok())
        .unwrap_or_default()
}

/// What becomes of a volume. `claim` is the object that its reference names, if one of that uid exists.
pub fn volume_step(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeStep {
    let Some(spec) = &volume.spec else { return VolumeStep::Phase("Available") };
    let Some(of) = &spec.claim_ref else { return VolumeStep::Phase("Available") };
    if of.uid.is_none() {
        return VolumeStep::Phase("Available");
    }
    if claim.is_some() {
        return VolumeStep::Phase("Bound");
    }
    let ours = volume.annotations().get(PROVISIONED_BY).is_some_and(|by| by == PROVISIONER);
    let delete = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    if ours && delete { VolumeStep::Remove } else { VolumeStep::Phase("Released") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(spec: Value, phase: &str) -> PersistentVolumeClaim {
        let mut object = json!({"metadata": {"name": "data", "namespace": "ns", "uid": "u1"}, "status": {"phase": phase},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn volume(name: &str, size: &str, claim: Value) -> Arc<PersistentVolume> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "claimRef": claim, "storageClassName": ""}}))
            .unwrap(),
        )
    }

    fn classes() -> Vec<Arc<StorageClass>> {
        let class = |name: &str, provisioner: &str, default: &str| {
            let annotations = json!({DEFAULT_CLASS: default});
            let object =
                json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": provisioner});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        vec![class("standard", PROVISIONER, "true"), class("csi", "other.io/csi", "false")]
    }

    fn step(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> ClaimStep {
        claim_step(claim, volumes, &classes(), Path::new("/data/volumes"))
    }

    #[test]
    fn a_claim_gets_a_volume_of_the_default_class() {
        let ClaimStep::Provision(made) = step(&claim(json!({}), "Pending"), &[]) else {
            panic!("not provisioned")
        };
        let spec = made.spec.unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("pvc-u1"));
        assert_eq!(spec.host_path.unwrap().path, "/data/volumes/pvc-u1");
        assert_eq!(spec.capacity.unwrap()["storage"].0, "1Gi");
        assert_eq!(
            (spec.storage_class_name.as_deref(), spec.claim_ref.unwrap().uid.as_deref()),
            (Some("standard"), Some("u1"))
        );
        let explicit = claim(json!({"storageClassName": "standard"}), "Pending");
        assert!(matches!(step(&explicit, &[]), ClaimStep::Provision(_)));
    }

    #[test]
    fn a_claim_without_a_class_takes_the_smallest_volume_that_suffices() {
        let none = claim(json!({"storageClassName": ""}), "Pending");
        let volumes = [
            volume("big", "10Gi", json!(null)),
            volume("fit", "2Gi", json!(null)),
            volume("small", "1Mi", json!(null)),
        ];
        assert_eq!(step(&none, &volumes), ClaimStep::Bind("fit".into()));
        let mine = json!({"namespace": "ns", "name": "data"});
        assert_eq!(
            step(&none, &[volumes[1].clone(), volume("mine", "5Gi", mine)]),
            ClaimStep::Bind("mine".into())
        );
        let taken = volume("taken", "2Gi", json!({"namespace": "ns", "name": "data", "uid": "other"}));
        assert!(matches!(step(&none, &[taken]), ClaimStep::Wait("FailedBinding", _, false)));
    }

    #[test]
    fn a_claim_that_cannot_be_served_says_why() {
        let words = |spec: Value| match step(&claim(spec, "Pending"), &[]) {
            ClaimStep::Wait(reason, words, _) => format!("{reason}: {words}"),
            other => format!("{other:?}"),
        };
        assert_eq!(
            words(json!({"storageClassName": "x"})),
            "ProvisioningFailed: storageclass.storage.k8s.io \"x\" not found"
        );
        assert!(words(json!({"storageClassName": "csi"})).contains("other.io/csi"));
        assert!(words(json!({"volumeMode": "Block"})).contains("block"));
        assert_eq!(words(json!({"volumeName": "x"})), "FailedBinding: volume \"x\" not found");
    }

    #[test]
    fn a_bound_claim_rests_and_a_lost_one_is_told() {
        let bound = claim(json!({"volumeName": "v"}), "Bound");
        let tied = volume("v", "1Gi", json!({"namespace": "ns", "name": "data", "uid": "u1"}));
        assert_eq!(step(&bound, std::slice::from_ref(&tied)), ClaimStep::Nothing);
        assert_eq!(step(&bound, &[]), ClaimStep::Lost);
        let half = claim(json!({"volumeName": "v"}), "Pending");
        assert_eq!(step(&half, &[tied]), ClaimStep::Bind("v".into()));
    }

    #[test]
    fn a_volume_goes_with_its_claim_only_when_it_was_made_here_and_says_so() {
        let mut made =
            volume("v", "1Gi", json!({"namespace": "ns", "name": "data", "uid": "u1"})).as_ref().clone();
        assert_eq!(volume_step(&made, Some(&claim(json!({}), "Bound"))), VolumeStep::Phase("Bound"));
        assert_eq!(volume_step(&made, None), VolumeStep::Phase("Released"));
        made.annotations_mut().insert(PROVISIONED_BY.into(), PROVISIONER.into());
        made.spec.as_mut().unwrap().persistent_volume_reclaim_policy = Some("Delete".into());
        assert_eq!(volume_step(&made, None), VolumeStep::Remove);
        assert_eq!(volume_step(&volume("v", "1Gi", json!(null)), None), VolumeStep::Phase("Available"));
    }
}
