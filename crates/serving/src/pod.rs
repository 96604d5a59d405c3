//! The predictor's pod: the runtime's container merged with the user's, and the model on a volume.
//!
//! A `pvc://` is mounted as it is, a `file://` too (where allowed); everything else is fetched by the init container
//! `storage-initializer` into an emptyDir, as KServe does it.

use api::serving::resource::{Model, Predictor};
use api::serving::runtime::Runtime;
use api::serving::{CONTAINER, LABEL, MODEL_DIR, PORT, uri};
use serde_json::{Map, Value, json};

use crate::Config;
use crate::flags::Flags;

const VOLUME: &str = "kserve-provision-location";
/// Fields of a predictor (or runtime) that are not the pod's.
const POD_FIELDS: [&str; 28] = [
    "activeDeadlineSeconds",
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostname",
    "imagePullSecrets",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "os",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
];
/// Fields of `model` that are not the container's.
const MODEL_FIELDS: [&str; 3] = ["storage", "confidential", "name"];

/// Name of the predictor's Deployment, Service and autoscaler.
pub(crate) fn predictor_name(service: &str) -> String {
    format!("{service}-predictor")
}

/// Labels that select the predictor's pods.
pub(crate) fn selector(service: &str) -> Value {
    json!({"app": format!("isvc.{}", predictor_name(service))})
}

/// What a pod is made for.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) labels: Map<String, Value>,
    pub(crate) annotations: Map<String, Value>,
    pub(crate) predictor: &'a Predictor,
    pub(crate) runtime: Option<&'a Runtime>,
    /// For the server that the platform brings.
    pub(crate) flags: Flags,
}

