//! The kinds that make pods, and autoscalers.

use std::collections::BTreeMap;

use serde_json::Value;
use types::selector::{Operator, Requirement, Selector};

use super::{At, Findings, pod};
use crate::names;

const UNMATCHED: &str = "`selector` does not match template `labels`";

/// Reads a LabelSelector; findings for what is malformed.
fn selector(found: &mut Findings, at: &At<'_>) -> Option<Selector> {
    let mut requirements = Vec::new();
    let mut is_good = true;
    for (key, value) in at.child("matchLabels").entries() {
        let labels = at.child("matchLabels");
        let given = |text: &str| Value::String(text.to_owned());
        for problem in names::qualified_name_problems(key) {
            found.invalid(&At { value: &given(key), path: labels.path.clone() }, problem);
            is_good = false;
        }
        if let Some(problem) = names::label_value_problem(value.text()) {
            found.invalid(&At { value: &given(value.text()), path: labels.path.clone() }, problem);
            is_good = false;
        }
        requirements.push(Requirement::equals(key.as_str(), value.text()));
    }
    for one in at.child("matchExpressions").items() {
        let (operator, values) = (one.child("operator"), one.child("values"));
        let count = values.value.as_array().map_or(0, Vec::len);
        let parsed = match operator.text() {
            "In" | "NotIn" if count == 0 => {
                found.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
                None
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                found
                    .forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                None
            }
            "In" => Some(Operator::In),
            "NotIn" => Some(Operator::NotIn),
            "Exists" => Some(Operator::Exists),
            "DoesNotExist" => Some(Operator::DoesNotExist),
            _ => {
                found.invalid(&operator, "not a valid selector operator");
                None
            }
        };
        let Some(operator) = parsed else {
            is_good = false;
            continue;
        };
        let values = values.items().map(|value| value.text().to_owned()).collect();
        requirements.push(Requirement { key: one.child("key").text().to_owned(), operator, values });
    }
    is_good.then(|| Selector::new(requirements))
}

fn template_labels(template: &At<'_>) -> BTreeMap<String, String> {
    let labels = template.child("metadata").child("labels");
    labels.entries().map(|(key, value)| (key.clone(), value.text().to_owned())).collect()
}

fn matches(found: &mut Findings, selector: &Selector, template: &At<'_>) {
    if !selector.is_empty() && !selector.matches(&template_labels(template)) {
        let labels = template.child("metadata").child("labels");
        found.invalid(&labels, UNMATCHED);
    }
}

