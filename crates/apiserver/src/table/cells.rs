//! Cells of the built-in kinds but pods.

use serde_json::{Value, json};

use super::{age, format, name, pods};
use crate::object::{self, int, items, text};
use crate::resource::Resource;

/// Conditions of a row.
pub fn row_conditions(resource: &Resource, object: &Value) -> Vec<Value> {
    if resource.group_kind() == ("", "Pod") { pods::row_conditions(object) } else { Vec::new() }
}

/// The cells of a row, in the order of the columns.
pub fn of(resource: &Resource, object: &Value) -> Vec<Value> {
    match resource.group_kind() {
        ("", "Pod") => pods::cells(object),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "ControllerRevision")
        | ("", "ReplicationController") => workload(resource, object),
        ("batch", _) => batch(resource, object),
        ("", "Event") => event(object),
        ("events.k8s.io", "Event") => {
            let mut core = object.clone();
            crate::convert::to_storage(resource, &mut core);
            event(&core)
        }
        ("", "Service" | "Endpoints") | ("discovery.k8s.io" | "networking.k8s.io", _) => {
            super::network::cells(resource, object)
        }
        ("", "PersistentVolume" | "PersistentVolumeClaim") | ("storage.k8s.io", "StorageClass") => {
            storage(resource, object)
        }
        ("rbac.authorization.k8s.io", _) | ("apiextensions.k8s.io", _) => access(resource, object),
        ("autoscaling", _) => super::autoscaler::cells(object),
        ("", "Node") => node(object),
        _ => simple(resource, object),
    }
}

/// An integer, 0 when absent.
pub(super) fn count(object: &Value, pointer: &str) -> Value {
    int(object, pointer).unwrap_or(0).into()
}

fn template(object: &Value, pointer: &str) -> [Value; 2] {
    let (names, images) = format::containers(object, &format!("{pointer}/spec/containers"));
    [names.into(), images.into()]
}

fn workload(resource: &Resource, object: &Value) -> Vec<Value> {
    let [names, images] = template(object, "/spec/template");
    let selector: Value = format::selector(object.pointer("/spec/selector")).into();
    let spec = |field: &str| count(object, &format!("/spec/{field}"));
    let status = |field: &str| count(object, &format!("/status/{field}"));
    let ready = format!("{}/{}", status("readyReplicas"), int(object, "/spec/replicas").unwrap_or(1));
    match resource.kind.as_str() {
        "Deployment" => vec![
            name(object),
            ready.into(),
            status("updatedReplicas"),
            status("availableReplicas"),
            age(object),
            names,
            images,
            selector,
        ],
        "DaemonSet" => vec![
            name(object),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            format::labels(object.pointer("/spec/template/spec/nodeSelector")).into(),
            age(object),
            names,
            images,
            selector,
        ],
        "StatefulSet" => vec![name(object), ready.into(), age(object), names, images],
        "ControllerRevision" => {
            let owner = items(object, "/metadata/ownerReferences").first();
            let owner =
                owner.map(|one| format!("{}/{}", text(one, "/kind").to_lowercase(), text(one, "/name")));
            vec![
                name(object),
                owner.unwrap_or_else(|| "<none>".into()).into(),
                count(object, "/revision"),
                age(object),
            ]
        }
        _ => vec![
            name(object),
            spec("replicas"),
            status("replicas"),
            status("readyReplicas"),
            age(object),
            names,
            images,
            selector,
        ],
    }
}

