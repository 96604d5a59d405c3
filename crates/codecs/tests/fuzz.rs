//! Bodies of requests that were written by nobody: each is rows or an error, and rows are what a JSON parser reads.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose; `make fuzz` sets both.

use codecs::v1::{Expected, parse};
use proptest::prelude::*;

const WORDS: [&str; 34] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"instances\"",
    "\"inputs\"",
    "\"a\"",
    "\"b\"",
    "\"",
    "\\",
    "1",
    "-",
    "0",
    "2.5",
    "e",
    "1e999",
    "-0.0",
    "null",
    "true",
    "NaN",
    "Infinity",
    "\\u00",
    "\\ud800",
    " ",
    "\n",
    "\u{0}",
    "é",
    "[[1,2]]",
    "[1,2]",
    "{\"a\":1,\"b\":2}",
    "{\"instances\":[",
    "]}",
];

fn number() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn words_in_any_order_are_rows_or_an_error(
        picks in prop::collection::vec(0..WORDS.len(), 0..24),
        head in any::<bool>(),
        names in any::<bool>(),
    ) {
        let body: String = picks.iter().map(|pick| WORDS[*pick]).collect();
        let body = if head { format!("{{\"instances\":[{body}]}}") } else { body };
        let columns = ["a".to_owned(), "b".to_owned()];
        let expected = Expected { width: 2, columns: if names { &columns } else { &[] } };
        let mut batch = Vec::new();
        if let Ok(rows) = parse(body.as_bytes(), expected, &mut batch) {
            prop_assert_eq!(batch.len(), rows * 2, "{}", body);
        }
    }

    #[test]
    fn bytes_in_any_order_are_rows_or_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&body, Expected { width: 1, columns: &[] }, &mut Vec::new());
    }

    #[test]
    fn numbers_are_read_as_the_json_parser_reads_them(
        rows in prop::collection::vec(prop::array::uniform3(number()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let body = serde_json::json!({"parameters": {"x": [1, "}"]}, "instances": rows}).to_string();
        let mut batch = Vec::new();
        let expected = Expected { width: 3, columns: &[] };
        prop_assert_eq!(parse(body.as_bytes(), expected, &mut batch).ok(), Some(rows.len()));
        let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&batch), bits(rows.as_flattened()));
        let end = cut.index(body.len());
        prop_assert!(parse(&body.as_bytes()[..end], expected, &mut batch).is_err(), "{}", &body[..end]);
    }
}
