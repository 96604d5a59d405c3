//! The next steps of a Job: pure.
//!
//! `decide` sees the Job, its pods and the tally of pods that ended, and answers with the pods to make, the pods to remove,
//! the status to write and when to look again. Conditions, reasons and messages are upstream's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::indexes::{Indexes, parse, print};
use super::policy::{Verdict, judge};
use super::tally::Tally;
use crate::events::Note;
use crate::objects::{is_active, is_deleting, is_finished, is_ready, phase, time};

/// The annotation and label that carry a pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Upstream's default of `backoffLimit`.
const BACKOFF_LIMIT: i32 = 6;
/// The pause before the replacement of the first failed pod; doubles each time.
const PAUSE_MIN_SECONDS: i64 = 10;
/// The longest pause before a replacement.
const PAUSE_MAX_SECONDS: i64 = 600;

/// What a Job and its pods look like now.
pub struct Seen<'a> {
    /// The Job.
    pub job: &'a Job,
    /// The pods that it controls.
    pub pods: &'a [Arc<Pod>],
    /// Pods that ended, also those that are gone.
    pub tally: &'a Tally,
    /// The time.
    pub now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// One pod each, with its index in indexed mode.
    pub create: Vec<Option<i32>>,
    /// Names of pods to delete.
    pub delete: Vec<String>,
    /// The status as it should be.
    pub status: JobStatus,
    /// What to tell about it.
    pub notes: Vec<Note>,
    /// When time alone changes something.
    pub look_again: Option<Duration>,
    /// The Job itself has outlived its `ttlSecondsAfterFinished`.
    pub expired: bool,
}

/// The steps for one Job.
pub fn decide(seen: &Seen<'_>) -> Plan {
    let Some(spec) = &seen.job.spec else { return Plan::default() };
    let status = seen.job.status.clone().unwrap_or_default();
    if is_complete(&status, "Complete") || is_complete(&status, "Failed") {
        return after_the_end(seen, spec, status);
    }
    let mut deed = Deed::new(seen, spec, status);
    deed.count();
    deed.start_or_suspend();
    if deed.fail_if_due() {
        return deed.finish_plan();
    }
    if deed.succeed_if_due() {
        return deed.finish_plan();
    }
    if !deed.suspended() {
        deed.adjust_pods();
    }
    deed.finish_plan()
}

/// Whether the condition of that type is true.
fn is_complete(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// A finished Job changes no more; its ttl may end.
fn after_the_end(seen: &Seen<'_>, spec: &JobSpec, status: JobStatus) -> Plan {
    let active = seen.pods.iter().filter(|pod| is_active(pod));
    let delete = active.map(|pod| pod.name_any()).collect();
    let mut plan = Plan { delete, ..Plan::default() };
    if let Some(ttl) = spec.ttl_seconds_after_finished {
        let ended =
            status.conditions.iter().flatten().filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed"));
        let ended_at =
            ended.filter_map(|c| c.last_transition_time.as_ref()).map(|at| at.0.as_millisecond()).max();
        let left = ended_at.unwrap_or(0) + i64::from(ttl) * 1000 - seen.now.as_millisecond();
        plan.expired = left <= 0 && !is_deleting(&seen.job.metadata);
        plan.look_again = (left > 0).then(|| millis(left));
    }
    plan.status = status;
    plan
}

fn millis(value: i64) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

struct Deed<'a> {
    seen: &'a Seen<'a>,
    spec: &'a JobSpec,
    plan: Plan,
    active: Vec<&'a Arc<Pod>>,
    succeeded: i32,
    failed: i32,
    completed: Indexes,
    failed_indexes: Indexes,
    /// Failures that count, per index.
    failures_by_index: BTreeMap<i32, i32>,
}

impl<'a> Deed<'a> {
    fn new(seen: &'a Seen<'a>, spec: &'a JobSpec, status: JobStatus) -> Self {
        Self {
            seen,
            spec,
            plan: Plan { status, ..Plan::default() },
            active: seen.pods.iter().filter(|pod| is_active(pod)).collect(),
            succeeded: 0,
            failed: 0,
            completed: Indexes::new(),
            failed_indexes: Indexes::new(),
            failures_by_index: BTreeMap::new(),
        }
    }

    fn indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn parallelism(&self) -> i32 {
        self.spec.parallelism.unwrap_or(1).max(0)
    }

