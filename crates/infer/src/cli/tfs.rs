//! The flags of `tensorflow_model_server`.
//!
//! Names and defaults are those of its `main.cc`. What tunes TensorFlow's runtime is taken and reported as without
//! effect; what would change answers and is not built is refused; unknown flags are refused by name.
//!
//! Not here: KServe's flags (`cli`), the files that flags name (`config::tfs`).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

use crate::config::{Batching, Config, Libraries, Mode, Model, Source, document, tfs};
use crate::served::Personality;

/// Serve models as TensorFlow Serving's model server does.
#[derive(Debug, Clone, Parser)]
#[command(name = "tensorflow_model_server", rename_all = "snake_case")]
pub struct Args {
    /// Port of gRPC; 0 takes a free one.
    #[arg(long, default_value_t = 8500)]
    pub port: u16,
    /// A unix socket that gRPC is served on as well.
    #[arg(long = "grpc_socket_path", default_value = "")]
    pub grpc_socket_path: String,
    /// Port of REST; 0 leaves REST closed.
    #[arg(long = "rest_api_port", default_value_t = 0)]
    pub rest_api_port: u16,
    /// Threads of REST: as many as `--rest_api_num_threads` says up to one for each CPU.
    #[arg(long = "rest_api_num_threads")]
    pub rest_api_num_threads: Option<usize>,
    /// Milliseconds that a REST call may wait for its evaluation.
    #[arg(long = "rest_api_timeout_in_ms", default_value_t = 30_000)]
    pub rest_api_timeout_in_ms: u64,
    /// Let pages of other sites call.
    #[arg(long = "rest_api_enable_cors_support", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub rest_api_enable_cors_support: bool,
    /// Put calls together into batches.
    #[arg(long = "enable_batching", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_batching: bool,
    /// How, in protobuf's text format.
    #[arg(long = "batching_parameters_file", default_value = "")]
    pub batching_parameters_file: String,
    /// The models, in protobuf's text format.
    #[arg(long = "model_config_file", default_value = "")]
    pub model_config_file: String,
    /// Seconds between two looks at that file; 0 is one look.
    #[arg(long = "model_config_file_poll_wait_seconds", default_value_t = 0)]
    pub model_config_file_poll_wait_seconds: u64,
    /// The only model's name, where no file lists models.
    #[arg(long = "model_name", default_value = "default")]
    pub model_name: String,
    /// The only model's folder.
    #[arg(long = "model_base_path", default_value = "")]
    pub model_base_path: String,
    /// Models that are read at the same time; 0 is one for each CPU.
    #[arg(long = "num_load_threads", default_value_t = 0)]
    pub num_load_threads: usize,
    /// How often a version that cannot be read is tried again.
    #[arg(long = "max_num_load_retries", default_value_t = 5)]
    pub max_num_load_retries: u32,
    /// Microseconds between two tries.
    #[arg(long = "load_retry_interval_micros", default_value_t = 60_000_000)]
    pub load_retry_interval_micros: u64,
    /// Seconds between two looks at the models' folders; 0 is one look.
    #[arg(long = "file_system_poll_wait_seconds", default_value_t = 1)]
    pub file_system_poll_wait_seconds: u64,
    /// The metrics' path, in protobuf's text format.
    #[arg(long = "monitoring_config_file", default_value = "")]
    pub monitoring_config_file: String,
    /// Key and certificates, in protobuf's text format.
    #[arg(long = "ssl_config_file", default_value = "")]
    pub ssl_config_file: String,
    /// Let labels name versions that do not answer yet.
    #[arg(long = "allow_version_labels_for_unavailable_models", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub allow_version_labels_for_unavailable_models: bool,
    /// Have each version answer its stored warm-up requests before clients reach it.
    #[arg(long = "enable_model_warmup", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_model_warmup: bool,
    /// How often each of them is run; 0 is once.
    #[arg(long = "num_request_iterations_for_warmup", default_value_t = 0)]
    pub num_request_iterations_for_warmup: u32,
    /// Threads of TensorFlow, where the two flags that follow say nothing; 0 is its choice.
    #[arg(long = "tensorflow_session_parallelism", default_value_t = 0)]
    pub tensorflow_session_parallelism: u32,
    /// Threads of TensorFlow for one operation.
    #[arg(long = "tensorflow_intra_op_parallelism", default_value_t = 0)]
    pub tensorflow_intra_op_parallelism: u32,
    /// Threads of TensorFlow for operations that do not depend on each other.
    #[arg(long = "tensorflow_inter_op_parallelism", default_value_t = 0)]
    pub tensorflow_inter_op_parallelism: u32,
    /// Share of a GPU's memory that TensorFlow takes at once; 0 is its choice.
    #[arg(long = "per_process_gpu_memory_fraction", default_value_t = 0.0)]
    pub per_process_gpu_memory_fraction: f64,
    /// Tags of the graph in a SavedModel, with commas between; empty is serve.
    #[arg(long = "saved_model_tags", default_value = "")]
    pub saved_model_tags: String,
    /// TensorFlow's library, or its folder; by default it is looked for among Python's packages and in the system's folders.
    #[arg(long = "tensorflow_library", env = "SLIPWAY_TENSORFLOW_LIBRARY")]
    pub tensorflow_library: Option<PathBuf>,
    /// Check flags, files and folders, tell what would be served, and end.
    #[arg(long = "check_config", alias = "check-config")]
    pub check_config: bool,
    /// What the server tells of its inside.
    #[command(flatten)]
    pub observing: super::Observing,
    #[command(flatten)]
    untuned: Untuned,
}

