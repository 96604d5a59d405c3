//! Pods and pod templates.

use serde_json::Value;
use types::quantity::Quantity;

use super::{At, Findings, port_name_problems};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// A pod template: its labels and its pod.
pub(super) fn template(found: &mut Findings, template: &At<'_>) {
    found.labels(&template.child("metadata").child("labels"));
    spec(found, &template.child("spec"));
}

/// A pod's spec.
pub(super) fn spec(found: &mut Findings, spec: &At<'_>) {
    let volumes = spec.child("volumes");
    check_volumes(found, &volumes);
    let names: Vec<&str> = volumes.items().map(|volume| volume.child("name").text()).collect();
    let containers = spec.child("containers");
    if containers.items().next().is_none() {
        found.required(&containers, "");
    }
    for one in containers.items() {
        container(found, &one, &names);
        for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
            probe(found, &one.child(name), name);
        }
    }
    let init = spec.child("initContainers");
    for one in init.items() {
        container(found, &one, &names);
        let sidecar = one.child("restartPolicy").text() == "Always";
        for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let at = one.child(name);
            if !sidecar && !at.is_absent() {
                found.forbidden(&at, "may not be set for init containers without restartPolicy=Always");
            }
        }
    }
    found.unique(init.items().chain(containers.items()).map(|one| one.child("name")));
    found.one_of(&spec.child("restartPolicy"), &["Always", "Never", "OnFailure"]);
    found.one_of(&spec.child("dnsPolicy"), &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    let grace = spec.child("terminationGracePeriodSeconds");
    found.not_negative(&grace);
    let deadline = spec.child("activeDeadlineSeconds");
    if deadline.int().is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n)) {
        found.invalid(&deadline, "must be between 1 and 2147483647, inclusive");
    }
    found.labels(&spec.child("nodeSelector"));
    subdomain(found, &spec.child("serviceAccountName"));
    subdomain(found, &spec.child("nodeName"));
}

fn subdomain(found: &mut Findings, at: &At<'_>) {
    if !at.text().is_empty() {
        for problem in crate::names::subdomain_problems(at.text()) {
            found.invalid(at, problem);
        }
    }
}

fn check_volumes(found: &mut Findings, volumes: &At<'_>) {
    found.unique(volumes.items().map(|volume| volume.child("name")));
    for volume in volumes.items() {
        let name = volume.child("name");
        if name.text().is_empty() {
            found.required(&name, "");
        } else {
            found.label_name(&name);
        }
        let sources = volume.value.as_object().into_iter().flatten();
        let mut sources =
            sources.filter(|(name, value)| *name != "name" && !value.is_null()).map(|(name, _)| name);
        sources.next();
        for second in sources {
            found.forbidden(&volume.child(second), "may not specify more than 1 volume type");
        }
        for (source, field) in
            [("persistentVolumeClaim", "claimName"), ("hostPath", "path"), ("secret", "secretName")]
        {
            let at = volume.child(source);
            if !at.is_absent() && at.child(field).text().is_empty() {
                found.required(&at.child(field), "");
            }
        }
        let config = volume.child("configMap");
        if !config.is_absent() && config.child("name").text().is_empty() {
            found.required(&config.child("name"), "");
        }
    }
}

fn container(found: &mut Findings, one: &At<'_>, volumes: &[&str]) {
    let name = one.child("name");
    if name.text().is_empty() {
        found.required(&name, "");
    } else {
        found.label_name(&name);
    }
    if one.child("image").text().is_empty() {
        found.required(&one.child("image"), "");
    }
    found.one_of(&one.child("imagePullPolicy"), &["Always", "IfNotPresent", "Never"]);
    found.one_of(&one.child("terminationMessagePolicy"), &["FallbackToLogsOnError", "File"]);
    ports(found, &one.child("ports"));
    environment(found, one);
    mounts(found, &one.child("volumeMounts"), volumes);
    resources(found, &one.child("resources"));
}

fn ports(found: &mut Findings, ports: &At<'_>) {
    found.unique(ports.items().map(|port| port.child("name")));
    for port in ports.items() {
        let name = port.child("name");
        if !name.text().is_empty() {
            for problem in port_name_problems(name.text()) {
                found.invalid(&name, problem);
            }
        }
        let number = port.child("containerPort");
        match number.int() {
            None | Some(0) => found.required(&number, ""),
            Some(_) => found.port(&number),
        }
        let host = port.child("hostPort");
        if host.int().is_some_and(|number| number != 0) {
            found.port(&host);
        }
        found.one_of(&port.child("protocol"), PROTOCOLS);
    }
}

