//! Defaults of the kinds that make pods, and of claims and autoscalers.

use serde_json::{Value, json};

use super::{Object, at, at_some, each, pod, put, text};

pub(super) fn deployment(spec: &mut Object) {
    put(spec, "replicas", 1);
    put(spec, "revisionHistoryLimit", 10);
    put(spec, "progressDeadlineSeconds", 600);
    at(spec, "strategy", |strategy| {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            at(strategy, "rollingUpdate", |rolling| {
                put(rolling, "maxUnavailable", "25%");
                put(rolling, "maxSurge", "25%");
            });
        }
    });
    at(spec, "template", pod::template);
}

pub(super) fn replica_set(spec: &mut Object) {
    put(spec, "replicas", 1);
    at(spec, "template", pod::template);
}

pub(super) fn stateful_set(spec: &mut Object) {
    put(spec, "replicas", 1);
    put(spec, "revisionHistoryLimit", 10);
    put(spec, "podManagementPolicy", "OrderedReady");
    at(spec, "updateStrategy", |strategy| {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            at(strategy, "rollingUpdate", |rolling| put(rolling, "partition", 0));
        }
    });
    at(spec, "persistentVolumeClaimRetentionPolicy", |policy| {
        put(policy, "whenDeleted", "Retain");
        put(policy, "whenScaled", "Retain");
    });
    at(spec, "template", pod::template);
    each(spec, "volumeClaimTemplates", |template| {
        put(template, "apiVersion", "v1");
        put(template, "kind", "PersistentVolumeClaim");
        claim(template);
        at(template, "status", |status| put(status, "phase", "Pending"));
    });
}

pub(super) fn daemon_set(spec: &mut Object) {
    put(spec, "revisionHistoryLimit", 10);
    at(spec, "updateStrategy", |strategy| {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            at(strategy, "rollingUpdate", |rolling| {
                put(rolling, "maxUnavailable", 1);
                put(rolling, "maxSurge", 0);
            });
        }
    });
    at(spec, "template", pod::template);
}

pub(super) fn replication_controller(map: &mut Object) {
    let labels = map.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty())) {
        at(map, "metadata", |metadata| put(metadata, "labels", labels.clone()));
        at(map, "spec", |spec| put(spec, "selector", labels));
    }
    at(map, "spec", replica_set);
}

pub(super) fn job(map: &mut Object) {
    let labels = map.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels")).cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|l| !l.is_empty())) {
        at(map, "metadata", |metadata| {
            if metadata.get("labels").and_then(Value::as_object).is_none_or(|l| l.is_empty()) {
                metadata.insert("labels".into(), labels);
            }
        });
    }
    at(map, "spec", job_spec);
}

fn job_spec(spec: &mut Object) {
    if spec.get("parallelism").is_none_or(Value::is_null) {
        put(spec, "completions", 1);
    }
    // Completions alone, or neither: one pod at a time.
    put(spec, "parallelism", 1);
    let by_index = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
    put(spec, "backoffLimit", if by_index { i32::MAX } else { 6 });
    put(spec, "completionMode", "NonIndexed");
    put(spec, "suspend", false);
    let by_policy = spec.get("podFailurePolicy").is_some_and(|policy| !policy.is_null());
    put(spec, "podReplacementPolicy", if by_policy { "Failed" } else { "TerminatingOrFailed" });
    put(spec, "manualSelector", false);
    at_some(spec, "podFailurePolicy", |policy| {
        each(policy, "rules", |rule| each(rule, "onPodConditions", |pattern| put(pattern, "status", "True")));
    });
    at(spec, "template", pod::template);
}

pub(super) fn cron_job(spec: &mut Object) {
    put(spec, "concurrencyPolicy", "Allow");
    put(spec, "suspend", false);
    put(spec, "successfulJobsHistoryLimit", 3);
    put(spec, "failedJobsHistoryLimit", 1);
    // The Job's own defaults come when it is made; its pods' show here already.
    at(spec, "jobTemplate", |template| {
        at(template, "metadata", |_| ());
        at(template, "spec", |job| at(job, "template", pod::template));
    });
}

pub(super) fn claim(map: &mut Object) {
    at(map, "spec", |spec| put(spec, "volumeMode", "Filesystem"));
}

pub(super) fn autoscaler(spec: &mut Object) {
    put(spec, "minReplicas", 1);
    let has_metrics =
        spec.get("metrics").and_then(Value::as_array).is_some_and(|metrics| !metrics.is_empty());
    if !has_metrics {
        let cpu = json!([{ "type": "Resource", "resource": {
            "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } } }]);
        spec.insert("metrics".into(), cpu);
    }
    at_some(spec, "behavior", |behavior| {
        at(behavior, "scaleUp", |rules| {
            put(rules, "stabilizationWindowSeconds", 0);
            put(rules, "selectPolicy", "Max");
            let policies = json!([{ "type": "Pods", "value": 4, "periodSeconds": 15 },
                { "type": "Percent", "value": 100, "periodSeconds": 15 }]);
            put(rules, "policies", policies);
        });
        at(behavior, "scaleDown", |rules| {
            put(rules, "selectPolicy", "Max");
            put(rules, "policies", json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }]));
        });
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::apply;

    fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
        apply(group, kind, &mut object);
        let mut again = object.clone();
        apply(group, kind, &mut again);
        assert_eq!(again, object, "{kind}: defaults twice change nothing");
        object
    }

    #[test]
    fn a_deployment_gets_what_the_real_server_gives() {
        let object = json!({"spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "a",
            "image": "x/y:1", "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": 80}}}]}}}});
        let spec = defaulted("apps", "Deployment", object)["spec"].take();
        assert_eq!((&spec["replicas"], &spec["progressDeadlineSeconds"]), (&json!(1), &json!(600)));
        assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxUnavailable": "25%", "maxSurge": "25%"}));
        let pod = &spec["template"]["spec"];
        assert!(pod.get("enableServiceLinks").is_none(), "only pods show it");
        let container = &pod["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        let cases = [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("r:5000/a", "Always"),
            ("r:5000/a:1", "IfNotPresent"),
            ("a@sha256:00", "IfNotPresent"),
        ];
        for (image, want) in cases {
            let pod = defaulted("", "Pod", json!({"spec": {"containers": [{"image": image}]}}));
            assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], want, "{image}");
        }
    }

    #[test]
    fn jobs_and_pods_and_services_are_completed() {
        let job =
            defaulted("batch", "Job", json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}));
        assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
        let spec = &job["spec"];
        assert_eq!((&spec["completions"], &spec["backoffLimit"]), (&json!(1), &json!(6)));
        let queue = defaulted("batch", "Job", json!({"spec": {"parallelism": 2}}));
        assert!(queue["spec"].get("completions").is_none());
        let pod = defaulted(
            "",
            "Pod",
            json!({"spec": {"serviceAccountName": "x", "volumes": [{"name": "v"}],
            "containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]}}),
        );
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["requests"],
            json!({"cpu": "500m", "memory": "1Gi"})
        );
        assert_eq!(
            (&pod["spec"]["serviceAccount"], &pod["spec"]["volumes"][0]["emptyDir"]),
            (&json!("x"), &json!({}))
        );
        let service = defaulted("", "Service", json!({"spec": {"ports": [{"port": 80}]}}));
        assert_eq!(service["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
        assert_eq!(service["spec"]["internalTrafficPolicy"], "Cluster");
    }
}
