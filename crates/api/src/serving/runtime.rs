//! Which runtime serves a model: KServe's order, over the user's runtimes and those built in.
//!
//! A runtime named in the spec is taken or refused, never replaced. Else: not disabled, speaks the protocol (v1 unless
//! said), lists the format for automatic choice; namespaced ones before cluster ones, then by priority, protocol, age, name.

use serde::Deserialize;
use serde_json::Value;

use super::resource::Model;

/// The documents of the built-in runtimes, as a YAML stream.
pub const BUILTIN: &str = include_str!("runtimes.yaml");

/// A runtime as far as choosing needs it, with its whole spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Its name.
    pub name: String,
    /// A ServingRuntime (of the model's namespace), not a ClusterServingRuntime.
    pub namespaced: bool,
    /// Creation time, RFC 3339; newer ones first. Built-in ones have none.
    pub created: Option<String>,
    /// `spec`.
    pub spec: Value,
}

/// Why no runtime serves a model: KServe's reason and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `NoSupportingRuntime`, `RuntimeNotRecognized` or `RuntimeDisabled`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The built-in runtimes.
pub fn builtin() -> Vec<Runtime> {
    let documents = serde_yaml_ng::Deserializer::from_str(BUILTIN).map(Value::deserialize);
    let documents = documents.filter_map(Result::ok);
    documents.filter_map(|document| Runtime::from_object(&document, false)).collect()
}

impl Runtime {
    /// From an object of either kind.
    pub fn from_object(object: &Value, namespaced: bool) -> Option<Self> {
        Some(Self {
            name: object.pointer("/metadata/name")?.as_str()?.to_owned(),
            namespaced,
            created: object.pointer("/metadata/creationTimestamp").and_then(Value::as_str).map(str::to_owned),
            spec: object.get("spec")?.clone(),
        })
    }

    fn is_disabled(&self) -> bool {
        self.spec["disabled"] == true || self.spec["multiModel"] == true
    }

    fn speaks(&self, protocol: &str) -> bool {
        let list = self.spec["protocolVersions"].as_array();
        list.is_none_or(|list| list.is_empty() || list.iter().any(|one| one == protocol))
    }

    fn format(&self, model: &Model, automatic: bool) -> Option<&Value> {
        let wanted = &model.model_format;
        self.spec["supportedModelFormats"].as_array()?.iter().find(|format| {
            let version_fits =
                wanted.version.as_ref().is_none_or(|version| format["version"] == version.as_str());
            format["name"] == wanted.name.as_str()
                && version_fits
                && (!automatic || format["autoSelect"] == true)
        })
    }

    fn lowest_protocol(&self) -> usize {
        let rank =
            |name: &str| ["v1", "v2", "grpc-v1", "grpc-v2"].iter().position(|one| *one == name).unwrap_or(9);
        let list = self.spec["protocolVersions"].as_array();
        list.into_iter().flatten().filter_map(Value::as_str).map(rank).min().unwrap_or(0)
    }
}

/// The runtime of the model.
///
/// # Errors
/// With KServe's reason when none fits.
pub fn choose<'a>(model: &Model, runtimes: &'a [Runtime]) -> Result<&'a Runtime, Refusal> {
    let protocol = model.protocol_version.as_deref().unwrap_or("v1");
    if let Some(name) = &model.runtime {
        return named(model, runtimes, name, protocol);
    }
    let mut fits: Vec<&Runtime> = runtimes
        .iter()
        .filter(|runtime| {
            !runtime.is_disabled() && runtime.speaks(protocol) && runtime.format(model, true).is_some()
        })
        .collect();
    let priority =
        |runtime: &Runtime| runtime.format(model, true).and_then(|format| format["priority"].as_i64());
    fits.sort_by(|a, b| {
        let ours = (!a.namespaced, std::cmp::Reverse(priority(a)), a.lowest_protocol());
        let theirs = (!b.namespaced, std::cmp::Reverse(priority(b)), b.lowest_protocol());
        ours.cmp(&theirs).then_with(|| b.created.cmp(&a.created)).then_with(|| a.name.cmp(&b.name))
    });
    fits.first().copied().ok_or_else(|| Refusal {
        reason: "NoSupportingRuntime",
        message: format!(
            "No runtime found to support specified predictor with model type {}, version {} and protocol {protocol}; \
             runtimes here serve: {}",
            model.model_format.name,
            model.model_format.version.as_deref().unwrap_or("any"),
            known_formats(runtimes)
        ),
    })
}

