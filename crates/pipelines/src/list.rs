//! Lists: filter, sort and pages, for all resources by one table of columns each.
//!
//! Pages go by key (sort value, id), not by offset: a row that appears meanwhile shifts nothing. The token is opaque to
//! clients and carries the sort order and a digest of the filter, so that a page of another list is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::db::{Bind, Db};
use crate::error::{Doing, Error, Result};
use crate::wire;

const PAGE_DEFAULT: i64 = 20;
const PAGE_MAX: i64 = 200;
const PREDICATES_MAX: usize = 32;

/// The query of every list call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListQuery {
    pub(crate) page_token: String,
    pub(crate) page_size: Option<String>,
    pub(crate) sort_by: String,
    pub(crate) filter: String,
    pub(crate) namespace: String,
    pub(crate) experiment_id: String,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Time,
}

/// One thing that can be filtered and sorted by: the API's name, the column, what it holds.
pub(crate) type Column = (&'static str, &'static str, Kind);

/// A table that can be listed.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [Column],
}

/// A page of rows.
pub(crate) struct Page {
    pub(crate) rows: Vec<AnyRow>,
    pub(crate) total: i64,
    pub(crate) next: String,
}

#[derive(Serialize, Deserialize)]
struct Token {
    sort: String,
    digest: String,
    value: Value,
    id: String,
}

/// Conditions with their values.
#[derive(Default)]
pub(crate) struct Where {
    text: String,
    pub(crate) binds: Vec<Bind>,
}

impl Where {
    /// Adds `column OP value` to the conjunction.
    pub(crate) fn and(&mut self, column: &str, operator: &str, value: impl Into<Bind>) -> &mut Self {
        self.binds.push(value.into());
        let placeholder = self.binds.len();
        self.raw(&format!("{column} {operator} ${placeholder}"))
    }

    fn raw(&mut self, condition: &str) -> &mut Self {
        let joint = if self.text.is_empty() { " WHERE " } else { " AND " };
        self.text.push_str(joint);
        self.text.push_str(condition);
        self
    }
}

/// Runs a list call. `fixed` holds the conditions that the call itself implies.
pub(crate) async fn page(db: &Db, table: &Table, query: &ListQuery, mut fixed: Where) -> Result<Page> {
    add_filter(table, &query.filter, &mut fixed)?;
    let digest = hex::encode(&Sha256::digest(format!("{}|{:?}", fixed.text, fixed.binds))[..8]);
    let token = read_token(&query.page_token, &digest)?;
    let sort_by = token.as_ref().map_or(query.sort_by.as_str(), |token| token.sort.as_str()).to_owned();
    let ((_, column, kind), descending) = sort_column(table, &sort_by)?;
    let size = page_size(query.page_size.as_deref())?;

    let count = format!("SELECT COUNT(*) FROM {}{}", table.name, fixed.text);
    let counted = db.row(count, &fixed.binds, "count rows").await?;
    let total = counted.map_or(Ok(0), |row| row.try_get::<i64, _>(0)).doing("count rows")?;

    let (operator, direction) = if descending { ("<", "DESC") } else { (">", "ASC") };
    if let Some(token) = token {
        let value = match (kind, &token.value) {
            (Kind::Time, Value::Number(number)) => Bind::Int(number.as_i64().unwrap_or_default()),
            (Kind::Text, Value::String(text)) => Bind::Text(text.clone()),
            _ => return Err(Error::Invalid("page_token is not one of this list".to_owned())),
        };
        let (first, second) = (fixed.binds.len() + 1, fixed.binds.len() + 2);
        fixed.binds.extend([value, Bind::Text(token.id)]);
        fixed.raw(&format!(
            "({column} {operator} ${first} OR ({column} = ${first} AND id {operator} ${second}))"
        ));
    }
    let sql = format!(
        "SELECT * FROM {}{} ORDER BY {column} {direction}, id {direction} LIMIT {}",
        table.name,
        fixed.text,
        size + 1
    );
    let mut rows = db.rows(sql, &fixed.binds, "list rows").await?;
    let more = rows.len() as i64 > size;
    rows.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    let next = match rows.last().filter(|_| more) {
        None => String::new(),
        Some(last) => {
            let value = match kind {
                Kind::Time => last.try_get::<i64, _>(column).map(Value::from),
                Kind::Text => last.try_get::<String, _>(column).map(Value::from),
            };
            let id = last.try_get("id").doing("list rows")?;
            write_token(&Token { sort: sort_by, digest, value: value.doing("list rows")?, id })
        }
    };
    Ok(Page { rows, total, next })
}

