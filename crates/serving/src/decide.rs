//! From what is seen to what should be: pure, total, tested by table.

use api::serving::resource::Predictor;
use api::serving::runtime::{Refusal, Runtime, choose};
use api::serving::{InferenceService, uri};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use crate::Config;
use crate::children::{Child, children, inherited};
use crate::conditions::{Condition, render};
use crate::flags::flags;
use crate::model_status::{invalid, model_status};
use crate::pod::{Wanted, predictor_name};

/// What was seen of the cluster; it may be stale.
#[derive(Debug, Default, Clone)]
pub struct Observed {
    /// Runtimes of the namespace and of the cluster, built-in ones included.
    pub runtimes: Vec<Runtime>,
    /// The predictor's Deployment.
    pub deployment: Option<Deployment>,
    /// The predictor's pods.
    pub pods: Vec<Pod>,
}

/// What should be there, and what the status is.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Objects as they should be; any other of the InferenceService's goes.
    pub children: Vec<Child>,
    /// `status`, whole.
    pub status: Value,
}

/// Decides. `now` is RFC 3339.
pub fn decide(service: &InferenceService, seen: &Observed, config: &Config, now: &str) -> Decision {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    if service.is_stopped() {
        return Decision {
            children: Vec::new(),
            status: status(service, config, stopped(), None, None, now),
        };
    }
    let predictor = match check(service, config) {
        Ok(predictor) => predictor,
        Err(refusal) => return refused(service, config, &refusal, now),
    };
    let runtime = match predictor.model.as_ref().map(|model| choose(model, &seen.runtimes)).transpose() {
        Ok(runtime) => runtime,
        Err(refusal) => return refused(service, config, &refusal, now),
    };
    let flags = match flags(name, &predictor, runtime, config) {
        Ok(flags) => flags,
        Err(refusal) => return refused(service, config, &refusal, now),
    };
    let mut labels = inherited(service.metadata.labels.as_ref());
    labels.extend(predictor.labels.clone());
    let mut annotations: Map<String, Value> = Map::new();
    if let Some(own) = runtime.and_then(|runtime| runtime.spec["annotations"].as_object()) {
        annotations.extend(own.clone());
    }
    annotations.extend(inherited(service.metadata.annotations.as_ref()));
    annotations.extend(predictor.annotations.clone());
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let wanted = Wanted { name, namespace, labels, annotations, predictor: &predictor, runtime, flags };
    let replicas = seen.deployment.as_ref().and_then(|one| one.spec.as_ref()).and_then(|spec| spec.replicas);
    let pods: Vec<&Pod> = seen.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    let conditions = running(name, seen.deployment.as_ref());
    Decision {
        children: children(service, &wanted, replicas, config),
        status: status(service, config, conditions, runtime, Some(model_status(&pods)), now),
    }
}

/// The predictor, or why it cannot be served here.
fn check(service: &InferenceService, config: &Config) -> Result<Predictor, Refusal> {
    let refuse = |message: String| Refusal { reason: "InvalidPredictorSpec", message };
    let predictor = service.predictor().map_err(|error| refuse(format!("spec.predictor: {error}")))?;
    for component in ["transformer", "explainer", "canary"] {
        let given = service.spec.get(component).filter(|value| !value.is_null() && **value != json!([]));
        if given.is_some() {
            return Err(refuse(format!(
                "spec.{component} is not served by this platform yet; remove it to serve the predictor"
            )));
        }
    }
    // The API checks this too; objects that were stored before it did, or past it, are no way around.
    let storage = predictor.model.as_ref().and_then(|model| model.storage_uri.as_deref());
    if let Some(detail) = storage.and_then(uri::problem) {
        return Err(refuse(format!("spec.predictor.model.storageUri: {detail}")));
    }
    if storage.is_some_and(|storage| storage.starts_with("file:")) && !config.allow_file_uris {
        return Err(refuse(
            "spec.predictor.model.storageUri: file:// models are served on the embedded node only".to_owned(),
        ));
    }
    Ok(predictor)
}

fn refused(service: &InferenceService, config: &Config, refusal: &Refusal, now: &str) -> Decision {
    let why = |kind| Condition::new(kind, "False").why(refusal.reason, refusal.message.clone());
    let not_created = Condition::new("IngressReady", "False").why("Predictor ingress not created", "");
    let conditions =
        vec![why("PredictorReady"), not_created, why("Ready"), Condition::new("Stopped", "False")];
    let model = invalid(refusal.reason, &refusal.message);
    Decision { children: Vec::new(), status: status(service, config, conditions, None, Some(model), now) }
}

fn stopped() -> Vec<Condition> {
    let why = |kind| Condition::new(kind, "False").why("Stopped", "");
    vec![why("PredictorReady"), why("IngressReady"), why("Ready"), Condition::new("Stopped", "True")]
}

