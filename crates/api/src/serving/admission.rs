//! What KServe's webhooks do to an InferenceService: old forms become `model:`, and what cannot be served is refused.
//!
//! Pure, so it is the same in process and behind a webhook. The texts are KServe's where it has one.

use serde_json::{Map, Value, json};

use super::{FRAMEWORKS, uri};
use crate::workflow::admission::Problem;

/// Longest name that still makes a Service name of every component.
const NAME_MAX: usize = 63 - "-transformer".len();

/// Defaults of an object of the family; other kinds are left alone.
pub fn defaults(kind: &str, object: &mut Value) {
    if kind != "InferenceService" {
        return;
    }
    let Some(predictor) = object.pointer_mut("/spec/predictor").and_then(Value::as_object_mut) else {
        return;
    };
    let forms: Vec<&str> = FRAMEWORKS.into_iter().filter(|name| is_set(predictor, name)).collect();
    // Two forms are the validator's business: rewriting one would hide the other.
    if let ([framework], false, false) =
        (&forms[..], is_set(predictor, "model"), is_set(predictor, "containers"))
    {
        let Some(Value::Object(mut model)) = predictor.remove(*framework) else { return };
        if matches!(*framework, "triton" | "onnx" | "huggingface") {
            model.entry("protocolVersion").or_insert_with(|| json!("v2"));
        }
        model.insert("modelFormat".to_owned(), json!({"name": framework}));
        predictor.insert("model".to_owned(), Value::Object(model));
    }
    annotate_format(object);
}

/// KServe says the format in an annotation too.
fn annotate_format(object: &mut Value) {
    let format =
        object.pointer("/spec/predictor/model/modelFormat/name").and_then(Value::as_str).map(str::to_owned);
    let Some(format) = format else { return };
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert("modelFormat".to_owned(), json!(format));
    }
}

fn is_set(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_some_and(|value| !value.is_null())
}

/// Everything that is wrong with an object of the family; other kinds pass.
pub fn check(kind: &str, object: &Value) -> Vec<Problem> {
    match kind {
        "InferenceService" => check_service(object),
        "ServingRuntime" | "ClusterServingRuntime" => check_runtime(object),
        _ => Vec::new(),
    }
}

fn problem(field: impl Into<String>, detail: impl Into<String>) -> Problem {
    Problem { field: field.into(), detail: detail.into() }
}

fn check_service(object: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if !name.is_empty() && !is_name(name) {
        found.push(problem(
            "metadata.name",
            format!(
                "the InferenceService \"{name}\" is invalid: a InferenceService name must consist of lower case alphanumeric \
                 characters or '-', and must start with alphabetical character. (e.g. \"my-name\" or \"abc-123\", regex used \
                 for validation is '[a-z]([-a-z0-9]*[a-z0-9])?'), and have at most {NAME_MAX} characters"
            ),
        ));
    }
    let Some(predictor) = object.pointer("/spec/predictor").and_then(Value::as_object) else {
        found.push(problem("spec.predictor", "is required: it says what to serve"));
        return found;
    };
    check_forms(predictor, &mut found);
    check_model(predictor, &mut found);
    check_scale("spec.predictor", predictor, &mut found);
    check_batching(predictor, &mut found);
    for component in ["transformer", "explainer"] {
        if let Some(map) = object.pointer(&format!("/spec/{component}")).and_then(Value::as_object) {
            check_scale(&format!("spec.{component}"), map, &mut found);
        }
    }
    found
}

fn is_name(name: &str) -> bool {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(label)
}

