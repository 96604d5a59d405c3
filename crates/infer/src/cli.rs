//! The flags of KServe's model servers.
//!
//! Names and defaults are those of `python -m sklearnserver`. Flags that tune Python are taken and reported as
//! without effect; flags that would change what is served, and are not built, are refused; unknown ones are
//! refused by name.
//!
//! Not here: what the values do (`Config`).

mod batches;
mod lists;
mod native;
mod observing;
mod predictor;
mod python;
pub mod tfs;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgAction, Parser};

pub use batches::Batches;
pub use lists::Lists;
pub use native::Flags as NativeFlags;
pub use observing::Observing;
pub use predictor::Flags as PredictorFlags;
pub use python::Flags as PythonFlags;

use crate::ports::Ports;
use crate::{Config, Method, Personality};

/// Serve models over KServe's V1 protocol, the Open Inference Protocol and TensorFlow Serving's API.
#[derive(Debug, Clone, Parser)]
#[command(name = "serve", rename_all = "snake_case")]
pub struct Args {
    /// Name of the model in URLs.
    #[arg(long = "model_name", alias = "model-name", default_value = "model")]
    pub model_name: String,
    /// Folder (or file) of the model.
    #[arg(long = "model_dir", alias = "model-dir", default_value = "/mnt/models")]
    pub model_dir: String,
    /// Address to listen on; a pod's own address wins.
    #[arg(long, default_value = "0.0.0.0", env = "SLIPWAY_SERVE_HOST")]
    pub host: IpAddr,
    /// Port of HTTP; 0 takes a free one and prints it.
    #[arg(long = "http_port", alias = "http-port", default_value_t = 8080)]
    pub http_port: u16,
    /// Port of gRPC; 0 takes a free one. The port of HTTP takes gRPC too.
    #[arg(long = "grpc_port", alias = "grpc-port", default_value_t = 8081)]
    pub grpc_port: u16,
    /// Whether gRPC gets a port of its own; by default if that port is free and HTTP's is not chosen freely.
    #[arg(long = "enable_grpc", alias = "enable-grpc", action = ArgAction::Set)]
    pub enable_grpc: Option<bool>,
    /// How clients reach the server.
    #[command(flatten)]
    pub ports: Ports,
    /// Many models instead of one.
    #[command(flatten)]
    pub lists: Lists,
    /// What the server tells of its inside.
    #[command(flatten)]
    pub observing: Observing,
    /// How calls wait for their evaluation.
    #[command(flatten)]
    pub batches: Batches,
    /// Models that run in Python.
    #[command(flatten)]
    pub python: PythonFlags,
    /// Models that run in native libraries.
    #[command(flatten)]
    pub native: NativeFlags,
    /// Threads that serve; by default (and for KServe's default of 1) one for each CPU.
    #[arg(long)]
    pub workers: Option<usize>,
    /// The protocol that KServe's controller chose. All are served whatever it says.
    #[arg(long, visible_alias = "predictor_protocol", default_value = "v1")]
    pub protocol: String,
    /// Whose error bodies, codes and colliding paths the answers follow: kserve, tfserving, triton or mlserver.
    #[arg(long, default_value = "kserve")]
    pub personality: Personality,
    /// The SHA-256 of the one model's file: what has another is not served.
    #[arg(long = "model_sha256")]
    pub model_sha256: Option<String>,
    /// Carry out load, unload and reload calls on the ports of predictions.
    #[arg(long = "open_repository_api")]
    pub open_repository_api: bool,
    /// Whom a transformer asks.
    #[command(flatten)]
    pub predictor: PredictorFlags,
    /// Answer with probabilities instead of classes.
    #[arg(long = "predict_proba", env = "PREDICT_PROBA", default_value = "false", action = ArgAction::Set)]
    pub predict_proba: String,
    /// Bytes of a request's body, at most.
    #[arg(long = "max_body_bytes", default_value_t = 64 << 20)]
    pub max_body_bytes: usize,
    /// Threads of Python's evaluation: without effect.
    #[arg(long = "max_threads", alias = "max-threads", hide = true)]
    pub max_threads: Option<usize>,
    /// Workers of Python's event loop: without effect.
    #[arg(long = "max_asyncio_workers", hide = true)]
    pub max_asyncio_workers: Option<usize>,
    /// Threads of the XGBoost and LightGBM servers: without effect.
    #[arg(long, hide = true)]
    pub nthread: Option<usize>,
    /// Python's documentation page: without effect.
    #[arg(long = "enable_docs_url", hide = true, action = ArgAction::Set)]
    pub enable_docs_url: Option<bool>,
    /// Python's latency log: without effect.
    #[arg(long = "enable_latency_logging", hide = true, action = ArgAction::Set)]
    pub enable_latency_logging: Option<bool>,
    /// Python's logging: without effect.
    #[arg(long = "configure_logging", hide = true, action = ArgAction::Set)]
    pub configure_logging: Option<bool>,
    /// Python's logging: without effect.
    #[arg(long = "log_config_file", hide = true)]
    pub log_config_file: Option<PathBuf>,
    /// Python's access log: without effect.
    #[arg(long = "access_log_format", hide = true)]
    pub access_log_format: Option<String>,
    /// Readiness of a predictor: without effect without one.
    #[arg(long = "enable_predictor_health_check", hide = true)]
    pub enable_predictor_health_check: bool,
    /// Messages of gRPC that Python sends: without effect, answers are as large as they are.
    #[arg(long = "grpc_max_send_message_length", hide = true)]
    pub grpc_max_send_message_length: Option<i64>,
    /// Messages of gRPC that Python takes: without effect, `--max_body_bytes` bounds every message.
    #[arg(long = "grpc_max_receive_message_length", hide = true)]
    pub grpc_max_receive_message_length: Option<i64>,
}

