//! Short decimal numbers, eight bytes at once.
//!
//! Most numbers of requests are a few digits with a point among them, such as `5.1` or `-0.37`: their digits are one
//! word, which is read, checked and made a number without a loop or a branch for each byte. The result is the correctly
//! rounded one, because digits and power of ten are both exact and divided once (Clinger, "How to read floating point
//! numbers accurately", 1990).
//!
//! Not here: longer numbers, exponents and whatever is malformed, which the general parser takes (`json`).

use crate::words::{HIGH, WINDOW, each};

/// A decimal number of at most seven digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short {
    /// Whether a minus comes first.
    pub(crate) is_negative: bool,
    /// All digits as one integer, below 10^7.
    pub(crate) digits: u32,
    /// How many of them are behind the point, at most six.
    pub(crate) fraction: usize,
    /// Bytes of its text.
    pub(crate) len: usize,
}

/// The number at the start of `text`, where it is short, as JSON writes it, and followed by something else; else
/// `None`.
#[inline]
pub(crate) fn short(text: &[u8]) -> Option<Short> {
    // Both are loaded, so that the choice waits for no second load.
    let (first, rest) = text.split_first()?;
    let (signed, behind) = (text.first_chunk::<WINDOW>()?, rest.first_chunk::<WINDOW>()?);
    let is_negative = *first == b'-';
    let word = u64::from_le_bytes(if is_negative { *behind } else { *signed });
    let values = word ^ each(b'0');
    // The high bit of each byte that is no digit: above 9 it carries into that bit, without carrying into the next.
    let mut others = (((values & !HIGH) + each(0x76)) | values) & HIGH;
    let whole = (others.trailing_zeros() / 8) as usize;
    if whole == 0 || whole == WINDOW || (whole > 1 && values & 0xff == 0) {
        return None;
    }
    let is_byte = |at: usize, byte: u8| (word >> (8 * at)) as u8 == byte;
    let (mut len, mut fraction, mut digits) = (whole, 0, values);
    if is_byte(whole, b'.') {
        others &= others - 1;
        len = (others.trailing_zeros() / 8) as usize;
        if len == WINDOW || len == whole + 1 {
            return None;
        }
        fraction = len - whole - 1;
        // The digits behind the point move to where it was.
        let before = (1_u64 << (8 * whole)) - 1;
        digits = (values & before) | ((values >> 8) & !before);
    }
    if is_byte(len, b'e') || is_byte(len, b'E') || is_byte(len, b'.') {
        return None;
    }
    let count = whole + fraction;
    // Zeros come before the first digit, which is in the lowest byte.
    let digits = eight(digits << (8 * (WINDOW - count)));
    Some(Short { is_negative, digits, fraction, len: len + usize::from(is_negative) })
}

/// The number that is all of the first `len` bytes of `text`, which is ASCII, where it is short and as JSON writes it; else
/// `None`.
#[inline(always)]
pub(crate) fn whole(text: &[u8; WINDOW + 1], len: usize) -> Option<Short> {
    let is_negative = text[0] == b'-';
    let sign = usize::from(is_negative);
    let unsigned = len.wrapping_sub(sign);
    if unsigned.wrapping_sub(1) >= WINDOW {
        return None;
    }
    let word = u64::from_le_bytes(*text[sign..].first_chunk()?);
    // Zeros come before the first digit, which is at this bit.
    let start = (WINDOW * 8) as u32 - 8 * unsigned as u32;
    let values = (word ^ each(b'0')) << (start & 63);
    // The high bit of each byte that is no digit: none carries, because none had it.
    let others = values.wrapping_add(each(0x76)) & HIGH;
    let is_zero_first = (values >> (start & 63)) as u8 == 0;
    if others == 0 {
        let is_fine = unsigned < WINDOW && (unsigned == 1 || !is_zero_first);
        return is_fine.then(|| Short { is_negative, digits: eight(values), fraction: 0, len });
    }
    // The lowest bit of the point's byte.
    let point = others >> 7;
    let at = point.trailing_zeros();
    let is_point = (others & (others - 1) == 0) & ((values >> at) as u8 == b'.' ^ b'0');
    let is_between = (at >= start + 8) & (at < 56) & !(is_zero_first & (at > start + 8));
    if !(is_point & is_between) {
        return None;
    }
    // The digits before the point move to where it was.
    let before = values & (point - 1);
    let digits = (values & (point << 8).wrapping_neg()) | before << 8;
    Some(Short { is_negative, digits: eight(digits), fraction: (7 - at / 8) as usize, len })
}

/// Eight digits, the first in the lowest byte, as a number: pairs, then fours, then all.
#[inline(always)]
fn eight(digits: u64) -> u32 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    const PAIR: u64 = 0x0000_00ff_0000_00ff;
    let upper = (pairs & PAIR).wrapping_mul(100 + (1_000_000 << 32));
    let lower = ((pairs >> 16) & PAIR).wrapping_mul(1 + (10_000 << 32));
    (upper.wrapping_add(lower) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<Short> {
        short(text.as_bytes())
    }

    #[test]
    fn what_is_not_short_and_plain_is_left_to_the_general_parser() {
        for text in [
            "1",
            "1.5",
            "12345678,",
            "1234567.",
            "01,     ",
            "1.,     ",
            ".5,     ",
            "1e5,    ",
            "1.5e3,  ",
            "1.2.3,  ",
            "--1,      ",
            "-,        ",
            "x1,     ",
            "1.2E1,  ",
            "\u{e9}1,     ",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn digits_points_and_what_follows_are_told_apart() {
        let cases: [(&str, bool, u32, usize, usize); _] = [
            ("0,       ", false, 0, 0, 1),
            ("0.5]     ", false, 5, 1, 3),
            ("5.1, 3.5 ", false, 51, 1, 3),
            ("1234567, ", false, 1_234_567, 0, 7),
            ("12.3456] ", false, 123_456, 4, 7),
            ("0.00001  ", false, 1, 5, 7),
            ("7\u{e9}aaaaaaa", false, 7, 0, 1),
            ("-0.37, 4", true, 37, 2, 5),
            ("-1234567]", true, 1_234_567, 0, 8),
        ];
        for (text, is_negative, digits, fraction, len) in cases {
            let want = Short { is_negative, digits, fraction, len };
            assert_eq!(of(&format!("{text} ")), Some(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_short_number_is_what_its_text_says(
            is_negative: bool, digits in 0_u32..1_000_000, fraction in 0_usize..6, after in "[,\\] }][ 0-9]{8}") {
            let plain = format!("{digits:0width$}", width = fraction + 1);
            let (whole, behind) = plain.split_at(plain.len() - fraction);
            let point = if fraction == 0 { "" } else { "." };
            let number = format!("{}{whole}{point}{behind}", if is_negative { "-" } else { "" });
            let text = format!("{number}{after}");
            let want = Some(Short { is_negative, digits, fraction, len: number.len() });
            prop_assert_eq!(of(&text), want);
            prop_assert_eq!(super::whole(format!("{text} ").as_bytes().first_chunk().expect("long"), number.len()), want);
        }

        #[test]
        fn what_ends_is_read_as_what_goes_on(number in "-{0,2}[0-9.e,]{0,9}", after in "[,x]") {
            let text = format!("{number}{after}         ");
            let short = of(&text).filter(|short| short.len == number.len());
            prop_assert_eq!(super::whole(text.as_bytes().first_chunk().expect("long"), number.len()), short);
        }
    }
}
