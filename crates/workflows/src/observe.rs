//! From a pod's state to what the engine is told. Pure.

use api::workflow::label;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use plan::engine::{Outcome, PodEnd};
use pod_protocol::launch::LaunchReport;

/// What a pod says.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It waits; why, when it says so.
    Waiting(String),
    /// Its main container runs, on this machine.
    Running(String),
    /// Its attempt ended.
    Ended(PodEnd),
    /// Its attempt ended, and the report is in a `WorkflowTaskResult`.
    Elsewhere(PodEnd),
}

/// The attempt's token that a pod carries.
pub fn token(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(label::ATTEMPT)?.parse().ok()
}

/// What a pod says about its attempt. `gone`: the object was deleted.
pub fn observe(pod: &Pod, gone: bool) -> Seen {
    let status = pod.status.clone().unwrap_or_default();
    let host = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let main = status.container_statuses.iter().flatten().find(|container| container.name == "main");
    if let Some(ended) = main.and_then(|main| main.state.as_ref()?.terminated.as_ref()) {
        return from_main(ended, &status.message.unwrap_or_default(), host);
    }
    let lost = gone || (pod.metadata.deletion_timestamp.is_some() && !starts(main));
    let phase = status.phase.as_deref().unwrap_or_default();
    if phase == "Failed" || phase == "Succeeded" || lost {
        let message = [status.message, status.reason].into_iter().flatten().find(|text| !text.is_empty());
        let init = failed_init(status.init_container_statuses.iter().flatten());
        let deadline = status_reason(pod) == Some("DeadlineExceeded");
        let outcome = if deadline { Outcome::Failed } else { Outcome::Error };
        let fallback = if lost { "pod deleted" } else { "the pod ended before its main container" };
        let message = init.or(message).unwrap_or_else(|| fallback.into());
        return Seen::Ended(PodEnd { outcome, message, host, ..PodEnd::default() });
    }
    if main.is_some_and(|main| main.state.as_ref().is_some_and(|state| state.running.is_some())) {
        return Seen::Running(host);
    }
    Seen::Waiting(why_waiting(&status))
}

fn status_reason(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.reason.as_deref()
}

/// The main container was started: its end will still be reported.
fn starts(main: Option<&ContainerStatus>) -> bool {
    main.and_then(|main| main.state.as_ref()).is_some_and(|state| state.running.is_some())
}

fn from_main(ended: &ContainerStateTerminated, pod_message: &str, host: String) -> Seen {
    let text = ended.message.as_deref().unwrap_or_default();
    let report: Option<LaunchReport> = serde_json::from_str(text).ok();
    let outcome = if ended.exit_code == 0 { Outcome::Succeeded } else { Outcome::Failed };
    let mut end = PodEnd { outcome, exit_code: Some(ended.exit_code), host, ..PodEnd::default() };
    match report {
        Some(report) if report.elsewhere => {
            end.report = Some(report);
            return Seen::Elsewhere(end);
        }
        Some(report) => {
            // Exit codes above 128 by a signal are the shim's; the user's own code is in the report.
            end.exit_code = report.exit_code.or(end.exit_code);
            end.report = Some(report);
        }
        None if outcome == Outcome::Succeeded => {
            end.outcome = Outcome::Error;
            end.message = "the container ended well but left no report".into();
        }
        None => {
            let reason = ended.reason.as_deref().filter(|reason| !matches!(*reason, "Error" | "Completed"));
            let detail = [Some(pod_message), Some(text), reason]
                .into_iter()
                .flatten()
                .find(|text| !text.trim().is_empty());
            end.message = match detail {
                Some(detail) => format!("{} (exit code {})", detail.trim(), ended.exit_code),
                None => format!("Error (exit code {})", ended.exit_code),
            };
        }
    }
    Seen::Ended(end)
}

fn failed_init<'a>(containers: impl Iterator<Item = &'a ContainerStatus>) -> Option<String> {
    for container in containers {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        if let Some(ended) = ended.filter(|ended| ended.exit_code != 0) {
            let detail = ended.message.clone().unwrap_or_default();
            return Some(format!(
                "init container '{}' failed: exit code {} {detail}",
                container.name, ended.exit_code
            ));
        }
    }
    None
}

fn why_waiting(status: &k8s_openapi::api::core::v1::PodStatus) -> String {
    let init = status.init_container_statuses.iter().flatten();
    for container in init.chain(status.container_statuses.iter().flatten()) {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let Some(waiting) = waiting else { continue };
        let reason = waiting.reason.clone().unwrap_or_default();
        if reason.is_empty() || matches!(reason.as_str(), "PodInitializing" | "ContainerCreating") {
            continue;
        }
        return match &waiting.message {
            Some(message) if !message.is_empty() => format!("{reason}: {message}"),
            _ => reason,
        };
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    match scheduled {
        Some(condition) if condition.status == "False" => format!(
            "{}: {}",
            condition.reason.clone().unwrap_or_default(),
            condition.message.clone().unwrap_or_default()
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []}, "status": status}),
        )
        .unwrap()
    }

    fn main(state: &Value) -> Value {
        json!({"containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
    }

    #[test]
    fn a_pods_state_becomes_one_word_to_the_engine() {
        let report = json!({"version": 1, "exitCode": 3}).to_string();
        let cases = [
            (json!({}), "Waiting(\"\")"),
            (main(&json!({"running": {}})), "Running(\"n\")"),
            (
                main(&json!({"waiting": {"reason": "ErrImagePull", "message": "no"}})),
                "Waiting(\"ErrImagePull: no\")",
            ),
            (main(&json!({"terminated": {"exitCode": 3, "message": report}})), "outcome: Failed"),
            (main(&json!({"terminated": {"exitCode": 0}})), "left no report"),
            (
                main(&json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
                "OOMKilled (exit code 137)",
            ),
            (json!({"phase": "Failed", "reason": "Evicted", "message": "disk"}), "message: \"disk\""),
        ];
        for (status, want) in cases {
            let seen = format!("{:?}", observe(&pod(&status), false));
            assert!(seen.contains(want), "{seen} lacks {want}");
        }
        assert!(matches!(
            observe(&pod(&json!({})), true),
            Seen::Ended(PodEnd { outcome: Outcome::Error, .. })
        ));
    }
}
