//! Label and field selectors: parsing with upstream's grammar and errors, and matching against untyped objects.

use serde_json::{Map, Value};

use crate::error::{ApiError, Result};
use crate::object;
use crate::resource::Resource;

/// One clause of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// The key's value is one of these.
    In(String, Vec<String>),
    /// The key is absent or its value is none of these.
    NotIn(String, Vec<String>),
    /// The key is there.
    Exists(String),
    /// The key is not there.
    Absent(String),
    /// The value is an integer above this.
    Above(String, i64),
    /// The value is an integer below this.
    Below(String, i64),
}

impl Requirement {
    fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let get = |key: &str| labels.and_then(|map| map.get(key)).and_then(Value::as_str);
        match self {
            Self::In(key, values) => get(key).is_some_and(|have| values.iter().any(|one| one == have)),
            Self::NotIn(key, values) => get(key).is_none_or(|have| values.iter().all(|one| one != have)),
            Self::Exists(key) => get(key).is_some(),
            Self::Absent(key) => get(key).is_none(),
            Self::Above(key, bound) => {
                get(key).and_then(|have| have.parse::<i64>().ok()).is_some_and(|n| n > *bound)
            }
            Self::Below(key, bound) => {
                get(key).and_then(|have| have.parse::<i64>().ok()).is_some_and(|n| n < *bound)
            }
        }
    }
}

/// Parses `a=b,c!=d,e in (f,g),h,!i`.
///
/// # Errors
/// `BadRequest` that names what could not be understood.
pub fn parse_labels(text: &str) -> Result<Vec<Requirement>> {
    split_clauses(text)
        .into_iter()
        .map(|clause| {
            parse_requirement(clause.trim()).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "unable to parse requirement: found {clause:?}, expected: a valid selector"
                ))
            })
        })
        .collect()
}

/// Splits at commas outside parentheses.
fn split_clauses(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 0;
    let mut out = Vec::new();
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    if text.trim().is_empty() {
        out.clear();
    }
    out
}

fn parse_requirement(clause: &str) -> Option<Requirement> {
    if let Some(key) = clause.strip_prefix('!') {
        return valid_key(key.trim()).map(Requirement::Absent);
    }
    let end = clause.find(|c: char| c.is_whitespace() || "=!<>".contains(c)).unwrap_or(clause.len());
    let key = valid_key(&clause[..end])?;
    let rest = clause[end..].trim_start();
    let one = |value: &str| {
        let value = value.trim();
        crate::names::label_value_problem(value).is_none().then(|| vec![value.to_owned()])
    };
    if rest.is_empty() {
        Some(Requirement::Exists(key))
    } else if let Some(value) = rest.strip_prefix("!=") {
        Some(Requirement::NotIn(key, one(value)?))
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        Some(Requirement::In(key, one(value)?))
    } else if let Some(value) = rest.strip_prefix('>') {
        Some(Requirement::Above(key, value.trim().parse().ok()?))
    } else if let Some(value) = rest.strip_prefix('<') {
        Some(Requirement::Below(key, value.trim().parse().ok()?))
    } else if let Some(set) = rest.strip_prefix("notin") {
        Some(Requirement::NotIn(key, parse_set(set)?))
    } else {
        Some(Requirement::In(key, parse_set(rest.strip_prefix("in")?)?))
    }
}

fn valid_key(key: &str) -> Option<String> {
    crate::names::qualified_name_problems(key).is_empty().then(|| key.to_owned())
}

fn parse_set(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    let values: Vec<String> = inner.split(',').map(|one| one.trim().to_owned()).collect();
    values.iter().all(|value| crate::names::label_value_problem(value).is_none()).then_some(values)
}

/// A `metav1.LabelSelector` object as clauses. `None` when an operator is unknown.
pub fn from_selector_object(selector: &Value) -> Option<Vec<Requirement>> {
    let mut out = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        out.push(Requirement::In(key.clone(), vec![value.as_str()?.to_owned()]));
    }
    for expression in object::items(selector, "/matchExpressions") {
        let key = object::text(expression, "/key").to_owned();
        let values: Vec<String> =
            object::items(expression, "/values").iter().filter_map(Value::as_str).map(Into::into).collect();
        out.push(match object::text(expression, "/operator") {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::Absent(key),
            _ => return None,
        });
    }
    Some(out)
}

