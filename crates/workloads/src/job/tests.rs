//! Laws of the Job controller, by table.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::decide::{INDEX, Plan, Seen, decide};
use super::tally::Tally;

const NOW: &str = "2026-01-01T01:00:00Z";

fn job(spec: Value, status: Value) -> Job {
    let mut job = json!({"metadata": {"name": "j", "namespace": "ns", "uid": "u"}, "status": status,
        "spec": {"completions": 1, "parallelism": 1, "template": {"spec": {"containers": []}}}});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    serde_json::from_value(job).unwrap()
}

fn pod(name: &str, phase: &str) -> Value {
    json!({"metadata": {"name": name, "uid": name}, "status": {"phase": phase}})
}

fn failed(name: &str, at: &str) -> Value {
    let state = json!({"terminated": {"exitCode": 1, "finishedAt": at}});
    json!({"metadata": {"name": name, "uid": name}, "status": {"phase": "Failed", "containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}})
}

fn indexed(name: &str, index: i32, phase: &str) -> Value {
    let mut pod = pod(name, phase);
    pod["metadata"]["annotations"] = json!({INDEX: index.to_string()});
    pod
}

fn plan(job: &Job, pods: &[Value]) -> Plan {
    let now: Timestamp = NOW.parse().unwrap();
    let pods: Vec<Arc<Pod>> =
        pods.iter().map(|pod| Arc::new(serde_json::from_value(pod.clone()).unwrap())).collect();
    let tally = Tally::begin(job, pods.iter().map(AsRef::as_ref), now);
    decide(&Seen { job, pods: &pods, tally: &tally, now })
}

/// Creations, deletions and true conditions with their reasons.
fn check(name: &str, job: &Job, pods: &[Value], create: usize, delete: &[&str], conditions: &[&str]) -> Plan {
    let plan = plan(job, pods);
    assert_eq!(plan.create.len(), create, "{name}: created");
    assert_eq!(plan.delete, delete, "{name}: deleted");
    let found: Vec<String> = plan
        .status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| condition.status == "True")
        .map(|condition| format!("{}:{}", condition.type_, condition.reason.clone().unwrap_or_default()))
        .collect();
    assert_eq!(found, conditions, "{name}: conditions");
    plan
}

#[test]
fn a_job_makes_its_pods_and_completes_when_they_succeed() {
    let one = job(json!({}), json!({}));
    let met = ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"];
    let first = check("new", &one, &[], 1, &[], &[]);
    assert_eq!((first.status.active, first.status.ready), (Some(1), Some(0)));
    assert!(first.status.start_time.is_some());
    check("running", &one, &[pod("a", "Running")], 0, &[], &[]);
    let done = check("done", &one, &[pod("a", "Succeeded")], 0, &[], &met);
    assert_eq!((done.status.succeeded, done.status.active), (Some(1), None));
    assert!(done.status.completion_time.is_some());
    let three = job(json!({"completions": 3, "parallelism": 2}), json!({}));
    check("in two", &three, &[], 2, &[], &[]);
    check("next", &three, &[pod("a", "Succeeded"), pod("b", "Running")], 1, &[], &[]);
    check("last", &three, &[pod("a", "Succeeded"), pod("b", "Succeeded"), pod("c", "Running")], 0, &[], &[]);
}

#[test]
fn a_pod_that_ended_and_was_deleted_stays_counted() {
    let three = job(json!({"completions": 3, "parallelism": 3}), json!({"succeeded": 2}));
    check("two of three are gone", &three, &[], 1, &[], &[]);
}

#[test]
fn failures_are_retried_with_a_growing_pause_until_the_limit() {
    let two = job(json!({"backoffLimit": 2}), json!({}));
    let long_ago = "2026-01-01T00:00:00Z";
    let just_now = "2026-01-01T00:59:58Z";
    check("once", &two, &[failed("a", long_ago)], 1, &[], &[]);
    let waiting = check("pause", &two, &[failed("a", just_now)], 0, &[], &[]);
    assert_eq!(waiting.look_again, Some(Duration::from_secs(8)));
    let twice = check("longer pause", &two, &[failed("a", long_ago), failed("b", just_now)], 0, &[], &[]);
    assert_eq!(twice.look_again, Some(Duration::from_secs(18)));
    let over = [failed("a", long_ago), failed("b", long_ago), failed("c", long_ago)];
    let reasons = ["FailureTarget:BackoffLimitExceeded", "Failed:BackoffLimitExceeded"];
    let plan = check("over", &two, &over, 0, &[], &reasons);
    assert_eq!(plan.status.failed, Some(3));
    let never = job(json!({"backoffLimit": 0}), json!({}));
    check("no retry", &never, &[failed("a", long_ago)], 0, &[], &reasons);
}

#[test]
fn a_failing_job_ends_what_runs_before_it_says_failed() {
    let late = job(json!({"activeDeadlineSeconds": 60}), json!({"startTime": "2026-01-01T00:00:00Z"}));
    check("deadline", &late, &[pod("a", "Running")], 0, &["a"], &["FailureTarget:DeadlineExceeded"]);
    check(
        "over",
        &late,
        &[failed("a", NOW)],
        0,
        &[],
        &["FailureTarget:DeadlineExceeded", "Failed:DeadlineExceeded"],
    );
    let early = job(json!({"activeDeadlineSeconds": 7200}), json!({"startTime": "2026-01-01T00:00:00Z"}));
    let plan = check("in time", &early, &[pod("a", "Running")], 0, &[], &[]);
    assert_eq!(plan.look_again, Some(Duration::from_secs(3600)));
}

#[test]
fn a_suspended_job_has_no_pods_and_no_start() {
    let off = job(json!({"suspend": true}), json!({"startTime": "2026-01-01T00:00:00Z"}));
    let plan = check("suspend", &off, &[pod("a", "Running")], 0, &["a"], &["Suspended:JobSuspended"]);
    assert_eq!(plan.status.start_time, None);
    let conditions = json!({"conditions": [{"type": "Suspended", "status": "True"}]});
    check("resume", &job(json!({}), conditions), &[], 1, &[], &[]);
}

#[test]
fn indexed_jobs_run_each_index_once() {
    let spec = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    let three = job(spec.clone(), json!({}));
    assert_eq!(plan(&three, &[]).create, [Some(0), Some(1), Some(2)]);
    let half = [indexed("a", 0, "Succeeded"), indexed("b", 2, "Running")];
    let next = plan(&three, &half);
    assert_eq!((next.create, next.status.completed_indexes), (vec![Some(1)], Some("0".to_owned())));
    let remembered = job(spec, json!({"completedIndexes": "0,1", "succeeded": 2}));
    assert_eq!(plan(&remembered, &[]).create, [Some(2)]);
    let per_index =
        json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0});
    let pods = [indexed("a", 0, "Failed"), indexed("b", 1, "Succeeded")];
    check(
        "an index failed",
        &job(per_index, json!({})),
        &pods,
        0,
        &[],
        &["FailureTarget:FailedIndexes", "Failed:FailedIndexes"],
    );
}

