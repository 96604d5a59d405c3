//! `batcher` and `logger` of a predictor, as flags of the server that this platform brings.
//!
//! Upstream puts an agent between the clients and the server, which batches V1's calls and logs payloads over HTTP. The
//! built-in server does both itself, for every protocol, so the fields become its flags and no call goes one hop
//! further. Another server knows no such flags, and there is no agent here: it is refused rather than served without.
//!
//! Differences: a call waits for others only while the model is at work, where upstream waits for `maxLatency` always;
//! `batcher.timeout`, which upstream reads nowhere, bounds how long a call may take.
//!
//! Not here: what the flags do (the model server), where they go (`pod`).

use api::serving::CONTAINER;
use api::serving::resource::Predictor;
use api::serving::runtime::{Refusal, Runtime};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Config;

/// Upstream's defaults, as its ConfigMap has them.
const BATCH_ROWS: u64 = 32;
const LATENCY_MS: u64 = 5000;

/// `spec.predictor.batcher`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Batcher {
    max_batch_size: Option<u64>,
    /// Milliseconds.
    max_latency: Option<u64>,
    /// Seconds.
    timeout: Option<u64>,
}

/// `spec.predictor.logger`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Logger {
    url: Option<String>,
    mode: Option<Mode>,
    metadata_headers: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Upstream's default, which its own webhook refuses in this spelling.
    #[default]
    #[serde(alias = "")]
    All,
    Request,
    Response,
}

/// Flags for the built-in server, and the variables that they mention.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Flags {
    pub(crate) args: Vec<Value>,
    pub(crate) env: Vec<Value>,
}

/// What the predictor's fields come to.
///
/// # Errors
/// Names the field that cannot be served.
pub(crate) fn flags(
    name: &str,
    predictor: &Predictor,
    runtime: Option<&Runtime>,
    config: &Config,
) -> Result<Flags, Refusal> {
    let mut flags = Flags::default();
    for field in ["batcher", "logger"] {
        let Some(given) = predictor.rest.get(field).filter(|value| !value.is_null()) else { continue };
        let image = image(predictor, runtime);
        if !is_own(&image, config) {
            return Err(refuse(format!(
                "spec.predictor.{field} is served by the platform's own model server, and {image:?} is another one"
            )));
        }
        let given = given.clone();
        let wrong = |error: serde_json::Error| refuse(format!("spec.predictor.{field}: {error}"));
        match field {
            "batcher" => batcher(&serde_json::from_value(given).map_err(wrong)?, &mut flags)?,
            _ => logger(name, &serde_json::from_value(given).map_err(wrong)?, &mut flags)?,
        }
    }
    Ok(flags)
}

fn refuse(message: String) -> Refusal {
    Refusal { reason: "InvalidPredictorSpec", message }
}

/// The image of the container that serves; empty where there is none.
fn image(predictor: &Predictor, runtime: Option<&Runtime>) -> String {
    let of_model = predictor.model.as_ref().and_then(|model| model.container.get("image"));
    let containers = match runtime {
        Some(runtime) => runtime.spec["containers"].as_array().map_or(&[][..], Vec::as_slice),
        None => &predictor.containers,
    };
    let named = containers.iter().find(|container| container["name"] == CONTAINER);
    let of_container = named.or(containers.first()).map(|container| &container["image"]);
    of_model.or(of_container).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn is_own(image: &str, config: &Config) -> bool {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    config.own_images.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => image.starts_with(beginning),
        None => image == pattern,
    })
}

fn batcher(batcher: &Batcher, flags: &mut Flags) -> Result<(), Refusal> {
    let rows = batcher.max_batch_size.unwrap_or(BATCH_ROWS);
    if rows == 0 {
        return Err(refuse("spec.predictor.batcher.maxBatchSize: 0, expected at least 1".to_owned()));
    }
    let micros = batcher.max_latency.unwrap_or(LATENCY_MS).saturating_mul(1_000);
    flags.args.push(json!(format!("--max_batch_size={rows}")));
    flags.args.push(json!(format!("--batch_timeout_micros={micros}")));
    if let Some(seconds) = batcher.timeout.filter(|seconds| *seconds > 0) {
        flags.args.push(json!(format!("--request_timeout_ms={}", seconds.saturating_mul(1_000))));
    }
    Ok(())
}

