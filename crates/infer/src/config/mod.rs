//! What a server is to serve and how, as one checked value.
//!
//! Flags (`cli`), files (`config::tfs`, `config::triton`, `config::mlserver`) and calls of the repository API all end
//! up in these types; nothing behind them knows where a wish came from.
//!
//! Not here: reading flags (`cli`), carrying the wishes out (`repository`).

mod batching;
mod check;
mod layout;
pub mod mlserver;
mod native;
pub mod observing;
mod python;
mod source;
pub mod tfs;
pub mod triton;
mod warmup;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use models::{Class, Engines, Limits, Method};

pub use batching::{Batching, Mode, Overdue, QueuePolicy, Queueing};
pub use check::check;
pub use layout::{Found, scan};
pub(crate) use native::on_path;
pub use native::{Libraries, OnnxEngine};
pub use observing::Observing;
pub use python::Python;
pub use source::{Source, document};
pub use warmup::{Fill, Warmup, WarmupInput};

use crate::served::Personality;

/// Which of the versions in a model's folder are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many; at least 1.
    Latest(u32),
    /// All.
    All,
    /// These.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

/// One model that is to be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The name in URLs.
    pub name: Arc<str>,
    /// A folder with one model, a folder with a folder for each version (`1`, `2`, …), or the file itself.
    pub path: PathBuf,
    /// Whose manners its answers have.
    pub personality: Personality,
    /// Which versions.
    pub policy: VersionPolicy,
    /// Labels and the versions that carry them.
    pub labels: BTreeMap<String, u64>,
    /// Which of the model's methods answers; `None` is [`Config::method`].
    pub method: Option<Method>,
    /// The model's file in a version's folder, where it is not to be looked for.
    pub file: Option<String>,
    /// A class of the operator's own that is the model, where it is no file that is read.
    pub class: Option<Class>,
    /// How its calls are batched; `None` is [`Config::queueing`].
    pub batching: Option<Batching>,
    /// The SHA-256 of the model's file in hexadecimal digits, where only these bytes are to be served.
    pub sha256: Option<String>,
    /// The MD5 of files, by path in the model's folder, as Triton's checksum agent has them.
    pub md5: BTreeMap<String, String>,
    /// Whether its answers are kept; `None` is [`ResponseCache::by_default`].
    pub cache: Option<bool>,
    /// Requests that each version answers before clients reach it, besides those that lie in its folder.
    pub warmups: Vec<Warmup>,
    /// Why the model cannot be served as it is described. What served it before goes on.
    pub error: Option<String>,
}

impl Model {
    /// A model with all defaults.
    pub fn new(name: impl Into<Arc<str>>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            personality: Personality::default(),
            policy: VersionPolicy::default(),
            labels: BTreeMap::new(),
            method: None,
            file: None,
            class: None,
            batching: None,
            sha256: None,
            md5: BTreeMap::new(),
            cache: None,
            warmups: Vec::new(),
            error: None,
        }
    }

    /// Refuses what can never be served.
    pub fn check(&self) -> Result<(), String> {
        let is_name = |text: &str| !text.is_empty() && !text.contains(['/', ':', '?', '#', ' ', '%']);
        if !is_name(&self.name) {
            return Err(format!("{:?} is no name for a model in a URL", self.name));
        }
        if self.policy == VersionPolicy::Latest(0) {
            return Err(format!("model {}: the newest 0 versions are none", self.name));
        }
        match self.labels.keys().find(|label| !is_name(label)) {
            Some(label) => Err(format!("model {}: {label:?} is no label for a URL", self.name)),
            None => Ok(()),
        }
    }
}

impl From<codecs::grpc::tfs::ModelOrder> for Model {
    fn from(order: codecs::grpc::tfs::ModelOrder) -> Self {
        use codecs::grpc::tfs::VersionPolicy as Asked;
        // Versions are folders named by numbers, so a negative one can only be asked for and never be found.
        let number = |version: i64| u64::try_from(version).unwrap_or(u64::MAX);
        let policy = match order.policy {
            Asked::Latest(count) => VersionPolicy::Latest(count.max(1)),
            Asked::All => VersionPolicy::All,
            Asked::Specific(versions) => VersionPolicy::Specific(versions.into_iter().map(number).collect()),
        };
        let labels = order.labels.into_iter().map(|(label, version)| (label, number(version))).collect();
        Self { personality: Personality::TfServing, policy, labels, ..Self::new(order.name, order.base_path) }
    }
}

/// How much of models that come and go is there at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lazy {
    /// Bytes of all loaded models, by the sizes of their files; `None` is no bound.
    pub bytes_max: Option<u64>,
    /// Loaded models; `None` is no bound.
    pub models_max: Option<usize>,
}

/// How models are read.
#[derive(Debug, Clone)]
pub struct Loading {
    /// Models that are read at the same time, at most.
    pub threads: usize,
    /// How often a version that cannot be read is tried again although its files did not change.
    pub retries_max: u32,
    /// Between two such tries.
    pub retry_wait: Duration,
    /// How often folders are looked through for new versions and changed files; `None` is once, at the start.
    pub poll: Option<Duration>,
    /// Whether a model that cannot be read at the start ends the server.
    pub exit_on_error: bool,
    /// Labels may name versions that do not answer yet.
    pub labels_ahead: bool,
    /// Models are loaded by the first call that needs them, within these bounds.
    pub lazy: Option<Lazy>,
    /// How often each stored request warms a version up before it answers; 0 is not at all.
    pub warmup_iterations: u32,
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            retries_max: 5,
            retry_wait: Duration::from_secs(60),
            poll: None,
            exit_on_error: true,
            labels_ahead: false,
            lazy: None,
            warmup_iterations: 1,
        }
    }
}