fn batch(resource: &Resource, object: &Value) -> Vec<Value> {
    if resource.kind == "CronJob" {
        let [names, images] = template(object, "/spec/jobTemplate/spec/template");
        let last = text(object, "/status/lastScheduleTime");
        return vec![
            name(object),
            text(object, "/spec/schedule").into(),
            format::or_none(text(object, "/spec/timeZone")).into(),
            if object.pointer("/spec/suspend") == Some(&json!(true)) { "True" } else { "False" }.into(),
            items(object, "/status/active").len().into(),
            if last.is_empty() { "<none>".into() } else { format::since(last).into() },
            age(object),
            names,
            images,
            format::selector(object.pointer("/spec/jobTemplate/spec/selector")).into(),
        ];
    }
    let [names, images] = template(object, "/spec/template");
    let done = int(object, "/status/succeeded").unwrap_or(0);
    let completions = match (int(object, "/spec/completions"), int(object, "/spec/parallelism").unwrap_or(0))
    {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    };
    let selector = format::selector(object.pointer("/spec/selector"));
    vec![
        name(object),
        job_status(object).into(),
        completions.into(),
        job_duration(object).into(),
        age(object),
        names,
        images,
        selector.into(),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        items(job, "/status/conditions").iter().any(|one| one["type"] == kind && one["status"] == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if object::is_terminating(job) {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn job_duration(job: &Value) -> String {
    let (start, end) = (text(job, "/status/startTime"), text(job, "/status/completionTime"));
    let Ok(start) = start.parse::<jiff::Timestamp>() else { return String::new() };
    let end = end.parse::<jiff::Timestamp>().unwrap_or_else(|_| jiff::Timestamp::now());
    format::human(end.as_second() - start.as_second())
}

fn event(object: &Value) -> Vec<Value> {
    let pick = |pointers: &[&str]| {
        pointers
            .iter()
            .map(|pointer| text(object, pointer))
            .find(|at| !at.is_empty())
            .unwrap_or("")
            .to_owned()
    };
    let first = pick(&["/firstTimestamp", "/eventTime"]);
    let count = int(object, "/series/count")
        .or_else(|| int(object, "/count"))
        .filter(|count| *count > 0)
        .unwrap_or(1);
    let last = match int(object, "/series/count") {
        Some(_) => pick(&["/series/lastObservedTime"]),
        None => pick(&["/lastTimestamp", "/firstTimestamp", "/eventTime"]),
    };
    let target = text(object, "/involvedObject/name");
    let kind = text(object, "/involvedObject/kind").to_lowercase();
    let shown = if target.is_empty() { kind } else { format!("{kind}/{target}") };
    let (component, host) = match text(object, "/source/component") {
        "" => (text(object, "/reportingComponent"), text(object, "/reportingInstance")),
        component => (component, text(object, "/source/host")),
    };
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        format::since(&last).into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        shown.into(),
        text(object, "/involvedObject/fieldPath").into(),
        source.into(),
        text(object, "/message").trim().into(),
        format::since(&first).into(),
        count.into(),
        name(object),
    ]
}

fn modes(object: &Value, pointer: &str) -> String {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    items(object, pointer).iter().filter_map(Value::as_str).map(short).collect::<Vec<_>>().join(",")
}

fn storage(resource: &Resource, object: &Value) -> Vec<Value> {
    let going = object::is_terminating(object);
    let phase = if going { "Terminating" } else { text(object, "/status/phase") };
    let unset = |value: &str| if value.is_empty() { "<unset>".to_owned() } else { value.to_owned() };
    let mode = unset(text(object, "/spec/volumeMode"));
    let attributes = unset(text(object, "/spec/volumeAttributesClassName"));
    match resource.kind.as_str() {
        "PersistentVolume" => {
            let claim = object.pointer("/spec/claimRef").filter(|one| one.is_object());
            let claim = claim.map(|one| format!("{}/{}", text(one, "/namespace"), text(one, "/name")));
            vec![
                name(object),
                text(object, "/spec/capacity/storage").into(),
                modes(object, "/spec/accessModes").into(),
                text(object, "/spec/persistentVolumeReclaimPolicy").into(),
                phase.into(),
                claim.unwrap_or_default().into(),
                text(object, "/spec/storageClassName").into(),
                attributes.into(),
                text(object, "/status/reason").into(),
                age(object),
                mode.into(),
            ]
        }
        "PersistentVolumeClaim" => {
            let bound = !text(object, "/spec/volumeName").is_empty();
            let capacity = if bound { text(object, "/status/capacity/storage") } else { "" };
            let access = if bound { modes(object, "/status/accessModes") } else { String::new() };
            vec![
                name(object),
                phase.into(),
                text(object, "/spec/volumeName").into(),
                capacity.into(),
                access.into(),
                text(object, "/spec/storageClassName").into(),
                attributes.into(),
                age(object),
                mode.into(),
            ]
        }
        _ => {
            let annotation = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";
            let default = if text(object, annotation) == "true" { " (default)" } else { "" };
            let expands = object["allowVolumeExpansion"] == true;
            vec![
                format!("{}{default}", object::name(object)).into(),
                text(object, "/provisioner").into(),
                text(object, "/reclaimPolicy").into(),
                text(object, "/volumeBindingMode").into(),
                expands.into(),
                age(object),
            ]
        }
    }
}

fn access(resource: &Resource, object: &Value) -> Vec<Value> {
    if !resource.kind.ends_with("Binding") {
        return vec![name(object), object::meta_str(object, "creationTimestamp").into()];
    }
    let subjects = |kind: &str| {
        let all = items(object, "/subjects").iter().filter(|one| one["kind"] == kind);
        let shown: Vec<String> = all
            .map(|one| match kind {
                "ServiceAccount" => format!("{}/{}", text(one, "/namespace"), text(one, "/name")),
                _ => text(one, "/name").to_owned(),
            })
            .collect();
        Value::from(shown.join(", "))
    };
    let role = format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"));
    vec![
        name(object),
        role.into(),
        age(object),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

fn node(object: &Value) -> Vec<Value> {
    let ready = items(object, "/status/conditions").iter().find(|one| one["type"] == "Ready");
    let mut status = match ready {
        Some(one) if one["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".into(),
        None => "Unknown".into(),
    };
    if object.pointer("/spec/unschedulable") == Some(&json!(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        let found = items(object, "/status/addresses").iter().find(|one| one["type"] == kind);
        Value::from(found.map_or("<none>", |one| text(one, "/address")))
    };
    let info = |field: &str| {
        let value = text(object, &format!("/status/nodeInfo/{field}"));
        Value::from(if value.is_empty() { "<unknown>" } else { value })
    };
    vec![
        name(object),
        status.into(),
        format::or_none(&roles.join(",")).into(),
        age(object),
        text(object, "/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn simple(resource: &Resource, object: &Value) -> Vec<Value> {
    let size = |field: &str| object.get(field).and_then(Value::as_object).map_or(0, |map| map.len());
    let not_available = |pointer: &str| {
        object
            .pointer(pointer)
            .map_or("N/A".into(), |value| value.as_str().map_or_else(|| value.to_string(), Into::into))
    };
    match resource.group_kind() {
        ("", "Namespace") => vec![name(object), text(object, "/status/phase").into(), age(object)],
        ("", "Secret") => vec![name(object), text(object, "/type").into(), size("data").into(), age(object)],
        ("", "ConfigMap") => vec![name(object), (size("data") + size("binaryData")).into(), age(object)],
        ("", "ServiceAccount") => vec![name(object), items(object, "/secrets").len().into(), age(object)],
        ("", "ResourceQuota") => {
            let pairs = |filter: &dyn Fn(&str) -> bool| {
                let hard = object.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten();
                let used = |key: &str| {
                    object.pointer("/status/used").and_then(|map| map.get(key)).and_then(Value::as_str)
                };
                let shown: Vec<String> = hard
                    .filter(|(key, _)| filter(key))
                    .map(|(key, max)| {
                        format!("{key}: {}/{}", used(key).unwrap_or("0"), max.as_str().unwrap_or(""))
                    })
                    .collect();
                Value::from(shown.join(", "))
            };
            let limits = |key: &str| key.starts_with("limits");
            vec![name(object), pairs(&|key| !limits(key)), pairs(&limits), age(object)]
        }
        ("policy", "PodDisruptionBudget") => {
            let (minimum, maximum): (String, String) =
                (not_available("/spec/minAvailable"), not_available("/spec/maxUnavailable"));
            let allowed = count(object, "/status/disruptionsAllowed");
            vec![name(object), minimum.into(), maximum.into(), allowed, age(object)]
        }
        ("scheduling.k8s.io", "PriorityClass") => vec![
            name(object),
            count(object, "/value"),
            (object["globalDefault"] == true).into(),
            age(object),
            text(object, "/preemptionPolicy").into(),
        ],
        ("coordination.k8s.io", "Lease") => {
            vec![name(object), text(object, "/spec/holderIdentity").into(), age(object)]
        }
        _ => vec![name(object), age(object)],
    }
}