/// The pod template.
pub(crate) fn template(wanted: &Wanted<'_>, config: &Config) -> Value {
    let mut spec = Map::new();
    let runtime_spec = wanted.runtime.map(|runtime| &runtime.spec);
    for source in
        [runtime_spec.and_then(Value::as_object), Some(&wanted.predictor.rest)].into_iter().flatten()
    {
        for (key, value) in source.iter().filter(|(key, _)| POD_FIELDS.contains(&key.as_str())) {
            spec.insert(key.clone(), value.clone());
        }
    }
    let mut containers = containers(wanted);
    let mut volumes = list(&runtime_spec.map_or(Value::Null, |spec| spec["volumes"].clone()));
    volumes.extend(list(wanted.predictor.rest.get("volumes").unwrap_or(&Value::Null)));
    let storage = wanted.predictor.model.as_ref().and_then(|model| model.storage_uri.as_deref());
    if let Some(storage) = storage {
        mount_model(storage, &mut containers, &mut volumes, &mut spec, config);
    }
    spec.insert("containers".to_owned(), Value::Array(containers));
    if !volumes.is_empty() {
        spec.insert("volumes".to_owned(), Value::Array(volumes));
    }
    json!({
        "metadata": {"labels": labels(wanted), "annotations": wanted.annotations},
        "spec": spec,
    })
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn labels(wanted: &Wanted<'_>) -> Map<String, Value> {
    let mut labels = wanted.labels.clone();
    labels.insert("app".to_owned(), json!(format!("isvc.{}", predictor_name(wanted.name))));
    labels.insert("component".to_owned(), json!("predictor"));
    labels.insert(LABEL.to_owned(), json!(wanted.name));
    labels
}

/// The serving container first, then sidecars of the runtime and of the user.
fn containers(wanted: &Wanted<'_>) -> Vec<Value> {
    let users = &wanted.predictor.containers;
    let Some((model, runtime)) = wanted.predictor.model.as_ref().zip(wanted.runtime) else {
        return custom(users, &wanted.flags);
    };
    let of_runtime = list(&runtime.spec["containers"]);
    let mut all = Vec::new();
    for container in &of_runtime {
        let rendered = render(container, wanted);
        all.push(if rendered["name"] == CONTAINER { server(rendered, model, wanted) } else { rendered });
    }
    all.extend(users.iter().cloned());
    for container in &mut all {
        let env = json!({"name": "INFERENCE_SERVICE_NAME", "value": wanted.name});
        append(container, "env", vec![env]);
    }
    all
}

/// A predictor of the user's own containers: the one named `kserve-container`, else the first, is the server.
fn custom(users: &[Value], flags: &Flags) -> Vec<Value> {
    let mut all = users.to_vec();
    let named = all.iter().position(|container| container["name"] == CONTAINER).unwrap_or(0);
    if let Some(server) = all.get_mut(named) {
        apply(server, flags);
    }
    if let Some(server) = all.get_mut(named).and_then(Value::as_object_mut) {
        server.insert("name".to_owned(), json!(CONTAINER));
        let port = || json!([{"containerPort": PORT, "protocol": "TCP"}]);
        let first = server.entry("ports").or_insert_with(port)[0]["containerPort"].clone();
        server
            .entry("readinessProbe")
            .or_insert_with(|| json!({"tcpSocket": {"port": first}, "periodSeconds": 1}));
    }
    all
}

fn apply(server: &mut Value, flags: &Flags) {
    append(server, "env", flags.env.clone());
    append(server, "args", flags.args.clone());
}

/// The runtime's container with the user's fields over it. Args are appended, as upstream does; env by name.
fn server(mut container: Value, model: &Model, wanted: &Wanted<'_>) -> Value {
    apply(&mut container, &wanted.flags);
    if let (Some(version), Some(image)) = (&model.runtime_version, container["image"].as_str()) {
        container["image"] = json!(with_tag(image, version));
    }
    for (key, value) in model.container.iter().filter(|(key, _)| !MODEL_FIELDS.contains(&key.as_str())) {
        match key.as_str() {
            "args" | "volumeMounts" => append(&mut container, key, list(value)),
            "env" => merge_env(&mut container, list(value)),
            "resources" => merge_resources(&mut container, value),
            _ => container[key] = value.clone(),
        }
    }
    let fields = container.as_object_mut().expect("a runtime's container is an object");
    fields.entry("ports").or_insert_with(|| json!([{"containerPort": PORT, "protocol": "TCP"}]));
    // Ready means that the model is loaded, which a connection alone does not say.
    let probe = json!({"httpGet": {"path": format!("/v1/models/{}", wanted.name), "port": PORT}, "periodSeconds": 1, "failureThreshold": 3});
    fields.entry("readinessProbe").or_insert(probe);
    container
}

fn with_tag(image: &str, tag: &str) -> String {
    let slash = image.rfind('/').map_or(0, |at| at + 1);
    let name = image[slash..].split([':', '@']).next().unwrap_or_default();
    format!("{}{name}:{tag}", &image[..slash])
}

fn append(container: &mut Value, key: &str, more: Vec<Value>) {
    let mut all = list(&container[key]);
    all.extend(more);
    if !all.is_empty() {
        container[key] = Value::Array(all);
    }
}

fn merge_env(container: &mut Value, users: Vec<Value>) {
    let mut all = list(&container["env"]);
    all.retain(|one| !users.iter().any(|other| other["name"] == one["name"]));
    all.extend(users);
    container["env"] = Value::Array(all);
}

fn merge_resources(container: &mut Value, users: &Value) {
    for side in ["requests", "limits"] {
        for (name, amount) in users[side].as_object().into_iter().flatten() {
            container["resources"][side][name] = amount.clone();
        }
    }
    // A limit below the runtime's own request would make a pod that no API server takes.
    for (name, amount) in users["limits"].as_object().into_iter().flatten() {
        if users["requests"].get(name).is_none() && !container["resources"]["requests"][name].is_null() {
            container["resources"]["requests"][name] = amount.clone();
        }
    }
}

/// `{{.Name}}`, `{{.Namespace}}`, `{{.Labels.x}}` and `{{.Annotations.x}}` of the InferenceService.
fn render(value: &Value, wanted: &Wanted<'_>) -> Value {
    match value {
        Value::String(text) if text.contains("{{") => Value::String(render_text(text, wanted)),
        Value::Array(list) => Value::Array(list.iter().map(|one| render(one, wanted)).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, one)| (key.clone(), render(one, wanted))).collect())
        }
        other => other.clone(),
    }
}