/// Flags that tune what is not there.
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case")]
struct Untuned {
    #[arg(long = "num_unload_threads", hide = true)]
    num_unload_threads: Option<String>,
    #[arg(long = "grpc_channel_arguments", hide = true)]
    grpc_channel_arguments: Option<String>,
    #[arg(long = "grpc_max_threads", hide = true)]
    grpc_max_threads: Option<String>,
    #[arg(long = "platform_config_file", hide = true)]
    platform_config_file: Option<String>,
    #[arg(long = "flush_filesystem_caches", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    flush_filesystem_caches: Option<String>,
    #[arg(long = "enable_per_model_batching_parameters", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_per_model_batching_parameters: Option<String>,
    #[arg(long = "enable_signature_method_name_check", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_signature_method_name_check: Option<String>,
    #[arg(long = "enable_profiler", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_profiler: Option<String>,
    #[arg(long = "enable_grpc_healthcheck_service", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_grpc_healthcheck_service: Option<String>,
    #[arg(long = "prefer_tflite_model", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    prefer_tflite_model: Option<String>,
    #[arg(long = "xla_cpu_compilation_enabled", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    xla_cpu_compilation_enabled: Option<String>,
}

impl Args {
    /// Checks the flags and reads the files that they name. `pod_ip` as for KServe's flags.
    pub fn config(&self, pod_ip: Option<IpAddr>) -> Result<Config, String> {
        let host = pod_ip.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let mut config = Config::of(self.source()?);
        config.personality = Personality::TfServing;
        // TensorFlow Serving takes both of its ways to change models wherever it listens.
        config.open_repository = true;
        config.grpc = Some(SocketAddr::new(host, self.port));
        config.grpc_socket =
            (!self.grpc_socket_path.is_empty()).then(|| PathBuf::from(&self.grpc_socket_path));
        config.http = SocketAddr::new(host, self.rest_api_port);
        config.without_http = self.rest_api_port == 0;
        if self.rest_api_port == self.port && self.port != 0 {
            return Err(format!("--rest_api_port cannot be the same as --port, {}", self.port));
        }
        config.cors = self.rest_api_enable_cors_support;
        config.timeout = Some(Duration::from_millis(self.rest_api_timeout_in_ms));
        let cpus = config.loading.threads;
        config.workers = self.rest_api_num_threads.map(|threads| threads.clamp(1, cpus));
        let loading = &mut config.loading;
        loading.threads = if self.num_load_threads == 0 { cpus } else { self.num_load_threads };
        loading.retries_max = self.max_num_load_retries;
        loading.retry_wait = Duration::from_micros(self.load_retry_interval_micros);
        loading.poll = seconds(self.file_system_poll_wait_seconds);
        loading.labels_ahead = self.allow_version_labels_for_unavailable_models;
        let iterations = self.num_request_iterations_for_warmup.max(1);
        loading.warmup_iterations = if self.enable_model_warmup { iterations } else { 0 };
        config.queueing.mode = self.batching()?.map_or(Mode::Auto, Mode::Fixed);
        config.metrics_path = read(&self.monitoring_config_file, tfs::monitoring)?.flatten();
        config.tls = read(&self.ssl_config_file, tfs::tls)?;
        self.observing.apply(&mut config)?;
        config.libraries = self.libraries()?;
        Ok(config)
    }

    fn libraries(&self) -> Result<Libraries, String> {
        let fraction = self.per_process_gpu_memory_fraction;
        if !(0.0..=1.0).contains(&fraction) {
            return Err(format!("--per_process_gpu_memory_fraction {fraction}: expected 0 to 1"));
        }
        let session = self.tensorflow_session_parallelism;
        let threads = |own: u32| if own > 0 { own } else { session };
        Ok(Libraries {
            tensorflow_library: self.tensorflow_library.clone(),
            saved_model_tags: self.saved_model_tags.clone(),
            tensorflow_intra_op_threads: threads(self.tensorflow_intra_op_parallelism),
            tensorflow_inter_op_threads: threads(self.tensorflow_inter_op_parallelism),
            gpu_memory_fraction: fraction,
            ..Libraries::default()
        })
    }

