//! Conditions that keep their transition time while they keep their status.

use serde_json::{Value, json};

/// A condition to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: &'static str,
    pub(crate) status: &'static str,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// `Info` for conditions that do not gate `Ready`.
    pub(crate) info: bool,
}

impl Condition {
    pub(crate) fn new(kind: &'static str, status: &'static str) -> Self {
        Self { kind, status, reason: String::new(), message: String::new(), info: false }
    }

    pub(crate) fn why(mut self, reason: impl Into<String>, message: impl Into<String>) -> Self {
        self.reason = reason.into();
        self.message = message.into();
        self
    }
}

/// The list for the status, sorted by type as upstream sorts it.
pub(crate) fn render(wanted: &[Condition], old: &Value, now: &str) -> Value {
    let mut list: Vec<Value> = wanted
        .iter()
        .map(|condition| {
            let before = old.as_array().into_iter().flatten().find(|one| one["type"] == condition.kind);
            let kept = before
                .filter(|one| one["status"] == condition.status)
                .map(|one| one["lastTransitionTime"].clone());
            let mut out = json!({
                "type": condition.kind,
                "status": condition.status,
                "lastTransitionTime": kept.unwrap_or_else(|| json!(now)),
            });
            for (key, text) in [("reason", &condition.reason), ("message", &condition.message)] {
                if !text.is_empty() {
                    out[key] = json!(text);
                }
            }
            if condition.info {
                out["severity"] = json!("Info");
            }
            out
        })
        .collect();
    list.sort_by(|a, b| a["type"].as_str().cmp(&b["type"].as_str()));
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_stays_while_the_status_does() {
        let old = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "t0"}]);
        let same = render(&[Condition::new("Ready", "False")], &old, "t1");
        assert_eq!(same[0]["lastTransitionTime"], "t0");
        let changed = render(&[Condition::new("Ready", "True")], &old, "t1");
        assert_eq!(changed[0]["lastTransitionTime"], "t1");
    }
}
