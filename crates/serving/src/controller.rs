//! The loop: watches InferenceServices, what they own, their pods and the runtimes.

use std::sync::Arc;
use std::time::Duration;

use api::serving::runtime::{BUILTIN, Runtime, builtin};
use api::serving::{InferenceService, LABEL};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

use crate::Config;
use crate::act::act;
use crate::decide::{Observed, decide};
use crate::error::Error;
use crate::pod::{predictor_name, selector};

/// How long a failed reconcile waits.
const RETRY_AFTER: Duration = Duration::from_secs(2);

struct Context {
    client: Client,
    config: Config,
}

/// Controls for ever.
pub async fn run(client: Client, config: Config) {
    publish_runtimes(&client).await;
    let all = watcher::Config::default();
    let mine = watcher::Config::default().labels(LABEL);
    let context = Arc::new(Context { client: client.clone(), config });
    let controller = Controller::new(Api::<InferenceService>::all(client.clone()), all.clone());
    // A runtime that comes, goes or changes may concern any InferenceService.
    let store = controller.store();
    let touched = move |_: PartialObjectMeta<DynamicObject>| {
        store.state().iter().map(|service| ObjectRef::from_obj(service.as_ref())).collect::<Vec<_>>()
    };
    // Of these the metadata alone says whom they concern, so one type does for all.
    let deployments = ApiResource::erase::<Deployment>(&());
    let services = ApiResource::erase::<Service>(&());
    let pods = ApiResource::erase::<Pod>(&());
    let cluster_runtimes = runtime_resource("ClusterServingRuntime");
    let runtimes = runtime_resource("ServingRuntime");
    controller
        .owns_with::<DynamicObject>(Api::all_with(client.clone(), &deployments), deployments, mine.clone())
        .owns_with::<DynamicObject>(Api::all_with(client.clone(), &services), services, mine.clone())
        .watches_with(Api::all_with(client.clone(), &pods), pods, mine, |pod| owner_of(&pod))
        .watches_with(
            Api::all_with(client.clone(), &cluster_runtimes),
            cluster_runtimes,
            all.clone(),
            touched.clone(),
        )
        .watches_with(Api::all_with(client, &runtimes), runtimes, all, touched)
        .run(reconcile, failed, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "reconcile");
            }
        })
        .await;
}

fn runtime_resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(api::serving::GROUP, "v1alpha1", kind))
}

fn owner_of(pod: &PartialObjectMeta<DynamicObject>) -> Option<ObjectRef<InferenceService>> {
    let name = pod.labels().get(LABEL)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

/// Puts the built-in runtimes where `kubectl get clusterservingruntimes` shows them; one that is there is the user's now.
async fn publish_runtimes(client: &Client) {
    let runtimes: Api<DynamicObject> =
        Api::all_with(client.clone(), &runtime_resource("ClusterServingRuntime"));
    // Parsed before the first await: the parser may not move between threads.
    let documents: Vec<_> =
        serde_yaml_ng::Deserializer::from_str(BUILTIN).map(DynamicObject::deserialize).collect();
    for object in documents.into_iter().flatten() {
        match runtimes.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            // They are known here anyway; only the listing lacks them.
            Err(error) => {
                tracing::warn!(runtime = %object.name_any(), %error, "built-in runtime not published")
            }
        }
    }
}

async fn reconcile(service: Arc<InferenceService>, context: Arc<Context>) -> Result<Action, Error> {
    // What is on its way out is the garbage collector's: all children have owner references.
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let seen = observe(&context.client, &service).await?;
    let now =
        jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default().to_string();
    let decision = decide(&service, &seen, &context.config, &now);
    act(&context.client, &service, &decision).await?;
    Ok(Action::await_change())
}

fn failed(service: Arc<InferenceService>, error: &Error, _: Arc<Context>) -> Action {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(service = %service.name_any(), %error, cause, "not done yet");
    Action::requeue(RETRY_AFTER)
}

async fn observe(client: &Client, service: &InferenceService) -> Result<Observed, Error> {
    let namespace = service.namespace().unwrap_or_default();
    let name = service.name_any();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let deployment = deployments
        .get_opt(&predictor_name(&name))
        .await
        .map_err(Error::kube("read", format!("Deployment {namespace}/{name}-predictor")))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let app = selector(&name)["app"].as_str().unwrap_or_default().to_owned();
    let pods = pods
        .list(&ListParams::default().labels(&format!("app={app}")))
        .await
        .map_err(Error::kube("list", "pods"))?
        .items;
    Ok(Observed { runtimes: runtimes(client, &namespace).await?, deployment, pods })
}

/// Runtimes of the namespace, of the cluster, and the built-in ones that nothing of their name replaces.
async fn runtimes(client: &Client, namespace: &str) -> Result<Vec<Runtime>, Error> {
    let own: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &runtime_resource("ServingRuntime"));
    let shared: Api<DynamicObject> =
        Api::all_with(client.clone(), &runtime_resource("ClusterServingRuntime"));
    let mut all = Vec::new();
    for (objects, namespaced) in [(own, true), (shared, false)] {
        let found = objects.list(&ListParams::default()).await.map_err(Error::kube("list", "runtimes"))?;
        for object in &found.items {
            let value = serde_json::to_value(object).unwrap_or(Value::Null);
            all.extend(Runtime::from_object(&value, namespaced));
        }
    }
    let is_known = |name: &str, all: &[Runtime]| all.iter().any(|one| !one.namespaced && one.name == name);
    for runtime in builtin() {
        if !is_known(&runtime.name, &all) {
            all.push(runtime);
        }
    }
    Ok(all)
}
