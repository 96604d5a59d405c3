//! A server on a free port over a temporary folder, and kubectl pointed at it.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use apiserver::{ApiServer, Config, Ipv4Range, Pki, PortRange, UserInfo};
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use store::Store;
use tokio_util::sync::CancellationToken;

/// One running server.
pub struct Cluster {
    pub server: Arc<ApiServer>,
    pub dir: tempfile::TempDir,
    pub kubeconfig: PathBuf,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The configuration that tests use.
pub fn config(advertise: SocketAddr) -> Config {
    Config {
        advertise,
        service_range: Ipv4Range { base: Ipv4Addr::new(10, 96, 0, 0), prefix: 24 },
        node_ports: PortRange::default(),
        admin_token: None,
        namespaces: vec!["kubeflow".into()],
    }
}

impl Cluster {
    /// Starts a server and serves it over TLS.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Store::open(dir.path(), store::Options::default()).unwrap();
        let server = ApiServer::start(store, pki.clone(), config(address), Vec::new()).await.unwrap();
        let tls = pki.server_tls(&[IpAddr::from([127, 0, 0, 1])], &[]).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server.clone().serve(listener, tls, stop.clone()));
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, pki.kubeconfig(&format!("https://{address}"), "test")).unwrap();
        let cluster = Self { server, dir, kubeconfig, stop };
        for namespace in ["default", "kubeflow"] {
            let account = serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
            assert_eq!(cluster.call("POST", &path, Some(account)).await.0, StatusCode::CREATED);
        }
        cluster
    }

    /// One request in process, as the administrator.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_as(UserInfo::admin(), method, path, "application/json", body).await
    }

    /// One request in process.
    pub async fn call_as(
        &self,
        user: UserInfo,
        method: &str,
        path: &str,
        media: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        use tower::ServiceExt as _;
        let body = body.map_or_else(Body::empty, |value| Body::from(value.to_string()));
        let request =
            Request::builder().method(method).uri(path).header("content-type", media).body(body).unwrap();
        let response = self.server.service(user).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Runs kubectl; its output, standard error included, and whether it succeeded. `None` where there is no kubectl.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Option<(bool, String)> {
        if !has_kubectl() {
            return None;
        }
        let (kubeconfig, home) = (self.kubeconfig.clone(), self.dir.path().to_owned());
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let input = input.to_owned();
        let done = tokio::task::spawn_blocking(move || {
            use std::io::Write as _;
            let mut child = Command::new("kubectl")
                .args(&args)
                .env("KUBECONFIG", kubeconfig)
                .env("HOME", home)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = done.await.unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Some((output.status.success(), text))
    }

    /// Runs kubectl, which must succeed; its output.
    pub async fn ok(&self, args: &[&str], input: &str) -> String {
        let (ok, text) = self.kubectl(args, input).await.unwrap();
        assert!(ok, "kubectl {args:?}: {text}");
        text
    }
}

/// Whether kubectl is there. In CI it must be.
pub fn has_kubectl() -> bool {
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_ok_and(|done| done.status.success());
    assert!(found || std::env::var("CI").as_deref() != Ok("true"), "kubectl is needed when CI=true");
    found
}
