//! Page tokens: base64 of `{"offset": n}`, the form MLflow's own SQL store gives out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use crate::args::Args;
use crate::error::{Error, Result};

/// Which rows of a search to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// Rows to skip.
    pub(crate) offset: i64,
    /// Rows to give at most.
    pub(crate) limit: i64,
}

impl Page {
    /// From `max_results` and `page_token`.
    pub(crate) fn from_args(args: &Args, default: i64, max: i64) -> Result<Self> {
        let limit = args.int_opt("max_results")?.unwrap_or(default);
        if limit < 1 || limit > max {
            return Err(Error::Invalid(format!(
                "Invalid value for request parameter max_results. It must be at least 1 and at most {max}, but got value {limit}"
            )));
        }
        let offset = match args.text_opt("page_token")?.filter(|token| !token.is_empty()) {
            None => 0,
            Some(token) => decode(&token).ok_or_else(|| {
                Error::Invalid(format!("Invalid page token '{token}': expected one that a search gave"))
            })?,
        };
        Ok(Self { offset, limit })
    }

    /// ` LIMIT … OFFSET …` with one row more than asked, which tells whether there is a next page.
    pub(crate) fn append(self, sql: &mut crate::db::Sql) {
        sql.push(" LIMIT ").bind(self.limit + 1).push(" OFFSET ").bind(self.offset);
    }

    /// Cuts the row too many off, and adds `next_page_token` to the answer if there was one.
    pub(crate) fn answer(self, key: &str, mut items: Vec<Value>) -> Value {
        let more = items.len() as i64 > self.limit;
        items.truncate(self.limit as usize);
        let mut answer = json!({ key: items });
        if more {
            answer["next_page_token"] = json!(encode(self.offset + self.limit));
        }
        answer
    }
}

fn encode(offset: i64) -> String {
    URL_SAFE.encode(json!({"offset": offset}).to_string())
}

fn decode(token: &str) -> Option<i64> {
    let bytes = URL_SAFE.decode(token.replace('+', "-").replace('/', "_")).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    value.get("offset")?.as_i64().filter(|&offset| offset >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_the_rows_after_the_page() {
        let page = Page { offset: 10, limit: 2 };
        let answer = page.answer("runs", vec![json!(1), json!(2), json!(3)]);
        assert_eq!(answer["runs"], json!([1, 2]));
        assert_eq!(decode(answer["next_page_token"].as_str().unwrap()), Some(12));
        assert!(page.answer("runs", vec![json!(1)]).get("next_page_token").is_none());
    }

    #[test]
    fn tokens_and_limits_that_no_search_gave_are_refused() {
        for body in [r#"{"page_token": "x"}"#, r#"{"max_results": 0}"#, r#"{"max_results": 50001}"#] {
            let args = Args::from_body(body.as_bytes()).unwrap();
            assert!(Page::from_args(&args, 1000, 50_000).is_err(), "{body}");
        }
    }
}
