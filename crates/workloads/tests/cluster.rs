//! The controllers against the real API server, through its public protocol.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{Cluster, wait_in};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};

fn job(name: &str, image: &str, extra: Value) -> Value {
    let mut job = json!({"metadata": {"name": name}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": image}]}}}});
    for (key, value) in extra.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

fn has(job: &Job, kind: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image,
            "ports": [{"name": "http", "containerPort": 8080}]}]}}}})
}

fn available(deployment: &Deployment, count: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.observed_generation == deployment.metadata.generation
        && status.available_replicas.unwrap_or(0) == count
        && status.updated_replicas.unwrap_or(0) == count
        && status.replicas.unwrap_or(0) == count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_to_their_end_and_their_pods_go_with_them() {
    let cluster = Cluster::start().await;
    cluster.create::<Job>(job("good", "true", json!({"completions": 3, "parallelism": 2}))).await;
    let good = cluster.wait::<Job>("default", "good", |job| has(job, "Complete")).await;
    let status = good.status.unwrap();
    assert_eq!((status.succeeded, status.active, status.ready), (Some(3), None, Some(0)));
    assert!(status.completion_time.is_some());
    cluster.create::<Job>(job("bad", "false", json!({"backoffLimit": 0}))).await;
    let bad = cluster.wait::<Job>("default", "bad", |job| has(job, "Failed")).await;
    assert_eq!(bad.status.unwrap().failed, Some(1));
    let pods = cluster.api::<Pod>();
    let of = |name: &str| ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    let made = pods.list(&of("good")).await.unwrap().items;
    assert_eq!(made.len(), 3);
    cluster.api::<Job>().delete("good", &DeleteParams::background()).await.unwrap();
    for pod in made {
        cluster.wait_gone::<Pod>(&pod.name_any()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_does_not_fit_waits_and_runs_when_room_is_made() {
    let cluster = Cluster::start().await;
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "server",
            "resources": {"requests": {"cpu": "3"}}}]}})
    };
    let runs =
        |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    cluster.create::<Pod>(pod("first")).await;
    cluster.wait::<Pod>("default", "first", runs).await;
    cluster.create::<Pod>(pod("second")).await;
    let words = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
        1 No preemption victims found for incoming pod.";
    cluster
        .wait::<Pod>("default", "second", |pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|of| of.type_ == "PodScheduled" && of.message.as_deref() == Some(words))
        })
        .await;
    cluster.api::<Pod>().delete("first", &DeleteParams::default()).await.unwrap();
    cluster.wait::<Pod>("default", "second", runs).await;
    let events = cluster.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert!(events.iter().any(|event| event.reason.as_deref() == Some("FailedScheduling")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_back_and_away() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment("web", 3, "one")).await;
    cluster
        .create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http"}]}}))
        .await;
    let web = cluster.wait::<Deployment>("default", "web", |web| available(web, 3)).await;
    assert_eq!(web.annotations()["deployment.kubernetes.io/revision"], "1");
    let slices = cluster.api::<EndpointSlice>();
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let slice = slices.list(&of_web).await.unwrap().items.remove(0);
    cluster
        .wait::<EndpointSlice>("default", &slice.name_any(), |slice| {
            let ready =
                slice.endpoints.iter().filter(|of| of.conditions.as_ref().unwrap().ready == Some(true));
            ready.count() == 3 && slice.ports.as_ref().unwrap()[0].port == Some(8080)
        })
        .await;
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
    let api = cluster.api::<Deployment>();
    let params = PatchParams::default();
    let revision = |web: &Deployment| web.annotations()["deployment.kubernetes.io/revision"].clone();
    api.patch("web", &params, &Patch::Strategic(image("two"))).await.unwrap();
    let web =
        cluster.wait::<Deployment>("default", "web", |web| available(web, 3) && revision(web) == "2").await;
    assert_eq!(revision(&web), "2");
    api.patch("web", &params, &Patch::Strategic(image("one"))).await.unwrap();
    let web =
        cluster.wait::<Deployment>("default", "web", |web| available(web, 3) && revision(web) == "3").await;
    let conditions = web.status.unwrap().conditions.unwrap();
    let reason =
        |kind: &str| conditions.iter().find(|of| of.type_ == kind).and_then(|of| of.reason.clone()).unwrap();
    assert_eq!(
        (reason("Available").as_str(), reason("Progressing").as_str()),
        ("MinimumReplicasAvailable", "NewReplicaSetAvailable")
    );
    let sets = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(sets.len(), 2, "the first template came back; no third set was made");
    api.delete("web", &DeleteParams::foreground()).await.unwrap();
    cluster.wait_gone::<Deployment>("web").await;
    assert!(cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.is_empty());
    assert!(cluster.api::<Pod>().list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_begins_with_an_account_and_ends_with_nothing() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    cluster.wait::<ServiceAccount>("team", "default", |_| true).await;
    cluster
        .wait::<ConfigMap>("team", "kube-root-ca.crt", |map| map.data.as_ref().unwrap()["ca.crt"] == "PEM")
        .await;
    let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), "team");
    jobs.create(&PostParams::default(), &serde_json::from_value(job("j", "server", json!({}))).unwrap())
        .await
        .unwrap();
    cluster
        .wait::<Job>("team", "j", |job| job.status.as_ref().is_some_and(|status| status.ready == Some(1)))
        .await;
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    wait_in(namespaces, "team", |namespace| namespace.is_none()).await;
    assert!(jobs.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_live_on_and_custom_objects_go_with_their_owners() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment("web", 1, "server")).await;
    cluster.wait::<Deployment>("default", "web", |web| available(web, 1)).await;
    let set = cluster.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap().items.remove(0);
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    cluster.api::<Deployment>().delete("web", &orphan).await.unwrap();
    cluster.wait_gone::<Deployment>("web").await;
    let left = cluster.api::<ReplicaSet>().get(&set.name_any()).await.unwrap();
    assert!(left.owner_references().is_empty());
    let owner = cluster.create::<ConfigMap>(json!({"metadata": {"name": "owner"}})).await;
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]);
    cluster.create::<ConfigMap>(json!({"metadata": {"name": "owned", "ownerReferences": reference}})).await;
    cluster.api::<ConfigMap>().delete("owner", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone::<ConfigMap>("owned").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_gets_a_folder_and_the_folder_goes_with_it() {
    let cluster = Cluster::start().await;
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create::<PersistentVolumeClaim>(claim).await;
    let bound = cluster
        .wait::<PersistentVolumeClaim>("default", "data", |claim| {
            claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
        })
        .await;
    assert_eq!(bound.status.unwrap().capacity.unwrap()["storage"].0, "1Gi");
    let name = bound.spec.unwrap().volume_name.unwrap();
    let folder = cluster.dir.path().join("volumes").join(&name);
    assert!(folder.is_dir());
    cluster.api::<PersistentVolumeClaim>().delete("data", &DeleteParams::default()).await.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    wait_in(volumes, &name, |volume| volume.is_none()).await;
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_and_daemon_sets_have_their_pods() {
    let cluster = Cluster::start().await;
    let template = |app: &str| json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "server"}]}});
    let claims = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}}}}]);
    cluster
        .create::<StatefulSet>(json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "template": template("db"), "volumeClaimTemplates": claims}}))
        .await;
    cluster
        .create::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent")}}))
        .await;
    cluster
        .wait::<StatefulSet>("default", "db", |set| {
            set.status.as_ref().is_some_and(|status| status.available_replicas == Some(2))
        })
        .await;
    let second = cluster.api::<Pod>().get("db-1").await.unwrap().spec.unwrap();
    assert_eq!((second.hostname.as_deref(), second.subdomain.as_deref()), (Some("db-1"), Some("db")));
    cluster.api::<PersistentVolumeClaim>().get("data-db-1").await.unwrap();
    cluster
        .wait::<DaemonSet>("default", "agent", |set| {
            set.status.as_ref().is_some_and(|status| status.number_ready == 1)
        })
        .await;
    cluster.api::<StatefulSet>().delete("db", &DeleteParams::background()).await.unwrap();
    cluster.wait_gone::<Pod>("db-0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_without_a_target_says_so() {
    let cluster = Cluster::start().await;
    cluster
        .create::<HorizontalPodAutoscaler>(json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}))
        .await;
    cluster
        .wait::<HorizontalPodAutoscaler>("default", "h", |of| {
            let conditions = of.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|of| of.type_ == "AbleToScale" && of.reason.as_deref() == Some("FailedGetScale"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_at_once_are_all_done() {
    let cluster = Cluster::start().await;
    let done = tokio::spawn(all_complete(cluster.api::<Job>(), 200));
    let begin = Instant::now();
    let creates = (0..200).map(|n| cluster.create::<Job>(job(&format!("j{n}"), "true", json!({}))));
    futures::future::join_all(creates).await;
    let created = begin.elapsed();
    tokio::time::timeout(Duration::from_secs(15), done).await.unwrap().unwrap();
    println!("200 jobs: created after {created:?}, complete after {:?}", begin.elapsed());
    let mut each = Vec::new();
    for n in 200..220 {
        let begin = Instant::now();
        let done = tokio::spawn(complete(cluster.api::<Job>(), format!("j{n}")));
        cluster.create::<Job>(job(&format!("j{n}"), "true", json!({}))).await;
        done.await.unwrap();
        each.push(begin.elapsed());
    }
    each.sort();
    println!("one job: median {:?}, worst {:?}", each[10], each[19]);
}

async fn complete(api: Api<Job>, name: String) {
    wait_in(api, &name, |job| job.is_some_and(|job| has(job, "Complete"))).await;
}

async fn all_complete(api: Api<Job>, count: usize) {
    let mut complete = BTreeSet::new();
    let mut changes = watcher(api, watcher::Config::default()).applied_objects().boxed();
    while complete.len() < count {
        let job = changes.next().await.unwrap().unwrap();
        if has(&job, "Complete") {
            complete.insert(job.name_any());
        }
    }
}
