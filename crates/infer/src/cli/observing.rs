//! Flags of metrics, records, traces, payloads and shadows.
//!
//! Traces are switched on by OpenTelemetry's own variables, payload logging by the flags of KServe's agent.
//!
//! Not here: what they do (`observe`, `metrics`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::Config;
use crate::config::observing::{PayloadMode, Payloads, Sampler, Shadow, Target, Traces};
use crate::observe::check_url;

/// What the server tells of its inside.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub struct Observing {
    /// Versions of models that the metrics tell apart; calls of others are counted together, as `other`.
    #[arg(long = "metrics_models_max", default_value_t = 100)]
    pub metrics_models_max: usize,
    /// Milliseconds from which on a call is slow, and is kept by the flight recorder as failed ones are.
    #[arg(long = "slow_request_ms", default_value_t = 100.0)]
    pub slow_request_ms: f64,
    /// Say in each answer how long its phases took (`Server-Timing`).
    #[arg(long = "server_timing")]
    pub server_timing: bool,
    /// Say in each answer which model and version gave it.
    #[arg(long = "model_headers")]
    pub model_headers: bool,
    /// File that the access log is added to, one JSON object a line; `-` is the standard output.
    #[arg(long = "access_log")]
    pub access_log: Option<PathBuf>,
    /// Share of the calls that the access log has.
    #[arg(long = "access_log_share", default_value_t = 0.01)]
    pub access_log_share: f64,
    #[command(flatten)]
    traces: TracesArgs,
    #[command(flatten)]
    payloads: PayloadsArgs,
    /// Ask another model or version the same: `MODEL=TARGET[/VERSION][@SHARE]`; may be repeated.
    #[arg(long = "shadow")]
    pub shadow: Vec<Shadow>,
}

/// OpenTelemetry's variables, and flags for them.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
struct TracesArgs {
    /// Collector that spans are sent to over HTTP, without the path `/v1/traces`.
    #[arg(long = "otlp_endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<String>,
    /// The same with the whole path.
    #[arg(long = "otlp_traces_endpoint", env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", hide_env_values = true)]
    otlp_traces_endpoint: Option<String>,
    /// `http/protobuf` or `http/json`.
    #[arg(long = "otlp_protocol", env = "OTEL_EXPORTER_OTLP_PROTOCOL", default_value = "http/protobuf")]
    otlp_protocol: String,
    /// Headers of each message to the collector: `name=value,…`.
    #[arg(long = "otlp_headers", env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true)]
    otlp_headers: Option<String>,
    /// Which calls have spans.
    #[arg(long = "traces_sampler", env = "OTEL_TRACES_SAMPLER", default_value = "parentbased_traceidratio")]
    traces_sampler: String,
    /// Share of the calls, where the sampler takes one; 0.01 by default.
    #[arg(long = "traces_sampler_arg", env = "OTEL_TRACES_SAMPLER_ARG")]
    traces_sampler_arg: Option<f64>,
    /// The server's name in traces.
    #[arg(long = "otel_service_name", env = "OTEL_SERVICE_NAME", default_value = "slipway-serve")]
    otel_service_name: String,
    /// What else is said of it: `name=value,…`.
    #[arg(long = "otel_resource_attributes", env = "OTEL_RESOURCE_ATTRIBUTES")]
    otel_resource_attributes: Option<String>,
}

/// The flags of KServe's agent.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
struct PayloadsArgs {
    /// URL that payloads of calls are sent to, as CloudEvents.
    #[arg(long = "log_url", alias = "log-url")]
    log_url: Option<String>,
    /// Which payloads: all, request or response.
    #[arg(long = "log_mode", alias = "log-mode", default_value = "all")]
    log_mode: PayloadMode,
    /// Share of the calls whose payloads are sent.
    #[arg(long = "log_share", default_value_t = 1.0)]
    log_share: f64,
    /// Events that are sent at the same time, at most.
    #[arg(long = "log_workers", default_value_t = 5)]
    log_workers: usize,
    /// Source of the events; by default the pod's name.
    #[arg(long = "source_uri", alias = "source-uri", env = "HOSTNAME", default_value = "slipway-serve")]
    source_uri: String,
    /// Name of the InferenceService in the events.
    #[arg(long = "inference_service", alias = "inference-service", default_value = "")]
    inference_service: String,
    /// Namespace in the events.
    #[arg(long = "namespace", default_value = "")]
    namespace: String,
    /// Endpoint in the events.
    #[arg(long = "endpoint", default_value = "")]
    endpoint: String,
    /// Component in the events.
    #[arg(long = "component", default_value = "")]
    component: String,
    /// Headers of requests that go along with their events, with commas between.
    #[arg(long = "metadata_headers", alias = "metadata-headers", value_delimiter = ',')]
    metadata_headers: Vec<String>,
}

impl Observing {
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), String> {
        // Each place costs a worker some kilobytes once it is used.
        if self.metrics_models_max > 10_000 {
            return Err(format!("--metrics_models_max is {}, at most 10000", self.metrics_models_max));
        }
        let observing = &mut config.observing;
        observing.models_max = self.metrics_models_max;
        observing.slow = Duration::try_from_secs_f64(self.slow_request_ms / 1e3)
            .map_err(|_| format!("--slow_request_ms is {}, expected a time", self.slow_request_ms))?;
        (observing.server_timing, observing.model_headers) = (self.server_timing, self.model_headers);
        let share = share("access_log_share", self.access_log_share)?;
        observing.access = self.access_log.clone().map(|path| match path.as_os_str() == "-" {
            true => (Target::Output, share),
            false => (Target::File(path), share),
        });
        observing.traces = self.traces.settings()?;
        observing.sampler = Sampler::parse(&self.traces.traces_sampler, self.traces.traces_sampler_arg)?;
        observing.payloads = self.payloads.settings()?;
        observing.shadows.clone_from(&self.shadow);
        Ok(())
    }
}