    /// Sums up what ended. A deleted pod that ended before still counts: the tally remembers it.
    fn count(&mut self) {
        let finished = |wanted: &'static str| self.seen.pods.iter().filter(move |pod| phase(pod) == wanted);
        if self.indexed() {
            let end = self.spec.completions.unwrap_or(0);
            self.completed = parse(self.plan.status.completed_indexes.as_deref().unwrap_or(""), end);
            self.completed
                .extend(finished("Succeeded").filter_map(|pod| index_of(pod)).filter(|index| *index < end));
            self.failed_indexes = parse(self.plan.status.failed_indexes.as_deref().unwrap_or(""), end);
            self.succeeded = size(self.completed.len());
        } else {
            self.succeeded = self.seen.tally.succeeded();
        }
        self.failed = self.seen.tally.failed();
        if let Some(limit) = self.spec.backoff_limit_per_index {
            for pod in finished("Failed") {
                let Some(index) = index_of(pod) else { continue };
                let verdict = judge(self.spec, pod);
                let count = self.failures_by_index.entry(index).or_insert(0);
                *count += i32::from(verdict != Verdict::Ignore);
                if *count > limit || verdict == Verdict::FailIndex {
                    self.failed_indexes.insert(index);
                }
            }
            let completed = &self.completed;
            self.failed_indexes.retain(|index| !completed.contains(index));
        }
    }

    fn start_or_suspend(&mut self) {
        let was_suspended = is_complete(&self.plan.status, "Suspended");
        if self.suspended() {
            self.plan.delete = self.active.iter().map(|pod| pod.name_any()).collect();
            if !was_suspended {
                self.condition("Suspended", "True", "JobSuspended", "Job suspended");
                self.plan.notes.push(Note::normal("Suspended", "Job suspended"));
            }
            self.plan.status.start_time = None;
            return;
        }
        if was_suspended {
            self.condition("Suspended", "False", "JobResumed", "Job resumed");
            self.plan.notes.push(Note::normal("Resumed", "Job resumed"));
        }
        if self.plan.status.start_time.is_none() {
            self.plan.status.start_time = Some(time(self.seen.now));
        }
    }

    /// Whether the Job has failed or is failing.
    fn fail_if_due(&mut self) -> bool {
        let target =
            self.plan.status.conditions.iter().flatten().find(|c| c.type_ == "FailureTarget").cloned();
        let target = target.map(|c| (c.reason.unwrap_or_default(), c.message.unwrap_or_default()));
        let Some((reason, message)) = target.or_else(|| self.failure()) else { return false };
        self.plan.delete = self.active.iter().map(|pod| pod.name_any()).collect();
        self.condition("FailureTarget", "True", &reason, &message);
        // The end is told when nothing of the Job runs any more, so that a successor meets no leftovers.
        let still_there = self.seen.pods.iter().any(|pod| !is_finished(pod));
        if !still_there {
            self.condition("Failed", "True", &reason, &message);
            self.plan.notes.push(Note::warning(event_reason(&reason), message));
        }
        true
    }

    fn failure(&mut self) -> Option<(String, String)> {
        let failed_pods = self.seen.pods.iter().filter(|pod| phase(pod) == "Failed");
        for pod in failed_pods {
            if let Verdict::FailJob(message) = judge(self.spec, pod) {
                return Some(("PodFailurePolicy".to_owned(), message));
            }
        }
        if self.past_deadline() {
            let message = "Job was active longer than specified deadline";
            return Some(("DeadlineExceeded".to_owned(), message.to_owned()));
        }
        if let Some(failure) = self.index_failure() {
            return Some(failure);
        }
        let limit = match self.spec.backoff_limit_per_index {
            // Upstream defaults it to the largest number in this mode.
            Some(_) => self.spec.backoff_limit.unwrap_or(i32::MAX),
            None => self.spec.backoff_limit.unwrap_or(BACKOFF_LIMIT),
        };
        let counted = self.failed - self.seen.tally.ignored();
        let over = counted > limit || (self.restarts() > 0 && self.restarts() >= limit.max(1));
        over.then(|| {
            ("BackoffLimitExceeded".to_owned(), "Job has reached the specified backoff limit".to_owned())
        })
    }

    fn index_failure(&self) -> Option<(String, String)> {
        if self.failed_indexes.is_empty() {
            return None;
        }
        let count = size(self.failed_indexes.len());
        if self.spec.max_failed_indexes.is_some_and(|max| count > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded".to_owned(), message.to_owned()));
        }
        let all_done = self.spec.completions.is_some_and(|all| self.succeeded + count >= all);
        all_done.then(|| ("FailedIndexes".to_owned(), "Job has failed indexes".to_owned()))
    }

