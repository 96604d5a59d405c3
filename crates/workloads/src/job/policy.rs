//! `spec.podFailurePolicy`: what a failed pod means for its Job. Pure.

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// What is to be done about a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards `backoffLimit`.
    Count,
    /// It is replaced and does not count.
    Ignore,
    /// The index has failed for good.
    FailIndex,
    /// The Job has failed; the text says why.
    FailJob(String),
}

/// The first rule that matches decides; without one the pod counts.
pub fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (at, rule) in rules.enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        return match rule.action.as_str() {
            "FailJob" => Verdict::FailJob(format!("{what} matching FailJob rule at index {at}")),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let place = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(codes) = &rule.on_exit_codes {
        let (container, code) = exited(pod).find(|(name, code)| codes_match(codes, name, *code))?;
        return Some(format!("Container {container} for pod {place} failed with exit code {code}"));
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let wanted = rule.on_pod_conditions.as_ref()?;
    let hit = wanted.iter().find(|want| {
        conditions.iter().any(|has| {
            has.type_ == want.type_
                && (want.status.is_empty() && has.status == "True" || has.status == want.status)
        })
    })?;
    Some(format!("Pod {place} has condition {}", hit.type_))
}

/// Containers that ended with another code than 0.
fn exited(pod: &Pod) -> impl Iterator<Item = (&str, i32)> {
    let status = pod.status.iter();
    let all = status.flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    all.filter_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        (code != 0).then_some((container.name.as_str(), code))
    })
}

fn codes_match(rule: &PodFailurePolicyOnExitCodesRequirement, container: &str, code: i32) -> bool {
    if rule.container_name.as_deref().is_some_and(|name| name != container) {
        return false;
    }
    let listed = rule.values.contains(&code);
    if rule.operator == "NotIn" { !listed } else { listed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let spec: JobSpec = serde_json::from_value(json!({"template": {}, "podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 42]}}]}}))
        .unwrap();
        let pod = |code: i32, condition: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p"}, "status": {
                "conditions": [{"type": condition, "status": "True"}],
                "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code}}}]}}))
            .unwrap()
        };
        let fail = "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&spec, &pod(42, "X")), Verdict::FailJob(fail.to_owned()));
        assert_eq!(judge(&spec, &pod(42, "DisruptionTarget")), Verdict::Ignore);
        assert_eq!(judge(&spec, &pod(7, "X")), Verdict::FailIndex);
        assert_eq!(judge(&spec, &pod(1, "X")), Verdict::Count);
    }
}