fn render_text(text: &str, wanted: &Wanted<'_>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((inside, tail)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        let of = |map: &Map<String, Value>, key: &str| {
            map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        out.push_str(&match inside.trim() {
            ".Name" => wanted.name.to_owned(),
            ".Namespace" => wanted.namespace.to_owned(),
            other => match (other.strip_prefix(".Labels."), other.strip_prefix(".Annotations.")) {
                (Some(key), _) => of(&wanted.labels, key),
                (_, Some(key)) => of(&wanted.annotations, key),
                _ => String::new(),
            },
        });
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn mount_model(
    storage: &str,
    containers: &mut [Value],
    volumes: &mut Vec<Value>,
    spec: &mut Map<String, Value>,
    config: &Config,
) {
    let mut mount = json!({"name": VOLUME, "mountPath": MODEL_DIR, "readOnly": true});
    if let Some((claim, path)) = uri::claim(storage) {
        volumes
            .push(json!({"name": VOLUME, "persistentVolumeClaim": {"claimName": claim, "readOnly": true}}));
        if !path.is_empty() {
            mount["subPath"] = json!(path);
        }
    } else if let Some(path) = storage.strip_prefix("file://").filter(|_| config.allow_file_uris) {
        volumes.push(json!({"name": VOLUME, "hostPath": {"path": path}}));
    } else {
        volumes.push(json!({"name": VOLUME, "emptyDir": {}}));
        let mut inits = list(spec.get("initContainers").unwrap_or(&Value::Null));
        inits.push(initializer(storage, config));
        spec.insert("initContainers".to_owned(), Value::Array(inits));
    }
    let server = containers.iter_mut().find(|container| container["name"] == CONTAINER);
    if let Some(server) = server {
        append(server, "volumeMounts", vec![mount]);
    }
}

fn initializer(storage: &str, config: &Config) -> Value {
    let given =
        [("SLIPWAY_ARTIFACTS_URL", &config.artifacts_url), ("MLFLOW_TRACKING_URI", &config.tracking_uri)];
    let env: Vec<Value> = given
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({
        "name": "storage-initializer",
        "image": config.storage_initializer,
        "args": [storage, MODEL_DIR],
        "env": env,
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "1Gi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": VOLUME, "mountPath": MODEL_DIR}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::serving::runtime::builtin;

    fn pod(predictor: Value) -> Value {
        let predictor: Predictor = serde_json::from_value(predictor).unwrap();
        let runtimes = builtin();
        let wanted = Wanted {
            name: "iris",
            namespace: "team",
            labels: Map::new(),
            annotations: Map::new(),
            predictor: &predictor,
            runtime: predictor.model.as_ref().map(|_| &runtimes[0]),
            flags: Flags::default(),
        };
        let config = Config { tracking_uri: "http://127.0.0.1:5000".into(), ..Config::default() };
        template(&wanted, &config)["spec"].clone()
    }

    fn model(storage: &str) -> Value {
        json!({"modelFormat": {"name": "sklearn"}, "storageUri": storage})
    }

    #[test]
    fn a_remote_model_is_fetched_by_the_init_container() {
        let spec = pod(json!({"model": model("models:/churn/1")}));
        let init = &spec["initContainers"][0];
        assert_eq!(init["args"], json!(["models:/churn/1", "/mnt/models"]));
        assert_eq!(init["env"], json!([{"name": "MLFLOW_TRACKING_URI", "value": "http://127.0.0.1:5000"}]));
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        let server = &spec["containers"][0];
        assert_eq!(
            server["args"],
            json!(["--model_name=iris", "--model_dir=/mnt/models", "--http_port=8080"])
        );
        assert_eq!(server["volumeMounts"][0]["mountPath"], "/mnt/models");
        assert_eq!(server["readinessProbe"]["httpGet"]["path"], "/v1/models/iris");
    }

    #[test]
    fn a_claim_and_a_file_are_mounted_without_init_container() {
        let spec = pod(json!({"model": model("pvc://model-pvc/a/b")}));
        assert!(spec.get("initContainers").is_none());
        assert_eq!(spec["volumes"][0]["persistentVolumeClaim"]["claimName"], "model-pvc");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["subPath"], "a/b");
        let spec = pod(json!({"model": model("file:///srv/iris")}));
        assert_eq!(spec["volumes"][0]["hostPath"]["path"], "/srv/iris");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["readOnly"], true);
    }

    #[test]
    fn the_users_fields_go_over_the_runtimes() {
        let mut given = model("s3://b/m");
        given["args"] = json!(["--workers=2"]);
        given["runtimeVersion"] = json!("v0.15");
        given["env"] = json!([{"name": "A", "value": "1"}]);
        given["resources"] = json!({"limits": {"cpu": "2", "memory": "32Mi"}});
        let spec = pod(
            json!({"model": given, "serviceAccountName": "sa", "batchSize": 32, "minReplicas": 2, "nodeSelector": {"a": "b"}}),
        );
        let server = &spec["containers"][0];
        assert_eq!(server["image"], "kserve/sklearnserver:v0.15");
        assert_eq!(server["args"].as_array().unwrap().last().unwrap(), "--workers=2");
        assert_eq!(server["resources"]["requests"]["memory"], "32Mi");
        assert_eq!(spec["serviceAccountName"], "sa");
        assert_eq!(spec["nodeSelector"]["a"], "b");
        assert!(spec.get("batchSize").is_none() && spec.get("minReplicas").is_none());
    }

    #[test]
    fn a_custom_container_is_the_server() {
        let spec = pod(json!({"containers": [{"image": "me/server:1", "ports": [{"containerPort": 9000}]}]}));
        let server = &spec["containers"][0];
        assert_eq!(server["name"], "kserve-container");
        assert_eq!(server["readinessProbe"]["tcpSocket"]["port"], 9000);
    }

    #[test]
    fn placeholders_are_filled_and_images_retagged() {
        assert_eq!(with_tag("host:5000/a/b:old", "new"), "host:5000/a/b:new");
        assert_eq!(with_tag("a@sha256:x", "new"), "a:new");
    }
}