fn page_size(text: Option<&str>) -> Result<i64> {
    let text = text.unwrap_or("0");
    match text.parse::<i64>() {
        Ok(0) => Ok(PAGE_DEFAULT),
        Ok(size) if size > 0 => Ok(size.min(PAGE_MAX)),
        _ if text.is_empty() => Ok(PAGE_DEFAULT),
        _ => Err(Error::Invalid(format!("page_size `{text}`: a number from 0 was expected"))),
    }
}

fn read_token(text: &str, digest: &str) -> Result<Option<Token>> {
    if text.is_empty() {
        return Ok(None);
    }
    let token =
        URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice::<Token>(&bytes).ok());
    match token {
        Some(token) if token.digest == digest => Ok(Some(token)),
        _ => Err(Error::Invalid(
            "page_token is not one of this list (its filter must stay the same)".to_owned(),
        )),
    }
}

fn write_token(token: &Token) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).expect("a token is plain data"))
}

fn find(table: &Table, key: &str) -> Result<Column> {
    table.columns.iter().find(|(name, _, _)| *name == key).copied().ok_or_else(|| {
        let names: Vec<_> = table.columns.iter().map(|(name, _, _)| *name).collect();
        Error::Invalid(format!("`{key}` is no field to filter or sort by; known are {}", names.join(", ")))
    })
}

fn sort_column(table: &Table, sort_by: &str) -> Result<(Column, bool)> {
    let mut words = sort_by.split_whitespace();
    let key = words.next().unwrap_or("created_at");
    let descending = match words.next().map(str::to_ascii_lowercase).as_deref() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(other) => {
            return Err(Error::Invalid(format!("sort_by `{sort_by}`: `{other}` is neither asc nor desc")));
        }
    };
    Ok((find(table, key)?, descending))
}

/// Adds the API's filter (JSON with numeric or named operations, camelCase or snake_case) to the conditions.
fn add_filter(table: &Table, filter: &str, conditions: &mut Where) -> Result<()> {
    if filter.trim().is_empty() {
        return Ok(());
    }
    let bad = |reason: String| Error::Invalid(format!("filter: {reason}"));
    let parsed: Value = serde_json::from_str(filter).map_err(|e| bad(e.to_string()))?;
    let predicates = parsed["predicates"].as_array().map(Vec::as_slice).unwrap_or_default();
    if predicates.len() > PREDICATES_MAX {
        return Err(bad(format!("more than {PREDICATES_MAX} predicates")));
    }
    for predicate in predicates {
        let key = predicate["key"].as_str().ok_or_else(|| bad("a predicate has no key".to_owned()))?;
        let (_, column, kind) = find(table, key)?;
        let operation = operation(predicate).ok_or_else(|| bad(format!("`{key}` has no known operation")))?;
        let values =
            values(predicate, kind).ok_or_else(|| bad(format!("`{key}` has no value of its type")))?;
        match (operation, values.as_slice()) {
            ("IN", values) => {
                let from = conditions.binds.len() + 1;
                let places: Vec<_> = (from..from + values.len()).map(|place| format!("${place}")).collect();
                conditions.binds.extend(values.iter().cloned());
                let list = if places.is_empty() { "NULL".to_owned() } else { places.join(", ") };
                conditions.raw(&format!("{column} IN ({list})"));
            }
            ("LIKE", [Bind::Text(text)]) => {
                let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
                conditions.binds.push(Bind::Text(format!("%{escaped}%")));
                let place = conditions.binds.len();
                conditions.raw(&format!("{column} LIKE ${place} ESCAPE '\\'"));
            }
            ("LIKE", _) => return Err(bad(format!("IS_SUBSTRING of `{key}` needs one text"))),
            (operator, [value]) => {
                conditions.and(column, operator, value.clone());
            }
            _ => return Err(bad(format!("`{key}` needs one value"))),
        }
    }
    Ok(())
}

