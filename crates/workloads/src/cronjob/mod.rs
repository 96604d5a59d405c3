//! Makes Jobs at the times of a CronJob: what upstream's cronjob controller does.
//!
//! * `schedule` reads cron expressions and finds the next time; `decide` picks the steps: both pure.
//! * A Job's name holds its time in minutes, so the same time never makes two.

pub mod decide;
pub mod schedule;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};

use crate::cache::Key;
use crate::context::Context;
use crate::error::{Doing, Error, status};
use crate::events::Note;
use crate::objects::{controller_of, controller_ref, is_controlled_by};
use crate::queue::{Queue, work};
use decide::decide;
use schedule::Schedule;

const COMPONENT: &str = "cronjob-controller";
const WORKERS: usize = 2;
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// The CronJob controller of one cluster.
pub struct CronJobs {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl CronJobs {
    /// A controller that reads the context's caches. It starts with `run`.
    pub fn new(context: &Arc<Context>) -> Arc<Self> {
        let controller = Arc::new(Self { context: context.clone(), queue: Queue::default() });
        let queue = controller.queue.clone();
        context.cron_jobs.on_change(move |change| {
            change.new.into_iter().for_each(|cron| queue.add(Key::of(cron.as_ref())));
        });
        let queue = controller.queue.clone();
        context.jobs.on_change(move |change| {
            let Some(job) = change.latest() else { return };
            let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob");
            let key = owner.map(|owner| Key::new(job.namespace().unwrap_or_default(), &owner.name));
            key.into_iter().for_each(|key| queue.add(key));
        });
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

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(cron) = self.context.cron_jobs.get(key) else { return Ok(None) };
        let Some((schedule, zone)) = self.read(&cron) else { return Ok(None) };
        let uid = cron.uid().unwrap_or_default();
        let owned = self.context.jobs.owned_by(&uid).into_iter();
        let jobs: Vec<_> = owned.filter(|job| is_controlled_by(&job.metadata, &uid)).collect();
        let plan = decide(&cron, &jobs, &schedule, &zone, Timestamp::now());
        let api: Api<Job> = Api::namespaced(self.context.client.clone(), &key.namespace);
        for name in &plan.delete {
            match api.delete(name, &DeleteParams::background()).await {
                Err(error) if status(&error) == Some(404) => {}
                other => drop(other.doing(|| format!("delete job \"{}/{name}\"", key.namespace))?),
            }
        }
        if let Some(at) = plan.create {
            self.create(&cron, &api, at).await?;
        }
        if cron.status.as_ref() != Some(&plan.status) {
            let mut next = cron.as_ref().clone();
            next.status = Some(plan.status);
            self.context.write_status(&self.context.cron_jobs, next).await?;
        }
        plan.notes.into_iter().for_each(|note| self.context.recorder.tell(cron.as_ref(), COMPONENT, note));
        Ok(plan.look_again)
    }

    /// The schedule and its zone; what cannot be read is told, and waits for a change of the object.
    fn read(&self, cron: &CronJob) -> Option<(Schedule, TimeZone)> {
        let spec = cron.spec.as_ref()?;
        let zone = match spec.time_zone.as_deref() {
            Some(name) => TimeZone::get(name).map_err(|error| ("UnknownTimeZone", error.to_string())),
            None => Ok(TimeZone::system()),
        };
        let schedule =
            spec.schedule.parse::<Schedule>().map_err(|error| ("UnparseableSchedule", error.to_string()));
        match (schedule, zone) {
            (Ok(schedule), Ok(zone)) => Some((schedule, zone)),
            (Err((reason, words)), _) | (_, Err((reason, words))) => {
                self.context.recorder.tell(cron, COMPONENT, Note::warning(reason, words));
                None
            }
        }
    }

    async fn create(&self, cron: &CronJob, api: &Api<Job>, at: Timestamp) -> Result<(), Error> {
        let template = cron.spec.as_ref().map(|spec| spec.job_template.clone()).unwrap_or_default();
        let meta = template.metadata.unwrap_or_default();
        let name = format!("{}-{}", cron.name_any(), at.as_second() / 60);
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED.to_owned(), at.to_string());
        let job = Job {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: cron.namespace(),
                labels: meta.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_ref(cron)]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            status: None,
        };
        match api.create(&PostParams::default(), &job).await {
            Ok(created) => {
                self.context.jobs.observe(created);
                let words = format!("Created job {name}");
                self.context.recorder.tell(cron, COMPONENT, Note::normal("SuccessfulCreate", words));
                Ok(())
            }
            // Made by an earlier attempt whose status write failed.
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => {
                Err(error).doing(|| format!("create job \"{name}\" of cron job \"{}\"", Key::of(cron)))
            }
        }
    }
}
