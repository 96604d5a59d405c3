//! Any artifact URI to a local folder: what the `storage-initializer` container of a model pod does.
//!
//! The result follows KServe: a single file lands in the folder under its own name, a folder's tree lands in it as it
//! is. Files appear whole (written beside, then renamed), so a restarted container finds no half file.
//! Runs in the pod, with the pod's token and the pod's network: it can reach nothing that the pod's owner cannot.

mod local;
mod objects;
mod registry;
mod web;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use crate::Error;
use crate::uri::{self, ArtifactUri, Scheme};

/// Most files of one artifact.
pub const FILES_MAX: u64 = 100_000;
/// Most bytes of one artifact: 256 GiB.
pub const BYTES_MAX: u64 = 256 << 30;
/// How deep `models:/` may point at another `models:/`.
const RESOLVE_DEPTH_MAX: u32 = 4;

/// Where the servers are that URIs lead to.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// Base URL of the artifact face (`SLIPWAY_ARTIFACTS_URL`).
    pub artifacts_url: Option<String>,
    /// Base URL of the MLflow face (`MLFLOW_TRACKING_URI`).
    pub tracking_uri: Option<String>,
    /// Bearer token for both.
    pub token: Option<String>,
}

impl Endpoints {
    /// From the environment that the platform gives a pod, with the pod's own token where it is mounted.
    pub fn from_env() -> Self {
        let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = var("MLFLOW_TRACKING_TOKEN")
            .or_else(|| std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/token").ok());
        Self {
            artifacts_url: var(pod_protocol::launch::ARTIFACTS_URL_ENV),
            tracking_uri: var("MLFLOW_TRACKING_URI"),
            token: token.map(|token| token.trim().to_owned()),
        }
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// The URI that was read in the end (`models:/` resolved).
    pub source: String,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// `storage-initializer SRC DEST`: parses, fetches, and says what arrived.
pub async fn storage_initializer(src: &str, dest: &Path, endpoints: &Endpoints) -> Result<Fetched, Error> {
    fetch(&src.parse()?, dest, endpoints).await
}

/// Fetches `uri` into the folder `dest`, which is made. Files of an earlier attempt are replaced.
pub async fn fetch(uri: &ArtifactUri, dest: &Path, endpoints: &Endpoints) -> Result<Fetched, Error> {
    tokio::fs::create_dir_all(dest).await.map_err(|e| Error::io(dest, e))?;
    let context = Context::new(endpoints)?;
    let source = context.resolve(uri).await?;
    let mut sink = Sink { dest: dest.to_owned(), files: 0, bytes: 0 };
    match &source {
        ArtifactUri::Object(Scheme::Minio, name) => {
            objects::fetch(&context, name, &source, &mut sink).await?
        }
        ArtifactUri::Object(_, _) => {
            return Err(Error::NotYet { uri: source.to_string(), what: "reading S3 and GCS buckets" });
        }
        ArtifactUri::File(path) => local::fetch(path, &mut sink).await?,
        ArtifactUri::Http(url) => web::fetch(&context, url, &mut sink).await?,
        ArtifactUri::MlflowArtifacts { host, path } => {
            registry::fetch_artifacts(&context, host.as_deref(), path, &source, &mut sink).await?;
        }
        ArtifactUri::Model(_) => unreachable!("resolve() ends at something that is no model"),
    }
    Ok(Fetched { source: source.to_string(), files: sink.files, bytes: sink.bytes })
}

/// A client and where to send it.
struct Context<'a> {
    http: reqwest::Client,
    endpoints: &'a Endpoints,
}

impl<'a> Context<'a> {
    fn new(endpoints: &'a Endpoints) -> Result<Self, Error> {
        // Fails when the process has chosen a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .build()
            .map_err(|e| Error::http("HTTP client", &e))?;
        Ok(Self { http, endpoints })
    }

    async fn resolve(&self, uri: &ArtifactUri) -> Result<ArtifactUri, Error> {
        let mut now = uri.clone();
        for _ in 0..=RESOLVE_DEPTH_MAX {
            let ArtifactUri::Model(selector) = &now else { return Ok(now) };
            now = registry::resolve(self, selector, uri).await?;
        }
        let reason =
            format!("the registry's sources lead from model to model more than {RESOLVE_DEPTH_MAX} times");
        Err(Error::BadAnswer { url: uri.to_string(), reason })
    }

    /// A request that carries the token: only for the platform's own servers.
    fn own(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.endpoints.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, url: &str, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Error> {
        let response = request.send().await.map_err(|e| Error::http(url, &e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        Err(Error::Status {
            url: url.to_owned(),
            status: status.as_u16(),
            body: body.chars().take(500).collect(),
        })
    }
}

/// The folder that files arrive in, and how much there is of them.
struct Sink {
    dest: PathBuf,
    files: u64,
    bytes: u64,
}

impl Sink {
    /// Checks the name and the bounds, makes the parents; the file's final path.
    async fn prepare(&mut self, relative: &str, size: u64) -> Result<PathBuf, Error> {
        if !uri::is_safe_relative(Path::new(relative)) {
            let reason = "the name of a file in the artifact is not a plain relative path".to_owned();
            return Err(Error::BadName { name: relative.to_owned(), reason });
        }
        self.files += 1;
        self.bytes += size;
        self.check(relative)?;
        let path = self.dest.join(relative);
        let parent = path.parent().unwrap_or(&self.dest);
        tokio::fs::create_dir_all(parent).await.map_err(|e| Error::io(parent, e))?;
        Ok(path)
    }

    fn check(&self, name: &str) -> Result<(), Error> {
        if self.files > FILES_MAX || self.bytes > BYTES_MAX {
            return Err(Error::TooLarge { name: name.to_owned(), bytes_max: BYTES_MAX });
        }
        Ok(())
    }

    /// Writes a response's body as the file `relative`.
    async fn save(&mut self, relative: &str, url: &str, response: reqwest::Response) -> Result<(), Error> {
        let path = self.prepare(relative, 0).await?;
        let partial = path.with_added_extension("part");
        let mut file = tokio::fs::File::create(&partial).await.map_err(|e| Error::io(&partial, e))?;
        let announced = response.content_length();
        let mut body = response.bytes_stream();
        let mut written = 0_u64;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| Error::http(url, &e))?;
            written += chunk.len() as u64;
            self.bytes += chunk.len() as u64;
            self.check(relative)?;
            file.write_all(&chunk).await.map_err(|e| Error::io(&partial, e))?;
        }
        file.flush().await.map_err(|e| Error::io(&partial, e))?;
        if let Some(announced) = announced.filter(|announced| *announced != written) {
            let reason = format!("{written} bytes came, {announced} were announced");
            return Err(Error::BadAnswer { url: url.to_owned(), reason });
        }
        tokio::fs::rename(&partial, &path).await.map_err(|e| Error::io(&path, e))
    }
}

/// Percent-encodes a path, keeping its slashes.
fn encode_path(path: &str) -> String {
    encode(path, |byte| byte == b'/')
}

/// Percent-encodes a query value.
fn encode_value(value: &str) -> String {
    encode(value, |_| false)
}

fn encode(text: &str, keep: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') || keep(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