    fn source(&self) -> Result<Source, String> {
        match (self.model_config_file.as_str(), self.model_base_path.as_str()) {
            ("", "") => Err("give --model_base_path or --model_config_file".to_owned()),
            ("", path) => {
                let model = Model {
                    personality: Personality::TfServing,
                    ..Model::new(self.model_name.as_str(), path.strip_prefix("file://").unwrap_or(path))
                };
                model.check()?;
                Ok(Source::Fixed(vec![model]))
            }
            (file, _) => {
                let poll = seconds(self.model_config_file_poll_wait_seconds);
                Ok(Source::File { path: file.into(), poll })
            }
        }
    }

    fn batching(&self) -> Result<Option<Batching>, String> {
        match (self.enable_batching, self.batching_parameters_file.is_empty()) {
            (false, true) => Ok(None),
            (false, false) => Err("--batching_parameters_file needs --enable_batching".to_owned()),
            (true, true) => Ok(Some(Batching::default())),
            (true, false) => read(&self.batching_parameters_file, tfs::batching),
        }
    }

    /// What was asked for and has no effect, for the log.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let all = &self.untuned;
        let all = [
            (&all.num_unload_threads, "num_unload_threads"),
            (&all.grpc_channel_arguments, "grpc_channel_arguments"),
            (&all.grpc_max_threads, "grpc_max_threads"),
            (&all.platform_config_file, "platform_config_file"),
            (&all.flush_filesystem_caches, "flush_filesystem_caches"),
            (&all.enable_per_model_batching_parameters, "enable_per_model_batching_parameters"),
            (&all.enable_signature_method_name_check, "enable_signature_method_name_check"),
            (&all.enable_profiler, "enable_profiler"),
            (&all.enable_grpc_healthcheck_service, "enable_grpc_healthcheck_service"),
            (&all.prefer_tflite_model, "prefer_tflite_model"),
            (&all.xla_cpu_compilation_enabled, "xla_cpu_compilation_enabled"),
        ];
        all.into_iter().filter(|(given, _)| given.is_some()).map(|(_, name)| name).collect()
    }
}

pub(super) fn seconds(count: u64) -> Option<Duration> {
    (count > 0).then(|| Duration::from_secs(count))
}

/// Reads a file that a flag names, if it names one.
pub(super) fn read<T, E: std::fmt::Display>(
    path: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let text = document(path.as_ref()).map_err(|error| format!("{path}: {error}"))?;
    parse(&text).map(Some).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let all = ["tensorflow_model_server"].into_iter().chain(args.iter().copied());
        Args::try_parse_from(all).map_err(|error| error.to_string())?.config(None)
    }

    #[test]
    fn the_flags_of_the_image_and_of_the_documents_are_taken() {
        let made = config(&[
            "--port=8500",
            "--rest_api_port=8501",
            "--model_name=half",
            "--model_base_path=/models/half",
            "--enable_batching",
            "--rest_api_enable_cors_support=true",
            "--file_system_poll_wait_seconds=0",
            "--tensorflow_session_parallelism=2",
        ])
        .expect("legal flags");
        assert_eq!((made.http.port(), made.grpc.map(|grpc| grpc.port())), (8501, Some(8500)));
        assert!(made.queueing.mode == Mode::Fixed(Batching::default()) && made.cors && !made.without_http);
        assert_eq!((made.loading.poll, made.personality), (None, Personality::TfServing));
        let threads = &made.libraries;
        assert_eq!((threads.tensorflow_intra_op_threads, threads.tensorflow_inter_op_threads), (2, 2));
        let Source::Fixed(models) = &made.models else { panic!("one model") };
        assert_eq!((&*models[0].name, models[0].path.to_str()), ("half", Some("/models/half")));
        let file = config(&["--model_config_file=/models/config.conf"]).expect("legal flags");
        assert!(file.without_http && matches!(file.models, Source::File { poll: None, .. }));
        assert_eq!(file.loading.poll, Some(Duration::from_secs(1)));
    }

    #[test]
    fn flags_that_cannot_be_meant_are_refused_by_name() {
        let model = "--model_base_path=/m";
        for (args, word) in [
            (&[][..], "--model_base_path"),
            (&[model, "--no_such_flag=1"], "--no_such_flag"),
            (&[model, "--enable_batching=perhaps"], "perhaps"),
            (&[model, "--batching_parameters_file=/b"], "--enable_batching"),
            (&[model, "--enable_batching", "--batching_parameters_file=/no/file"], "/no/file"),
            (&[model, "--ssl_config_file=/no/file"], "/no/file"),
            (&[model, "--model_name=a/b"], "a/b"),
            (&[model, "--rest_api_port=8500"], "--rest_api_port"),
            (&[model, "--per_process_gpu_memory_fraction=7"], "--per_process_gpu_memory_fraction"),
        ] {
            let error = config(args).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
    }
}
