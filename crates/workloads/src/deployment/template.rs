//! Which ReplicaSet belongs to a Deployment's template: pure.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name for a template; `collisions` makes another one for the same template.
///
/// FNV-1a over the canonical JSON, then letters as upstream's `SafeEncodeString` maps them. The value differs from
/// upstream's, which hashes Go's dump of the struct; only its stability matters, and sets are found by template anyway.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // Maps of the typed template are ordered, so equal templates give equal text.
    let text = serde_json::to_string(template).unwrap_or_default();
    let bytes = text.bytes().chain(collisions.to_le_bytes().into_iter().filter(|_| collisions > 0));
    let value = bytes.fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    value.to_string().bytes().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

/// The oldest set whose template is the Deployment's.
pub fn current<'a, T: AsRef<ReplicaSet>>(deployment: &Deployment, sets: &'a [T]) -> Option<&'a T> {
    let wanted = &deployment.spec.as_ref()?.template;
    let mut same: Vec<&T> = sets.iter().filter(|set| same_template(set.as_ref(), wanted)).collect();
    same.sort_by_key(|set| {
        let meta = &set.as_ref().metadata;
        (meta.creation_timestamp.as_ref().map(|at| at.0), meta.name.clone())
    });
    same.first().copied()
}

fn same_template(set: &ReplicaSet, wanted: &PodTemplateSpec) -> bool {
    let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return false };
    bare(template) == bare(wanted)
}

/// The template without the hash, which only sets carry.
fn bare(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut bare = template.clone();
    let meta = bare.metadata.get_or_insert_default();
    let mut labels = meta.labels.take().unwrap_or_default();
    labels.remove(HASH_LABEL);
    meta.labels = Some(labels);
    bare
}