    /// Restarts of containers in running pods, which is how failures show under `restartPolicy: OnFailure`.
    fn restarts(&self) -> i32 {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return 0;
        }
        let statuses = self.active.iter().filter_map(|pod| pod.status.as_ref());
        let containers = statuses.flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        containers.map(|container| container.restart_count).sum()
    }

    fn past_deadline(&mut self) -> bool {
        let (Some(limit), Some(start)) = (self.spec.active_deadline_seconds, &self.plan.status.start_time)
        else {
            return false;
        };
        let left = start.0.as_millisecond() + limit * 1000 - self.seen.now.as_millisecond();
        if left > 0 && !self.suspended() {
            self.look_again(millis(left));
        }
        left <= 0 && !self.suspended()
    }

    /// Whether the Job has succeeded.
    fn succeed_if_due(&mut self) -> bool {
        let done = match self.spec.completions {
            Some(completions) => self.succeeded >= completions,
            // A work queue: one success means the queue is empty, and the others are waited for.
            None => self.succeeded > 0 && self.active.is_empty(),
        };
        if !done {
            return false;
        }
        self.plan.delete = self.active.iter().map(|pod| pod.name_any()).collect();
        let message = "Reached expected number of succeeded pods";
        self.condition("SuccessCriteriaMet", "True", "CompletionsReached", message);
        if self.seen.pods.iter().all(|pod| is_finished(pod)) {
            self.condition("Complete", "True", "CompletionsReached", message);
            self.plan.status.completion_time = Some(time(self.seen.now));
            self.plan.notes.push(Note::normal("Completed", "Job completed"));
        }
        true
    }

    fn adjust_pods(&mut self) {
        let wanted = self.wanted_active();
        let active = size(self.active.len());
        if active > wanted {
            let mut extra: Vec<&&Arc<Pod>> = self.active.iter().collect();
            // Those that have done least go first.
            extra.sort_by_key(|pod| (is_ready(pod), phase(pod) == "Running", pod.name_any()));
            let surplus = usize::try_from(active - wanted).unwrap_or(0);
            self.plan.delete = extra.iter().take(surplus).map(|pod| pod.name_any()).collect();
            return;
        }
        let missing = usize::try_from(wanted - active).unwrap_or(0);
        if missing == 0 {
            return;
        }
        if let Some(pause) = self.pause() {
            self.look_again(pause);
            return;
        }
        self.plan.create = if self.indexed() { self.free_indexes(missing) } else { vec![None; missing] };
    }

    fn wanted_active(&self) -> i32 {
        let parallelism = self.parallelism();
        match self.spec.completions {
            Some(completions) => {
                let failed = size(self.failed_indexes.len());
                parallelism.min((completions - self.succeeded - failed).max(0))
            }
            None if self.succeeded > 0 => size(self.active.len()).min(parallelism),
            None => parallelism,
        }
    }

    fn free_indexes(&self, count: usize) -> Vec<Option<i32>> {
        let taken: Indexes = self.active.iter().filter_map(|pod| index_of(pod)).collect();
        let all = 0..self.spec.completions.unwrap_or(0);
        let free = all.filter(|index| {
            !taken.contains(index) && !self.completed.contains(index) && !self.failed_indexes.contains(index)
        });
        free.take(count).map(Some).collect()
    }

    /// How long to wait before a failed pod is replaced: 10 s after the first failure in a row, doubled each time.
    fn pause(&self) -> Option<Duration> {
        let (failures, last_end) = self.seen.tally.recent_failures()?;
        let doublings = u32::try_from(failures - 1).unwrap_or(0).min(6);
        let pause = (PAUSE_MIN_SECONDS << doublings).min(PAUSE_MAX_SECONDS);
        let left = last_end.as_millisecond() + pause * 1000 - self.seen.now.as_millisecond();
        (left > 0).then(|| millis(left))
    }

    fn look_again(&mut self, after: Duration) {
        self.plan.look_again = Some(self.plan.look_again.map_or(after, |earlier| earlier.min(after)));
    }

    fn condition(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        let now = time(self.seen.now);
        let condition = JobCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        match conditions.iter_mut().find(|existing| existing.type_ == kind) {
            Some(existing) if existing.status == value => {}
            Some(existing) => *existing = condition,
            None => conditions.push(condition),
        }
    }

    /// Writes the counts into the status.
    fn finish_plan(mut self) -> Plan {
        let created = size(self.plan.create.len());
        let kept: Vec<&&Arc<Pod>> =
            self.active.iter().filter(|pod| !self.plan.delete.contains(&pod.name_any())).collect();
        let ready = kept.iter().filter(|pod| is_ready(pod)).count();
        let going =
            self.seen.pods.iter().filter(|pod| !is_finished(pod) && is_deleting(&pod.metadata)).count();
        let indexed = self.indexed();
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let active = size(kept.len()) + created;
        let terminating = size(going + self.plan.delete.len());
        let status = &mut self.plan.status;
        status.active = positive(active);
        status.ready = Some(size(ready));
        status.terminating = Some(terminating);
        status.succeeded = positive(self.succeeded);
        status.failed = positive(self.failed);
        status.completed_indexes = indexed.then(|| print(&self.completed)).filter(|text| !text.is_empty());
        status.failed_indexes = per_index.then(|| print(&self.failed_indexes));
        status.uncounted_terminated_pods.get_or_insert_with(UncountedTerminatedPods::default);
        self.plan
    }
}

/// Zero is left out, as upstream's `omitempty` does.
fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

fn size(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Reasons of events are static texts; these are all that a Job can fail with.
fn event_reason(reason: &str) -> &'static str {
    match reason {
        "DeadlineExceeded" => "DeadlineExceeded",
        "PodFailurePolicy" => "PodFailurePolicy",
        "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
        "FailedIndexes" => "FailedIndexes",
        _ => "BackoffLimitExceeded",
    }
}

/// The index of a pod of an indexed Job.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}