/// Certificates or keys in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// Themselves.
    Text(Arc<[u8]>),
}

impl Pem {
    /// The bytes, as they are now.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::File(path) => std::fs::read(path),
            Self::Text(text) => Ok(text.to_vec()),
        }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            // It may be a private key.
            Self::Text(_) => f.write_str("(inline)"),
        }
    }
}

/// Certificates of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate chain.
    pub certificate: Pem,
    /// Its private key.
    pub key: Pem,
    /// Authorities of client certificates; with them every client must show one.
    pub client_authorities: Option<Pem>,
}

/// Answers that are kept for the same calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCache {
    /// Bytes that all of them may take.
    pub bytes_max: usize,
    /// Whether those of models are kept that say nothing about it.
    pub by_default: bool,
}

impl Default for ResponseCache {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, by_default: false }
    }
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long new connections are still taken after readiness said no, so that load balancers learn of it.
    pub grace: Duration,
    /// How long requests in flight may take after that.
    pub finish: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { grace: Duration::ZERO, finish: Duration::from_secs(20) }
    }
}

/// What to serve, where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The models.
    pub models: Source,
    /// Where HTTP is served; port 0 takes a free one.
    pub http: SocketAddr,
    /// HTTP stays closed, as `tensorflow_model_server --rest_api_port=0` asks.
    pub without_http: bool,
    /// A unix socket that HTTP is served on as well.
    pub http_socket: Option<PathBuf>,
    /// Where gRPC is served; `None` is nowhere but on the port of HTTP.
    pub grpc: Option<SocketAddr>,
    /// A server whose port of gRPC is taken ends; else it says so, and the port of HTTP takes gRPC anyway.
    pub grpc_required: bool,
    /// A unix socket that gRPC is served on as well.
    pub grpc_socket: Option<PathBuf>,
    /// Other servers of the same user may listen on the same ports: a restart without a gap begins the new one before
    /// the old one ends.
    pub reuse_port: bool,
    /// Certificates of the ports.
    pub tls: Option<Tls>,
    /// Browsers of other sites may call.
    pub cors: bool,
    /// A port that takes load, unload and reload calls, besides everything that the others take.
    pub admin: Option<SocketAddr>,
    /// A unix socket of the same kind.
    pub admin_socket: Option<PathBuf>,
    /// Load, unload and reload calls are answered on the ports of predictions too.
    pub open_repository: bool,
    /// A further path of the metrics, besides `/metrics`.
    pub metrics_path: Option<String>,
    /// Whose manners answers have that belong to no model.
    pub personality: Personality,
    /// Event loops; `None` is one for each CPU that the process may use.
    pub workers: Option<usize>,
    /// Which of the models' methods answers `:predict`.
    pub method: Method,
    /// Bytes of a request's body, at most.
    pub body_bytes_max: usize,
    /// How long a request without a deadline of its own may wait for its evaluation; `None` is for ever.
    pub timeout: Option<Duration>,
    /// KServe's models answer 500 to inputs that do not fit, as upstream does, instead of 400.
    pub upstream_codes: bool,
    /// Open connections, at most; beyond it new ones wait in the backlog.
    pub connections_max: u64,
    /// How long a connection lives, give or take a tenth; `None` is as long as its client wants.
    pub connection_age: Option<Duration>,
    /// How long clients may be silent.
    pub patience: Patience,
    /// Bounds for reading a model.
    pub limits: Limits,
    /// How models are read.
    pub loading: Loading,
    /// How calls wait and are batched where a model says nothing of its own.
    pub queueing: Queueing,
    /// Answers that are kept.
    pub cache: ResponseCache,
    /// How the server ends.
    pub drain: Drain,
    /// What is told of its inside.
    pub observing: Observing,
    /// Whether and how models may run in Python, for whoever makes the engine; `None` is not at all.
    pub python: Option<Python>,
    /// How models may run in native libraries, likewise.
    pub libraries: Libraries,
    /// Engines for what is not read natively, in the order in which they are asked.
    pub engines: Vec<Arc<dyn Engines>>,
}

/// How long clients may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Between two requests; connections that speak gRPC have a bound of their own for that.
    pub idle: Duration,
    /// Between two pieces of a request, and for a reply to be taken.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { idle: Duration::from_secs(120), stall: Duration::from_secs(30) }
    }
}

impl Config {
    /// One model and the defaults of KServe's servers, on all addresses.
    pub fn new(model_name: impl Into<Arc<str>>, model_dir: impl Into<PathBuf>) -> Self {
        Self::of(Source::Fixed(vec![Model::new(model_name, model_dir)]))
    }

    /// Any models and the defaults of KServe's servers, on all addresses.
    pub fn of(models: Source) -> Self {
        Self {
            models,
            http: SocketAddr::from(([0, 0, 0, 0], 8080)),
            without_http: false,
            http_socket: None,
            grpc: None,
            grpc_required: true,
            grpc_socket: None,
            reuse_port: false,
            tls: None,
            cors: false,
            admin: None,
            admin_socket: None,
            open_repository: false,
            metrics_path: None,
            personality: Personality::default(),
            workers: None,
            method: Method::Predict,
            body_bytes_max: 64 << 20,
            timeout: None,
            upstream_codes: false,
            connections_max: 50_000,
            connection_age: None,
            patience: Patience::default(),
            limits: Limits::default(),
            loading: Loading::default(),
            queueing: Queueing::default(),
            cache: ResponseCache::default(),
            drain: Drain::default(),
            observing: Observing::default(),
            python: None,
            libraries: Libraries::default(),
            engines: Vec::new(),
        }
    }
}
