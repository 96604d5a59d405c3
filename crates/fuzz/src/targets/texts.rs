//! Configurations, as operators and model folders hold them.
//!
//! Not here: what they decide (`infer`).

use std::path::Path;

use bytes::Bytes;
use infer::config::{self, Model};
use models::Memory;

/// Whole fields, because half of one makes a text that nobody reads on.
pub const TEXT_WORDS: &[&[u8]] = &[
    b"dynamic_batching { }",
    b"max_batch_size: 8",
    b"preferred_batch_size: 4",
    b"preferred_batch_size: [ 4, 8 ]",
    b"max_queue_delay_microseconds: 1",
    b"preserve_ordering: true",
    b"priority_levels: 3",
    b"default_priority_level: 1",
    b"priority_queue_policy { key: 1 value { max_queue_size: 4 } }",
    b"model_warmup { name: 'w' count: 2 }",
    b"inputs { key: 'x' value { data_type: TYPE_FP32 dims: 4 zero_data: true } }",
    b"version_policy { specific { versions: 1 } }",
    b"instance_group { count: 2 kind: KIND_CPU }",
    b"config { name: 'm' base_path: '/m' }",
    b"model_version_policy { all { } }",
    b"version_labels { key: 'a' value: 1 }",
    b"parameters { key: 'sha256' value { string_value: '00' } }",
    b"response_cache { enable: true }",
    b"allowed_batch_sizes: 4",
    b"\"max_batch_size\": 4",
    b"flavors:\n  sklearn:\n    pickled_model: model.pkl",
    b"}",
    b"{",
];

pub(super) fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut model = Model::new("m", "/m");
    if config::triton::read(text, &mut model).is_ok() {
        assert!(model.batching.is_none_or(|batching| batching.rows_max > 0));
    }
    if let Ok(models) = config::tfs::models(text) {
        models.iter().for_each(|model| drop(model.check()));
    }
    let _ = config::tfs::batching(text);
    let _ = config::tfs::monitoring(text);
    let _ = config::tfs::tls(text);
    let _ = config::mlserver::read(text, Path::new("/m"), &mut Model::new("m", "/m"));
    let folder =
        Memory(vec![("MLmodel".into(), Bytes::copy_from_slice(bytes)), ("model.pkl".into(), Bytes::new())]);
    if let Ok(chosen) = models::choose(&folder) {
        assert!(["MLmodel", "model.pkl"].contains(&chosen.path.as_str()), "{}", chosen.path);
    }
}

/// One text of each kind.
pub fn texts() -> Vec<Vec<u8>> {
    let all = [
        r#"name: "m" backend: "onnxruntime" max_batch_size: 8 version_policy: { specific { versions: [1,3] } }
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 priority_levels: 2
        default_priority_level: 2 default_queue_policy { timeout_action: DELAY } }"#,
        "max_batch_size: 4 response_cache { enable: true } model_warmup { name: 'w' batch_size: 2
        inputs { key: 'x' value { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } } }",
        "model_config_list { config { name: 'm' base_path: '/m' model_platform: 'tensorflow'
        model_version_policy { latest { num_versions: 2 } } version_labels { key: 'a' value: 1 } } }",
        "max_batch_size { value: 32 } batch_timeout_micros { value: 1000 } num_batch_threads { value: 4 }",
        "prometheus_config { enable: true, path: '/m' }",
        "server_key: 'k' server_cert: 'c' custom_ca: 'a' client_verify: true",
        r#"{"name":"iris","implementation":"mlserver_sklearn.SKLearnModel","parameters":{"uri":"./m"}}"#,
        r#"{"name":"a","max_batch_size":8,"max_batch_time":0.1,"parameters":{"uri":"./m","version":"2"}}"#,
        "artifact_path: model\nflavors:\n  python_function: {model_path: model.pkl}\n  sklearn: {pickled_model: model.pkl}\n",
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
