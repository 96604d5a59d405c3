//! The next steps of a CronJob: pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;

use super::schedule::Schedule;
use crate::events::Note;
use crate::objects::{is_deleting, time};

/// Missed times that are counted one by one.
const MISSED_MAX: usize = 100;

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// The time for which a Job is made.
    pub create: Option<Timestamp>,
    /// Names of Jobs to delete.
    pub delete: Vec<String>,
    /// The status as it should be.
    pub status: CronJobStatus,
    /// What to tell about it.
    pub notes: Vec<Note>,
    /// When the next time comes.
    pub look_again: Option<Duration>,
}

/// The steps for a CronJob and the Jobs that it controls.
pub fn decide(
    cron: &CronJob,
    jobs: &[Arc<Job>],
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Plan {
    let Some(spec) = &cron.spec else { return Plan::default() };
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    let active: Vec<&Arc<Job>> = jobs.iter().filter(|job| ended(job).is_none()).collect();
    let refer = |job: &&Arc<Job>| ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        namespace: job.namespace(),
        name: Some(job.name_any()),
        uid: job.uid(),
        ..ObjectReference::default()
    };
    plan.status.active =
        Some(active.iter().map(refer).collect()).filter(|active: &Vec<_>| !active.is_empty());
    let last_success =
        jobs.iter().filter_map(|job| job.status.as_ref()?.completion_time.clone()).max_by_key(|at| at.0);
    let known = plan.status.last_successful_time.clone();
    plan.status.last_successful_time = last_success.into_iter().chain(known).max_by_key(|at| at.0);
    plan.delete.extend(history(jobs, true, spec.successful_jobs_history_limit.unwrap_or(3)));
    plan.delete.extend(history(jobs, false, spec.failed_jobs_history_limit.unwrap_or(1)));
    if spec.suspend == Some(true) || is_deleting(&cron.metadata) {
        return plan;
    }
    plan.look_again = schedule.next_after(now, zone).map(|next| {
        let left = next.as_millisecond() - now.as_millisecond();
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    });
    let Some(due) = due(cron, schedule, zone, now) else { return plan };
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let words =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.notes.push(Note::normal("JobAlreadyActive", words));
            return plan;
        }
        Some("Replace") => plan.delete.extend(active.iter().map(|job| job.name_any())),
        _ => {}
    }
    plan.create = Some(due);
    plan.status.last_schedule_time = Some(time(due));
    plan
}

/// The last time that has come and has no Job yet.
fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let spec = cron.spec.as_ref()?;
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let begin = last.or(cron.metadata.creation_timestamp.as_ref())?.0;
    let begin = match spec.starting_deadline_seconds {
        Some(seconds) => begin.max(Timestamp::from_second(now.as_second() - seconds).ok()?),
        None => begin,
    };
    let mut due = None;
    let mut from = begin;
    for _ in 0..MISSED_MAX {
        match schedule.next_after(from, zone).filter(|next| *next <= now) {
            Some(next) => (due, from) = (Some(next), next),
            None => return due,
        }
    }
    // So many were missed that the last one is searched from the near end.
    let near = Timestamp::from_second(now.as_second() - 2 * 24 * 3600).ok()?.max(from);
    let mut from = near;
    while let Some(next) = schedule.next_after(from, zone).filter(|next| *next <= now) {
        (due, from) = (Some(next), next);
    }
    due
}

/// Whether the Job has ended, and if so well.
fn ended(job: &Job) -> Option<bool> {
    let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let end = conditions.find(|of| of.status == "True" && matches!(of.type_.as_str(), "Complete" | "Failed"));
    end.map(|of| of.type_ == "Complete")
}

/// Ended Jobs beyond the number that is kept, the oldest first.
fn history(jobs: &[Arc<Job>], well: bool, limit: i32) -> Vec<String> {
    let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(|job| ended(job) == Some(well)).collect();
    ended.sort_by_key(|job| {
        (job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|at| at.0), job.name_any())
    });
    let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    ended[..surplus].iter().map(|job| job.name_any()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron(extra: Value, last: Option<&str>) -> CronJob {
        let mut object = json!({"metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "status": {"lastScheduleTime": last}, "spec": {"schedule": "* * * * *", "jobTemplate": {}}});
        for (key, value) in extra.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn job(name: &str, condition: &str, start: &str) -> Arc<Job> {
        let conditions = json!([{"type": condition, "status": "True"}]);
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name},
                "status": {"startTime": start, "conditions": conditions}}))
            .unwrap(),
        )
    }

    fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: &str) -> Plan {
        let schedule = cron.spec.as_ref().unwrap().schedule.parse().unwrap();
        decide(cron, jobs, &schedule, &TimeZone::UTC, now.parse().unwrap())
    }

    #[test]
    fn a_time_that_has_come_makes_one_job_however_many_were_missed() {
        let new = cron(json!({}), None);
        let early = plan(&new, &[], "2026-01-01T00:00:50Z");
        assert_eq!((early.create, early.look_again), (None, Some(Duration::from_secs(10))));
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(plan(&new, &[], "2026-01-01T00:01:00Z").create, at("2026-01-01T00:01:00Z"));
        assert_eq!(plan(&new, &[], "2026-01-09T07:05:20Z").create, at("2026-01-09T07:05:00Z"));
        let done = cron(json!({}), Some("2026-01-01T00:01:00Z"));
        assert_eq!(plan(&done, &[], "2026-01-01T00:01:30Z").create, None);
        assert_eq!(plan(&cron(json!({"suspend": true}), None), &[], "2026-01-01T00:05:00Z").create, None);
        let strict = cron(json!({"startingDeadlineSeconds": 10, "schedule": "0 * * * *"}), None);
        assert_eq!(plan(&strict, &[], "2026-01-01T01:00:30Z").create, None);
    }

    #[test]
    fn concurrency_is_as_asked() {
        let running = [job("a", "Running", "2026-01-01T00:00:00Z")];
        let now = "2026-01-01T00:02:00Z";
        assert!(plan(&cron(json!({}), None), &running, now).create.is_some());
        let forbid = plan(&cron(json!({"concurrencyPolicy": "Forbid"}), None), &running, now);
        assert_eq!((forbid.create, forbid.notes[0].reason), (None, "JobAlreadyActive"));
        let replace = plan(&cron(json!({"concurrencyPolicy": "Replace"}), None), &running, now);
        assert_eq!((replace.create.is_some(), replace.delete), (true, vec!["a".to_owned()]));
    }

    #[test]
    fn the_history_is_bounded() {
        let start = |n: u32| format!("2026-01-01T00:0{n}:00Z");
        let mut jobs: Vec<_> = (0..5).map(|n| job(&format!("ok{n}"), "Complete", &start(n))).collect();
        jobs.extend((0..2).map(|n| job(&format!("bad{n}"), "Failed", &start(n))));
        let plan = plan(&cron(json!({"suspend": true}), None), &jobs, "2026-01-01T01:00:00Z");
        assert_eq!(plan.delete, ["ok0", "ok1", "bad0"]);
    }
}
