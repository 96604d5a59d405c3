//! Laws of the cursor.

use super::*;

#[test]
fn numbers_follow_json_and_pythons_words() {
    for (text, want) in [
        ("5.1", 5.1),
        ("-3", -3.0),
        ("1e3", 1000.0),
        ("0", 0.0),
        ("true", 1.0),
        ("-Infinity", f64::NEG_INFINITY),
    ] {
        assert_eq!(Cursor::new(text.as_bytes()).number(), Ok(Some(want)), "{text}");
    }
    for text in ["01", "-.5", "1.", "-", "--1", "+1", ".5"] {
        let number = Cursor::new(text.as_bytes()).number();
        assert!(!matches!(number, Ok(Some(_))), "{text}: {number:?}");
    }
}

fn one_by_one(text: &str) -> (Vec<f64>, usize) {
    let mut cursor = Cursor::new(text.as_bytes());
    let (mut numbers, mut end) = (Vec::new(), 0);
    while let Ok(number) = cursor.float::<f64>()
        && number.is_finite()
        && cursor.eat(b',')
    {
        numbers.push(number);
        end = cursor.offset();
    }
    (numbers, end)
}

fn at_once(text: &str) -> (Vec<f64>, usize) {
    let mut cursor = Cursor::new(text.as_bytes());
    let mut numbers = Vec::new();
    assert_eq!(cursor.numbers(|run| numbers.extend_from_slice(run)), numbers.len());
    (numbers, cursor.offset())
}

#[test]
fn numbers_at_once_end_where_an_element_is_odd_or_last() {
    let odd = [
        "1,  2,3,4",
        "1,2",
        "1,x,3",
        "1,1.,3",
        "1,-Infinity,3",
        "1,1e999,3",
        "1,[2],3",
        "1,,3",
        "1 ,2,3,",
        ",",
        "",
    ];
    for (text, (count, end)) in odd.into_iter().zip([
        (1, 2),
        (1, 2),
        (1, 2),
        (1, 2),
        (1, 2),
        (1, 2),
        (1, 2),
        (1, 2),
        (0, 0),
        (0, 0),
        (0, 0),
    ]) {
        let (numbers, at) = at_once(text);
        assert_eq!((numbers.len(), at), (count, end), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn numbers_at_once_are_those_read_one_by_one(
        elements in proptest::collection::vec("-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,17})?(e-?[0-9]{1,2})?", 0..60),
        spaced: bool,
        last in "[0-9.\\]x]{0,4}",
    ) {
        let text: String = elements.iter().map(|element| element.clone() + if spaced { ", " } else { "," }).collect();
        let text = text + &last;
        let (many, end) = at_once(&text);
        let (single, single_end) = one_by_one(&text);
        proptest::prop_assert_eq!(&many, &single);
        proptest::prop_assert_eq!(end, single_end);
        proptest::prop_assert!(many.len() >= elements.len());
    }
}

#[test]
fn values_are_skipped_whole() {
    let cases = [(r#"{"a": [1, "]}\"", {}]} ,"#, 22), ("12 ]", 2), (r#""\\" x"#, 4), ("[]", 2)];
    for (text, used) in cases {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.skip().expect(text);
        assert_eq!(cursor.offset(), used, "{text}");
    }
    let deep = "[".repeat(1000);
    for text in ["", "]", "[1", "\"abc", "\"\\", deep.as_str(), "{", ","] {
        assert!(Cursor::new(text.as_bytes()).skip().is_err(), "{text}");
    }
}

#[test]
fn texts_are_escaped() {
    let mut out = Vec::new();
    push_text(&mut out, "a\"\\\n\u{1}é");
    assert_eq!(String::from_utf8(out).expect("UTF-8"), r#""a\"\\\n\u0001é""#);
}
