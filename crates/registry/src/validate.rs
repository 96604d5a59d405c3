//! Limits and name rules of MLflow, and the refusal of paths and URIs that try to leave their place.
//!
//! Numbers are upstream's (`mlflow/utils/validation.py`). Sources and locations are refused by what they are after
//! decoding, again and again until nothing changes, because one pass of decoding is the classic way around such a check.

use crate::error::{Error, Result};

/// Longest key of a metric, param or tag.
const KEY_MAX: usize = 250;
/// Longest value of a param.
const PARAM_VALUE_MAX: usize = 6000;
/// Longest value of a run's tag.
const TAG_VALUE_MAX: usize = 8000;
/// Longest tag value in the model registry.
const MODEL_TAG_VALUE_MAX: usize = 100_000;
/// Longest name of an experiment.
const EXPERIMENT_NAME_MAX: usize = 500;
/// Longest URI that is kept.
const LOCATION_MAX: usize = 2048;

/// Whether a long value is cut, as MLflow does for params and tags of runs.
fn cut(text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    text.chars().take(limit).collect()
}

fn within(what: &str, text: &str, limit: usize) -> Result<()> {
    let length = text.chars().count();
    if length > limit {
        let shown: String = text.chars().take(100).collect();
        return Err(Error::Invalid(format!(
            "{what} '{shown}' had length {length}, which exceeded length limit of {limit}"
        )));
    }
    Ok(())
}

/// A key of a metric, param or tag.
pub(crate) fn key(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::Invalid(format!("{what} name cannot be None. A key name must be provided.")));
    }
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | ':' | '/');
    if !name.chars().all(allowed) {
        return Err(Error::Invalid(format!(
            "Invalid value \"{name}\" for parameter 'name' supplied: Names may only contain alphanumerics, underscores (_), \
             dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
        )));
    }
    if unique_path(name).as_deref() != Some(name) {
        return Err(Error::Invalid(format!(
            "Invalid value \"{name}\" for parameter 'name' supplied: Names may be treated as files in certain cases, and \
             must not resolve to other names when treated as such."
        )));
    }
    within(&format!("{what} name"), name, KEY_MAX)
}

/// A param: its value is cut to what MLflow keeps.
pub(crate) fn param(name: &str, value: String) -> Result<String> {
    key("Param", name)?;
    Ok(cut(value, PARAM_VALUE_MAX))
}

/// A run's tag: its value is cut to what MLflow keeps.
pub(crate) fn tag(name: &str, value: String) -> Result<String> {
    key("Tag", name)?;
    Ok(cut(value, TAG_VALUE_MAX))
}

/// A tag of a registered model or version.
pub(crate) fn model_tag(name: &str, value: &str) -> Result<()> {
    key("Tag", name)?;
    within("Tag value", value, MODEL_TAG_VALUE_MAX)
}

/// A metric's step and time are never negative.
pub(crate) fn metric_time(name: &str, timestamp: i64) -> Result<()> {
    if timestamp < 0 {
        return Err(Error::Invalid(format!(
            "Invalid value {timestamp} for parameter 'timestamp' of metric '{name}': expected milliseconds since 1970, not negative"
        )));
    }
    Ok(())
}

/// How many things one batch may hold.
pub(crate) fn batch(what: &str, limit: usize, length: usize) -> Result<()> {
    if length > limit {
        return Err(Error::Invalid(format!(
            "A batch logging request can contain at most {limit} {what}. Got {length} {what}. Please split up {what} \
             across multiple requests and try again."
        )));
    }
    Ok(())
}

/// The name of an experiment.
pub(crate) fn experiment_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::Invalid(format!("Invalid experiment name: '{name}'")));
    }
    if name.chars().count() > EXPERIMENT_NAME_MAX {
        return Err(Error::Invalid(format!(
            "'name' exceeds the maximum length of {EXPERIMENT_NAME_MAX} characters"
        )));
    }
    Ok(())
}

/// The number of an experiment.
pub(crate) fn experiment_id(text: &str) -> Result<i64> {
    text.parse().map_err(|_| {
        Error::Invalid(format!("Invalid experiment ID '{text}'. Experiment ID must be a valid integer."))
    })
}

/// The name of a registered model.
pub(crate) fn model_name(name: &str) -> Result<()> {
    if name.contains(['/', ':']) || name == "." || name == ".." {
        return Err(Error::Invalid(format!("Invalid model name '{name}'. Names cannot contain '/' or ':'.")));
    }
    within("Model name", name, 256)
}

/// The name of a logged model.
pub(crate) fn logged_model_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['/', ':', '.', '%', '"', '\'']) {
        return Err(Error::Invalid(format!(
            "Invalid model name ({name}) provided. Model name must be a non-empty string and cannot contain the following \
             characters: ('/', ':', '.', '%', '\"', \"'\")"
        )));
    }
    Ok(())
}

/// A number of a version as text or number.
pub(crate) fn version(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::Invalid(format!("Parameter 'version' must be an integer, got '{text}'.")))
}

/// An alias: not `latest`, not `v5`, and few characters.
pub(crate) fn alias(name: &str) -> Result<()> {
    let invalid = |why: &str| Err(Error::Invalid(format!("Invalid alias name: '{name}'. {why}")));
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || !name.chars().all(allowed) {
        return invalid("Names may only contain alphanumerics, underscores (_), dashes (-) and periods (.).");
    }
    if name.chars().count() > 255 {
        return invalid("'name' exceeds the maximum length of 255 characters");
    }
    if name.eq_ignore_ascii_case("latest") {
        return invalid("'latest' is a reserved alias.");
    }
    let digits = name.strip_prefix(['v', 'V']).unwrap_or_default();
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        return invalid("A version alias such as 'v9' is reserved.");
    }
    Ok(())
}

