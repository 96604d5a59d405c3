//! From an order to a pod: adds the launcher, the owner, labels and addresses. Pure.

use api::workflow::label;
use plan::kfp::pod::PYTHON_CACHE;
use plan::order::PodOrder;
use pod_protocol::launch::{self, TaskResultRef};
use serde_json::{Map, Value, json};

use crate::Config;

/// Keeps a pod until its end is in the journal: a pod that vanished unseen would have to run again.
pub const FINALIZER: &str = "workflows.argoproj.io/status";
/// Name of the claim with a namespace's Python environments.
pub const PYTHON_CLAIM: &str = "slipway-python-cache";
/// Where the launcher is.
const LAUNCHER: &str = "/var/run/slipway";
/// Largest launch spec that fits an environment variable, in bytes (the kernel's bound is 128 KiB).
const SPEC_BYTES_MAX: usize = 96 * 1024;

/// Whose pod it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The workflow's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

/// The pod of an order; the error is for the node.
pub fn build_pod(order: &PodOrder, token: u32, owner: &Owner, config: &Config) -> Result<Value, String> {
    let mut spec = order.spec.clone();
    push(&mut spec, "volumes", json!({"name": "slipway", "emptyDir": {}}));
    if order.python_cache {
        push(
            &mut spec,
            "volumes",
            json!({"name": "slipway-python", "persistentVolumeClaim": {"claimName": PYTHON_CLAIM}}),
        );
    }
    let main = main_container(order, owner, config)?;
    let mount = json!([{"name": "slipway", "mountPath": LAUNCHER}]);
    let mut init = vec![json!({
        "name": "init",
        "image": config.pod_image,
        "command": ["pod", "install", format!("{LAUNCHER}/pod")],
        "volumeMounts": mount,
    })];
    init.extend(order.init_containers.iter().cloned());
    let mut containers = vec![Value::Object(main)];
    containers.extend(order.sidecars.iter().cloned());
    spec.insert("initContainers".into(), Value::Array(init));
    spec.insert("containers".into(), Value::Array(containers));
    spec.insert("restartPolicy".into(), json!("Never"));
    if let Some(seconds) = order.deadline_seconds {
        spec.insert("activeDeadlineSeconds".into(), json!(seconds));
    }
    let mut labels = order.labels.clone();
    labels.insert(label::WORKFLOW.into(), owner.name.clone());
    labels.insert(label::COMPLETED.into(), "false".into());
    let mut annotations = order.annotations.clone();
    annotations.insert(label::NODE_ID.into(), order.node_id.clone());
    annotations.insert(label::NODE_NAME.into(), order.node_name.clone());
    annotations.insert(label::ATTEMPT.into(), token.to_string());
    annotations.insert("kubectl.kubernetes.io/default-container".into(), "main".into());
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": order.name,
            "namespace": owner.namespace,
            "labels": labels,
            "annotations": annotations,
            "finalizers": [FINALIZER],
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
    }))
}

/// The reference that makes an object go with its workflow.
pub fn owner_reference(owner: &Owner) -> Value {
    json!({
        "apiVersion": api::workflow::API_VERSION,
        "kind": "Workflow",
        "name": owner.name,
        "uid": owner.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn main_container(order: &PodOrder, owner: &Owner, config: &Config) -> Result<Map<String, Value>, String> {
    let mut launch = order.launch.clone();
    launch.task_result = Some(TaskResultRef {
        name: order.node_id.clone(),
        namespace: owner.namespace.clone(),
        workflow: owner.name.clone(),
        workflow_uid: owner.uid.clone(),
    });
    let text = serde_json::to_string(&launch).map_err(|error| error.to_string())?;
    if text.len() > SPEC_BYTES_MAX {
        return Err(format!(
            "what the launcher must know (script, raw artifacts, file names) is {} bytes, at most {SPEC_BYTES_MAX} fit a pod",
            text.len()
        ));
    }
    let mut main = order.main.clone();
    main.insert("name".into(), json!("main"));
    let mut command = vec![format!("{LAUNCHER}/pod"), "launch".into(), "--".into()];
    command.extend(order.argv.iter().map(|text| if order.literal { escaped(text) } else { text.clone() }));
    main.insert("command".into(), json!(command));
    main.remove("args");
    let given = |main: &Map<String, Value>, name: &str| {
        let env = main.get("env").and_then(Value::as_array);
        env.is_some_and(|env| env.iter().any(|variable| variable["name"] == name))
    };
    push(&mut main, "env", json!({"name": launch::SPEC_ENV, "value": escaped(&text)}));
    for (name, value) in
        [(launch::ARTIFACTS_URL_ENV, &config.artifacts_url), ("MLFLOW_TRACKING_URI", &config.tracking_uri)]
    {
        if !value.is_empty() && !given(&main, name) {
            push(&mut main, "env", json!({"name": name, "value": value}));
        }
    }
    push(&mut main, "volumeMounts", json!({"name": "slipway", "mountPath": LAUNCHER}));
    if order.python_cache {
        push(&mut main, "volumeMounts", json!({"name": "slipway-python", "mountPath": PYTHON_CACHE}));
    }
    Ok(main)
}

/// Kubernetes expands `$(NAME)` in commands and values; resolved texts must arrive as they are.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

fn push(map: &mut Map<String, Value>, list: &str, value: Value) {
    let slot = map.entry(list.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(items) = slot {
        items.push(value);
    }
}
