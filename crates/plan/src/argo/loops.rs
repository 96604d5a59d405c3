//! Argo's loops: `withItems`, `withParam`, `withSequence`, and how items are named.

use api::workflow::argo;
use serde_json::Value;

use super::names::Names;
use crate::engine::{Engine, Ix};
use crate::model::{Repeat, Task};
use crate::{Error, tags, text};

/// Most items of one loop.
const ITEMS_MAX: usize = 100_000;

/// The items of an Argo loop.
pub fn items(
    engine: &Engine,
    boundary: Option<Ix>,
    task: &Task,
    repeat: &Repeat,
) -> Result<Vec<Value>, Error> {
    let names = Names::inside(engine, boundary, None);
    let items = match repeat {
        Repeat::Items(items) => {
            items.iter().map(|item| tags::tree(item, &names)).collect::<Result<Vec<_>, _>>()?
        }
        Repeat::Param(list) => {
            let list = tags::string(list, &names)?;
            serde_json::from_str::<Vec<Value>>(list.trim()).map_err(|_| {
                Error::new(format!("withParam value could not be parsed as a JSON list: {list}"))
            })?
        }
        Repeat::Sequence(sequence) => sequence_items(sequence, &names)?,
        Repeat::Parameter(..) | Repeat::Artifact(..) => Vec::new(),
    };
    if items.len() > ITEMS_MAX {
        return Err(Error::new(format!(
            "'{}' has {} items, at most {ITEMS_MAX} are allowed",
            task.name,
            items.len()
        )));
    }
    Ok(items)
}

fn sequence_items(sequence: &argo::Sequence, names: &Names<'_>) -> Result<Vec<Value>, Error> {
    let read = |what: &str, text: &Option<argo::Text>| -> Result<Option<i64>, Error> {
        let Some(text) = text else { return Ok(None) };
        let text = tags::string(text.as_str(), names)?;
        let number =
            text.trim().parse().map_err(|_| Error::new(format!("withSequence.{what} {text:?} is no number")));
        number.map(Some)
    };
    let start = read("start", &sequence.start)?.unwrap_or(0);
    let count = read("count", &sequence.count)?;
    let end = read("end", &sequence.end)?;
    let numbers: Vec<i64> = match (count, end) {
        (Some(count), None) if count <= ITEMS_MAX as i64 => {
            (0..count).map(|step| start.saturating_add(step)).collect()
        }
        (None, Some(end)) if start.abs_diff(end) <= ITEMS_MAX as u64 => {
            if start <= end {
                (start..=end).collect()
            } else {
                (end..=start).rev().collect()
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Error::new("withSequence must have one of count and end"));
        }
        _ => return Err(Error::new(format!("withSequence has more than {ITEMS_MAX} items"))),
    };
    let format = sequence.format.as_deref().unwrap_or("%d");
    numbers.into_iter().map(|number| printf(format, number).map(Value::String)).collect()
}

/// Go's `fmt.Sprintf` for one number.
fn printf(format: &str, number: i64) -> Result<String, Error> {
    let bad = || {
        Error::new(format!("withSequence.format {format:?} must have one of %d, %x, %X, %o, with a width"))
    };
    let start = format.find('%').ok_or_else(bad)?;
    let rest = &format[start + 1..];
    let verb = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (width, zero) = (&rest[..verb], rest.starts_with('0'));
    let width: usize = if width.is_empty() { 0 } else { width.parse().map_err(|_| bad())? };
    if width > 100 {
        return Err(bad());
    }
    let digits = match rest[verb..].chars().next() {
        Some('d' | 'v') => number.to_string(),
        Some('x') => format!("{number:x}"),
        Some('X') => format!("{number:X}"),
        Some('o') => format!("{number:o}"),
        _ => return Err(bad()),
    };
    let padded = if zero { format!("{digits:0>width$}") } else { format!("{digits:>width$}") };
    Ok(format!("{}{padded}{}", &format[..start], &rest[verb + 1..]))
}

/// How an item is named: `0:value`, without parentheses; KFP's by number alone.
pub fn item_name(task: &Task, at: u32, item: &Value) -> String {
    if matches!(task.repeat, Some(Repeat::Parameter(..) | Repeat::Artifact(..))) {
        return at.to_string();
    }
    let value = match item {
        Value::Object(fields) => {
            let mut pairs: Vec<String> =
                fields.iter().map(|(name, field)| format!("{name}:{}", text::plain(field))).collect();
            pairs.sort();
            pairs.join(",")
        }
        other => text::plain(other),
    };
    format!("{at}:{}", value.replace(['(', ')'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_go_does() {
        assert_eq!(printf("testuser%02X", 10), Ok("testuser0A".into()));
        assert_eq!(printf("%d", -1), Ok("-1".into()));
        assert!(printf("none", 1).is_err() && printf("%s", 1).is_err());
    }
}
