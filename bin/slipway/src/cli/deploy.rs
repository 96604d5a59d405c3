//! `slipway deploy`: an InferenceService for a model URI, shown as the YAML that is applied.

use std::{pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
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
    let waited =
        tokio::time::timeout(Duration::from_secs(args.timeout), wait_ready(&services, &args.name)).await;
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

async fn why(services: &Api<DynamicObject>, name: &str) -> String {
    let Ok(object) = services.get(name).await else { return "it is gone".to_owned() };
    let failure = object.data["status"]["modelStatus"]["lastFailureInfo"]["message"].as_str();
    let ready =
        connect::condition(&object, "Ready").map(|(_, reason, message)| format!("{reason}: {message}"));
    failure.map(str::to_owned).or(ready).unwrap_or_else(|| "it has no status yet".to_owned())
}
