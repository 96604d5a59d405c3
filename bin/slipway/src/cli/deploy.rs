//! `slipway deploy`: an InferenceService for a model URI, shown as the YAML that is applied.

use std::{pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};

use super::{DataFolder, block_on, connect};

/// Serves a model: creates an InferenceService and waits until it answers.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  slipway deploy iris models:/iris/1\n  slipway deploy churn models:/churn@champion --namespace team-a\n  slipway deploy local file:///home/me/model.joblib --dry-run"
)]
pub struct Args {
    #[command(flatten)]
    data: DataFolder,
    /// Name of the InferenceService.
    name: String,
    /// models:/NAME/VERSION, models:/NAME@ALIAS, pvc://CLAIM/PATH, file:///PATH, minio://BUCKET/KEY.
    model_uri: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The model's format, as KServe names them.
    #[arg(long, default_value = "sklearn")]
    format: String,
    /// Print the YAML and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Seconds to wait until it answers; 0 does not wait.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

/// Applies the InferenceService and waits for its `Ready`.
pub fn run(args: Args) -> Result<()> {
    let manifest = manifest(&args);
    print!("{}", serde_yaml_ng::to_string(&manifest)?);
    if args.dry_run {
        return Ok(());
    }
    block_on(apply_and_wait(args, manifest))
}

fn manifest(args: &Args) -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": { "name": args.name, "namespace": args.namespace },
        "spec": { "predictor": { "model": {
            "modelFormat": { "name": args.format },
            "storageUri": args.model_uri,
        } } },
    })
}

async fn apply_and_wait(args: Args, manifest: Value) -> Result<()> {
    let cluster = connect::cluster(&args.data).await?;
    let services = cluster.inference_services(&args.namespace);
    apply(&services, &args.name, manifest).await?;
    if args.timeout == 0 {
        return Ok(());
    }
    let served = async {
        let url = wait_ready(&services, &args.name).await?;
        // An InferenceService stays Ready while its old model serves on; the new one must have taken over.
        let deployments = Api::namespaced(cluster.client.clone(), &args.namespace);
        wait_rolled_out(&deployments, &format!("{}-predictor", args.name)).await?;
        Ok::<_, anyhow::Error>(url)
    };
    let waited = tokio::time::timeout(Duration::from_secs(args.timeout), served).await;
    match waited {
        Ok(url) => {
            println!("---\n{} is ready at {}", args.name, url?);
            println!("  slipway predict {} --example{}", args.name, namespace_hint(&args.namespace));
            Ok(())
        }
        Err(_) => bail!(
            "{name} is not ready after {} s: {}\n  see `kubectl describe isvc -n {ns} {name}` and `kubectl get pods -n {ns}`",
            args.timeout,
            why(&services, &args.name).await,
            name = args.name,
            ns = args.namespace
        ),
    }
}

fn namespace_hint(namespace: &str) -> String {
    if namespace == "default" { String::new() } else { format!(" -n {namespace}") }
}

/// Creates the object, or gives an existing one the wanted spec.
async fn apply(services: &Api<DynamicObject>, name: &str, manifest: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(manifest.clone())?;
    match services.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let spec = json!({ "spec": manifest["spec"] });
            services.patch(name, &PatchParams::default(), &Patch::Merge(spec)).await?;
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot create InferenceService {name:?}")),
    }
}

async fn wait_ready(services: &Api<DynamicObject>, name: &str) -> Result<String> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut seen = pin!(watcher(services.clone(), only).applied_objects());
    while let Some(object) = seen.try_next().await? {
        let generation = object.metadata.generation.unwrap_or_default();
        let is_current =
            object.data["status"]["observedGeneration"].as_i64().is_none_or(|seen| seen >= generation);
        let is_ready = connect::condition(&object, "Ready").is_some_and(|(status, ..)| status == "True");
        if is_current && is_ready {
            return Ok(object.data["status"]["url"].as_str().unwrap_or_default().to_owned());
        }
    }
    bail!("the watch of {name} ended")
}

async fn wait_rolled_out(deployments: &Api<Deployment>, name: &str) -> Result<()> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut seen = pin!(watcher(deployments.clone(), only).applied_objects());
    while let Some(deployment) = seen.try_next().await? {
        if is_rolled_out(&deployment) {
            return Ok(());
        }
    }
    bail!("the watch of {name} ended")
}

/// As `kubectl rollout status` judges: all replicas are of the latest template, and available.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return false };
    let is_seen = status.observed_generation >= deployment.metadata.generation;
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    is_seen && all.iter().all(|count| count.unwrap_or(0) == wanted)
}

async fn why(services: &Api<DynamicObject>, name: &str) -> String {
    let Ok(object) = services.get(name).await else { return "it is gone".to_owned() };
    let failure = object.data["status"]["modelStatus"]["lastFailureInfo"]["message"].as_str();
    let ready =
        connect::condition(&object, "Ready").map(|(_, reason, message)| format!("{reason}: {message}"));
    failure.map(str::to_owned).or(ready).unwrap_or_else(|| "it has no status yet".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_served_once_no_replica_of_the_old_one_is_left() {
        let deployment = |seen: i64, updated: i32, all: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": { "generation": 2 },
                "spec": { "replicas": 1, "selector": {}, "template": {} },
                "status": {
                    "observedGeneration": seen, "updatedReplicas": updated, "replicas": all, "availableReplicas": 1,
                },
            }))
            .unwrap()
        };
        assert!(!is_rolled_out(&deployment(1, 1, 1)), "the new spec is not seen");
        assert!(!is_rolled_out(&deployment(2, 0, 1)), "the old replica serves");
        assert!(!is_rolled_out(&deployment(2, 1, 2)), "both serve");
        assert!(is_rolled_out(&deployment(2, 1, 1)));
    }
}
