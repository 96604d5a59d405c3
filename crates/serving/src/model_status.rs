//! `status.modelStatus`: where the model is on its way into memory, read from the newest pod.

use api::serving::CONTAINER;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use serde_json::{Value, json};

/// How far the newest pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Pending,
    Loading,
    Loaded,
    Failed { message: String, exit_code: i32 },
}

/// The status of a model that has a runtime. `pods` are those of the predictor that are not on their way out.
pub(crate) fn model_status(pods: &[&Pod]) -> Value {
    let newest = pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let stage = newest.map_or(Stage::Pending, |pod| stage(pod));
    let failed = pods.iter().filter(|pod| matches!(self::stage(pod), Stage::Failed { .. })).count();
    let (transition, target) = match &stage {
        Stage::Pending => ("InProgress", "Pending"),
        Stage::Loading => ("InProgress", "Loading"),
        Stage::Loaded => ("UpToDate", "Loaded"),
        Stage::Failed { .. } => ("BlockedByFailedLoad", "FailedToLoad"),
    };
    let active = if ready > 0 { "Loaded" } else { "" };
    let mut status = json!({
        "transitionStatus": transition,
        "states": {"activeModelState": active, "targetModelState": target},
        "copies": {"totalCopies": ready, "failedCopies": failed},
    });
    if let Stage::Failed { message, exit_code } = stage {
        status["lastFailureInfo"] =
            json!({"reason": "ModelLoadFailed", "message": message, "exitCode": exit_code});
    }
    status
}

/// The status of a model that cannot be served as asked.
pub(crate) fn invalid(reason: &str, message: &str) -> Value {
    json!({
        "transitionStatus": "InvalidSpec",
        "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
        "copies": {"totalCopies": 0, "failedCopies": 0},
        "lastFailureInfo": {"reason": reason, "message": message},
    })
}

/// Whether the pod's Ready condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn stage(pod: &Pod) -> Stage {
    if is_ready(pod) {
        return Stage::Loaded;
    }
    let Some(status) = &pod.status else { return Stage::Pending };
    let inits = status.init_container_statuses.as_deref().unwrap_or_default();
    if let Some(initializer) = inits.iter().find(|one| one.name == "storage-initializer") {
        match of_container(initializer) {
            Stage::Loaded => {}
            other => return other,
        }
    }
    let servers = status.container_statuses.as_deref().unwrap_or_default();
    match servers.iter().find(|one| one.name == CONTAINER).map(of_container) {
        Some(Stage::Failed { message, exit_code }) => Stage::Failed { message, exit_code },
        Some(Stage::Pending) | None => Stage::Pending,
        Some(_) => Stage::Loading,
    }
}

/// Running is loading; done with 0 is loaded; ended otherwise, now or just before, is failed.
fn of_container(status: &ContainerStatus) -> Stage {
    let ended = |state: &Option<ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    if let Some(end) = ended(&status.state) {
        return if end.exit_code == 0 {
            Stage::Loaded
        } else {
            failed(end.message, end.reason, end.exit_code)
        };
    }
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return Stage::Loading;
    }
    if let Some(end) = ended(&status.last_state).filter(|end| end.exit_code != 0) {
        return failed(end.message, end.reason, end.exit_code);
    }
    let waiting = state.and_then(|state| state.waiting.clone()).unwrap_or_default();
    match waiting.reason.as_deref() {
        Some(
            "CrashLoopBackOff"
            | "ErrImagePull"
            | "ImagePullBackOff"
            | "CreateContainerError"
            | "CreateContainerConfigError"
            | "InvalidImageName",
        ) => failed(waiting.message, waiting.reason, 0),
        _ => Stage::Pending,
    }
}

fn failed(message: Option<String>, reason: Option<String>, exit_code: i32) -> Stage {
    let message = message.filter(|text| !text.trim().is_empty()).or(reason).unwrap_or_default();
    Stage::Failed { message: message.trim().to_owned(), exit_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn container(name: &str, state: Value, last: Value) -> Value {
        json!({"name": name, "state": state, "lastState": last, "ready": false, "restartCount": 0, "image": "", "imageID": ""})
    }

    #[test]
    fn the_model_is_followed_through_the_pod() {
        let init = |state: Value, last: Value| json!({"initContainerStatuses": [container("storage-initializer", state, last)]});
        let server = |state: Value, last: Value| json!({"containerStatuses": [container("kserve-container", state, last)]});
        let table = [
            (json!({}), "InProgress", "Pending"),
            (init(json!({"running": {}}), json!({})), "InProgress", "Loading"),
            (
                init(json!({"terminated": {"exitCode": 1, "message": "no such model"}}), json!({})),
                "BlockedByFailedLoad",
                "FailedToLoad",
            ),
            (
                init(
                    json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                    json!({"terminated": {"exitCode": 1, "message": "gone"}}),
                ),
                "BlockedByFailedLoad",
                "FailedToLoad",
            ),
            (server(json!({"running": {}}), json!({})), "InProgress", "Loading"),
            (
                server(json!({"waiting": {"reason": "ErrImagePull", "message": "m"}}), json!({})),
                "BlockedByFailedLoad",
                "FailedToLoad",
            ),
            (json!({"conditions": [{"type": "Ready", "status": "True"}]}), "UpToDate", "Loaded"),
        ];
        for (status, transition, target) in table {
            let pod = pod(status.clone());
            let found = model_status(&[&pod]);
            assert_eq!(found["transitionStatus"], transition, "{status}");
            assert_eq!(found["states"]["targetModelState"], target, "{status}");
        }
    }

    #[test]
    fn a_failure_tells_the_initializers_words() {
        let pod = pod(
            json!({"initContainerStatuses": [container("storage-initializer", json!({"terminated": {"exitCode": 3, "message": "model \"x\" is not there\n"}}), json!({}))]}),
        );
        let info = model_status(&[&pod])["lastFailureInfo"].clone();
        assert_eq!(
            info,
            json!({"reason": "ModelLoadFailed", "message": "model \"x\" is not there", "exitCode": 3})
        );
    }
}
