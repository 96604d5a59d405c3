//! Runs Jobs to their end: what upstream's job and ttl-after-finished controllers do.
//!
//! * `decide` picks the next steps from the Job, its pods and the `tally` of ended pods; `policy` judges failed pods;
//!   `indexes` reads and prints sets of indexes: all pure.
//! * This file reads the caches, creates and deletes pods, writes the status.
//!
//! Not here: `spec.successPolicy`, `managedBy` other than this controller, adoption of pods by selector.

pub mod decide;
mod indexes;
mod policy;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use parking_lot::Mutex;

use crate::cache::{Cache, Key};
use crate::context::Context;
use crate::error::{Doing, Error, status};
use crate::objects::{controller_of, controller_ref, is_deleting, pod_from_template};
use crate::queue::{Queue, work};
use decide::{INDEX, Plan, Seen, decide};
use tally::Tally;

const COMPONENT: &str = "job-controller";
const WORKERS: usize = 16;
const CONTROLLER_NAME: &str = "kubernetes.io/job-controller";

/// The Job controller of one cluster.
pub struct Jobs {
    context: Arc<Context>,
    jobs: Cache<Job>,
    queue: Queue<Key>,
    tallies: Mutex<HashMap<String, Tally>>,
}

impl Jobs {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self {
            context: context.clone(),
            jobs: context.jobs.clone(),
            queue: Queue::default(),
            tallies: Mutex::default(),
        });
        let to = controller.clone();
        context.jobs.on_change(move |change| {
            if change.new.is_none() {
                let uid = change.old.and_then(|job| job.uid()).unwrap_or_default();
                to.tallies.lock().remove(&uid);
            }
            change.latest().into_iter().for_each(|job| to.queue.add(Key::of(job.as_ref())));
        });
        let to = controller.clone();
        context.pods.on_change(move |change| change.latest().into_iter().for_each(|pod| to.see_pod(pod)));
        controller
    }

    /// Works until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let (controller, queue) = (self.clone(), self.queue.clone());
        work(COMPONENT, queue, WORKERS, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
    }

    /// Counts at once: the pod may be gone when its Job's turn comes.
    fn see_pod(&self, pod: &Pod) {
        let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job") else { return };
        let key = Key::new(pod.namespace().unwrap_or_default(), &owner.name);
        let job = self.jobs.get(&key).filter(|job| job.uid().as_deref() == Some(&owner.uid));
        if let Some(spec) = job.as_ref().and_then(|job| job.spec.as_ref())
            && let Some(tally) = self.tallies.lock().get_mut(&owner.uid)
        {
            tally.see(spec, pod, Timestamp::now());
        }
        self.queue.add(key);
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(job) = self.jobs.get(key).filter(|job| !is_deleting(&job.metadata)) else { return Ok(None) };
        let managed_by = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if managed_by.is_some_and(|name| name != CONTROLLER_NAME) {
            return Ok(None);
        }
        let uid = job.uid().unwrap_or_default();
        let pods = self.context.pods.owned_by(&uid);
        let now = Timestamp::now();
        let tally = self.tally(&job, &pods, now);
        let plan = decide(&Seen { job: &job, pods: &pods, tally: &tally, now });
        if plan.expired {
            self.expire(&job).await?;
            return Ok(None);
        }
        self.remove(&job, &plan).await?;
        self.write_status(&job, &plan).await?;
        self.create(&job, &plan).await?;
        let notes = plan.notes.into_iter();
        notes.for_each(|note| self.context.recorder.tell(job.as_ref(), COMPONENT, note));
        Ok(plan.look_again)
    }

    fn tally(&self, job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Tally {
        let mut tallies = self.tallies.lock();
        let uid = job.uid().unwrap_or_default();
        let all = pods.iter().map(AsRef::as_ref);
        let tally = tallies.entry(uid).or_insert_with(|| Tally::begin(job, all.clone(), now));
        if let Some(spec) = &job.spec {
            all.for_each(|pod| tally.see(spec, pod, now));
        }
        tally.clone()
    }

    async fn create(&self, job: &Job, plan: &Plan) -> Result<(), Error> {
        let pods = plan.create.iter().map(|index| pod_of(job, *index));
        self.context.create_pods(job, COMPONENT, pods.collect()).await
    }

    async fn remove(&self, job: &Job, plan: &Plan) -> Result<(), Error> {
        self.context.delete_pods(job, COMPONENT, &plan.delete).await
    }

    async fn write_status(&self, job: &Job, plan: &Plan) -> Result<(), Error> {
        if job.status.as_ref() == Some(&plan.status) {
            return Ok(());
        }
        let mut next = job.clone();
        next.status = Some(plan.status.clone());
        self.context.write_status(&self.jobs, next).await
    }

    async fn expire(&self, job: &Job) -> Result<(), Error> {
        let namespace = job.namespace().unwrap_or_default();
        let api: Api<Job> = Api::namespaced(self.context.client.clone(), &namespace);
        match api.delete(&job.name_any(), &DeleteParams::background()).await {
            Err(error) if status(&error) == Some(404) => Ok(()),
            other => other.map(drop).doing(|| format!("delete the expired job \"{}\"", Key::of(job))),
        }
    }
}

/// The pod that a Job asks for, labelled so that selectors of both old and new form find it.
fn pod_of(job: &Job, index: Option<i32>) -> Pod {
    let name = job.name_any();
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let prefix = index.map_or_else(|| format!("{name}-"), |index| format!("{name}-{index}-"));
    let namespace = job.namespace().unwrap_or_default();
    let mut pod = pod_from_template(&template, &namespace, &prefix, controller_ref(job));
    let uid = job.uid().unwrap_or_default();
    let labels = pod.labels_mut();
    for (label, value) in [("controller-uid", &uid), ("job-name", &name)] {
        labels.insert(format!("batch.kubernetes.io/{label}"), value.clone());
        labels.insert(label.to_owned(), value.clone());
    }
    if let Some(index) = index {
        labels.insert(INDEX.to_owned(), index.to_string());
        pod.annotations_mut().insert(INDEX.to_owned(), index.to_string());
        add_index(&mut pod, &name, index);
    }
    pod
}

/// The host name and the variable by which a container learns its index.
fn add_index(pod: &mut Pod, job: &str, index: i32) {
    let Some(spec) = &mut pod.spec else { return };
    spec.hostname.get_or_insert_with(|| format!("{job}-{index}"));
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: format!("metadata.annotations['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|existing| existing.name == variable.name) {
            env.push(variable.clone());
        }
    }
}
