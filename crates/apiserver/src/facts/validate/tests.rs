//! Upstream's validation messages, by table.

use serde_json::{Value, json};

use super::check;
use crate::facts::defaults;

fn findings(group: &str, kind: &str, mut object: Value) -> Vec<String> {
    object["kind"] = kind.into();
    defaults::apply(group, kind, &mut object);
    check(group, kind, &object, None).iter().map(ToString::to_string).collect()
}

fn pod(container: Value) -> Value {
    json!({"spec": {"containers": [container]}})
}

fn deployment() -> Value {
    json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "a", "image": "b"}]}}}})
}

#[test]
fn what_is_right_passes() {
    assert!(findings("apps", "Deployment", deployment()).is_empty());
    let job = json!({"spec": {"selector": {"matchLabels": {"u": "1"}}, "template": {"metadata": {"labels": {"u": "1"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}}});
    assert!(findings("batch", "Job", job).is_empty());
    assert!(
        findings("", "Service", json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}})).is_empty()
    );
}

#[test]
fn a_selector_must_match_its_template() {
    let mut object = deployment();
    object["spec"]["template"]["metadata"]["labels"] = json!({"app": "gpu"});
    assert_eq!(
        findings("apps", "Deployment", object),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"gpu\"}: `selector` does not match template `labels`"
        ]
    );
    let mut object = deployment();
    object["spec"]["selector"] = json!({});
    assert_eq!(
        findings("apps", "Deployment", object),
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
    );
    let mut object = deployment();
    object["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    assert_eq!(
        findings("apps", "Deployment", object),
        ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
    );
}

#[test]
fn common_mistakes_in_pods_are_named_as_upstream_does() {
    let cases = [
        (json!({"name": "a"}), vec!["spec.containers[0].image: Required value"]),
        (json!({"image": "a"}), vec!["spec.containers[0].name: Required value"]),
        (
            json!({"name": "a", "image": "b", "ports": [{"containerPort": 70000}]}),
            vec![
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            json!({"name": "a", "image": "b", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            json!({"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            json!({"name": "a", "image": "b", "livenessProbe": {}}),
            vec!["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
        (
            json!({"name": "a", "image": "b", "imagePullPolicy": "Sometimes"}),
            vec![
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ],
        ),
    ];
    for (container, want) in cases {
        assert_eq!(findings("", "Pod", pod(container.clone())), want, "{container}");
    }
    assert_eq!(findings("", "Pod", json!({"spec": {}})), ["spec.containers: Required value"]);
}

#[test]
fn a_job_needs_a_restart_policy_that_ends() {
    let job = json!({"spec": {"selector": {"matchLabels": {"u": "1"}}, "template": {"metadata": {"labels": {"u": "1"}},
        "spec": {"containers": [{"name": "a", "image": "b"}]}}}});
    assert_eq!(
        findings("batch", "Job", job),
        ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
    );
}

#[test]
fn a_running_pod_keeps_its_spec() {
    let mut old = pod(json!({"name": "a", "image": "b"}));
    defaults::apply("", "Pod", &mut old);
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "c".into();
    assert!(check("", "Pod", &new, Some(&old)).is_empty());
    new["spec"]["containers"][0]["command"] = json!(["x"]);
    let errors = check("", "Pod", &new, Some(&old));
    assert!(
        errors[0].to_string().starts_with("spec: Forbidden: pod updates may not change fields other than")
    );
    let mut bound = old.clone();
    bound["spec"]["nodeName"] = "n".into();
    assert!(check("", "Pod", &bound, Some(&old)).is_empty());
}

#[test]
fn what_may_not_change_does_not() {
    let (mut old, mut new) = (deployment(), deployment());
    defaults::apply("apps", "Deployment", &mut old);
    new["spec"]["selector"] = json!({"matchLabels": {"app": "b"}});
    new["spec"]["template"]["metadata"]["labels"] = json!({"app": "b"});
    defaults::apply("apps", "Deployment", &mut new);
    let errors: Vec<String> =
        check("apps", "Deployment", &new, Some(&old)).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"]
    );
}