fn environment(found: &mut Findings, one: &At<'_>) {
    for variable in one.child("env").items() {
        let name = variable.child("name");
        if name.text().is_empty() {
            found.required(&name, "");
        } else if name.text().contains('=') || !name.text().bytes().all(|c| (0x20..0x7f).contains(&c)) {
            found.invalid(
                &name,
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            );
        }
        let from = variable.child("valueFrom");
        if from.is_absent() {
            continue;
        }
        if !variable.child("value").text().is_empty() {
            found.invalid(
                &At { value: &Value::String(String::new()), path: from.path.clone() },
                "may not be specified when `value` is not empty",
            );
        }
        let count =
            from.value.as_object().map_or(0, |map| map.values().filter(|value| !value.is_null()).count());
        let empty = At { value: &Value::String(String::new()), path: from.path.clone() };
        match count {
            0 => found.invalid(
                &empty,
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ),
            1 => {}
            _ => found.invalid(&empty, "may not have more than one field specified at a time"),
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            let at = from.child(source);
            if !at.is_absent() && at.child("key").text().is_empty() {
                found.required(&at.child("key"), "");
            }
        }
    }
}

fn mounts(found: &mut Findings, mounts: &At<'_>, volumes: &[&str]) {
    let mut paths = Vec::new();
    for mount in mounts.items() {
        let name = mount.child("name");
        if name.text().is_empty() {
            found.required(&name, "");
        } else if !volumes.contains(&name.text()) {
            found.not_found(&name);
        }
        let path = mount.child("mountPath");
        if path.text().is_empty() {
            found.required(&path, "");
        } else if paths.contains(&path.text()) {
            found.invalid(&path, "must be unique");
        }
        paths.push(path.text());
        for field in ["subPath", "subPathExpr"] {
            let at = mount.child(field);
            if at.text().starts_with('/') {
                found.invalid(&at, "must be a relative path");
            } else if at.text().split('/').any(|part| part == "..") {
                found.invalid(&at, "must not contain '..'");
            }
        }
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn resources(found: &mut Findings, resources: &At<'_>) {
    let limits = resources.child("limits");
    for kind in ["limits", "requests"] {
        for (name, at) in resources.child(kind).entries() {
            match quantity(at.value) {
                None => found.invalid(&at, super::super::fields::QUANTITY_ERROR),
                Some(amount) if amount.is_negative() => {
                    found.invalid(&at, "must be greater than or equal to 0")
                }
                Some(_) => {}
            }
            let known = ["cpu", "memory", "ephemeral-storage", "storage"].contains(&name.as_str());
            if !known && !name.contains('/') && !name.starts_with("hugepages-") {
                let text = Value::String(name.clone());
                let named = At { value: &text, path: at.path.clone() };
                found.invalid(&named, "must be a standard resource type or fully qualified");
                found.invalid(&named, "must be a standard resource for containers");
            }
        }
    }
    for (name, at) in resources.child("requests").entries() {
        let limit = limits.child(name);
        let (Some(request), Some(most)) = (quantity(at.value), quantity(limit.value)) else { continue };
        // Extended resources cannot be overcommitted.
        if name.contains('/') && request != most {
            let at = At { value: at.value, path: resources.child("requests").path };
            found.invalid(&at, format!("must be equal to {name} limit of {most}"));
        } else if request > most {
            let at = At { value: at.value, path: resources.child("requests").path };
            found.invalid(&at, format!("must be less than or equal to {name} limit of {most}"));
        }
    }
}

fn probe(found: &mut Findings, probe: &At<'_>, name: &str) {
    if probe.is_absent() {
        return;
    }
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
    let mut given = handlers.iter().filter(|handler| !probe.child(handler).is_absent());
    if given.next().is_none() {
        found.required(probe, "must specify a handler type");
    }
    for second in given {
        found.forbidden(&probe.child(second), "may not specify more than 1 handler type");
    }
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        found.not_negative(&probe.child(field));
    }
    let successes = probe.child("successThreshold");
    if name != "readinessProbe" && successes.int().is_some_and(|count| count > 1) {
        found.invalid(&successes, "must be 1");
    }
}

/// Fields of a running pod that may change.
const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What an update may not change.
pub(super) fn update(found: &mut Findings, spec: &At<'_>, old: &Value) {
    for list in ["containers", "initContainers"] {
        let at = spec.child(list);
        let count = |value: &Value| value.as_array().map_or(0, Vec::len);
        if count(at.value) != count(&old[list]) {
            found.forbidden(&at, "pod updates may not add or remove containers");
            return;
        }
    }
    if frozen(spec.value) != frozen(old) && !only_binds(spec.value, old) {
        found.forbidden(spec, MUTABLE);
    }
}

/// The scheduler's write: a node for a pod that had none.
fn only_binds(new: &Value, old: &Value) -> bool {
    let had_none = old["nodeName"].as_str().unwrap_or_default().is_empty();
    let mut bound = old.clone();
    bound["nodeName"] = new["nodeName"].clone();
    had_none && frozen(&bound) == frozen(new)
}

/// The spec without the fields that may change.
fn frozen(spec: &Value) -> Value {
    let mut out = spec.clone();
    let Some(map) = out.as_object_mut() else { return out };
    for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"]
    {
        map.shift_remove(field);
    }
    for list in ["containers", "initContainers"] {
        for container in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.shift_remove("image");
            }
        }
    }
    out
}
