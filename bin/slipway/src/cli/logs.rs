//! `slipway logs RUN/STEP`: logs of a run's steps, whatever name the user has at hand.

use anyhow::{Result, bail};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams, LogParams},
};

use super::{DataFolder, block_on, connect};

const WORKFLOW_LABEL: &str = "workflows.argoproj.io/workflow";
const NODE_NAME: &str = "workflows.argoproj.io/node-name";

/// Prints the log of a run's step: RUN/STEP, or of all its steps.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  slipway logs iris-run-001/train-model\n  slipway logs iris-run-001 -f")]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
    /// RUN or RUN/STEP; RUN is the run's display name, id, or workflow name.
    target: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Go on until the step ends.
    #[arg(short, long)]
    follow: bool,
}

/// Finds the run and prints its steps' logs in the order of their start.
pub fn run(args: Args) -> Result<()> {
    let (run, step) = match args.target.split_once('/') {
        Some((run, step)) => (run, Some(step)),
        None => (args.target.as_str(), None),
    };
    block_on(async {
        let cluster = connect::cluster(&args.data).await?;
        let workflow = find_run(&cluster.workflows(&args.namespace), run).await?;
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &args.namespace);
        let selector = format!("{WORKFLOW_LABEL}={}", workflow.name_any());
        let mut steps = pods.list(&ListParams::default().labels(&selector)).await?.items;
        steps.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        let names: Vec<String> = steps.iter().map(step_name).collect();
        steps.retain(|pod| step.is_none_or(|step| matches_step(pod, step)));
        if steps.is_empty() {
            bail!("run {run:?} has no step {:?}; its steps: {}", step.unwrap_or("(any)"), names.join(", "));
        }
        let prefix_lines = steps.len() > 1;
        for pod in &steps {
            print_log(&pods, pod, args.follow, prefix_lines).await?;
        }
        Ok(())
    })
}

async fn find_run(workflows: &Api<DynamicObject>, run: &str) -> Result<DynamicObject> {
    let all = workflows.list(&ListParams::default()).await?.items;
    let is_it = |workflow: &&DynamicObject| {
        let kfp = &workflow.data["spec"]["kfp"];
        workflow.name_any() == run
            || workflow.uid().as_deref() == Some(run)
            || kfp["displayName"] == run
            || kfp["runId"] == run
            || workflow.labels().get("pipeline/runid").is_some_and(|id| id == run)
    };
    // Display names are not unique: the newest one is meant.
    let mut found: Vec<&DynamicObject> = all.iter().filter(is_it).collect();
    found.sort_by_key(|workflow| workflow.metadata.creation_timestamp.clone());
    match found.pop() {
        Some(workflow) => Ok(workflow.clone()),
        None => bail!("no run {run:?}; `kubectl get workflows -A` lists them"),
    }
}

fn step_name(pod: &Pod) -> String {
    let node = pod.annotations().get(NODE_NAME).cloned().unwrap_or_else(|| pod.name_any());
    node.rsplit('.').next().unwrap_or(&node).to_owned()
}

fn matches_step(pod: &Pod, step: &str) -> bool {
    step_name(pod) == step
        || pod.name_any() == step
        || pod.annotations().get(NODE_NAME).is_some_and(|name| name == step)
}

async fn print_log(pods: &Api<Pod>, pod: &Pod, follow: bool, prefix_lines: bool) -> Result<()> {
    let params = LogParams { container: Some("main".to_owned()), follow, ..LogParams::default() };
    let step = step_name(pod);
    let mut lines = pods.log_stream(&pod.name_any(), &params).await?.lines();
    while let Some(line) = lines.try_next().await? {
        if prefix_lines {
            println!("{step}: {line}");
        } else {
            println!("{line}");
        }
    }
    Ok(())
}
