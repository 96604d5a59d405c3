//! Small judgements on objects that several controllers share: owners, pod states, conditions, names.
//!
//! All pure; `now` and randomness arrive as arguments, except for `name_suffix`, which only makes names differ.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use kube::{Resource, ResourceExt};
use rand::Rng;
use types::selector::{Operator, Requirement, Selector, SelectorError};

/// The letters of generated names: no vowels and no look-alikes, as upstream.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them a generated name ends with.
const SUFFIX_LEN: usize = 5;
/// The longest prefix of a generated name.
const PREFIX_MAX: usize = 63 - SUFFIX_LEN;

/// Five random letters, as `generateName` adds.
pub fn name_suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LEN)
        .map(|_| char::from(SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())]))
        .collect()
}

/// `prefix` with a random ending, cut so that the whole is a legal name.
pub fn generated_name(prefix: &str) -> String {
    let kept = prefix.len().min(PREFIX_MAX);
    format!("{}{}", &prefix[..kept], name_suffix())
}

/// The reference that makes `owner` the controller of what carries it.
pub fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner that controls the object, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether `uid` is the object's controller.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// `Pending`, `Running`, `Succeeded`, `Failed` or empty.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// Whether its containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether a delete is under way.
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether the pod runs or will, as replica counts see it.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(&pod.metadata)
}

/// The condition of that type.
pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether the `Ready` condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Whether it has been ready for `min_ready_seconds`; `Err` says in how many milliseconds it will have been.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Result<bool, i64> {
    if !is_ready(pod) {
        return Ok(false);
    }
    if min_ready_seconds <= 0 {
        return Ok(true);
    }
    let Some(since) = pod_condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref())
    else {
        return Ok(false);
    };
    let ripe_at = since.0.as_millisecond() + i64::from(min_ready_seconds) * 1000;
    let left = ripe_at - now.as_millisecond();
    if left <= 0 { Ok(true) } else { Err(left) }
}

/// The name of a pod's node, if it has one.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// A selector of an object in the form that matches.
pub fn selector(of: &LabelSelector) -> Result<Selector, SelectorError> {
    let mut selector = Selector::from_labels(&of.match_labels.clone().unwrap_or_default());
    for expression in of.match_expressions.iter().flatten() {
        let operator: Operator = expression.operator.parse()?;
        let values = expression.values.clone().unwrap_or_default();
        selector = selector.with(Requirement { key: expression.key.clone(), operator, values });
    }
    Ok(selector)
}

/// A pod of a template, in a namespace, controlled by `owner`, with a name that begins with `prefix`.
pub fn pod_from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(generated_name(prefix)),
            generate_name: Some(prefix.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Now, cut to whole seconds, as objects carry it.
pub fn time(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_legal_however_long_the_prefix() {
        let name = generated_name(&"a".repeat(300));
        assert_eq!(name.len(), 63);
        assert_ne!(generated_name("x-"), generated_name("x-"));
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_long_enough() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(is_available(&pod, 0, at("2026-01-01T00:00:00Z")), Ok(true));
        assert_eq!(is_available(&pod, 10, at("2026-01-01T00:00:04Z")), Err(6000));
        assert_eq!(is_available(&pod, 10, at("2026-01-01T00:00:10Z")), Ok(true));
        assert_eq!(is_available(&Pod::default(), 0, at("2026-01-01T00:00:10Z")), Ok(false));
    }
}
