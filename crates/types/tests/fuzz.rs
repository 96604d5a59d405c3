//! Text of the small languages of Kubernetes that was written by nobody: a value or an error, and what is a value
//! reads the same after it was written again.
//!
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` choose; `make fuzz` sets both.

use proptest::prelude::*;
use types::duration::GoDuration;
use types::net::Ipv4Range;
use types::percent::IntOrPercent;
use types::quantity::Quantity;
use types::selector::Selector;

fn text() -> impl Strategy<Value = String> {
    let words = vec![
        "0",
        "1",
        "9",
        "00",
        ".",
        "-",
        "+",
        "e",
        "E",
        "3",
        "Ki",
        "Mi",
        "Ei",
        "n",
        "u",
        "m",
        "k",
        "M",
        "P",
        "s",
        "h",
        "ms",
        "µs",
        "%",
        "a",
        "b/c",
        "=",
        "==",
        "!=",
        "!",
        " in ",
        " notin ",
        "(",
        ")",
        ",",
        " ",
        "é",
        "\u{0}",
        "9999999999999999999",
        "/32",
        "/33",
    ];
    prop::collection::vec(prop::sample::select(words), 0..8).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_written_the_same(text in text()) {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let again: Quantity = quantity.to_string().parse().expect("a written quantity");
            prop_assert_eq!(again.millis(), quantity.millis(), "{}", text);
        }
        if let Ok(duration) = text.parse::<GoDuration>() {
            prop_assert_eq!(duration.to_string().parse::<GoDuration>().ok(), Some(duration), "{}", text);
        }
        if let Ok(selector) = text.parse::<Selector>() {
            let again: Selector = selector.to_string().parse().expect("a written selector");
            prop_assert_eq!(again, selector, "{}", text);
        }
        let _ = text.parse::<IntOrPercent>();
        let _ = text.parse::<Ipv4Range>();
    }
}
