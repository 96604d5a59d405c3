//! Small texts: durations as Go writes them, times, numbers without a needless `.0`.

use serde_json::Value;

use crate::Error;

/// A Go duration (`1h30m`, `500ms`) or a plain number of seconds, in milliseconds.
pub fn duration_ms(text: &str) -> Result<i64, Error> {
    let bad = || Error::new(format!("{text:?} is not a duration (e.g. 30, 10s, 1h30m)"));
    let trimmed = text.trim();
    if let Ok(seconds) = trimmed.parse::<f64>() {
        return Ok((seconds * 1000.0) as i64);
    }
    let mut total = 0.0;
    let mut rest = trimmed;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            _ => return Err(bad()),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    Ok(total as i64)
}

/// RFC 3339 in UTC, whole seconds.
pub fn rfc3339(ms: i64) -> String {
    let second = jiff::Timestamp::from_second(ms.div_euclid(1000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    second.to_string()
}

/// A value as a parameter's text: strings as they are, all else JSON with integral numbers as `1`.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => json(other),
    }
}

/// JSON text with integral numbers printed without a fraction, as protojson does.
pub fn json(value: &Value) -> String {
    tidy(value).to_string()
}

/// The same value with integral floats turned to integers, at any depth.
pub fn tidy(value: &Value) -> Value {
    /// Floats are exact integers up to here.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() <= EXACT => Value::from(float as i64),
            _ => value.clone(),
        },
        Value::Array(items) => Value::Array(items.iter().map(tidy).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, field)| (name.clone(), tidy(field))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_gos() {
        for (text, want) in
            [("10", 10_000), ("1m", 60_000), ("1h30m", 5_400_000), ("500ms", 500), ("1.5s", 1500)]
        {
            assert_eq!(duration_ms(text), Ok(want), "{text}");
        }
        assert!(duration_ms("soon").is_err() && duration_ms("").is_err() && duration_ms("5x").is_err());
    }

    #[test]
    fn integral_numbers_have_no_fraction() {
        assert_eq!(json(&json!({"a": [1.0, 0.5, 2]})), r#"{"a":[1,0.5,2]}"#);
        assert_eq!(plain(&json!("x")), "x");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20Z");
    }
}