/// Decodes `%xx` until nothing changes.
pub(crate) fn decode_fully(text: &str) -> String {
    let mut text = text.to_owned();
    // Each pass that changes anything makes the text shorter, so this ends.
    loop {
        let decoded = percent_decode(&text);
        if decoded == text {
            return text;
        }
        text = decoded;
    }
}

pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], pair.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The normal form of a relative path, or nothing when it leaves its root.
fn unique_path(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A path inside the artifact store: decoded, relative, without `..`, control characters or backslashes.
pub(crate) fn artifact_path(path: &str) -> Result<String> {
    let refuse = || Error::Invalid(format!("Invalid path: '{path}'. Expected a relative path without '..'."));
    let decoded = decode_fully(path);
    if decoded.contains('\\')
        || decoded.chars().any(char::is_control)
        || decoded.contains(':') && decoded.contains("//")
    {
        return Err(refuse());
    }
    unique_path(decoded.trim_end_matches('/')).ok_or_else(refuse)
}

/// The scheme of a URI, lower case; nothing for a plain path.
pub(crate) fn scheme(uri: &str) -> Option<String> {
    let (scheme, _) = uri.split_once(':')?;
    let name = scheme.chars().enumerate().all(|(at, c)| {
        c.is_ascii_alphabetic() || (at > 0 && (c.is_ascii_digit() || matches!(c, '+' | '-' | '.')))
    });
    // A letter and a colon is a drive of Windows, hence a local path.
    (name && scheme.len() > 1).then(|| scheme.to_ascii_lowercase())
}

/// An `artifact_location` a client may choose: a remote store, no local path, no `..`, no query or fragment.
pub(crate) fn artifact_location(uri: &str) -> Result<()> {
    within("artifact_location", uri, LOCATION_MAX)?;
    let refuse = |why: &str| Err(Error::Invalid(format!("Invalid artifact_location '{uri}': {why}")));
    if uri.contains(['#', '?', ';']) {
        return refuse("'artifact_location' URL can't include fragments or params.");
    }
    match scheme(uri).as_deref() {
        None | Some("file") => {
            return refuse("local paths are not served by this server; leave it empty or give a remote URI.");
        }
        Some(_) => {}
    }
    if climbs(uri) {
        return refuse("relative path references ('..') are not allowed.");
    }
    Ok(())
}

/// The `source` of a model version, as far as it can be judged without the database.
pub(crate) fn model_source(source: &str) -> Result<()> {
    within("source", source, LOCATION_MAX)?;
    match scheme(source).as_deref() {
        None | Some("file") => Err(Error::Invalid(format!(
            "Invalid model version source: '{source}'. To use a local path as a model version source, the run_id request \
             parameter has to be specified and the local path has to be contained within the artifact directory of the run \
             specified by the run_id."
        ))),
        Some(_) if climbs(source) => Err(Error::Invalid(format!(
            "Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, \
             objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references \
             present. Please provide an absolute path."
        ))),
        Some(_) => Ok(()),
    }
}

/// Whether any part of the URI, however often encoded, is `..` or `.`, or holds a NUL or a backslash.
fn climbs(uri: &str) -> bool {
    let decoded = decode_fully(&uri.replace('+', " "));
    decoded.contains(['\0', '\\']) || decoded.split(['/', ':']).any(|part| part == ".." || part == ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifact_paths_never_leave_their_root() {
        for bad in [
            "..",
            "a/../b",
            "/etc/passwd",
            "a/..%2f..%2fb",
            "%252e%252e/x",
            "a\\..\\b",
            "a\0b",
            "file:///etc/passwd",
        ] {
            assert!(artifact_path(bad).is_err(), "{bad}");
        }
        for (given, kept) in
            [("1/r/artifacts/m.pkl", "1/r/artifacts/m.pkl"), ("a//b/./c/", "a/b/c"), ("", ""), ("a b", "a b")]
        {
            assert_eq!(artifact_path(given).unwrap(), kept);
        }
    }

    #[test]
    fn hostile_model_sources_are_refused() {
        for bad in [
            "/etc/passwd",
            "file:///etc/passwd",
            "FILE:///etc",
            "C:\\models",
            "models",
            "s3://b/a/../../c",
            "mlflow-artifacts://host/..%2f..%2fetc",
            "http://h/api/%252e%252e/x",
            "minio://mlpipeline/a%00b",
        ] {
            assert!(model_source(bad).is_err(), "{bad}");
        }
        for good in [
            "minio://mlpipeline/v2/artifacts/x",
            "models:/m-1234",
            "s3://b/k",
            "runs:/abc/model",
            "dummy-source:x",
        ] {
            assert!(model_source(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn hostile_artifact_locations_are_refused() {
        for bad in [
            "/tmp/x",
            "file:///tmp",
            "s3://b/../c",
            "s3://b/c?x=1",
            "mlflow-artifacts:/1/../../x",
            "s3://b/c#f",
        ] {
            assert!(artifact_location(bad).is_err(), "{bad}");
        }
        assert!(artifact_location("s3://bucket/prefix").is_ok());
    }

    #[test]
    fn keys_follow_the_rules_of_mlflow() {
        for bad in ["", "a?b", "../x", "a//b", "/a", &"x".repeat(251)] {
            assert!(key("Metric", bad).is_err(), "{bad}");
        }
        for good in ["acc", "val/loss", "a b:c.d-e_f", "精度"] {
            assert!(key("Metric", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn aliases_that_look_like_versions_are_reserved() {
        for bad in ["latest", "v1", "V22", "a b", ""] {
            assert!(alias(bad).is_err(), "{bad}");
        }
        assert!(alias("champion").is_ok() && alias("v").is_ok() && alias("v1a").is_ok());
    }
}
