//! kubectl's logs, exec, attach and port-forward against a node made for the test.

#![allow(clippy::unwrap_used, reason = "a test's failure is its panic")]

mod common;

use std::sync::Arc;

use apiserver::streams::{Duplex, ExecIo, ExecOptions, LogOptions, LogStream, PodStreams, StreamError};
use async_trait::async_trait;
use bytes::Bytes;
use common::{Cluster, has_kubectl};
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A node whose containers echo their input, tell their command, and end with the code that it names.
struct Echo;

#[async_trait]
impl PodStreams for Echo {
    async fn logs(&self, pod: &Value, options: LogOptions) -> Result<LogStream, StreamError> {
        let text = format!("{} {} {}\n", pod["metadata"]["name"], options.container, options.follow);
        Ok(futures::stream::iter([Ok(Bytes::from(text)), Ok(Bytes::from("end\n"))]).boxed())
    }

    async fn exec(&self, _pod: &Value, options: ExecOptions, mut io: ExecIo) -> Result<i32, StreamError> {
        let code = options.command.get(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        io.stdout.send(Bytes::from(format!("{:?}\n", options.command))).await.unwrap();
        if options.stdin {
            while let Some(data) = io.stdin.recv().await {
                io.stdout.send(data).await.unwrap();
            }
        }
        io.stderr.send(Bytes::from("done\n")).await.unwrap();
        Ok(code)
    }

    async fn attach(&self, pod: &Value, options: ExecOptions, io: ExecIo) -> Result<i32, StreamError> {
        self.exec(pod, options, io).await
    }

    async fn port_forward(&self, _pod: &Value, port: u16) -> Result<Box<dyn Duplex>, StreamError> {
        if port == 1 {
            return Err(StreamError::Failed("nothing listens on port 1".into()));
        }
        let (ours, theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(theirs);
            writer.write_all(format!("port {port}\n").as_bytes()).await.unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            writer.write_all(&all).await.unwrap();
        });
        Ok(Box::new(ours))
    }
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.server.set_pod_streams(Arc::new(Echo));
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "busybox"}]}});
    let (status, told) = cluster.call("POST", pods, Some(pod)).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    let running = json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "c", "ready": true, "restartCount": 0, "image": "busybox", "imageID": "", "state": {"running": {}}}]}});
    let admin = apiserver::UserInfo::admin();
    let media = "application/merge-patch+json";
    let (status, _) =
        cluster.call_as(admin, "PATCH", &format!("{pods}/p/status"), media, Some(running)).await;
    assert_eq!(status, StatusCode::OK);
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_exec_carry_output_input_and_exit_codes() {
    if !has_kubectl() {
        return;
    }
    let cluster = cluster().await;
    assert_eq!(cluster.ok(&["logs", "-f", "p"], "").await, "\"p\" c true\nend\n");
    let text = cluster.ok(&["exec", "p", "--", "ls", "0"], "").await;
    assert_eq!(text, "[\"ls\", \"0\"]\ndone\n");
    let text = cluster.ok(&["exec", "-i", "p", "--", "cat"], "hello\n").await;
    assert_eq!(text, "[\"cat\"]\nhello\ndone\n");
    let (ok, text) = cluster.kubectl(&["exec", "p", "--", "fail", "7"], "").await.unwrap();
    assert!(!ok && text.contains("command terminated with exit code 7"), "{text}");
    let (ok, text) = cluster.kubectl(&["logs", "p", "-c", "none"], "").await.unwrap();
    assert!(!ok && text.contains("container none is not valid for pod p"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_forwarded_both_ways() {
    use std::io::{BufRead as _, Read as _, Write as _};
    if !has_kubectl() {
        return;
    }
    let cluster = cluster().await;
    let kubeconfig = cluster.kubeconfig.clone();
    let done = tokio::task::spawn_blocking(move || {
        let mut child = std::process::Command::new("kubectl")
            .args(["port-forward", "pod/p", ":8080"])
            .env("KUBECONFIG", kubeconfig)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(Ok(first)) = lines.next() else {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            panic!("{text}");
        };
        // "Forwarding from 127.0.0.1:PORT -> 8080"
        let address = first.split_whitespace().nth(2).unwrap().to_owned();
        let mut answers = Vec::new();
        for _ in 0..2 {
            let mut stream = std::net::TcpStream::connect(&address).unwrap();
            stream.write_all(b"hello").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            answers.push(text);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        answers
    });
    assert_eq!(done.await.unwrap(), ["port 8080\nhello", "port 8080\nhello"]);
}
