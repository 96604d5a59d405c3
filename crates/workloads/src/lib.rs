//! What kube-controller-manager and kube-scheduler do, for a cluster that lives in one process.
//!
//! Every controller is driven by shared watches (`cache`), works through a queue (`queue`), and keeps its judgement in a
//! pure `decide`. They know a `kube::Client` and nothing of the store or the API server, so they run against any API.
//!
//! Not here: the platform's own controllers (workflows, serving, registry), and the node.

mod accounts;
mod autoscalers;
mod cache;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod endpoints;
mod error;
mod events;
mod garbage;
mod job;
mod lost_pods;
mod namespaces;
mod objects;
mod queue;
mod replicaset;
mod scheduler;
mod statefulset;
mod volumes;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use kube::api::Api;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use cache::Cache;
use context::Context;

pub use error::Error;

/// What the controllers need of the cluster around them.
pub struct Config {
    /// Identity `system:kube-controller-manager`.
    pub controllers: Client,
    /// Identity `system:kube-scheduler`.
    pub scheduler: Client,
    /// Pods are placed although CPU, memory and disk do not suffice (devices are always counted).
    pub overcommit: bool,
    /// The certificate of the API server's authority, which pods get as `kube-root-ca.crt`.
    pub root_ca_pem: String,
    /// Where the local provisioner keeps volumes: `DATA/volumes`.
    pub volumes_dir: PathBuf,
}

/// Runs every controller and the scheduler until the future is dropped. Returns only when a part ended by a fault in itself.
pub async fn run_all(config: Config) {
    let (recorder, events) = events::recorder(config.controllers.clone());
    let (scheduler_recorder, scheduler_events) = events::recorder(config.scheduler.clone());
    let context = Arc::new(Context::new(config.controllers.clone(), recorder));
    let mut parts = JoinSet::new();
    parts.spawn(events.run());
    parts.spawn(scheduler_events.run());
    spawn_scheduler(&mut parts, &config, &context, scheduler_recorder);
    spawn_controllers(&mut parts, &config, &context);
    spawn_watches(&mut parts, &context);
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended by a fault");
            return;
        }
    }
}

fn spawn_scheduler(
    parts: &mut JoinSet<()>,
    config: &Config,
    context: &Arc<Context>,
    recorder: events::Recorder,
) {
    let (pods, nodes, claims) = (&context.pods, &context.nodes, &context.claims);
    let scheduler =
        scheduler::Scheduler::new(config.scheduler.clone(), recorder, config.overcommit, pods, nodes, claims);
    let (pods, nodes, claims) = (pods.clone(), nodes.clone(), claims.clone());
    parts.spawn(async move {
        futures::join!(pods.wait_synced(), nodes.wait_synced(), claims.wait_synced());
        scheduler.run().await;
    });
}

fn spawn_controllers(parts: &mut JoinSet<()>, config: &Config, context: &Arc<Context>) {
    let jobs = job::Jobs::new(context);
    let sets = replicaset::ReplicaSets::new(context);
    let deployments = deployment::Deployments::new(context);
    let endpoints = endpoints::Endpoints::new(context);
    let accounts = accounts::Accounts::new(context, config.root_ca_pem.clone());
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.pods.wait_synced(), of.jobs.wait_synced());
        jobs.run().await;
    });
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.pods.wait_synced(), of.replica_sets.wait_synced());
        sets.run().await;
    });
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.replica_sets.wait_synced(), of.deployments.wait_synced());
        deployments.run().await;
    });
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.pods.wait_synced(), of.services.wait_synced(), of.slices.wait_synced());
        endpoints.run().await;
    });
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.namespaces.wait_synced(), of.accounts.wait_synced());
        accounts.run().await;
    });
    let daemons = daemonset::DaemonSets::new(context);
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.pods.wait_synced(), of.nodes.wait_synced(), of.daemon_sets.wait_synced());
        daemons.run().await;
    });
    let crons = cronjob::CronJobs::new(context);
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.jobs.wait_synced(), of.cron_jobs.wait_synced());
        crons.run().await;
    });
    let stateful = statefulset::StatefulSets::new(context);
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.pods.wait_synced(), of.claims.wait_synced(), of.stateful_sets.wait_synced());
        stateful.run().await;
    });
    spawn_more_controllers(parts, config, context);
}

fn spawn_more_controllers(parts: &mut JoinSet<()>, config: &Config, context: &Arc<Context>) {
    let emptied = queue::Queue::default();
    let garbage = garbage::Garbage::new(config.controllers.clone(), emptied.clone());
    let namespaces = namespaces::Namespaces::new(context, &garbage, emptied);
    let volumes = volumes::Volumes::new(context, config.volumes_dir.clone());
    let autoscalers = autoscalers::Autoscalers::new(context);
    let lost_pods = lost_pods::LostPods::new(context);
    parts.spawn(garbage.clone().run());
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.pods.wait_synced(), of.nodes.wait_synced());
        lost_pods.run().await;
    });
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(of.namespaces.wait_synced(), garbage.wait_synced());
        namespaces.run().await;
    });
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(
            of.claims.wait_synced(),
            of.volumes.wait_synced(),
            of.classes.wait_synced(),
            of.pods.wait_synced()
        );
        volumes.run().await;
    });
    let of = context.clone();
    parts.spawn(async move {
        futures::join!(
            of.autoscalers.wait_synced(),
            of.deployments.wait_synced(),
            of.replica_sets.wait_synced()
        );
        autoscalers.run().await;
    });
}

/// One watch a kind. Started last, when every handler is registered.
fn spawn_watches(parts: &mut JoinSet<()>, context: &Context) {
    follow(parts, context, &context.pods);
    follow(parts, context, &context.nodes);
    follow(parts, context, &context.namespaces);
    follow(parts, context, &context.accounts);
    follow(parts, context, &context.replica_sets);
    follow(parts, context, &context.deployments);
    follow(parts, context, &context.daemon_sets);
    follow(parts, context, &context.stateful_sets);
    follow(parts, context, &context.cron_jobs);
    follow(parts, context, &context.jobs);
    follow(parts, context, &context.services);
    follow(parts, context, &context.slices);
    follow(parts, context, &context.claims);
    follow(parts, context, &context.volumes);
    follow(parts, context, &context.classes);
    follow(parts, context, &context.autoscalers);
}

fn follow<K>(parts: &mut JoinSet<()>, context: &Context, cache: &Cache<K>)
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    parts.spawn(cache.clone().follow(Api::all(context.client.clone())));
}
