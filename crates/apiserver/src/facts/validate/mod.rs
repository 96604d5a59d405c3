//! Kubernetes' hand-written validation for its own kinds, in its words (release 1.34).
//!
//! The common mistakes are here: what people write wrong, and what a controller would choke on. Metadata is checked in
//! `kinds::meta`, types and unknown fields in [`super::fields`]. What is not checked is stored as given.

mod pod;
mod service;
mod workload;

use serde_json::{Map, Value};

use crate::field::FieldError;
use crate::names;

/// What is wrong with an object on create (`old` is `None`) or update, after defaults.
pub fn check(group: &str, kind: &str, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut found = Findings::default();
    let spec = At::root(object).child("spec");
    let old_spec = old.map(|old| &old["spec"]);
    match (group, kind) {
        ("", "Pod") => {
            pod::spec(&mut found, &spec);
            if let Some(old) = old_spec {
                pod::update(&mut found, &spec, old);
            }
        }
        ("", "Service") => service::service(&mut found, &spec, old_spec),
        ("", "ConfigMap" | "Secret") => service::data(&mut found, object),
        ("", "PersistentVolumeClaim") => service::claim(&mut found, &spec, object, old),
        ("", "ReplicationController") => workload::replication_controller(&mut found, &spec),
        ("apps", "Deployment") => workload::deployment(&mut found, &spec, old_spec),
        ("apps", "ReplicaSet") => workload::replica_set(&mut found, &spec, old_spec),
        ("apps", "StatefulSet") => workload::stateful_set(&mut found, &spec, old_spec),
        ("apps", "DaemonSet") => workload::daemon_set(&mut found, &spec, old_spec),
        ("batch", "Job") => workload::job(&mut found, &spec, old_spec),
        ("batch", "CronJob") => workload::cron_job(&mut found, &spec),
        ("autoscaling", "HorizontalPodAutoscaler") => workload::autoscaler(&mut found, &spec),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            service::binding(&mut found, object)
        }
        _ => {}
    }
    found.errors
}

/// A value and where it is.
#[derive(Clone)]
struct At<'a> {
    value: &'a Value,
    path: String,
}

static NOTHING: Value = Value::Null;

impl<'a> At<'a> {
    fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    fn child(&self, name: &str) -> Self {
        let value = self.value.get(name).unwrap_or(&NOTHING);
        Self { value, path: super::fields::join(&self.path, name) }
    }

    fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(index, value)| At { value, path: format!("{path}[{index}]") })
    }

    fn entries(&self) -> impl Iterator<Item = (&'a String, At<'a>)> + use<'a> {
        let path = self.path.clone();
        let entries = self.value.as_object().into_iter().flat_map(Map::iter);
        entries.map(move |(key, value)| (key, At { value, path: format!("{path}[{key}]") }))
    }

    fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    errors: Vec<FieldError>,
}

impl Findings {
    fn required(&mut self, at: &At<'_>, detail: &str) {
        self.errors.push(FieldError::required(&at.path, detail));
    }

    fn invalid(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.errors.push(FieldError::invalid(&at.path, at.value.clone(), detail));
    }

    fn forbidden(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.errors.push(FieldError::forbidden(&at.path, detail));
    }

    fn duplicate(&mut self, at: &At<'_>) {
        self.errors.push(FieldError::duplicate(&at.path, at.value.clone()));
    }

    fn not_found(&mut self, at: &At<'_>) {
        self.errors.push(FieldError::not_found(&at.path, at.value.clone()));
    }

    /// A text that must be one of a few; absent is a matter of `required`.
    fn one_of(&mut self, at: &At<'_>, known: &[&str]) {
        if !at.is_absent() && !known.contains(&at.text()) {
            self.errors.push(FieldError::not_supported(&at.path, at.value.clone(), known));
        }
    }

    fn not_negative(&mut self, at: &At<'_>) {
        if at.int().is_some_and(|number| number < 0) {
            self.invalid(at, "must be greater than or equal to 0");
        }
    }

    fn label_name(&mut self, at: &At<'_>) {
        for problem in names::label_problems(at.text()) {
            self.invalid(at, problem);
        }
    }

    fn port(&mut self, at: &At<'_>) {
        if !at.int().is_some_and(|number| (1..=65535).contains(&number)) {
            self.invalid(at, "must be between 1 and 65535, inclusive");
        }
    }

    /// A field that may not change after create.
    fn immutable(&mut self, at: &At<'_>, old: &Value) {
        if at.value != old {
            self.errors.push(FieldError::immutable(&at.path, at.value.clone()));
        }
    }

    /// Marks the second and later of equal texts.
    fn unique<'a>(&mut self, all: impl Iterator<Item = At<'a>>) {
        let mut seen = Vec::new();
        for at in all.filter(|at| !at.text().is_empty()) {
            if seen.contains(&at.text()) {
                self.duplicate(&at);
            }
            seen.push(at.text());
        }
    }

    /// `metadata.labels` of a template, or any map of labels.
    fn labels(&mut self, at: &At<'_>) {
        let here = |value: &str| FieldError::invalid(&at.path, value, "");
        for (key, value) in at.entries() {
            for problem in names::qualified_name_problems(key) {
                self.errors.push(FieldError { detail: problem, ..here(key) });
            }
            if let Some(problem) = names::label_value_problem(value.text()) {
                self.errors.push(FieldError { detail: problem, ..here(value.text()) });
            }
        }
    }
}

/// Name of a port: at most 15 characters, lower case, with a letter.
fn port_name_problems(name: &str) -> Vec<&'static str> {
    let mut out = Vec::new();
    if name.len() > 15 {
        out.push("must be no more than 15 characters");
    }
    if !name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|c| c.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        out.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        out.push("must not begin or end with a hyphen");
    }
    out
}

#[cfg(test)]
mod tests;