/// The SQL operator of a predicate.
fn operation(predicate: &Value) -> Option<&'static str> {
    let given = predicate.get("operation").or_else(|| predicate.get("op"))?;
    let by_name = [
        "EQUALS",
        "NOT_EQUALS",
        "GREATER_THAN",
        "GREATER_THAN_EQUALS",
        "LESS_THAN",
        "LESS_THAN_EQUALS",
        "IN",
        "IS_SUBSTRING",
    ];
    let number = match given {
        Value::Number(number) => usize::try_from(number.as_u64()?).ok()?,
        Value::String(name) => match name.as_str() {
            // The proto numbers IN 8 and IS_SUBSTRING 9: 7 is LESS_THAN_EQUALS.
            "IN" => 8,
            "IS_SUBSTRING" => 9,
            "LESS_THAN" => 6,
            "LESS_THAN_EQUALS" => 7,
            "GREATER_THAN_EQUALS" => 5,
            other => by_name.iter().position(|name| *name == other)? + 1,
        },
        _ => return None,
    };
    Some(match number {
        1 => "=",
        2 => "<>",
        3 => ">",
        5 => ">=",
        6 => "<",
        7 => "<=",
        8 => "IN",
        9 => "LIKE",
        _ => return None,
    })
}

fn values(predicate: &Value, kind: Kind) -> Option<Vec<Bind>> {
    let either = |camel: &str, snake: &str| predicate.get(camel).or_else(|| predicate.get(snake));
    let one = |value: &Value| match (kind, value) {
        (Kind::Text, Value::String(text)) => Some(Bind::Text(text.clone())),
        (Kind::Time, Value::String(text)) => match text.parse::<i64>() {
            Ok(seconds) => Some(Bind::Int(seconds.saturating_mul(1_000_000))),
            Err(_) => Some(Bind::Int(wire::micros(text))).filter(|bind| *bind != Bind::Int(0)),
        },
        (Kind::Time, Value::Number(number)) => {
            number.as_i64().map(|s| Bind::Int(s.saturating_mul(1_000_000)))
        }
        _ => None,
    };
    for (camel, snake) in [
        ("stringValue", "string_value"),
        ("timestampValue", "timestamp_value"),
        ("longValue", "long_value"),
        ("intValue", "int_value"),
    ] {
        if let Some(value) = either(camel, snake) {
            return one(value).map(|bind| vec![bind]);
        }
    }
    for (camel, snake) in
        [("stringValues", "string_values"), ("longValues", "long_values"), ("intValues", "int_values")]
    {
        if let Some(list) = either(camel, snake) {
            return list["values"].as_array()?.iter().map(one).collect();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TABLE: Table = Table {
        name: "t",
        columns: &[("display_name", "name", Kind::Text), ("created_at", "created_at", Kind::Time)],
    };

    #[test]
    fn the_sdks_filters_become_conditions() {
        let table: &[(Value, &str, Bind)] = &[
            (
                json!({"operation": 1, "key": "display_name", "stringValue": "x"}),
                " WHERE name = $1",
                "x".into(),
            ),
            (
                json!({"operation": "EQUALS", "key": "display_name", "string_value": "x"}),
                " WHERE name = $1",
                "x".into(),
            ),
            (
                json!({"operation": 9, "key": "display_name", "stringValue": "a_b%"}),
                " WHERE name LIKE $1 ESCAPE '\\'",
                "%a\\_b\\%%".into(),
            ),
            (
                json!({"operation": "LESS_THAN", "key": "created_at", "timestampValue": "1970-01-01T00:00:01Z"}),
                " WHERE created_at < $1",
                1_000_000.into(),
            ),
            (
                json!({"operation": 8, "key": "display_name", "stringValues": {"values": ["x"]}}),
                " WHERE name IN ($1)",
                "x".into(),
            ),
        ];
        for (predicate, text, bind) in table {
            let mut conditions = Where::default();
            add_filter(&TABLE, &json!({"predicates": [predicate]}).to_string(), &mut conditions).unwrap();
            assert_eq!((conditions.text.as_str(), &conditions.binds[0]), (*text, bind));
        }
        for bad in [
            "{",
            r#"{"predicates":[{"operation":1,"key":"x; DROP","stringValue":"x"}]}"#,
            r#"{"predicates":[{"operation":1,"key":"created_at","stringValue":"x"}]}"#,
            r#"{"predicates":[{"operation":4,"key":"display_name","stringValue":"x"}]}"#,
        ] {
            assert!(add_filter(&TABLE, bad, &mut Where::default()).is_err(), "{bad}");
        }
        assert!(sort_column(&TABLE, "created_at up").is_err());
        assert!(sort_column(&TABLE, "display_name DESC").unwrap().1);
    }
}