impl Args {
    /// Checks the flags. `pod_ip` is the address that the node gave the pod (`SLIPWAY_POD_IP`): pods that share
    /// the host's network each listen on their own.
    pub fn config(&self, pod_ip: Option<IpAddr>) -> Result<Config, String> {
        if !matches!(self.protocol.as_str(), "v1" | "v2" | "grpc-v2") {
            return Err(format!("--protocol {}: expected v1, v2 or grpc-v2", self.protocol));
        }
        crate::config::Model::new(self.model_name.as_str(), "").check()?;
        let method = match self.predict_proba.to_ascii_lowercase().as_str() {
            "true" | "1" => Method::Probabilities,
            "false" | "0" | "" => Method::Predict,
            other => return Err(format!("PREDICT_PROBA is {other:?}, expected true or false")),
        };
        let folder = self.model_dir.strip_prefix("file://").unwrap_or(&self.model_dir);
        let mut config = Config::new(self.model_name.as_str(), folder);
        config.http = SocketAddr::new(pod_ip.unwrap_or(self.host), self.http_port);
        self.ports.apply(&mut config);
        config.grpc_required = self.enable_grpc == Some(true);
        if self.enable_grpc.unwrap_or(self.http_port != 0) {
            config.grpc = Some(SocketAddr::new(pod_ip.unwrap_or(self.host), self.grpc_port));
        }
        config.workers = self.workers.filter(|workers| *workers > 1);
        config.method = method;
        config.personality = self.personality;
        config.open_repository = self.open_repository_api;
        if let crate::config::Source::Fixed(models) = &mut config.models {
            for model in models {
                model.personality = self.personality;
                model.sha256 = self.model_sha256.as_deref().map(crate::proof::checked).transpose()?;
            }
        }
        self.lists.apply(&mut config, self.personality)?;
        if self.model_sha256.is_some() && !matches!(config.models, crate::config::Source::Fixed(_)) {
            return Err("--model_sha256 is of the one model in --model_dir; models of a list have theirs in their own documents".to_owned());
        }
        self.observing.apply(&mut config)?;
        self.batches.apply(&mut config)?;
        self.python.apply(&mut config)?;
        self.predictor.apply(&self.protocol, self.python.python_class.is_some(), &mut config)?;
        self.native.apply(&mut config, &self.python)?;
        config.body_bytes_max = self.max_body_bytes;
        Ok(config)
    }

