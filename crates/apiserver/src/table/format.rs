//! Small texts: durations as people read them, lists, missing values.

use serde_json::Value;

use crate::object;

/// A duration as `kubectl` shows ages: `5s`, `3m20s`, `4h`, `2d3h`, `400d`.
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..=0 => "0s".into(),
        1..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// Age of a time as stored; `<unknown>` when there is none.
pub fn since(at: &str) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(at) => human(jiff::Timestamp::now().as_second() - at.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// A text or `<none>`.
pub fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// Labels or a plain selector as `a=b,c=d`.
pub fn labels(value: Option<&Value>) -> String {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    let mut all: Vec<String> =
        map.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
    all.sort();
    or_none(&all.join(","))
}

/// A `LabelSelector` as text.
pub fn selector(value: Option<&Value>) -> String {
    or_none(&crate::handlers::scale::selector_text(value))
}

/// Names and images of a pod template's containers.
pub fn containers(object: &Value, pointer: &str) -> (String, String) {
    let all = object::items(object, pointer);
    let join = |field: &str| all.iter().map(|one| object::text(one, field)).collect::<Vec<_>>().join(",");
    (join("/name"), join("/image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (601, "10m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (800_000, "9d"),
            (-5, "<invalid>"),
        ];
        for (seconds, want) in cases {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }
}