/// Conditions of a predictor that has, or will have, a Deployment.
fn running(name: &str, deployment: Option<&Deployment>) -> Vec<Condition> {
    let predictor = predictor_ready(deployment);
    let (ingress, ready) = if predictor.status == "True" {
        (Condition::new("IngressReady", "True"), Condition::new("Ready", "True"))
    } else {
        let ready = Condition::new("Ready", predictor.status)
            .why(predictor.reason.clone(), predictor.message.clone());
        let message = format!("waiting for {}", predictor_name(name));
        (Condition::new("IngressReady", "False").why("Predictor ingress not created", message), ready)
    };
    vec![predictor, ingress, ready, Condition::new("Stopped", "False")]
}

fn predictor_ready(deployment: Option<&Deployment>) -> Condition {
    let kind = "PredictorReady";
    let Some(deployment) = deployment else {
        return Condition::new(kind, "Unknown").why("DeploymentPending", "the Deployment is not there yet");
    };
    let status = deployment.status.clone().unwrap_or_default();
    // A status about an older spec says nothing about this one.
    if status.observed_generation < deployment.metadata.generation {
        return Condition::new(kind, "Unknown")
            .why("DeploymentPending", "the Deployment's new spec is not seen yet");
    }
    let conditions = status.conditions.unwrap_or_default();
    let find = |name: &str| conditions.iter().find(|one| one.type_ == name);
    let words = |one: &k8s_openapi::api::apps::v1::DeploymentCondition| {
        (one.reason.clone().unwrap_or_default(), one.message.clone().unwrap_or_default())
    };
    match find("Available") {
        Some(available) if available.status == "True" => Condition::new(kind, "True"),
        available => {
            let failure = find("ReplicaFailure").filter(|one| one.status == "True");
            let stuck = find("Progressing").filter(|one| one.status == "False");
            let (reason, message) = failure.or(stuck).or(available).map(words).unwrap_or_default();
            Condition::new(kind, "False").why(reason, message)
        }
    }
}

