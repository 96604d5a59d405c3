//! What changed between two models: format, versions, columns, classes, settings, structure.
//!
//! Not here: what they answer (`agree`).

use std::collections::BTreeMap;
use std::path::Path;

use models::{Inspection, Limits};
use serde::Serialize;

use crate::files::{Disk, inspect};

/// One thing that both models have, or only one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is.
    pub what: String,
    /// In the first model.
    pub first: Option<String>,
    /// In the second.
    pub second: Option<String>,
}

impl Change {
    /// Whether it is the same in both.
    pub fn is_same(&self) -> bool {
        self.first == self.second
    }
}

/// Everything that is known about two models, in the order of the first; the same and the different.
pub fn diff(first: &Path, second: &Path, limits: &Limits) -> Vec<Change> {
    merged(facts(first, limits), facts(second, limits))
}

fn merged(first: Vec<(String, String)>, second: Vec<(String, String)>) -> Vec<Change> {
    let mut others: BTreeMap<String, String> = second.iter().cloned().collect();
    let mut changes: Vec<Change> = first
        .into_iter()
        .map(|(what, value)| Change { second: others.remove(&what), first: Some(value), what })
        .collect();
    let only_second = second.into_iter().filter(|(what, _)| others.contains_key(what));
    changes.extend(only_second.map(|(what, value)| Change { what, first: None, second: Some(value) }));
    changes
}

fn facts(path: &Path, limits: &Limits) -> Vec<(String, String)> {
    let report = inspect(path, limits);
    let mut facts = described(&report);
    if let Ok(parameters) = models::parameters(&Disk::new(path), limits) {
        facts.extend(parameters.into_iter().map(|(name, value)| (format!("setting {name}"), value)));
    }
    facts
}

fn described(report: &Inspection) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut add = |what: &str, value: String| facts.push((what.to_owned(), value));
    if let Some(format) = &report.format {
        add("format", format!("{} ({})", format.name, format.packing));
        add("bytes", format.bytes.to_string());
        add("bytes unpacked", format.bytes_unpacked.to_string());
        if let Some(flavor) = &format.mlflow_flavor {
            add("MLflow flavor", flavor.clone());
        }
    }
    if let Some(version) = &report.sklearn_version {
        add("scikit-learn", version.clone());
    }
    if let Some(features) = report.features {
        add("features", features.to_string());
    }
    if !report.feature_names.is_empty() {
        add("feature names", report.feature_names.join(", "));
    }
    if !report.classes.is_empty() {
        add("classes", report.classes.join(", "));
    }
    add("methods", report.methods.join(", "));
    if let Some(problem) = &report.problem {
        add("problem", problem.clone());
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for estimator in &report.estimators {
        // Estimators of one class are told apart by their steps, else by their order.
        let name = estimator.step.clone().unwrap_or_else(|| "estimator".into());
        let name = format!("{}{name}", "  ".repeat(estimator.depth));
        let number = seen.entry(name.clone()).or_default();
        *number += 1;
        let name = if *number == 1 { name } else { format!("{name} {number}") };
        add(&name, format!("{}  {}", estimator.class, estimator.detail).trim().to_owned());
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_meet_by_name_and_the_rest_stands_alone() {
        let fact = |what: &str, value: &str| (what.to_owned(), value.to_owned());
        let first = vec![fact("format", "joblib"), fact("classes", "a, b"), fact("setting x", "1")];
        let second = vec![fact("format", "joblib"), fact("classes", "a, b, c"), fact("setting y", "2")];
        let changes = merged(first, second);
        let shown: Vec<(&str, Option<&str>, Option<&str>)> = changes
            .iter()
            .filter(|change| !change.is_same())
            .map(|change| (change.what.as_str(), change.first.as_deref(), change.second.as_deref()))
            .collect();
        let want = [
            ("classes", Some("a, b"), Some("a, b, c")),
            ("setting x", Some("1"), None),
            ("setting y", None, Some("2")),
        ];
        assert_eq!(shown, want);
    }
}
