//! The row of a pod: its status in one word, as upstream computes it.

use serde_json::{Value, json};

use super::{age, format, name};
use crate::object;

/// What the row says of a pod's containers.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<String>,
}

/// The cells of a pod.
pub fn cells(pod: &Value) -> Vec<Value> {
    let summary = summary(pod);
    let restarts = match summary.last_restart.filter(|_| summary.restarts > 0) {
        Some(at) => format!("{} ({} ago)", summary.restarts, format::since(&at)),
        None => summary.restarts.to_string(),
    };
    let gates = object::items(pod, "/spec/readinessGates");
    let gate = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let holds = |gate: &&Value| {
            object::items(pod, "/status/conditions")
                .iter()
                .any(|one| one["type"] == gate["conditionType"] && one["status"] == "True")
        };
        format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod),
        format::or_none(object::text(pod, "/status/podIP")).into(),
        format::or_none(object::text(pod, "/spec/nodeName")).into(),
        format::or_none(object::text(pod, "/status/nominatedNodeName")).into(),
        gate.into(),
    ]
}

fn phase(pod: &Value) -> String {
    let reason = object::text(pod, "/status/reason");
    if reason.is_empty() { object::text(pod, "/status/phase").to_owned() } else { reason.to_owned() }
}

fn ended(state: &Value) -> Option<String> {
    let ended = state.pointer("/terminated").filter(|one| one.is_object())?;
    let reason = object::text(ended, "/reason");
    if !reason.is_empty() {
        return Some(reason.to_owned());
    }
    match object::int(ended, "/signal").unwrap_or(0) {
        0 => Some(format!("ExitCode:{}", object::int(ended, "/exitCode").unwrap_or(0))),
        signal => Some(format!("Signal:{signal}")),
    }
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    let specs = object::items(pod, "/spec/initContainers");
    specs
        .iter()
        .any(|one| object::text(one, "/name") == name && object::text(one, "/restartPolicy") == "Always")
}

/// The state of initialisation, while it lasts.
fn initialising(pod: &Value, out: &mut Summary) -> bool {
    let statuses = object::items(pod, "/status/initContainerStatuses");
    let count = object::items(pod, "/spec/initContainers").len();
    for (index, status) in statuses.iter().enumerate() {
        let sidecar = is_sidecar(pod, object::text(status, "/name"));
        note_restarts(status, out);
        let state = &status["state"];
        let done = object::int(state, "/terminated/exitCode") == Some(0);
        if done || (sidecar && status["started"] == true) {
            out.ready += usize::from(sidecar && status["ready"] == true);
            continue;
        }
        let waiting = object::text(state, "/waiting/reason");
        out.reason = match ended(state) {
            Some(reason) => format!("Init:{reason}"),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{count}"),
        };
        return true;
    }
    false
}

fn note_restarts(status: &Value, out: &mut Summary) {
    out.restarts += object::int(status, "/restartCount").unwrap_or(0);
    let at = object::text(status, "/lastState/terminated/finishedAt");
    if !at.is_empty() && out.last_restart.as_deref().is_none_or(|old| old < at) {
        out.last_restart = Some(at.to_owned());
    }
}

fn summary(pod: &Value) -> Summary {
    let sidecars = object::items(pod, "/spec/initContainers")
        .iter()
        .filter(|one| object::text(one, "/restartPolicy") == "Always")
        .count();
    let total = object::items(pod, "/spec/containers").len() + sidecars;
    let mut out = Summary { reason: phase(pod), ready: 0, total, restarts: 0, last_restart: None };
    let gated = object::items(pod, "/status/conditions")
        .iter()
        .any(|one| one["type"] == "PodScheduled" && one["reason"] == "SchedulingGated");
    if gated {
        out.reason = "SchedulingGated".into();
    }
    let is_initialised = object::items(pod, "/status/conditions")
        .iter()
        .any(|one| one["type"] == "Initialized" && one["status"] == "True");
    if !initialising(pod, &mut out) || is_initialised {
        running(pod, &mut out);
    }
    if object::is_terminating(pod) {
        let is_lost = object::text(pod, "/status/reason") == "NodeLost";
        let is_over = matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
        if is_lost {
            out.reason = "Unknown".into();
        } else if !is_over {
            out.reason = "Terminating".into();
        }
    }
    out
}

fn running(pod: &Value, out: &mut Summary) {
    let mut has_running = false;
    for status in object::items(pod, "/status/containerStatuses").iter().rev() {
        note_restarts(status, out);
        let state = &status["state"];
        let waiting = object::text(state, "/waiting/reason");
        if !waiting.is_empty() {
            out.reason = waiting.to_owned();
        } else if let Some(reason) = ended(state) {
            out.reason = reason;
        } else if status["ready"] == true && state.get("running").is_some_and(|one| !one.is_null()) {
            has_running = true;
            out.ready += 1;
        }
    }
    // One container has completed while others still run.
    if out.reason == "Completed" && has_running {
        let is_ready = object::items(pod, "/status/conditions")
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True");
        out.reason = if is_ready { "Running".into() } else { "NotReady".into() };
    }
}

/// What kubectl uses to hide finished pods.
pub fn row_conditions(pod: &Value) -> Vec<Value> {
    let phase = object::text(pod, "/status/phase");
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    vec![json!({ "type": "Completed", "status": "True", "reason": phase, "message": message })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_word_follows_containers() {
        let container = |state: Value| json!({"name": "c", "ready": state.get("running").is_some(), "restartCount": 0, "state": state});
        let pod = |phase: &str, states: Vec<Value>| {
            let statuses: Vec<Value> = states.into_iter().map(container).collect();
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]},
                "status": {"phase": phase, "containerStatuses": statuses}})
        };
        let cases = [
            (pod("Pending", vec![]), "Pending", "0/1"),
            (pod("Pending", vec![json!({"waiting": {"reason": "ErrImagePull"}})]), "ErrImagePull", "0/1"),
            (pod("Running", vec![json!({"running": {}})]), "Running", "1/1"),
            (
                pod("Succeeded", vec![json!({"terminated": {"reason": "Completed", "exitCode": 0}})]),
                "Completed",
                "0/1",
            ),
            (pod("Failed", vec![json!({"terminated": {"exitCode": 3}})]), "ExitCode:3", "0/1"),
        ];
        for (pod, status, ready) in cases {
            let cells = cells(&pod);
            assert_eq!((cells[2].as_str(), cells[1].as_str()), (Some(status), Some(ready)));
        }
    }
}
