//! A registry over a temporary folder, on SQLite and, where Debian's PostgreSQL can be started, on that too.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use object_store::memory::InMemory;
use registry::{Config, Registry};
use serde_json::{Value, json};
use tower::ServiceExt;

/// The id that servers run under when the tests run as root; PostgreSQL refuses root.
const NOBODY: u32 = 65_534;

/// A PostgreSQL server of this process.
pub struct Postgres {
    server: Child,
    folder: tempfile::TempDir,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed with -9 it would leave its children and shared memory behind; -QUIT ends all of them at once.
        let pid = self.server.id().to_string();
        if !Command::new("kill").args(["-QUIT", &pid]).status().is_ok_and(|status| status.success()) {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

impl Postgres {
    /// Starts one; says why it cannot. With `CI=true` it must be there.
    pub fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must have /usr/lib/postgresql/*/bin");
            eprintln!(
                "skipped on PostgreSQL: /usr/lib/postgresql/*/bin is not there (apt-get install postgresql)"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let made = unprivileged(&bin.join("initdb"))
            .args(["--no-sync", "-A", "trust", "-U", "test", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = unprivileged(&bin.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-D"])
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = server.stderr.take().unwrap();
        let mut lines = std::io::BufReader::new(stderr).lines();
        let ready =
            lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready to accept connections"));
        assert!(ready, "PostgreSQL ended before it was ready");
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { server, folder })
    }

    /// A new database on it.
    pub async fn url(&self, name: &str) -> String {
        use sqlx::Connection;
        let base = |database: &str| {
            format!("postgres://test@localhost/{database}?host={}", self.folder.path().display())
        };
        sqlx::any::install_default_drivers();
        let mut connection = sqlx::AnyConnection::connect(&base("postgres")).await.unwrap();
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut connection).await.unwrap();
        base(name)
    }
}

fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = versions.filter_map(Result::ok).map(|entry| entry.path().join("bin"));
    bins.filter(|bin| bin.join("initdb").exists()).max()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
        .unwrap_or(false)
}

fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// A registry and its face.
pub struct Face {
    pub registry: Registry,
    pub router: Router,
}

/// Opens one.
pub async fn open(url: &str, isolate: bool) -> Face {
    let config = Config { isolate_namespaces: isolate, ..Config::new(url, Arc::new(InMemory::new())) };
    let registry = Registry::open(config).await.unwrap();
    let router = registry.router();
    Face { registry, router }
}

impl Face {
    /// One request with a JSON body, as tenant `workspace`.
    pub async fn call_in(
        &self,
        workspace: &str,
        method: &str,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(format!("/api/2.0/mlflow/{path}"));
        if !workspace.is_empty() {
            request = request.header("x-mlflow-workspace", workspace);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let (status, bytes) = self.send(request.body(body).unwrap()).await;
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// One request with a JSON body.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.call_in("", method, path, body).await
    }

    /// A POST that must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// A GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call("GET", path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    /// Any request.
    pub async fn send(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    /// A new run in an experiment.
    pub async fn run(&self, experiment: &str) -> String {
        let answer = self.post("runs/create", json!({"experiment_id": experiment, "start_time": 1})).await;
        answer["run"]["info"]["run_id"].as_str().unwrap().to_owned()
    }
}