fn check_forms(predictor: &Map<String, Value>, found: &mut Vec<Problem>) {
    let forms = FRAMEWORKS.into_iter().chain(["model"]).filter(|name| is_set(predictor, name)).count();
    let custom = predictor.get("containers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    // Containers beside a model are sidecars (or a collocated transformer); alone they are the predictor.
    if forms > 1 || (forms == 0 && !custom) {
        let list = FRAMEWORKS.map(|name| name.to_owned()).join(", ");
        found.push(problem(
            "spec.predictor",
            format!(
                "exactly one of [model, {list}, containers] must be specified in PredictorSpec, got {forms}"
            ),
        ));
    }
}

fn check_model(predictor: &Map<String, Value>, found: &mut Vec<Problem>) {
    let given = FRAMEWORKS.into_iter().chain(["model"]).find_map(|key| Some((key, predictor.get(key)?)));
    let Some((key, model)) = given.filter(|(_, model)| !model.is_null()) else { return };
    let at = format!("spec.predictor.{key}");
    let Some(model) = model.as_object() else {
        found.push(problem(at, "must be an object"));
        return;
    };
    if is_set(model, "name") {
        found.push(problem(
            format!("{at}.name"),
            "the container's name is given by the platform; leave it out",
        ));
    }
    let format = model.get("modelFormat").and_then(|format| format.get("name")).and_then(Value::as_str);
    if key == "model" && format.unwrap_or_default().is_empty() {
        found
            .push(problem(format!("{at}.modelFormat.name"), "is required: the model's format, e.g. sklearn"));
    }
    match model.get("storageUri") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => {
            if let Some(detail) = uri::problem(text) {
                found.push(problem(format!("{at}.storageUri"), detail));
            }
        }
        Some(other) => found.push(problem(format!("{at}.storageUri"), format!("{other} must be a string"))),
    }
    if is_set(model, "storageUri") && is_set(predictor, "storageUris") {
        found.push(problem("spec.predictor.storageUris", "storageUri and storageUris exclude each other"));
    }
    if let Some(version) = model.get("protocolVersion").and_then(Value::as_str)
        && !matches!(version, "v1" | "v2" | "grpc-v1" | "grpc-v2")
    {
        found.push(problem(
            format!("{at}.protocolVersion"),
            format!("'{version}' must be one of v1, v2, grpc-v1, grpc-v2"),
        ));
    }
}

fn check_scale(at: &str, map: &Map<String, Value>, found: &mut Vec<Problem>) {
    let number = |key: &str, found: &mut Vec<Problem>| match map.get(key) {
        None | Some(Value::Null) => None,
        Some(value) => {
            let number = value.as_i64();
            if number.is_none_or(|number| number < 0) {
                found.push(problem(
                    format!("{at}.{key}"),
                    format!("{value} must be a whole number, 0 or more"),
                ));
            }
            number
        }
    };
    let min = number("minReplicas", found);
    let max = number("maxReplicas", found);
    number("containerConcurrency", found);
    number("scaleTarget", found);
    if let (Some(min), Some(max)) = (min, max)
        && max != 0
        && min > max
    {
        found.push(problem(
            format!("{at}.minReplicas"),
            format!("MinReplicas ({min}) cannot be greater than MaxReplicas ({max})"),
        ));
    }
    if let Some(metric) = map.get("scaleMetric").and_then(Value::as_str)
        && !matches!(metric, "cpu" | "memory" | "concurrency" | "rps")
    {
        found.push(problem(
            format!("{at}.scaleMetric"),
            format!("'{metric}' must be one of cpu, memory, concurrency, rps"),
        ));
    }
    if let Some(percent) = map.get("canaryTrafficPercent").filter(|value| !value.is_null())
        && !percent.as_i64().is_some_and(|percent| (0..=100).contains(&percent))
    {
        found.push(problem(format!("{at}.canaryTrafficPercent"), format!("{percent} must be 0 to 100")));
    }
}

/// The article's fields beside KServe's `batcher`.
fn check_batching(predictor: &Map<String, Value>, found: &mut Vec<Problem>) {
    for key in ["batchSize", "maxBatchSize", "batchTimeout"] {
        if let Some(value) = predictor.get(key).filter(|value| !value.is_null())
            && value.as_i64().is_none_or(|number| number < 1)
        {
            found.push(problem(
                format!("spec.predictor.{key}"),
                format!("{value} must be a whole number, 1 or more"),
            ));
        }
    }
    let number = |key: &str| predictor.get(key).and_then(Value::as_i64);
    if let (Some(size), Some(most)) = (number("batchSize"), number("maxBatchSize"))
        && size > most
    {
        found.push(problem(
            "spec.predictor.batchSize",
            format!("{size} must not be more than maxBatchSize ({most})"),
        ));
    }
}