#[test]
fn a_work_queue_is_done_when_one_succeeded_and_none_runs() {
    let queue = job(json!({"completions": null, "parallelism": 2}), json!({}));
    check("start", &queue, &[], 2, &[], &[]);
    check("one done", &queue, &[pod("a", "Succeeded"), pod("b", "Running")], 0, &[], &[]);
    let met = ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"];
    check("all done", &queue, &[pod("a", "Succeeded"), pod("b", "Succeeded")], 0, &[], &met);
}

#[test]
fn a_finished_job_changes_no_more_and_expires() {
    let ended = json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True", "reason": "r",
        "lastTransitionTime": "2026-01-01T00:59:50Z"}]});
    let keep = job(json!({"ttlSecondsAfterFinished": 20}), ended.clone());
    assert_eq!(plan(&keep, &[]).look_again, Some(Duration::from_secs(10)));
    assert!(plan(&job(json!({"ttlSecondsAfterFinished": 5}), ended.clone()), &[]).expired);
    let plain = job(json!({}), ended);
    assert_eq!(Some(plan(&plain, &[]).status), plain.status);
}

#[test]
fn surplus_pods_go_when_parallelism_shrinks() {
    let spec = json!({"completions": 5, "parallelism": 1});
    check("shrink", &job(spec, json!({})), &[pod("a", "Running"), pod("b", "Pending")], 0, &["b"], &[]);
}
