//! The objects of an InferenceService: Deployment, Services, autoscaler, each as the whole it should be.
//!
//! Each carries a digest of what was wanted, so that an unchanged wish is no write. The addresses of the platform's own
//! servers are left out of the digest: a restart on other ports must not restart every model.

use api::serving::resource::Predictor;
use api::serving::{CONTAINER, InferenceService, LABEL, PORT};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::Config;
use crate::pod::{self, Wanted, predictor_name, selector};

/// Annotation with the digest.
pub(crate) const DIGEST: &str = "serving.slipway.dev/wanted";
/// Percent of cpu that the autoscaler aims at.
const CPU_TARGET: i32 = 80;

/// One object that should be there.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// `Deployment`, `Service` or `HorizontalPodAutoscaler`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// All of it.
    pub object: Value,
}

/// Fewest and most replicas, KServe's way: at least one, and the most is never below the fewest.
pub(crate) fn bounds(predictor: &Predictor) -> (i32, i32) {
    let min = predictor.min_replicas.unwrap_or(1).max(1);
    (min, predictor.max_replicas.unwrap_or(min).max(min))
}

/// All objects. `replicas` is what the Deployment has now, which the autoscaler may have chosen.
pub(crate) fn children(
    service: &InferenceService,
    wanted: &Wanted<'_>,
    replicas: Option<i32>,
    config: &Config,
) -> Vec<Child> {
    let (min, max) = bounds(wanted.predictor);
    let mut all = vec![deployment(service, wanted, replicas, config)];
    all.push(http_service(service, &predictor_name(wanted.name), wanted));
    all.push(http_service(service, wanted.name, wanted));
    if min != max {
        all.push(autoscaler(service, wanted, min, max));
    }
    all
}

fn metadata(service: &InferenceService, name: &str, wanted: &Wanted<'_>) -> Value {
    let mut labels = wanted.labels.clone();
    labels.insert("app".to_owned(), selector(wanted.name)["app"].clone());
    labels.insert("component".to_owned(), json!("predictor"));
    labels.insert(LABEL.to_owned(), json!(wanted.name));
    json!({
        "name": name,
        "namespace": wanted.namespace,
        "labels": labels,
        "annotations": wanted.annotations,
        "ownerReferences": [{
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "name": wanted.name,
            "uid": service.metadata.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    })
}

fn child(kind: &'static str, name: &str, mut object: Value, digested: &Value) -> Child {
    let digest = hex::encode(&Sha256::digest(digested.to_string())[..16]);
    object["metadata"]["annotations"][DIGEST] = json!(digest);
    Child { kind, name: name.to_owned(), object }
}

fn deployment(service: &InferenceService, wanted: &Wanted<'_>, now: Option<i32>, config: &Config) -> Child {
    let (min, max) = bounds(wanted.predictor);
    let replicas = if min == max { min } else { now.unwrap_or(min).clamp(min, max) };
    let name = predictor_name(wanted.name);
    let strategy = wanted.predictor.deployment_strategy.clone();
    let build = |config: &Config| {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata(service, &name, wanted),
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": selector(wanted.name)},
                "template": pod::template(wanted, config),
                "strategy": strategy.clone().unwrap_or_else(
                    || json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})),
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
            },
        })
    };
    let without_addresses =
        Config { artifacts_url: String::new(), tracking_uri: String::new(), ..config.clone() };
    child("Deployment", &name, build(config), &build(&without_addresses))
}

/// Port of the server's container.
fn target_port(wanted: &Wanted<'_>, config: &Config) -> Value {
    let template = pod::template(wanted, config);
    let containers = template["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let server = containers.iter().find(|container| container["name"] == CONTAINER);
    let port = server.map(|server| server["ports"][0]["containerPort"].clone()).filter(Value::is_number);
    port.unwrap_or_else(|| json!(PORT))
}

/// Port 80 as KServe, and 8080 beside it: the address that people paste has it.
fn http_service(service: &InferenceService, name: &str, wanted: &Wanted<'_>) -> Child {
    let target = target_port(wanted, &Config::default());
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(service, name, wanted),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(wanted.name),
            "ports": [
                {"name": wanted.name, "port": 80, "targetPort": target, "protocol": "TCP"},
                {"name": "http-8080", "port": 8080, "targetPort": target, "protocol": "TCP"},
            ],
        },
    });
    child("Service", name, object.clone(), &object)
}

fn autoscaler(service: &InferenceService, wanted: &Wanted<'_>, min: i32, max: i32) -> Child {
    let name = predictor_name(wanted.name);
    let metric =
        wanted.predictor.scale_metric.as_deref().filter(|metric| *metric == "memory").unwrap_or("cpu");
    let object = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(service, &name, wanted),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": min,
            "maxReplicas": max,
            "metrics": [{"type": "Resource", "resource": {"name": metric, "target": {
                "type": "Utilization",
                "averageUtilization": wanted.predictor.scale_target.unwrap_or(CPU_TARGET),
            }}}],
        },
    });
    child("HorizontalPodAutoscaler", &name, object.clone(), &object)
}

/// What pods and children inherit: all but what tools write about the object itself.
pub(crate) fn inherited(map: Option<&std::collections::BTreeMap<String, String>>) -> Map<String, Value> {
    let of_tools = |key: &str| {
        key.starts_with("kubectl.kubernetes.io/")
            || key.starts_with("internal.serving.kserve.io/")
            || key == api::serving::STOP_ANNOTATION
    };
    let pairs = map.into_iter().flatten().filter(|(key, _)| !of_tools(key));
    pairs.map(|(key, value)| (key.clone(), json!(value))).collect()
}
