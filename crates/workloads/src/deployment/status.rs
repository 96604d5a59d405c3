//! What a Deployment's status says: counts, and the conditions `Available` and `Progressing` in upstream's words. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use kube::ResourceExt;

use super::decide::{Set, Wanted, is_complete};
use crate::objects::time;

/// Upstream's default of `progressDeadlineSeconds`.
const DEADLINE_SECONDS: i32 = 600;

/// The status and, while a rollout runs, when its deadline ends.
pub fn status(
    deployment: &Deployment,
    wanted: &Wanted,
    new: Option<&ReplicaSet>,
    old: &[Set],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let before = deployment.status.clone().unwrap_or_default();
    let new_set = new.map(Set::of);
    let all = || new_set.iter().chain(old);
    let replicas: i32 = all().map(|set| set.exist).sum();
    let available: i32 = all().map(|set| set.available).sum();
    let asked: i32 = all().map(|set| set.replicas).sum();
    let ready: i32 = all().map(|set| set.ready).sum();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(replicas),
        updated_replicas: positive(new_set.as_ref().map_or(0, |set| set.exist)),
        ready_replicas: positive(ready),
        available_replicas: positive(available),
        unavailable_replicas: positive((asked - available).max(0)),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
        terminating_replicas: None,
    };
    available_condition(&mut status, wanted, available, now);
    let look_again = progressing(&mut status, &before, deployment, wanted, new_set.as_ref(), old, now);
    (status, look_again)
}

fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

fn available_condition(status: &mut DeploymentStatus, wanted: &Wanted, available: i32, now: Timestamp) {
    if available >= wanted.replicas - wanted.unavailable {
        let words = "Deployment has minimum availability.";
        set(status, "Available", "True", "MinimumReplicasAvailable", words, now);
    } else {
        let words = "Deployment does not have minimum availability.";
        set(status, "Available", "False", "MinimumReplicasUnavailable", words, now);
    }
}

fn progressing(
    status: &mut DeploymentStatus,
    before: &DeploymentStatus,
    deployment: &Deployment,
    wanted: &Wanted,
    new: Option<&Set>,
    old: &[Set],
    now: Timestamp,
) -> Option<Duration> {
    let what = new.map_or_else(
        || format!("Deployment \"{}\"", deployment.name_any()),
        |set| format!("ReplicaSet \"{}\"", set.name),
    );
    if is_complete(wanted, new, old) {
        let words = format!("{what} has successfully progressed.");
        set(status, "Progressing", "True", "NewReplicaSetAvailable", &words, now);
        return None;
    }
    let last = find(before, "Progressing");
    let Some(last) = last else {
        let words = new.map_or(what, |set| format!("Created new replica set \"{}\"", set.name));
        set(status, "Progressing", "True", "NewReplicaSetCreated", &words, now);
        return deadline(deployment, now, now);
    };
    if wanted.paused {
        return None;
    }
    let moved = status.updated_replicas != before.updated_replicas
        || status.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
        || status.replicas.unwrap_or(0) < before.replicas.unwrap_or(0);
    let begins = last.reason.as_deref() == Some("NewReplicaSetAvailable");
    let (moved, timed_out) = (moved || begins, last.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    if moved {
        let words = format!("{what} is progressing.");
        set(status, "Progressing", "True", "ReplicaSetUpdated", &words, now);
        touch(status, now);
        return deadline(deployment, now, now);
    }
    let since = last.last_update_time.as_ref().map_or(now, |at| at.0);
    let left = deadline(deployment, since, now);
    if left.is_none() && !timed_out {
        let words = format!("{what} has timed out progressing.");
        set(status, "Progressing", "False", "ProgressDeadlineExceeded", &words, now);
    }
    left
}

/// What is left of the time that a rollout may take without moving.
fn deadline(deployment: &Deployment, since: Timestamp, now: Timestamp) -> Option<Duration> {
    let spec = deployment.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.progress_deadline_seconds).unwrap_or(DEADLINE_SECONDS);
    let left = since.as_millisecond() + i64::from(seconds) * 1000 - now.as_millisecond();
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis)
}

/// The condition of that type.
pub fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn touch(status: &mut DeploymentStatus, now: Timestamp) {
    let progressing =
        status.conditions.iter_mut().flatten().find(|condition| condition.type_ == "Progressing");
    progressing.into_iter().for_each(|condition| condition.last_update_time = Some(time(now)));
}

fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let existing = conditions.iter_mut().find(|condition| condition.type_ == kind);
    let kept_since =
        existing.as_ref().filter(|old| old.status == value).and_then(|old| old.last_transition_time.clone());
    let condition = DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(time(now)),
        last_transition_time: Some(kept_since.unwrap_or_else(|| time(now))),
    };
    match existing {
        Some(old)
            if old.status == value
                && old.reason.as_deref() == Some(reason)
                && old.message.as_deref() == Some(message) => {}
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}