/// Selector and template of a kind that keeps its pods running.
fn running(found: &mut Findings, spec: &At<'_>, kind: &str, old: Option<&Value>) {
    let at = spec.child("selector");
    let template = spec.child("template");
    let mut parsed = None;
    if at.is_absent() {
        found.required(&at, "");
    } else {
        let is_empty = ["matchLabels", "matchExpressions"].iter().all(|part| {
            let part = at.child(part);
            part.entries().next().is_none() && part.items().next().is_none()
        });
        parsed = selector(found, &at);
        if is_empty {
            found.invalid(&at, format!("empty selector is invalid for {kind}"));
        }
    }
    if let Some(selector) = parsed {
        matches(found, &selector, &template);
    }
    pod::template(found, &template);
    let policy = template.child("spec").child("restartPolicy");
    if ["Never", "OnFailure"].contains(&policy.text()) {
        found.one_of(&policy, &["Always"]);
    }
    let deadline = template.child("spec").child("activeDeadlineSeconds");
    if !deadline.is_absent() {
        found.forbidden(&deadline, "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        found.not_negative(&spec.child(field));
    }
    if let Some(old) = old {
        found.immutable(&at, &old["selector"]);
    }
}

pub(super) fn deployment(found: &mut Findings, spec: &At<'_>, old: Option<&Value>) {
    running(found, spec, "deployment", old);
    let strategy = spec.child("strategy");
    found.one_of(&strategy.child("type"), &["Recreate", "RollingUpdate"]);
    let rolling = strategy.child("rollingUpdate");
    if strategy.child("type").text() == "Recreate" && !rolling.is_absent() {
        found.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
    }
    let is_zero = |name: &str| matches!(rolling.child(name).value, v if v == 0 || v == "0%");
    if is_zero("maxUnavailable") && is_zero("maxSurge") {
        found.invalid(&rolling.child("maxUnavailable"), "may not be 0 when `maxSurge` is 0");
    }
    let deadline = spec.child("progressDeadlineSeconds");
    found.not_negative(&deadline);
    let ready = spec.child("minReadySeconds").int().unwrap_or(0);
    if deadline.int().is_some_and(|seconds| seconds <= ready) {
        found.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

pub(super) fn replica_set(found: &mut Findings, spec: &At<'_>, old: Option<&Value>) {
    running(found, spec, "deployment", old);
}

pub(super) fn daemon_set(found: &mut Findings, spec: &At<'_>, old: Option<&Value>) {
    running(found, spec, "daemonset", old);
    found.one_of(&spec.child("updateStrategy").child("type"), &["OnDelete", "RollingUpdate"]);
}

/// Fields of a StatefulSet that may change.
const STATEFUL_MUTABLE: [&str; 8] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "selector",
];

pub(super) fn stateful_set(found: &mut Findings, spec: &At<'_>, old: Option<&Value>) {
    running(found, spec, "statefulset", None);
    found.one_of(&spec.child("podManagementPolicy"), &["OrderedReady", "Parallel"]);
    let Some(old) = old else { return };
    let frozen = |value: &Value| {
        let mut out = value.as_object().cloned().unwrap_or_default();
        STATEFUL_MUTABLE
            .iter()
            .filter(|field| **field != "selector")
            .for_each(|field| drop(out.shift_remove(*field)));
        out
    };
    if frozen(spec.value) != frozen(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
             forbidden";
        found.forbidden(spec, detail);
    }
}

pub(super) fn replication_controller(found: &mut Findings, spec: &At<'_>) {
    let at = spec.child("selector");
    let template = spec.child("template");
    if at.entries().next().is_none() {
        found.required(&at, "");
    }
    let wanted = at.entries().map(|(key, value)| Requirement::equals(key.as_str(), value.text())).collect();
    matches(found, &Selector::new(wanted), &template);
    pod::template(found, &template);
    found.not_negative(&spec.child("replicas"));
}

pub(super) fn job(found: &mut Findings, spec: &At<'_>, old: Option<&Value>) {
    job_spec(found, spec);
    let at = spec.child("selector");
    if at.is_absent() {
        found.required(&at, "");
    } else if let Some(selector) = selector(found, &at) {
        matches(found, &selector, &spec.child("template"));
    }
    let Some(old) = old else { return };
    let is_indexed = spec.child("completionMode").text() == "Indexed";
    if !is_indexed {
        found.immutable(&spec.child("completions"), old.get("completions").unwrap_or(&Value::Null));
    }
    for field in
        ["selector", "template", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"]
    {
        // A suspended job's template may still be given a place to run.
        let may_change = field == "template" && old["suspend"] == true;
        if !may_change {
            found.immutable(&spec.child(field), old.get(field).unwrap_or(&Value::Null));
        }
    }
}

fn job_spec(found: &mut Findings, spec: &At<'_>) {
    for field in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        found.not_negative(&spec.child(field));
    }
    found.one_of(&spec.child("completionMode"), &["Indexed", "NonIndexed"]);
    if spec.child("completionMode").text() == "Indexed" && spec.child("completions").is_absent() {
        found.required(&spec.child("completions"), "when completion mode is Indexed");
    }
    let template = spec.child("template");
    pod::template(found, &template);
    let policy = template.child("spec").child("restartPolicy");
    if policy.text() == "Always" {
        found.required(&policy, "valid values: \"OnFailure\", \"Never\"");
    }
}

pub(super) fn cron_job(found: &mut Findings, spec: &At<'_>) {
    let schedule = spec.child("schedule");
    if schedule.text().is_empty() {
        found.required(&schedule, "");
    } else if !schedule.text().starts_with('@') {
        let fields: Vec<&str> = schedule.text().split_whitespace().collect();
        if fields.len() != 5 {
            let shown = fields.join(" ");
            found.invalid(&schedule, format!("expected exactly 5 fields, found {}: [{shown}]", fields.len()));
        }
    }
    found.one_of(&spec.child("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
    job_spec(found, &spec.child("jobTemplate").child("spec"));
}

pub(super) fn autoscaler(found: &mut Findings, spec: &At<'_>) {
    let most = spec.child("maxReplicas");
    let least = spec.child("minReplicas");
    if least.int().is_some_and(|count| count < 1) {
        found.invalid(&least, "must be greater than or equal to 1");
    }
    match most.int() {
        Some(count) if count >= 1 => {
            if least.int().is_some_and(|least| least > count) {
                found.invalid(&most, "must be greater than or equal to `minReplicas`");
            }
        }
        _ => found.invalid(&most, "must be greater than 0"),
    }
    let target = spec.child("scaleTargetRef");
    for field in ["kind", "name"] {
        if target.child(field).text().is_empty() {
            found.required(&target.child(field), "");
        }
    }
}
