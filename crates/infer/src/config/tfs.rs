//! TensorFlow Serving's configuration files, in protobuf's text format.
//!
//! Unknown fields are refused with their line. `version_policy` is taken for `model_version_policy`, its real name,
//! because documents that circulate write it so.
//!
//! Not here: the text format (`codecs::textproto`), flags (`cli::tfs`).

use std::sync::Arc;
use std::time::Duration;

use codecs::textproto::{Field, Message, TextError, parse};

use super::{Batching, Model, Pem, Tls, VersionPolicy};
use crate::served::Personality;

type Result<T> = std::result::Result<T, TextError>;

fn wrong<T>(field: &Field, what: impl Into<String>) -> Result<T> {
    Err(TextError { line: field.line, what: what.into() })
}

/// Reads a `ModelServerConfig`: the models of `--model_config_file`.
pub fn models(text: &str) -> Result<Vec<Model>> {
    let all = parse(text)?;
    all.only(&["model_config_list", "custom_model_config"])?;
    if let Some(field) = all.get("custom_model_config") {
        return wrong(field, "custom_model_config is not served; use model_config_list");
    }
    let mut models: Vec<Model> = Vec::new();
    for list in all.all("model_config_list") {
        let list = list.message()?;
        list.only(&["config"])?;
        for field in list.all("config") {
            let model = model(field)?;
            if models.iter().any(|known| known.name == model.name) {
                return wrong(field, format!("the model {:?} is there twice", model.name));
            }
            models.push(model);
        }
    }
    Ok(models)
}

const MODEL: [&str; 10] = [
    "name",
    "base_path",
    "model_type",
    "model_platform",
    "model_version_policy",
    "version_policy",
    "version_labels",
    "logging_config",
    "experimental_model_config",
    "metadata",
];

fn model(field: &Field) -> Result<Model> {
    let message = field.message()?;
    message.only(&MODEL)?;
    let text = |name: &str| message.get(name).map(Field::text).transpose();
    let (Some(name), Some(base)) = (text("name")?, text("base_path")?) else {
        return wrong(field, "a model needs a name and a base_path");
    };
    let mut model = Model { personality: Personality::TfServing, ..Model::new(name, base) };
    if let Some(policy) = message.get("model_version_policy").or_else(|| message.get("version_policy")) {
        model.policy = version_policy(policy)?;
    }
    for entry in message.all("version_labels") {
        let pair = entry.message()?;
        pair.only(&["key", "value"])?;
        let (Some(label), Some(version)) = (pair.get("key"), pair.get("value")) else {
            return wrong(entry, "a label needs a key and a value");
        };
        model.labels.insert(label.text()?.to_owned(), version.count()?);
    }
    for name in ["logging_config", "experimental_model_config", "metadata"] {
        if message.get(name).is_some() {
            tracing::warn!(model = %model.name, "{name} has no effect here");
        }
    }
    match model.check() {
        Ok(()) => Ok(model),
        Err(what) => wrong(field, what),
    }
}

/// Reads a policy, which Triton's `config.pbtxt` writes as TensorFlow Serving does.
pub(super) fn version_policy(field: &Field) -> Result<VersionPolicy> {
    let policy = field.message()?;
    policy.only(&["latest", "all", "specific"])?;
    let Some(choice) = policy.fields.last() else { return Ok(VersionPolicy::default()) };
    let message = choice.message()?;
    match choice.name.as_str() {
        "all" => {
            message.only(&[])?;
            Ok(VersionPolicy::All)
        }
        "latest" => {
            message.only(&["num_versions"])?;
            let count = message.get("num_versions").map_or(Ok(1), Field::count)?;
            match u32::try_from(count) {
                Ok(count @ 1..) => Ok(VersionPolicy::Latest(count)),
                _ => wrong(choice, format!("num_versions {count} is not from 1 to {}", u32::MAX)),
            }
        }
        _ => {
            message.only(&["versions"])?;
            let versions = message.all("versions").map(Field::count).collect::<Result<Vec<u64>>>()?;
            if versions.is_empty() {
                return wrong(choice, "specific needs versions");
            }
            Ok(VersionPolicy::Specific(versions))
        }
    }
}