fn logger(name: &str, logger: &Logger, flags: &mut Flags) -> Result<(), Refusal> {
    let url = logger.url.as_deref().unwrap_or_default();
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(refuse(format!(
            "spec.predictor.logger.url: {url:?}, expected one that begins with http:// or https://"
        )));
    }
    if let Some(header) = logger.metadata_headers.iter().find(|header| header.contains([',', '$'])) {
        return Err(refuse(format!("spec.predictor.logger.metadataHeaders: {header:?} is no header's name")));
    }
    let mode = match logger.mode.unwrap_or_default() {
        Mode::All => "all",
        Mode::Request => "request",
        Mode::Response => "response",
    };
    // A dollar in the URL is none of the kubelet's business.
    let url = url.replace('$', "$$");
    let own =
        |field: &str, path: &str| json!({"name": field, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    flags.env = vec![own("POD_NAME", "metadata.name"), own("POD_NAMESPACE", "metadata.namespace")];
    let mut args = vec![
        format!("--log_url={url}"),
        format!("--log_mode={mode}"),
        "--source_uri=$(POD_NAME)".to_owned(),
        format!("--inference_service={name}"),
        "--namespace=$(POD_NAMESPACE)".to_owned(),
        "--endpoint=default".to_owned(),
        "--component=predictor".to_owned(),
    ];
    if !logger.metadata_headers.is_empty() {
        args.push(format!("--metadata_headers={}", logger.metadata_headers.join(",")));
    }
    flags.args.extend(args.into_iter().map(Value::from));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::serving::runtime::builtin;

    fn of(more: Value) -> Result<Flags, Refusal> {
        let mut fields = json!({"model": {"modelFormat": {"name": "sklearn"}}});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let predictor: Predictor = serde_json::from_value(fields).unwrap();
        flags("iris", &predictor, Some(&builtin()[0]), &Config::default())
    }

    fn args(more: Value) -> Vec<String> {
        of(more).unwrap().args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn each_field_has_its_flag_and_upstreams_default() {
        assert!(args(json!({})).is_empty());
        assert_eq!(args(json!({"batcher": {}})), ["--max_batch_size=32", "--batch_timeout_micros=5000000"]);
        assert_eq!(
            args(json!({"batcher": {"maxBatchSize": 8, "maxLatency": 20, "timeout": 3}})),
            ["--max_batch_size=8", "--batch_timeout_micros=20000", "--request_timeout_ms=3000"]
        );
        let logged = args(
            json!({"logger": {"url": "http://log/$x", "mode": "request", "metadataHeaders": ["A", "B"]}}),
        );
        assert_eq!(
            logged,
            [
                "--log_url=http://log/$$x",
                "--log_mode=request",
                "--source_uri=$(POD_NAME)",
                "--inference_service=iris",
                "--namespace=$(POD_NAMESPACE)",
                "--endpoint=default",
                "--component=predictor",
                "--metadata_headers=A,B"
            ]
        );
        for mode in [json!({"url": "http://log"}), json!({"url": "http://log", "mode": ""})] {
            assert_eq!(args(json!({"logger": mode}))[1], "--log_mode=all");
        }
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        for (given, word) in [
            (json!({"batcher": {"maxBatchSize": 0}}), "maxBatchSize"),
            (json!({"batcher": {"maxBatchSize": "x"}}), "spec.predictor.batcher"),
            (json!({"batcher": {"size": 1}}), "size"),
            (json!({"logger": {}}), "logger.url"),
            (json!({"logger": {"url": "s3://bucket"}}), "s3://bucket"),
            (json!({"logger": {"url": "http://log", "storage": {"path": "x"}}}), "storage"),
            (json!({"logger": {"url": "http://log", "mode": "some"}}), "some"),
            (json!({"logger": {"url": "http://log", "metadataHeaders": ["a,b"]}}), "a,b"),
            (
                json!({"batcher": {}, "model": {"modelFormat": {"name": "sklearn"}, "image": "me/server:1"}}),
                "me/server:1",
            ),
        ] {
            let refusal = of(given).unwrap_err();
            assert!(refusal.message.contains(word), "{refusal:?}");
        }
        let own: Predictor = serde_json::from_value(
            json!({"containers": [{"image": "me/server:1"}], "logger": {"url": "http://log"}}),
        )
        .unwrap();
        assert!(flags("iris", &own, None, &Config::default()).is_err());
    }
}
