//! Cells of HorizontalPodAutoscalers: targets as people read them.

use serde_json::Value;

use super::cells::count;
use super::{age, name};
use crate::object::{int, items, text};

/// Targets as `cpu: 40%/60%`, from either version.
pub fn cells(object: &Value) -> Vec<Value> {
    let reference = format!(
        "{}/{}",
        text(object, "/spec/scaleTargetRef/kind"),
        text(object, "/spec/scaleTargetRef/name")
    );
    let targets = if let Some(percent) = int(object, "/spec/targetCPUUtilizationPercentage") {
        let now = int(object, "/status/currentCPUUtilizationPercentage");
        format!("cpu: {}/{percent}%", now.map_or("<unknown>".into(), |now| format!("{now}%")))
    } else {
        let metrics = items(object, "/spec/metrics").iter().enumerate();
        let all: Vec<String> = metrics.map(|(index, metric)| target(object, index, metric)).collect();
        listed_targets(&all)
    };
    let minimum = int(object, "/spec/minReplicas").map_or("<unset>".into(), |count| count.to_string());
    vec![
        name(object),
        reference.into(),
        targets.into(),
        minimum.into(),
        count(object, "/spec/maxReplicas"),
        count(object, "/status/currentReplicas"),
        age(object),
    ]
}

fn listed_targets(all: &[String]) -> String {
    match all {
        [] => "<none>".into(),
        all if all.len() > 2 => format!("{} + {} more...", all[..2].join(", "), all.len() - 2),
        all => all.join(", "),
    }
}

fn target(object: &Value, index: usize, metric: &Value) -> String {
    let section = match text(metric, "/type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".into(),
    };
    let current = items(object, "/status/currentMetrics").get(index);
    let now = |field: &str| current.and_then(|one| one.pointer(&format!("/{section}/current/{field}")));
    let wanted =
        |field: &str| metric.pointer(&format!("/{section}/target/{field}")).filter(|one| !one.is_null());
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), Into::into);
    let name = text(metric, &format!("/{section}/name"));
    let prefix = if section.ends_with("esource") { format!("{name}: ") } else { String::new() };
    if let Some(percent) = wanted("averageUtilization") {
        let now = now("averageUtilization").map_or("<unknown>".into(), |now| format!("{}%", plain(now)));
        return format!("{prefix}{now}/{}%", plain(percent));
    }
    for (field, suffix) in
        [("averageValue", if section == "external" { " (avg)" } else { "" }), ("value", "")]
    {
        if let Some(value) = wanted(field) {
            return format!(
                "{prefix}{}/{}{suffix}",
                now(field).map_or("<unknown>".into(), plain),
                plain(value)
            );
        }
    }
    format!("{prefix}<unknown>/<auto>")
}
