//! `status` of a pod, as the kubelet writes it: pure, from what is known of its containers.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pod_protocol::shim::Exit;
use sha2::{Digest, Sha256};

use super::decide::{Container, Outlook, Phase, RestartPolicy, Role, Seen, back_off, outlook};

/// Conditions that the node owns; others are left as they are.
const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What the status is made of.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The pod as last seen.
    pub pod: &'a Pod,
    /// The status told last.
    pub before: Option<Arc<PodStatus>>,
    /// What is known.
    pub seen: Seen<'a>,
    /// Its address, once it has one.
    pub pod_ip: Option<String>,
    /// The node's.
    pub host_ip: String,
    /// When the node accepted it.
    pub start_time: Timestamp,
    /// Ended from outside: reason and message, e.g. `DeadlineExceeded`.
    pub ended: Option<(&'a str, &'a str)>,
    /// Nothing of it runs or will run.
    pub finished: bool,
}

/// The whole status.
pub fn build(inputs: &Inputs<'_>) -> PodStatus {
    let spec_image = |name: &str| -> String {
        let spec = inputs.pod.spec.as_ref();
        let all = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        all.filter(|container| container.name == name)
            .find_map(|container| container.image.clone())
            .unwrap_or_default()
    };
    let (init, main): (Vec<_>, Vec<_>) =
        inputs.seen.containers.iter().partition(|container| container.role != Role::Main);
    let statuses = |list: &[&Container]| -> Vec<ContainerStatus> {
        list.iter()
            .map(|container| container_status(inputs, container, &spec_image(&container.name)))
            .collect()
    };
    let phase = phase(inputs);
    let qos_class = inputs.pod.status.as_ref().and_then(|status| status.qos_class.clone());
    let ip = inputs.pod_ip.clone();
    PodStatus {
        phase: Some(phase.into()),
        reason: inputs.ended.map(|(reason, _)| reason.to_owned()),
        message: inputs.ended.map(|(_, message)| message.to_owned()),
        conditions: Some(conditions(inputs, phase)),
        init_container_statuses: (!init.is_empty()).then(|| statuses(&init)),
        container_statuses: Some(statuses(&main)),
        host_ip: Some(inputs.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: inputs.host_ip.clone() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: Some(Time(inputs.start_time)),
        qos_class,
        ..PodStatus::default()
    }
}

/// `status.phase`.
pub fn phase(inputs: &Inputs<'_>) -> &'static str {
    if inputs.ended.is_some() && inputs.finished {
        return "Failed";
    }
    match outlook(&inputs.seen) {
        // A pod's end is told only when its sidecars are gone as well.
        Outlook::Succeeded if inputs.finished => "Succeeded",
        Outlook::Failed | Outlook::InitFailed if inputs.finished => "Failed",
        Outlook::Initializing | Outlook::InitFailed => "Pending",
        Outlook::Running | Outlook::Succeeded | Outlook::Failed => {
            let main = inputs.seen.containers.iter().filter(|container| container.role == Role::Main);
            let begun = main.clone().any(|container| {
                matches!(container.phase, Phase::Running { .. } | Phase::Exited { .. })
                    || container.previous.is_some()
            });
            if begun { "Running" } else { "Pending" }
        }
    }
}

fn container_status(inputs: &Inputs<'_>, container: &Container, image: &str) -> ContainerStatus {
    let uid = inputs.pod.metadata.uid.as_deref().unwrap_or("");
    let id = |attempt: u32| container_id(uid, &container.name, attempt);
    let terminated = |exit: &Exit, attempt: u32| ContainerState {
        terminated: Some(terminated(exit, id(attempt))),
        ..ContainerState::default()
    };
    let restarting = waits_to_restart(inputs, container);
    let state = match &container.phase {
        Phase::Running { since } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        Phase::Exited { exit, .. } if !restarting => terminated(exit, container.attempt),
        Phase::New | Phase::Starting | Phase::Exited { .. } => {
            ContainerState { waiting: Some(waiting(inputs, container)), ..ContainerState::default() }
        }
    };
    let last = match &container.phase {
        Phase::Exited { exit, .. } if restarting => Some(terminated(exit, container.attempt)),
        _ => container.previous.as_ref().map(|exit| terminated(exit, container.attempt.saturating_sub(1))),
    };
    let attempted = matches!(container.phase, Phase::Running { .. } | Phase::Exited { .. });
    let running = container.is_running();
    let init_done = container.role == Role::Init
        && matches!(&container.phase, Phase::Exited { exit, .. } if exit.code == 0);
    ContainerStatus {
        name: container.name.clone(),
        image: image.to_owned(),
        image_id: container.image_id.clone(),
        container_id: attempted.then(|| id(container.attempt)),
        restart_count: container.attempt as i32,
        ready: (running && container.ready && container.role != Role::Init) || init_done,
        started: Some(running && container.started),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    let hash = Sha256::digest(format!("{uid}/{name}/{attempt}"));
    format!("slipway://{}", hex::encode(hash))
}

fn terminated(exit: &Exit, id: String) -> ContainerStateTerminated {
    let time = |text: &str| text.parse::<Timestamp>().ok().map(Time);
    let usual = if exit.code == 0 { "Completed" } else { "Error" };
    ContainerStateTerminated {
        exit_code: exit.code,
        // Kubernetes tells a signal through the code, not here.
        signal: None,
        reason: Some(exit.reason.clone().unwrap_or_else(|| usual.into())),
        message: exit.message.clone(),
        started_at: exit.started_at.as_deref().and_then(time).or(Some(Time(Timestamp::UNIX_EPOCH))),
        finished_at: time(&exit.finished_at),
        container_id: Some(id),
    }
}

fn waits_to_restart(inputs: &Inputs<'_>, container: &Container) -> bool {
    let failed = matches!(&container.phase, Phase::Exited { exit, .. } if exit.code != 0);
    let by_policy = match (container.role, inputs.seen.restart_policy) {
        (Role::Sidecar, _) => true,
        (Role::Init, RestartPolicy::Never) => false,
        (Role::Init, _) => failed,
        (Role::Main, RestartPolicy::Always) => true,
        (Role::Main, RestartPolicy::OnFailure) => failed,
        (Role::Main, RestartPolicy::Never) => false,
    };
    // A restart without a delay is under way: until it happens the end is what there is to tell.
    let delayed = back_off(container.quick_ends).is_positive();
    by_policy && delayed && !inputs.seen.ending && !inputs.finished
}

fn waiting(inputs: &Inputs<'_>, container: &Container) -> ContainerStateWaiting {
    let say = |reason: &str, message: Option<String>| ContainerStateWaiting {
        reason: Some(reason.into()),
        message,
    };
    if let Some(waiting) = &container.waiting {
        return say(&waiting.reason, Some(waiting.message.clone()));
    }
    if matches!(container.phase, Phase::Exited { .. }) {
        let delay = back_off(container.quick_ends);
        let of = &inputs.pod.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let seconds = delay.as_secs();
        let delay = match (seconds / 60, seconds % 60) {
            (0, seconds) => format!("{seconds}s"),
            (minutes, seconds) => format!("{minutes}m{seconds}s"),
        };
        let (pod, namespace, uid) = (text(&of.name), text(&of.namespace), text(&of.uid));
        let message = format!(
            "back-off {delay} restarting failed container={} pod={pod}_{namespace}({uid})",
            container.name
        );
        return say("CrashLoopBackOff", Some(message));
    }
    let has_init = inputs.seen.containers.iter().any(|other| other.role != Role::Main);
    let initializing = has_init && outlook(&inputs.seen) == Outlook::Initializing;
    say(if initializing { "PodInitializing" } else { "ContainerCreating" }, None)
}

fn conditions(inputs: &Inputs<'_>, phase: &str) -> Vec<PodCondition> {
    let conditions_of =
        |status: Option<&PodStatus>| status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let before = conditions_of(inputs.before.as_deref());
    let others = conditions_of(inputs.pod.status.as_ref());
    let containers = inputs.seen.containers;
    let main = containers.iter().filter(|container| container.role != Role::Init);
    let unready: Vec<&str> = main
        .filter(|container| !(container.is_running() && container.ready))
        .map(|container| container.name.as_str())
        .collect();
    let uninitialized: Vec<&str> = containers
        .iter()
        .filter(|container| match container.role {
            Role::Init => !matches!(&container.phase, Phase::Exited { exit, .. } if exit.code == 0),
            Role::Sidecar => !container.started,
            Role::Main => false,
        })
        .map(|container| container.name.as_str())
        .collect();
    let over = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let initialized =
        outlook(&inputs.seen) != Outlook::Initializing && outlook(&inputs.seen) != Outlook::InitFailed;
    let ready = over.is_none() && initialized && unready.is_empty();
    let unready_because = match over {
        Some(reason) => (reason, None),
        None => {
            ("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))
        }
    };
    let uninitialized_because = (
        "ContainersNotInitialized",
        Some(format!("containers with incomplete status: [{}]", uninitialized.join(" "))),
    );
    let gates_open = gates_open(inputs.pod, &others);
    let gates_because =
        ("ReadinessGatesNotReady", Some("the status of pod readiness gate is not \"True\"".to_owned()));
    let ready_because = if ready { gates_because } else { unready_because.clone() };
    let completed = (phase == "Succeeded").then_some("PodCompleted");
    let mut conditions = vec![
        condition("PodReadyToStartContainers", inputs.pod_ip.is_some() && over.is_none(), ("", None), None),
        condition("Initialized", initialized, uninitialized_because, completed),
        condition("Ready", ready && gates_open, ready_because, None),
        condition("ContainersReady", ready, unready_because, None),
        condition("PodScheduled", true, ("", None), None),
    ];
    let now = Time(inputs.seen.now);
    for condition in &mut conditions {
        let same = before.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
        let since = same.and_then(|old| old.last_transition_time.clone());
        condition.last_transition_time = Some(since.unwrap_or_else(|| now.clone()));
    }
    conditions.extend(others.into_iter().filter(|old| !OWN.contains(&old.type_.as_str())));
    conditions
}

fn gates_open(pod: &Pod, conditions: &[PodCondition]) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.into_iter().all(|gate| {
        conditions
            .iter()
            .any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
    })
}

fn condition(
    kind: &str,
    holds: bool,
    because: (&str, Option<String>),
    when_true: Option<&str>,
) -> PodCondition {
    let (reason, message) = if holds { (when_true.unwrap_or(""), None) } else { because };
    PodCondition {
        type_: kind.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message,
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(containers: &[Container], policy: RestartPolicy, finished: bool, want: &str) {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","namespace":"n","uid":"u"},"spec":{"containers":[{"name":"a","image":"i"}]}}"#,
        )
        .unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let seen = Seen { now, restart_policy: policy, containers, ending: false };
        let status = build(&Inputs {
            pod: &pod,
            before: None,
            seen,
            pod_ip: Some("10.0.0.2".into()),
            host_ip: "10.0.0.1".into(),
            start_time: now,
            ended: None,
            finished,
        });
        let state = &status.container_statuses.as_ref().unwrap()[0];
        let what = state.state.as_ref().unwrap();
        let what = match (&what.running, &what.waiting, &what.terminated) {
            (Some(_), _, _) => "running".to_owned(),
            (_, Some(waiting), _) => waiting.reason.clone().unwrap(),
            (_, _, Some(terminated)) => terminated.reason.clone().unwrap(),
            _ => "nothing".to_owned(),
        };
        let conditions = status.conditions.unwrap();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        let reason = ready.reason.clone().unwrap_or_default();
        assert_eq!(format!("{} {what} {} {reason}", status.phase.unwrap(), ready.status).trim(), want);
    }

    fn with(phase: Phase) -> Container {
        let running = matches!(phase, Phase::Running { .. });
        Container {
            phase,
            started: running,
            ready: running,
            quick_ends: 2,
            ..Container::new("a", Role::Main)
        }
    }

    fn exited(code: i32) -> Phase {
        Phase::Exited { exit: Exit { code, ..Exit::default() }, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn statuses_are_told_in_the_kubelets_words() {
        use RestartPolicy::{Always, Never};
        check(&[with(Phase::New)], Always, false, "Pending ContainerCreating False ContainersNotReady");
        check(
            &[with(Phase::Running { since: Timestamp::UNIX_EPOCH })],
            Always,
            false,
            "Running running True",
        );
        check(&[with(exited(0))], Never, true, "Succeeded Completed False PodCompleted");
        check(&[with(exited(3))], Never, true, "Failed Error False PodFailed");
        check(&[with(exited(3))], Always, false, "Running CrashLoopBackOff False ContainersNotReady");
    }
}