fn share(name: &str, share: f64) -> Result<f64, String> {
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(format!("--{name} is {share}, expected 0 to 1")),
    }
}

/// `name=value,…`, percent-encoded as OpenTelemetry's variables are.
fn pairs(what: &str, text: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let parts = text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_owned(), crate::routes::percent_decoded(value.trim()).into_owned()))
            }
            // The part may be a secret without its name.
            _ => Err(format!("{what} has a part without a name or =")),
        })
        .collect()
}

impl TracesArgs {
    fn settings(&self) -> Result<Option<Traces>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let url = match (given(&self.otlp_traces_endpoint), given(&self.otlp_endpoint)) {
            (Some(url), _) => url,
            (None, Some(base)) => format!("{}/v1/traces", base.trim_end_matches('/')),
            (None, None) => return Ok(None),
        };
        check_url("the endpoint of traces", &url)?;
        let is_json = match self.otlp_protocol.as_str() {
            "http/protobuf" | "" => false,
            "http/json" => true,
            other => {
                return Err(format!(
                    "the protocol of traces is {other:?}, expected http/protobuf or http/json"
                ));
            }
        };
        let mut resource = pairs("OTEL_RESOURCE_ATTRIBUTES", self.otel_resource_attributes.as_deref())?;
        resource.retain(|(name, _)| name != "service.name");
        resource.push(("service.name".to_owned(), self.otel_service_name.clone()));
        let headers = pairs("OTEL_EXPORTER_OTLP_HEADERS", self.otlp_headers.as_deref())?;
        Ok(Some(Traces { url, is_json, headers, resource, delay: Duration::from_secs(1) }))
    }
}

impl PayloadsArgs {
    fn settings(&self) -> Result<Option<Payloads>, String> {
        let Some(url) = self.log_url.clone().filter(|url| !url.is_empty()) else { return Ok(None) };
        check_url("--log_url", &url)?;
        Ok(Some(Payloads {
            url,
            mode: self.log_mode,
            share: share("log_share", self.log_share)?,
            workers: self.log_workers.clamp(1, 256),
            source: self.source_uri.clone(),
            inference_service: self.inference_service.clone(),
            namespace: self.namespace.clone(),
            endpoint: self.endpoint.clone(),
            component: self.component.clone(),
            metadata_headers: self.metadata_headers.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let all = ["serve"].into_iter().chain(args.iter().copied());
        super::super::Args::try_parse_from(all).map_err(|error| error.to_string())?.config(None)
    }

    #[test]
    fn nothing_is_observed_that_was_not_asked_for() {
        let observing = config(&[]).expect("legal flags").observing;
        assert!(observing.access.is_none() && observing.payloads.is_none() && observing.shadows.is_empty());
    }

    #[test]
    fn the_flags_of_the_agent_and_of_opentelemetry_are_taken() {
        let made = config(&[
            "--log-url=http://user:secret@log/x",
            "--log-mode=response",
            "--inference-service=iris",
            "--namespace=ml",
            "--metadata-headers=X-A,X-B",
            "--otlp_endpoint=http://collector:4318/",
            "--otlp_headers=api-key=s%20ecret",
            "--traces_sampler=traceidratio",
            "--traces_sampler_arg=0.5",
            "--otel_resource_attributes=service.name=x,zone=a",
            "--access_log=-",
            "--shadow=iris=rose@0.1",
        ])
        .expect("legal flags")
        .observing;
        let payloads = made.payloads.clone().expect("payloads");
        assert_eq!((payloads.mode, payloads.metadata_headers.len()), (PayloadMode::Response, 2));
        let traces = made.traces.clone().expect("traces");
        assert_eq!(traces.url, "http://collector:4318/v1/traces");
        assert_eq!(traces.headers, [("api-key".to_owned(), "s ecret".to_owned())]);
        let resource = [("zone", "a"), ("service.name", "slipway-serve")];
        assert_eq!(traces.resource, resource.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(made.sampler, Sampler { parent_based: false, ratio: 0.5 });
        assert_eq!((&made.access, made.shadows.len()), (&Some((Target::Output, 0.01)), 1));
        // What is dumped for people has no secrets.
        let shown = format!("{made:?}");
        assert!(!shown.contains("secret") && shown.contains("api-key"), "{shown}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (args, word) in [
            (&["--metrics_models_max=100000"][..], "--metrics_models_max"),
            (&["--slow_request_ms=-1"], "--slow_request_ms"),
            (&["--access_log=-", "--access_log_share=2"], "--access_log_share"),
            (&["--log_url=file:///x"], "--log_url"),
            (&["--log_url=http://x", "--log_mode=some"], "some"),
            (&["--log_url=http://x", "--log_share=-1"], "--log_share"),
            (&["--otlp_endpoint=collector:4317"], "endpoint of traces"),
            (&["--otlp_endpoint=http://x", "--otlp_protocol=grpc"], "grpc"),
            (&["--otlp_endpoint=http://x", "--otlp_headers=secret"], "OTEL_EXPORTER_OTLP_HEADERS"),
            (&["--traces_sampler=jaeger"], "jaeger"),
            (&["--shadow=iris"], "no ="),
        ] {
            let error = config(args).expect_err(word);
            assert!(error.contains(word), "{error}");
        }
    }
}