fn check_runtime(object: &Value) -> Vec<Problem> {
    let containers = object.pointer("/spec/containers").and_then(Value::as_array);
    let has_server = containers.is_some_and(|list| list.iter().any(|one| one["name"] == super::CONTAINER));
    if has_server {
        Vec::new()
    } else {
        vec![problem("spec.containers", "must hold a container named kserve-container")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(predictor: Value) -> Value {
        json!({"metadata": {"name": "m"}, "spec": {"predictor": predictor}})
    }

    #[test]
    fn an_old_form_becomes_a_model() {
        for framework in FRAMEWORKS {
            let mut object = service(json!({framework: {"storageUri": "s3://b/m", "resources": {}}}));
            defaults("InferenceService", &mut object);
            let predictor = &object["spec"]["predictor"];
            assert_eq!(predictor["model"]["modelFormat"]["name"], framework);
            assert_eq!(predictor["model"]["storageUri"], "s3://b/m");
            assert!(predictor.get(framework).is_none());
            assert_eq!(object["metadata"]["annotations"]["modelFormat"], framework);
            assert!(check("InferenceService", &object).is_empty(), "{framework}");
        }
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut once = service(json!({"sklearn": {"storageUri": "s3://b/m"}}));
        defaults("InferenceService", &mut once);
        let mut twice = once.clone();
        defaults("InferenceService", &mut twice);
        assert_eq!(once, twice);
    }

    #[test]
    fn refusals_name_field_and_value() {
        let uri = |uri: &str| json!({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri}});
        let table = [
            (json!({"sklearn": {}, "xgboost": {}}), "spec.predictor", "exactly one of"),
            (json!({}), "spec.predictor", "exactly one of"),
            (json!({"model": {}}), "spec.predictor.model.modelFormat.name", "required"),
            (uri("file:///a/../b"), "spec.predictor.model.storageUri", "file:///a/../b"),
            (uri("http://169.254.169.254/x"), "spec.predictor.model.storageUri", "169.254.169.254"),
            (json!({"sklearn": {"name": "x"}}), "spec.predictor.sklearn.name", "leave it out"),
            (json!({"sklearn": {}, "minReplicas": 3, "maxReplicas": 2}), "spec.predictor.minReplicas", "(3)"),
            (json!({"sklearn": {}, "minReplicas": -1}), "spec.predictor.minReplicas", "-1"),
            (json!({"sklearn": {}, "batchSize": 0}), "spec.predictor.batchSize", "0"),
            (json!({"sklearn": {}, "batchSize": 65, "maxBatchSize": 64}), "spec.predictor.batchSize", "65"),
            (json!({"sklearn": {}, "scaleMetric": "gpu"}), "spec.predictor.scaleMetric", "gpu"),
        ];
        for (predictor, field, text) in table {
            let found = check("InferenceService", &service(predictor.clone()));
            assert!(
                found.iter().any(|one| one.field == field && one.detail.contains(text)),
                "{predictor}: {found:?}"
            );
        }
        let mut named = service(json!({"sklearn": {}}));
        named["metadata"]["name"] = json!("1-Bad");
        assert_eq!(check("InferenceService", &named)[0].field, "metadata.name");
        assert_eq!(check("InferenceService", &json!({"spec": {}}))[0].field, "spec.predictor");
    }

    #[test]
    fn the_users_own_files_are_accepted() {
        for text in [
            include_str!("../../../../examples/iris/kserve-pytorch.yaml"),
            include_str!("../../../../examples/iris/batched-model.yaml"),
        ] {
            let mut object: Value = serde_yaml_ng::from_str(text).unwrap();
            defaults("InferenceService", &mut object);
            assert_eq!(check("InferenceService", &object), []);
            assert_eq!(object["spec"]["predictor"]["model"]["modelFormat"]["name"], "pytorch");
        }
    }
}