const BATCHING: [&str; 9] = [
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
    "thread_pool_name",
    "enable_large_batch_splitting",
    "max_execution_batch_size",
    "allowed_batch_sizes",
    "pad_variable_length_inputs",
];

/// Reads the `BatchingParameters` of `--batching_parameters_file`.
pub fn batching(text: &str) -> Result<Batching> {
    let all = parse(text)?;
    all.only(&BATCHING)?;
    let number = |name: &str| -> Result<Option<usize>> {
        let Some(field) = all.get(name) else { return Ok(None) };
        let number = field.wrapped()?;
        match usize::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => wrong(field, format!("{name} {number} is negative")),
        }
    };
    let mut batching = Batching::default();
    if let Some(rows) = number("max_batch_size")? {
        batching.rows_max = rows;
    }
    // With splitting, what runs at once may be less than what one call may bring.
    if let Some(rows) = number("max_execution_batch_size")? {
        batching.rows_max = batching.rows_max.min(rows);
    }
    if let Some(micros) = number("batch_timeout_micros")? {
        batching.wait_max = Duration::from_micros(micros as u64);
    }
    if let Some(count) = number("max_enqueued_batches")? {
        batching.queued_batches_max = count;
    }
    if let Some(count) = number("num_batch_threads")? {
        batching.threads = count;
    }
    if let Some(field) = all.get("enable_large_batch_splitting") {
        let message = field.message()?;
        batching.splits = message.get("value").is_some_and(|field| field.truth() == Ok(true));
    }
    if let Some(field) = all.get("pad_variable_length_inputs") {
        batching.pads = field.truth()?;
    }
    for field in all.all("allowed_batch_sizes") {
        batching.allowed.push(usize::try_from(field.count()?).unwrap_or(usize::MAX));
    }
    batching.check().map_err(|what| TextError { line: 1, what })?;
    Ok(batching)
}

/// Reads the `MonitoringConfig` of `--monitoring_config_file`: the path of the metrics, where they are wanted.
pub fn monitoring(text: &str) -> Result<Option<String>> {
    let all = parse(text)?;
    all.only(&["prometheus_config"])?;
    let Some(field) = all.get("prometheus_config") else { return Ok(None) };
    let message = field.message()?;
    message.only(&["enable", "path"])?;
    if !message.get("enable").map_or(Ok(false), Field::truth)? {
        return Ok(None);
    }
    let path = match message.get("path") {
        Some(field) => field.text()?,
        None => "/monitoring/prometheus/metrics",
    };
    match message.get("path") {
        Some(field) if !path.starts_with('/') => wrong(field, "the path must begin with /"),
        _ => Ok(Some(path.to_owned())),
    }
}

/// Reads the `SSLConfig` of `--ssl_config_file`, which holds the certificates themselves.
pub fn tls(text: &str) -> Result<Tls> {
    let all = parse(text)?;
    all.only(&["server_key", "server_cert", "custom_ca", "client_verify"])?;
    let pem = |name: &str| -> Result<Option<Pem>> {
        let text = all.get(name).map(Field::text).transpose()?;
        Ok(text.filter(|text| !text.is_empty()).map(|text| Pem::Text(Arc::from(text.as_bytes()))))
    };
    let (Some(key), Some(certificate)) = (pem("server_key")?, pem("server_cert")?) else {
        return Err(TextError { line: 1, what: "server_key and server_cert are both needed".to_owned() });
    };
    let verifies = all.get("client_verify").map_or(Ok(false), Field::truth)?;
    let client_authorities = pem("custom_ca")?;
    if verifies && client_authorities.is_none() {
        let what = "client_verify needs custom_ca, by which clients are known".to_owned();
        return Err(TextError { line: 1, what });
    }
    Ok(Tls { certificate, key, client_authorities: client_authorities.filter(|_| verifies) })
}

