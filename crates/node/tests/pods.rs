//! Pods with real processes: run, seen, restarted, adopted, ended. As whoever runs the tests, and as a plain user too.

#![allow(clippy::unwrap_used, reason = "a test fails where it is wrong")]

mod common;

use std::time::{Duration, Instant};

use common::Cluster;
use k8s_openapi::api::core::v1::{ContainerState, Event, Pod};
use kube::api::{DeleteParams, ListParams};
use node::logs::Options;
use serde_json::json;

fn state(pod: &Pod) -> ContainerState {
    pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].state.clone().unwrap_or_default()
}

fn waits_because(pod: &Pod, reason: &str) -> bool {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).is_some_and(|statuses| {
        let waiting = statuses[0].state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.and_then(|waiting| waiting.reason.as_deref()) == Some(reason)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_to_its_end_and_tells_how() {
    let cluster = Cluster::start().await;
    let begun = Instant::now();
    cluster
        .run("good", "mkdir -p /output; echo out; echo err >&2; echo why > /dev/termination-log", json!({}))
        .await;
    let pod = cluster.wait_phase("good", "Succeeded").await;
    eprintln!("create to Succeeded: {:?}", begun.elapsed());
    let ended = state(&pod).terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (0, Some("Completed")));
    assert_eq!(ended.message.as_deref(), Some("why\n"));
    let mut lines: Vec<String> =
        cluster.log("good", Options::default()).await.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
    for index in 0..5 {
        let begun = Instant::now();
        cluster.run(&format!("true-{index}"), "true", json!({})).await;
        cluster.wait_phase(&format!("true-{index}"), "Succeeded").await;
        eprintln!("create to Succeeded: {:?}", begun.elapsed());
    }
    cluster.run("bad", "exit 3", json!({})).await;
    let pod = cluster.wait_phase("bad", "Failed").await;
    assert_eq!(state(&pod).terminated.unwrap().exit_code, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_its_volumes_variables_and_nothing_of_the_host() {
    let cluster = Cluster::start().await;
    let script = "cat /conf/colour /sec/word /shared/x; echo; echo $COLOUR $IP; ls /var/run/secrets/kubernetes.io/serviceaccount; \
        cat /etc/shadow /root/.ssh/id_* $DATA/pki/* $DATA/cluster.db; env | grep -c CARGO; \
        touch /usr/bin/x /conf/x; cat /proc/1/environ | tr '\\0' '\\n' | grep -c CARGO; ls /home $DATA; exit 0";
    let spec = json!({
        "volumes": [{"name": "conf", "configMap": {"name": "settings"}}, {"name": "sec", "secret": {"secretName": "key"}},
            {"name": "shared", "emptyDir": {}}],
        "initContainers": [{"name": "first", "image": "busybox", "command": ["sh", "-c", "echo -n init > /shared/x"],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
        "main.volumeMounts": [{"name": "conf", "mountPath": "/conf"}, {"name": "sec", "mountPath": "/sec"},
            {"name": "shared", "mountPath": "/shared"}],
        "main.env": [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "DATA", "value": cluster.dir.path().to_str().unwrap()}],
    });
    cluster.run("curious", script, spec).await;
    let pod = cluster.wait_phase("curious", "Succeeded").await;
    let log = cluster.log("curious", Options::default()).await;
    let ip = pod.status.unwrap().pod_ip.unwrap();
    for expected in ["bluesesameinit", &format!("blue {ip}"), "token", "ca.crt", "namespace"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    for refused in [
        "/etc/shadow: No such file",
        "/root/.ssh/id_*': No such file",
        "cluster.db: No such file",
        "Read-only",
    ] {
        assert!(log.contains(refused), "{refused}: {log}");
    }
    assert_eq!(log.lines().filter(|line| *line == "0").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_told_as_the_kubelet_does() {
    let cluster = Cluster::start().await;
    cluster.run("noimage", "true", json!({"main.image": "example.org/none:1"})).await;
    cluster.run("noconf", "true", json!({"main.envFrom": [{"configMapRef": {"name": "none"}}]})).await;
    let volume = json!({"volumes": [{"name": "h", "hostPath": {"path": "/etc"}}],
        "main.volumeMounts": [{"name": "h", "mountPath": "/h"}]});
    cluster.run("nopath", "true", volume).await;
    cluster.run("noprogram", "", json!({"main.command": ["nonesuch"]})).await;
    cluster.wait("noimage", |pod| waits_because(pod, "ErrImagePull")).await;
    cluster.wait("noconf", |pod| waits_because(pod, "CreateContainerConfigError")).await;
    let pod = cluster.wait("nopath", |pod| waits_because(pod, "CreateContainerError")).await;
    assert!(state(&pod).waiting.unwrap().message.unwrap().contains("hostPath \"/etc\" is not allowed"));
    let pod = cluster.wait_phase("noprogram", "Failed").await;
    let ended = state(&pod).terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (128, Some("StartError")));
    assert!(ended.message.unwrap().contains("executable file not found in $PATH"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashing_container_is_restarted_with_a_growing_delay() {
    let cluster = Cluster::start().await;
    cluster.run("crash", "echo attempt; exit 1", json!({"restartPolicy": "Always"})).await;
    let pod = cluster.wait("crash", |pod| waits_because(pod, "CrashLoopBackOff")).await;
    let status = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 1);
    cluster
        .wait("crash", |pod| {
            waits_because(pod, "CrashLoopBackOff")
                && pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count == 1
        })
        .await;
    assert_eq!(cluster.log("crash", Options { previous: true, ..Options::default() }).await, "attempt\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_is_stopped_and_goes() {
    let cluster = Cluster::start().await;
    cluster
        .run("server", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done", json!({}))
        .await;
    let pod = cluster.wait_phase("server", "Running").await;
    let argv = ["sh", "-c", "exit 7"].map(str::to_owned).into();
    let mut program =
        cluster.node.as_ref().unwrap().exec("default", "server", None, argv, false, false).unwrap();
    assert_eq!(program.wait().await.unwrap().0, 7);
    cluster.api::<Pod>().delete("server", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("server").await;
    let folder = cluster.dir.path().join("pods").join(pod.metadata.uid.unwrap());
    let gone = async {
        while folder.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    let events = cluster.api::<Event>().list(&ListParams::default()).await.unwrap();
    let reasons: Vec<String> = events.items.into_iter().filter_map(|event| event.reason).collect();
    for reason in ["Pulled", "Created", "Started", "Killing", "ImageStandIn"] {
        assert!(reasons.iter().any(|known| known == reason), "{reason}: {reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_adopts_what_runs_and_learns_how_it_ended() {
    let mut cluster = Cluster::start().await;
    let script = "echo begun; while [ ! -e /go/on ]; do sleep 0.02; done; echo ended; exit 9";
    let volume = json!({"volumes": [{"name": "go", "emptyDir": {}}], "main.volumeMounts": [{"name": "go", "mountPath": "/go"}]});
    let pod = cluster.run("long", script, volume).await;
    cluster.wait_phase("long", "Running").await;
    let started = cluster.attempt_file(&pod, 0, "started");
    for _ in 0..20 {
        cluster.lose_node().await;
        cluster.start_node().await;
    }
    cluster.lose_node().await;
    assert!(
        node::shim::start_ticks(started["pid"].as_u64().unwrap() as u32) == started["startTicks"].as_u64()
    );
    // It ends while nobody watches.
    let uid = pod.metadata.uid.clone().unwrap();
    std::fs::write(cluster.dir.path().join(format!("pods/{uid}/volumes/go/on")), "").unwrap();
    let exit = cluster.dir.path().join(format!("pods/{uid}/containers/main/0/exit.json"));
    while !exit.exists() {
        tokio::task::yield_now().await;
    }
    cluster.start_node().await;
    let pod = cluster.wait_phase("long", "Failed").await;
    assert_eq!(state(&pod).terminated.unwrap().exit_code, 9);
    assert_eq!(cluster.log("long", Options::default()).await, "begun\nended\n");
    assert_eq!(cluster.attempt_file(&pod, 0, "started"), started);
    assert!(!exit.parent().unwrap().with_file_name("1").exists(), "it was started twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_pod_stays_ready_and_is_probed_on() {
    let ready = |pod: &Pod, want: bool| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.is_some_and(|statuses| {
            statuses[0].ready == want && statuses[0].state.as_ref().unwrap().running.is_some()
        })
    };
    let mut cluster = Cluster::start().await;
    let probe =
        json!({"exec": {"command": ["test", "-e", "/go/on"]}, "periodSeconds": 1, "failureThreshold": 1});
    let spec = json!({"main.readinessProbe": probe, "volumes": [{"name": "go", "emptyDir": {}}],
        "main.volumeMounts": [{"name": "go", "mountPath": "/go"}]});
    let pod = cluster.run("served", "touch /go/on; sleep 1000", spec).await;
    cluster.wait("served", |pod| ready(pod, true)).await;
    cluster.lose_node().await;
    cluster.start_node().await;
    let uid = pod.metadata.uid.unwrap();
    std::fs::remove_file(cluster.dir.path().join(format!("pods/{uid}/volumes/go/on"))).unwrap();
    cluster.wait("served", |pod| ready(pod, false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shim_takes_its_containers_along_and_is_told() {
    let cluster = Cluster::start().await;
    let pod = cluster.run("orphaned", "sleep 1000", json!({})).await;
    cluster.wait_phase("orphaned", "Running").await;
    let started = cluster.attempt_file(&pod, 0, "started");
    let uid = pod.metadata.uid.clone().unwrap();
    let record = std::fs::read(cluster.dir.path().join(format!("pods/{uid}/shim.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let pid = record["pid"].as_i64().unwrap() as i32;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let pod = cluster.wait_phase("orphaned", "Failed").await;
    let ended = state(&pod).terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    assert_ne!(
        node::shim::start_ticks(started["pid"].as_u64().unwrap() as u32),
        started["startTicks"].as_u64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_shares_the_hosts_ports_is_told_its_own_address() {
    let cluster = Cluster::start().await;
    cluster.run("told", "echo $SLIPWAY_POD_IP", json!({})).await;
    cluster.run("host", "echo none$SLIPWAY_POD_IP", json!({"hostNetwork": true})).await;
    let told = cluster.wait_phase("told", "Succeeded").await;
    cluster.wait_phase("host", "Succeeded").await;
    let ip = told.status.unwrap().pod_ip.unwrap();
    assert_eq!(cluster.log("told", Options::default()).await, format!("{ip}\n"));
    assert_eq!(cluster.log("host", Options::default()).await, "none\n");
}

/// Runs all tests of this file again as a plain user, when root runs them.
#[test]
fn all_of_this_holds_for_a_plain_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for path in [folder.path(), &copy] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(&copy);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", folder.path()).env("HOME", folder.path());
    let output = command.current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("10 passed"), "{text}");
}
