//! One copy of the code that reads, writes, copies and drops the kinds that several crates use.
//!
//! The compiler reuses the instances of generic functions that a crate below has, but never a sibling's: Pods were
//! read by six copies of the same code. `hold` is never called; that it names the functions is enough. Only
//! crates that are compiled for size share, as all users of Kubernetes are.
//!
//! Not here: anything that runs.

use api::serving::InferenceService;
use api::workflow::{Workflow, WorkflowJournal, WorkflowTaskResult};
use futures::future::LocalBoxFuture;
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What every user of a kind calls.
async fn calls<K>(api: Api<K>, mut object: K)
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let (post, patch) = (PostParams::default(), PatchParams::default());
    let by_value = Patch::<Value>::Apply(Value::Null);
    object = object.clone();
    drop(api.get("").await);
    drop(api.get_opt("").await);
    drop(api.list(&ListParams::default()).await);
    drop(api.create(&post, &object).await);
    drop(api.replace("", &post, &object).await);
    drop(api.replace_status("", &post, &object).await);
    drop(api.patch("", &patch, &by_value).await);
    drop(api.patch_status("", &patch, &by_value).await);
    drop(api.delete("", &DeleteParams::default()).await);
    drop(serde_json::to_value(&object));
}

fn boxed<K>(api: Api<K>, object: K) -> LocalBoxFuture<'static, ()>
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug + 'static,
{
    Box::pin(calls(api, object))
}

type Metadata = PartialObjectMeta<DynamicObject>;

fn metadata(api: Api<Metadata>) -> BoxStream<'static, watcher::Result<watcher::Event<Metadata>>> {
    watcher::watcher(api, Config::default()).default_backoff().boxed()
}

macro_rules! hold {
    ($($K:ty),* $(,)?) => {
        /// Names the instances; never called.
        #[doc(hidden)]
        pub fn hold() {
            $(
                std::hint::black_box(boxed::<$K> as fn(Api<$K>, $K) -> _);
                std::hint::black_box(crate::watch::<$K> as fn(Api<$K>, Config) -> _);
            )*
            std::hint::black_box(metadata as fn(Api<Metadata>) -> _);
            std::hint::black_box(boxed::<DynamicObject> as fn(Api<DynamicObject>, DynamicObject) -> _);
        }
    };
}

hold!(
    ConfigMap,
    Deployment,
    EndpointSlice,
    Event,
    Job,
    Lease,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    ReplicaSet,
    Secret,
    Service,
    ServiceAccount,
    InferenceService,
    Workflow,
    WorkflowJournal,
    WorkflowTaskResult,
);