/// A message with nothing in it, for readers of optional parts.
pub(super) fn child<'a>(message: &'a Message, name: &str) -> Result<Option<&'a Message>> {
    message.get(name).map(Field::message).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_files_are_read_as_people_write_them() {
        let text = r#"
            # the real name and the one that circulates
            model_config_list {
              config {
                name: "iris_classifier"
                base_path: "/models/iris_classifier"
                version_policy: { latest { num_versions: 2 } }
              }
              config: { name: 'b', base_path: '/b', model_platform: 'tensorflow',
                model_version_policy { specific { versions: 42 versions: 43 } }
                version_labels { key: 'stable' value: 42 } version_labels { key: 'canary' value: 43 } }
              config { name: 'c' base_path: '/c' model_version_policy: {all: {}} }
              config { name: 'd' base_path: '/d' }
            }"#;
        let models = models(text).expect("a file");
        let show =
            |model: &Model| (model.name.to_string(), model.path.display().to_string(), model.policy.clone());
        let all = |name: &str, path: &str, policy| (name.to_owned(), path.to_owned(), policy);
        assert_eq!(
            models.iter().map(show).collect::<Vec<_>>(),
            [
                all("iris_classifier", "/models/iris_classifier", VersionPolicy::Latest(2)),
                all("b", "/b", VersionPolicy::Specific(vec![42, 43])),
                all("c", "/c", VersionPolicy::All),
                all("d", "/d", VersionPolicy::Latest(1)),
            ]
        );
        assert_eq!(models[1].labels, [("stable".to_owned(), 42), ("canary".to_owned(), 43)].into());
        assert!(models.iter().all(|model| model.personality == Personality::TfServing));
    }

    #[test]
    fn model_files_that_cannot_be_meant_are_refused_with_their_line() {
        for (text, want) in [
            ("model_config_list { config { name: 'a' } }", "line 1: a model needs"),
            ("model_config_list {\n config {\n nam: 'a' } }", "line 3: unknown field \"nam\""),
            ("model_config_list { config { name: 'a/b' base_path: '/' } }", "is no name"),
            (
                "model_config_list { config { name: 'a' base_path: '/' }\nconfig { name: 'a' base_path: '/' } }",
                "line 2: the model \"a\" is there twice",
            ),
            (
                "model_config_list { config { name: 'a' base_path: '/' model_version_policy { latest { num_versions: 0 } } } }",
                "num_versions 0",
            ),
            ("custom_model_config { }", "not served"),
            ("{", "expected the name"),
        ] {
            let error = models(text).expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn batching_files_are_read() {
        let text = "max_batch_size { value: 128 }\nbatch_timeout_micros { value: 5000 }\nmax_enqueued_batches { value: 100 }
            num_batch_threads { value: 8 } allowed_batch_sizes: 32 allowed_batch_sizes: 128 pad_variable_length_inputs: true
            thread_pool_name { value: 'x' } enable_large_batch_splitting { value: false }";
        let read = batching(text).expect("a file");
        assert_eq!(
            (read.rows_max, read.wait_max, read.queued_batches_max),
            (128, Duration::from_millis(5), 100)
        );
        assert_eq!((read.threads, read.allowed, read.pads, read.splits), (8, vec![32, 128], true, false));
        for (text, want) in [
            ("max_batch_size: 128", "expected a message"),
            ("max_batch_size { value: 0 }", "max_batch_size 0"),
            ("num_batch_threads { value: -1 }", "negative"),
            ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "is not max_batch_size 8"),
            ("allowed_batch_sizes: 4 allowed_batch_sizes: 2", "do not ascend"),
            ("max_batch: 3", "unknown field"),
        ] {
            let error = batching(text).expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn monitoring_and_certificates_are_read() {
        let path = monitoring("prometheus_config { enable: true, path: '/m' }").expect("a file");
        assert_eq!(path.as_deref(), Some("/m"));
        let path = monitoring("prometheus_config { enable: true }").expect("a file");
        assert_eq!(path.as_deref(), Some("/monitoring/prometheus/metrics"));
        assert_eq!(monitoring("prometheus_config { enable: false }"), Ok(None));
        let read =
            tls("server_key: 'K\\n' server_cert: 'C' custom_ca: 'A' client_verify: true").expect("a file");
        assert_eq!(read.key, Pem::Text(Arc::from(&b"K\n"[..])));
        assert!(read.client_authorities.is_some());
        assert_eq!(
            tls("server_key: 'K' server_cert: 'C' custom_ca: 'A'").expect("a file").client_authorities,
            None
        );
        assert!(tls("server_key: 'K'").is_err());
        assert!(tls("server_key: 'K' server_cert: 'C' client_verify: true").is_err());
    }
}