/// True when every clause holds.
pub fn labels_match(requirements: &[Requirement], labels: Option<&Map<String, Value>>) -> bool {
    requirements.iter().all(|one| one.matches(labels))
}

/// One clause of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldClause {
    path: String,
    value: String,
    equal: bool,
}

fn parse_fields(text: &str, resource: &Resource) -> Result<Vec<FieldClause>> {
    let clauses = text.split(',').filter(|clause| !clause.is_empty());
    clauses
        .map(|clause| {
            let (path, value, equal) = clause
                .split_once("!=")
                .map(|(path, value)| (path, value, false))
                .or_else(|| clause.split_once("==").map(|(path, value)| (path, value, true)))
                .or_else(|| clause.split_once('=').map(|(path, value)| (path, value, true)))
                .ok_or_else(|| {
                    ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{clause}'"))
                })?;
            if !field_is_known(resource, path) {
                return Err(ApiError::bad_request(format!("field label not supported: {path}")));
            }
            Ok(FieldClause { path: path.into(), value: unescape(value), equal })
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// The fields that upstream lets one select by, beyond name and namespace.
fn known_fields(resource: &Resource) -> &'static [&'static str] {
    match resource.group_kind() {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "Namespace") => &["status.phase"],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "ReplicationController") | ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    }
}

fn field_is_known(resource: &Resource, path: &str) -> bool {
    path == "metadata.name"
        || (path == "metadata.namespace" && resource.namespaced)
        || known_fields(resource).contains(&path)
        || resource.custom.as_ref().is_some_and(|custom| custom.selectable.iter().any(|one| one == path))
}

/// The value of a selectable field as text; absent is empty (`false` for booleans, `0` for counts).
fn field_value(resource: &Resource, object: &Value, path: &str) -> String {
    let pointer = match (resource.group_kind(), path) {
        (("", "Event"), "source") => "/source/component".to_owned(),
        (("batch", "Job"), "status.successful") => "/status/succeeded".to_owned(),
        _ => format!("/{}", path.replace('.', "/")),
    };
    match object.pointer(&pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false".into(),
            "status.replicas" | "status.successful" => "0".into(),
            "status.podIPs" => object::text(object, "/status/podIP").into(),
            _ => String::new(),
        },
        Some(Value::Array(list)) => {
            let ips: Vec<&str> = list.iter().map(|one| object::text(one, "/ip")).collect();
            ips.join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// Both selectors of a request.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldClause>,
}

impl Selector {
    /// Reads both parameters.
    ///
    /// # Errors
    /// `BadRequest` for a bad grammar or a field that cannot be selected by.
    pub fn parse(labels: &str, fields: &str, resource: &Resource) -> Result<Self> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(fields, resource)? })
    }

    /// True when everything matches, so that stored bytes can be passed on unread.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object's metadata decides.
    pub fn reads_metadata_only(&self) -> bool {
        self.fields.iter().all(|one| one.path.starts_with("metadata."))
    }

    /// Whether an object, in the form served, matches.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        let labels = object::meta(object).and_then(|meta| meta.get("labels")).and_then(Value::as_object);
        labels_match(&self.labels, labels)
            && self
                .fields
                .iter()
                .all(|one| (field_value(resource, object, &one.path) == one.value) == one.equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_follow_upstreams_grammar() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, db),!gone", true),
            ("app notin (web)", false),
            ("gone", false),
            ("missing!=x", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("example.com/part-of=x", false),
            ("app=", false),
        ];
        for (text, want) in cases {
            let parsed = parse_labels(text).unwrap();
            assert_eq!(labels_match(&parsed, labels.as_object()), want, "{text}");
        }
        for bad in ["a in b", "a b", "=x", "a in (", "a=b c"] {
            assert!(parse_labels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_know_each_kinds_fields() {
        let registry = crate::builtin::registry();
        let pods = registry.get("", "v1", "pods").unwrap();
        let pod =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let check = |text: &str| Selector::parse("", text, &pods).map(|one| one.matches(&pods, &pod));
        assert!(check("spec.nodeName=n,status.phase!=Failed").unwrap());
        assert!(!check("metadata.name=q").unwrap());
        assert!(check("spec.hostNetwork=false").unwrap());
        assert_eq!(check("spec.foo=1").unwrap_err().message, "field label not supported: spec.foo");
    }
}