fn status(
    service: &InferenceService,
    config: &Config,
    conditions: Vec<Condition>,
    runtime: Option<&Runtime>,
    model: Option<Value>,
    now: &str,
) -> Value {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let is_ready = conditions.iter().any(|one| one.kind == "Ready" && one.status == "True");
    let predictor = predictor_name(name);
    let mut status = json!({
        "observedGeneration": service.metadata.generation,
        "deploymentMode": "Standard",
        "conditions": render(&conditions, &service.status["conditions"], now),
        "components": {"predictor": {"url": format!("http://{predictor}-{namespace}.{}", config.domain)}},
    });
    if let Some(model) = model {
        status["modelStatus"] = model;
    }
    if let Some(runtime) = runtime {
        let key = if runtime.namespaced { "servingRuntimeName" } else { "clusterServingRuntimeName" };
        status[key] = json!(runtime.name);
    }
    // Upstream gives the addresses with the ingress and keeps them; before that there is nobody to answer.
    if is_ready || !service.status["url"].is_null() {
        status["url"] = json!(format!("http://{name}-{namespace}.{}", config.domain));
        status["address"] = json!({"url": format!("http://{predictor}.{namespace}.svc.cluster.local")});
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::serving::runtime::builtin;

    fn service(spec: Value) -> InferenceService {
        serde_json::from_value(json!({
            "metadata": {"name": "iris", "namespace": "team", "uid": "u", "generation": 3},
            "spec": {"predictor": spec},
        }))
        .unwrap()
    }

    fn sklearn() -> Value {
        json!({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "models:/iris/1"}})
    }

    fn run(service: &InferenceService, deployment: Option<Value>) -> Decision {
        let deployment = deployment.map(|value| serde_json::from_value(value).unwrap());
        let seen = Observed { runtimes: builtin(), deployment, pods: Vec::new() };
        decide(service, &seen, &Config::default(), "2026-01-01T00:00:00Z")
    }

    fn deployed(available: &str) -> Value {
        json!({"metadata": {"generation": 1}, "spec": {"replicas": 2, "selector": {}, "template": {}},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Available", "status": available, "reason": "R", "message": "M"}]}})
    }

    fn condition(decision: &Decision, kind: &str) -> Value {
        decision.status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["type"] == kind)
            .unwrap()
            .clone()
    }

    fn names(decision: &Decision) -> Vec<String> {
        decision.children.iter().map(|child| format!("{} {}", child.kind, child.name)).collect()
    }

    #[test]
    fn a_model_gets_a_deployment_and_two_services() {
        let decision = run(&service(sklearn()), None);
        assert_eq!(names(&decision), ["Deployment iris-predictor", "Service iris-predictor", "Service iris"]);
        let ports = &decision.children[2].object["spec"]["ports"];
        assert_eq!(
            (&ports[0]["port"], &ports[1]["port"], &ports[1]["targetPort"]),
            (&json!(80), &json!(8080), &json!(8080))
        );
        assert_eq!(condition(&decision, "PredictorReady")["status"], "Unknown");
        assert_eq!(decision.status["clusterServingRuntimeName"], "kserve-sklearnserver");
        assert!(decision.status.get("url").is_none());
    }

    #[test]
    fn ready_follows_the_deployment() {
        let up = run(&service(sklearn()), Some(deployed("True")));
        assert_eq!(condition(&up, "Ready")["status"], "True");
        assert_eq!(up.status["url"], "http://iris-team.example.com");
        assert_eq!(up.status["address"]["url"], "http://iris-predictor.team.svc.cluster.local");
        let down = run(&service(sklearn()), Some(deployed("False")));
        assert_eq!(condition(&down, "Ready")["reason"], "R");
        assert_eq!(condition(&down, "IngressReady")["reason"], "Predictor ingress not created");
        let mut stale = deployed("True");
        stale["metadata"]["generation"] = json!(2);
        assert_eq!(condition(&run(&service(sklearn()), Some(stale)), "Ready")["status"], "Unknown");
    }

    #[test]
    fn an_autoscaler_is_there_only_for_a_range() {
        let mut spec = sklearn();
        spec["minReplicas"] = json!(2);
        assert_eq!(run(&service(spec.clone()), None).children[0].object["spec"]["replicas"], 2);
        spec["maxReplicas"] = json!(5);
        let decision = run(&service(spec), Some(deployed("True")));
        assert_eq!(decision.children[3].kind, "HorizontalPodAutoscaler");
        assert_eq!(decision.children[3].object["spec"]["maxReplicas"], 5);
    }

    #[test]
    fn what_cannot_be_served_says_why_and_leaves_nothing() {
        let table = [
            (json!({"model": {"modelFormat": {"name": "pytorch"}}}), "NoSupportingRuntime", "pytorch"),
            (
                json!({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/../x"}}),
                "InvalidPredictorSpec",
                "s3://b/../x",
            ),
            (json!({"model": 5}), "InvalidPredictorSpec", "spec.predictor"),
        ];
        for (spec, reason, text) in table {
            let decision = run(&service(spec.clone()), None);
            assert!(decision.children.is_empty(), "{spec}");
            assert_eq!(condition(&decision, "PredictorReady")["reason"], reason, "{spec}");
            assert!(condition(&decision, "Ready")["message"].as_str().unwrap().contains(text), "{spec}");
            assert_eq!(decision.status["modelStatus"]["transitionStatus"], "InvalidSpec");
        }
        let mut with_transformer = service(sklearn());
        with_transformer.spec["transformer"] = json!({"containers": []});
        assert!(run(&with_transformer, None).children.is_empty());
    }

    #[test]
    fn a_batcher_and_a_logger_become_flags_of_the_server() {
        let mut spec = sklearn();
        spec["model"]["args"] = json!(["--workers=2"]);
        spec["batcher"] = json!({"maxBatchSize": 8, "maxLatency": 20});
        spec["logger"] = json!({"url": "http://log", "mode": "all"});
        let decision = run(&service(spec), None);
        let pod = &decision.children[0].object["spec"]["template"]["spec"];
        let server = &pod["containers"][0];
        let args: Vec<&str> = server["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for arg in
            ["--max_batch_size=8", "--batch_timeout_micros=20000", "--log_url=http://log", "--workers=2"]
        {
            assert!(args.contains(&arg), "{arg} in {args:?}");
        }
        let names: Vec<&str> =
            server["env"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        assert!(names.contains(&"POD_NAME") && names.contains(&"POD_NAMESPACE"), "{names:?}");
        assert!(pod.get("batcher").is_none() && pod.get("logger").is_none());
        let mut wrong = sklearn();
        wrong["logger"] = json!({"mode": "all"});
        let refused = run(&service(wrong), None);
        assert!(refused.children.is_empty());
        let why = condition(&refused, "Ready")["message"].as_str().unwrap().to_owned();
        assert!(why.contains("spec.predictor.logger.url"), "{why}");
    }

    #[test]
    fn stopping_takes_everything_away() {
        let mut given = service(sklearn());
        given.metadata.annotations =
            Some([(api::serving::STOP_ANNOTATION.to_owned(), "true".to_owned())].into());
        let decision = run(&given, Some(deployed("True")));
        assert!(decision.children.is_empty());
        assert_eq!(condition(&decision, "Stopped")["status"], "True");
        assert_eq!(condition(&decision, "Ready")["reason"], "Stopped");
    }

    #[test]
    fn deciding_again_changes_nothing_and_other_ports_restart_nothing() {
        let given = service(sklearn());
        assert_eq!(run(&given, None), run(&given, None));
        let seen = Observed { runtimes: builtin(), ..Observed::default() };
        let digest = |tracking: &str| {
            let config = Config { tracking_uri: tracking.into(), ..Config::default() };
            let decision = decide(&given, &seen, &config, "t");
            decision.children[0].object["metadata"]["annotations"][crate::children::DIGEST].clone()
        };
        assert_eq!(digest("http://127.0.0.1:5000"), digest("http://127.0.0.1:6000"));
    }
}