fn named<'a>(
    model: &Model,
    runtimes: &'a [Runtime],
    name: &str,
    protocol: &str,
) -> Result<&'a Runtime, Refusal> {
    let refuse = |reason, message| Err(Refusal { reason, message });
    let mut found = runtimes.iter().filter(|runtime| runtime.name == name).collect::<Vec<_>>();
    found.sort_by_key(|runtime| !runtime.namespaced);
    let Some(runtime) = found.first() else {
        return refuse(
            "RuntimeNotRecognized",
            format!("No ServingRuntimes or ClusterServingRuntimes with the name: {name}"),
        );
    };
    if runtime.is_disabled() {
        return refuse("RuntimeDisabled", format!("Specified runtime {name} is disabled"));
    }
    if !runtime.speaks(protocol) {
        return refuse(
            "NoSupportingRuntime",
            format!("Specified runtime {name} does not support protocol {protocol}"),
        );
    }
    if runtime.format(model, false).is_none() {
        let format = &model.model_format.name;
        return refuse(
            "NoSupportingRuntime",
            format!("Specified runtime {name} does not support model format {format}"),
        );
    }
    Ok(runtime)
}

fn known_formats(runtimes: &[Runtime]) -> String {
    let formats =
        runtimes.iter().filter_map(|runtime| runtime.spec["supportedModelFormats"].as_array()).flatten();
    let mut names: Vec<&str> = formats.filter_map(|format| format["name"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn runtime(name: &str, namespaced: bool, spec: Value) -> Runtime {
        Runtime { name: name.into(), namespaced, created: None, spec }
    }

    fn format(priority: i64) -> Value {
        json!({"supportedModelFormats": [{"name": "sklearn", "version": "1", "autoSelect": true, "priority": priority}]})
    }

    fn model(value: Value) -> Model {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_built_in_runtimes_serve_their_formats() {
        let all = builtin();
        for (name, expected) in [
            ("sklearn", "kserve-sklearnserver"),
            ("xgboost", "kserve-xgbserver"),
            ("lightgbm", "kserve-lgbserver"),
            ("pmml", "kserve-pmmlserver"),
        ] {
            let chosen = choose(&model(json!({"modelFormat": {"name": name}})), &all).unwrap();
            assert_eq!(chosen.name, expected);
        }
    }

    #[test]
    fn namespaced_runtimes_and_priorities_come_first() {
        let all = [
            runtime("low", false, format(1)),
            runtime("high", false, format(5)),
            runtime("mine", true, format(1)),
        ];
        let sklearn = model(json!({"modelFormat": {"name": "sklearn"}}));
        assert_eq!(choose(&sklearn, &all).unwrap().name, "mine");
        assert_eq!(choose(&sklearn, &all[..2]).unwrap().name, "high");
    }

    #[test]
    fn a_refusal_has_the_reason_of_kserve() {
        let mut off = format(1);
        off["disabled"] = json!(true);
        let all = [runtime("off", false, off), runtime("on", false, format(1))];
        let table = [
            (json!({"modelFormat": {"name": "pytorch"}}), "NoSupportingRuntime"),
            (json!({"modelFormat": {"name": "sklearn", "version": "9"}}), "NoSupportingRuntime"),
            (json!({"modelFormat": {"name": "sklearn"}, "runtime": "none"}), "RuntimeNotRecognized"),
            (json!({"modelFormat": {"name": "sklearn"}, "runtime": "off"}), "RuntimeDisabled"),
            (json!({"modelFormat": {"name": "onnx"}, "runtime": "on"}), "NoSupportingRuntime"),
        ];
        for (given, reason) in table {
            assert_eq!(choose(&model(given.clone()), &all).unwrap_err().reason, reason, "{given}");
        }
    }
}