    /// What was asked for and has no effect, for the log.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let all = [
            (self.max_threads.is_some(), "max_threads"),
            (self.max_asyncio_workers.is_some(), "max_asyncio_workers"),
            (self.nthread.is_some(), "nthread"),
            (self.enable_docs_url.is_some(), "enable_docs_url"),
            (self.enable_latency_logging.is_some(), "enable_latency_logging"),
            (self.configure_logging.is_some(), "configure_logging"),
            (self.log_config_file.is_some(), "log_config_file"),
            (self.access_log_format.is_some(), "access_log_format"),
            (self.enable_predictor_health_check, "enable_predictor_health_check"),
            (self.grpc_max_send_message_length.is_some(), "grpc_max_send_message_length"),
            (self.grpc_max_receive_message_length.is_some(), "grpc_max_receive_message_length"),
        ];
        all.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn config(args: &[&str], pod_ip: Option<IpAddr>) -> Result<Config, String> {
        let all = ["serve"].into_iter().chain(args.iter().copied());
        Args::try_parse_from(all).map_err(|error| error.to_string())?.config(pod_ip)
    }

    #[test]
    fn kserves_flags_are_taken() {
        let args = [
            "--model_name=iris",
            "--model_dir=/mnt/models",
            "--http_port=8080",
            "--workers=1",
            "--max_threads=4",
        ];
        let made = config(&args, None).expect("legal flags");
        let Source::Fixed(models) = &made.models else { panic!("one model") };
        assert_eq!((&*models[0].name, made.http.to_string().as_str()), ("iris", "0.0.0.0:8080"));
        let pod = "127.1.2.3".parse().ok();
        assert_eq!(config(&args, pod).expect("legal flags").http.to_string(), "127.1.2.3:8080");
    }

    #[test]
    fn flags_say_how_calls_wait() {
        use crate::config::Mode;
        let mode = |args: &[&str]| config(args, None).expect("legal flags").queueing.mode;
        assert_eq!(mode(&[]), Mode::Auto);
        assert_eq!(mode(&["--batching=off"]), Mode::Alone);
        let Mode::Fixed(fixed) = mode(&["--max_batch_size=32", "--batch_timeout_micros=5000"]) else {
            panic!("as the flags say")
        };
        assert_eq!((fixed.rows_max, fixed.wait_max.as_millis()), (32, 5));
        assert!(matches!(mode(&["--enable_batching"]), Mode::Fixed(_)));
    }

    #[test]
    fn a_transformer_is_told_whom_to_ask() {
        let class = ["--allow_python", "--python_class=m:C", "--predictor_host=iris-predictor.ml"];
        let made = config(&class, None).expect("legal flags").python.and_then(|python| python.predictor);
        let made = made.expect("a predictor");
        assert_eq!(
            (made.host.as_str(), made.protocol.as_str(), made.timeout.as_secs()),
            ("iris-predictor.ml", "v1", 600)
        );
        let more = ["--predictor_protocol=v2", "--predictor_use_ssl=true", "--predictor_request_retries=2"];
        let all: Vec<&str> = class.into_iter().chain(more).collect();
        let made = config(&all, None).expect("legal flags").python.and_then(|python| python.predictor);
        let made = made.expect("a predictor");
        assert_eq!((made.protocol.as_str(), made.use_ssl, made.retries), ("v2", true, 2));
        let grpc: Vec<&str> = class.into_iter().chain(["--predictor_protocol=grpc-v2"]).collect();
        assert!(config(&grpc, None).expect_err("not asked so").contains("grpc-v2"));
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        for (args, word) in [
            (&["--protocol", "v3"][..], "v3"),
            (&["--predictor_host", "x"], "--predictor_host x"),
            (&["--predictor_host", "x", "--allow_python"], "--python_class"),
            (&["--predictor_host", "x/y", "--allow_python", "--python_class", "m:C"], "x/y"),
            (&["--no_such_flag"], "--no_such_flag"),
            (&["--model_name", "a/b"], "a/b"),
            (&["--http_port", "99999"], "99999"),
            (&["--batching", "perhaps"], "perhaps"),
            (&["--max_batch_size", "0"], "--max_batch_size 0"),
            (&["--batch_timeout_micros", "5"], "--max_batch_size"),
            (&["--python_class", "m:C"], "--allow_python"),
            (&["--onnx_engine", "rten"], "rten"),
            (&["--onnx_graph_optimization", "much"], "--onnx_graph_optimization"),
            (&["--onnx_engine", "native", "--onnx_in_process"], "--onnx_in_process"),
            (&["--allow_python", "--python_class", "m"], "module:Class"),
            (&["--allow_python", "--python_workers", "0"], "--python_workers 0"),
        ] {
            let error = config(args, None).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
    }
}
