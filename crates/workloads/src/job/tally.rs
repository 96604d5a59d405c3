//! How many pods of a Job have ended, counted so that a deleted pod stays counted.
//!
//! Upstream holds finished pods with a finalizer until they are counted, which costs each pod another two writes. Here the
//! count is kept in memory from the watch, on top of what the status said when this process first saw the Job. A pod
//! that ended and was deleted while no server ran is counted if its end reached the status, which it does in the moment it is seen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::policy::{Verdict, judge};
use crate::objects::phase;

/// Pods of one Job that ended.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    succeeded_before: i32,
    failed_before: i32,
    succeeded: BTreeMap<String, Timestamp>,
    failed: BTreeMap<String, Timestamp>,
    ignored: BTreeSet<String>,
}

impl Tally {
    /// Begins with what the status says beyond the pods that are there.
    pub fn begin<'a>(job: &Job, pods: impl Iterator<Item = &'a Pod> + Clone, now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let mut tally = Self::default();
        let Some(spec) = &job.spec else { return tally };
        pods.for_each(|pod| tally.see(spec, pod, now));
        let before = |said: Option<i32>, there: usize| said.unwrap_or(0) - i32::try_from(there).unwrap_or(0);
        tally.succeeded_before = before(status.succeeded, tally.succeeded.len()).max(0);
        tally.failed_before = before(status.failed, tally.failed.len()).max(0);
        tally
    }

    /// Counts a pod if it has ended; once, however often it is seen.
    pub fn see(&mut self, spec: &JobSpec, pod: &Pod, now: Timestamp) {
        let Some(uid) = pod.uid() else { return };
        match phase(pod) {
            "Succeeded" => drop(self.succeeded.entry(uid).or_insert_with(|| ended_at(pod).unwrap_or(now))),
            "Failed" => {
                if judge(spec, pod) == Verdict::Ignore {
                    self.ignored.insert(uid.clone());
                }
                self.failed.entry(uid).or_insert_with(|| ended_at(pod).unwrap_or(now));
            }
            _ => {}
        }
    }

    /// Pods that succeeded.
    pub fn succeeded(&self) -> i32 {
        self.succeeded_before + size(self.succeeded.len())
    }

    /// Pods that failed.
    pub fn failed(&self) -> i32 {
        self.failed_before + size(self.failed.len())
    }

    /// Failed pods that the failure policy says to ignore.
    pub fn ignored(&self) -> i32 {
        size(self.ignored.len())
    }

    /// How many pods failed since the last success, and when the last of them ended.
    pub fn recent_failures(&self) -> Option<(i32, Timestamp)> {
        let last_success = self.succeeded.values().max();
        let since = self.failed.values().filter(|at| last_success.is_none_or(|success| *at > success));
        let last = since.clone().max()?;
        Some((size(since.count()), *last))
    }
}

fn size(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// When the pod's last container ended.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends = statuses.iter().filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    ends.filter_map(|end| end.finished_at.as_ref()).map(|at| at.0).max()
}
