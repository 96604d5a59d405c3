//! Defaults of pods and pod templates.

use serde_json::{Value, json};

use super::{Object, at, at_some, each, fill_from, put, put_nonzero, text};

/// A pod: a template's defaults and those that only show in pods.
pub(super) fn pod(pod: &mut Object) {
    at(pod, "spec", |spec| {
        self::spec(spec);
        for list in ["containers", "initContainers"] {
            each(spec, list, |container| {
                at_some(container, "resources", |of| fill_from(of, "limits", "requests"))
            });
        }
        put(spec, "enableServiceLinks", true);
    });
}

/// A pod template.
pub(super) fn template(template: &mut Object) {
    at(template, "metadata", |_| ());
    at(template, "spec", spec);
}

fn spec(spec: &mut Object) {
    put(spec, "dnsPolicy", "ClusterFirst");
    put(spec, "restartPolicy", "Always");
    put(spec, "securityContext", json!({}));
    put(spec, "terminationGracePeriodSeconds", 30);
    put(spec, "schedulerName", "default-scheduler");
    mirror_account(spec);
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list, |one| container(one, on_host));
    }
    each(spec, "volumes", volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown.
fn mirror_account(spec: &mut Object) {
    let old = text(spec, "serviceAccount").to_owned();
    if !old.is_empty() {
        put(spec, "serviceAccountName", old);
    }
    let name = text(spec, "serviceAccountName").to_owned();
    if !name.is_empty() {
        spec.insert("serviceAccount".into(), name.into());
    }
}

fn container(container: &mut Object, on_host: bool) {
    let policy = pull_policy(text(container, "image"));
    put(container, "imagePullPolicy", policy);
    put(container, "terminationMessagePath", "/dev/termination-log");
    put(container, "terminationMessagePolicy", "File");
    put(container, "resources", json!({}));
    each(container, "ports", |port| {
        put(port, "protocol", "TCP");
        if on_host {
            let number = port.get("containerPort").cloned().unwrap_or(json!(0));
            put(port, "hostPort", number);
        }
    });
    each(container, "env", |one| at_some(one, "valueFrom", field_reference));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        at_some(container, name, probe);
    }
    at_some(container, "lifecycle", |hooks| {
        for name in ["postStart", "preStop"] {
            at_some(hooks, name, |hook| at_some(hook, "httpGet", http_get));
        }
    });
}

/// `Always` for the tag `latest` or none at all.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':').map(|(_, tag)| tag), digest) {
        (Some("latest"), _) | (None, None) => "Always",
        (Some(_), _) | (None, Some(_)) => "IfNotPresent",
    }
}

fn probe(probe: &mut Object) {
    put_nonzero(probe, "timeoutSeconds", 1);
    put_nonzero(probe, "periodSeconds", 10);
    put_nonzero(probe, "successThreshold", 1);
    put_nonzero(probe, "failureThreshold", 3);
    at_some(probe, "httpGet", http_get);
    at_some(probe, "grpc", |grpc| put(grpc, "service", ""));
}

fn http_get(action: &mut Object) {
    put(action, "path", "/");
    put(action, "scheme", "HTTP");
}

fn field_reference(source: &mut Object) {
    at_some(source, "fieldRef", |field| put(field, "apiVersion", "v1"));
    at_some(source, "resourceFieldRef", |field| put(field, "divisor", "0"));
}

fn volume(volume: &mut Object) {
    let has_source = volume.iter().any(|(name, value)| name != "name" && !value.is_null());
    if !has_source {
        volume.insert("emptyDir".into(), json!({}));
    }
    for name in ["secret", "configMap", "projected", "downwardAPI"] {
        at_some(volume, name, |source| put(source, "defaultMode", 0o644));
    }
    at_some(volume, "hostPath", |source| put(source, "type", ""));
    at_some(volume, "downwardAPI", |source| each(source, "items", field_reference));
    at_some(volume, "projected", |projected| {
        each(projected, "sources", |source| {
            at_some(source, "serviceAccountToken", |token| put(token, "expirationSeconds", 3600));
            at_some(source, "downwardAPI", |api| each(api, "items", field_reference));
        });
    });
    at_some(volume, "ephemeral", |source| {
        at_some(source, "volumeClaimTemplate", |claim| {
            at(claim, "spec", |spec| put(spec, "volumeMode", "Filesystem"))
        });
    });
}
