//! Text looked at eight bytes at once, each word as one number.
//!
//! Not here: what the bytes mean (`decimal`, `json`).

/// Bytes of a word.
pub(crate) const WINDOW: usize = 8;
/// The high bit of each byte.
pub(crate) const HIGH: u64 = each(0x80);

/// In each byte of a word the same.
pub(crate) const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The high bit of each byte that JSON writes with an escape; after the first such byte others may be wrong.
const fn escaped(word: u64) -> u64 {
    const ONES: u64 = each(1);
    let (quote, escape) = (word ^ each(b'"'), word ^ each(b'\\'));
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let escapes = escape.wrapping_sub(ONES) & !escape;
    (quotes | escapes | (word.wrapping_sub(each(b' ')) & !word)) & HIGH
}

/// Whether JSON writes this text with an escape.
#[inline]
pub(crate) fn has_escapes(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<WINDOW>();
    words.iter().any(|word| escaped(u64::from_le_bytes(*word)) != 0)
        || rest.iter().any(|byte| matches!(byte, 0..b' ' | b'"' | b'\\'))
}

/// Bytes of a text that are looked at word by word.
const PLAIN_MAX: usize = 32;

/// The length of the text that a quote ends, where it is short, is ASCII, and has neither escapes nor control
/// characters; else `None`, which also stands for a text within a word's length of the body's end.
#[inline]
pub(crate) fn plain(text: &[u8]) -> Option<usize> {
    let (words, _) = text.as_chunks::<WINDOW>();
    for (index, word) in words.iter().take(PLAIN_MAX / WINDOW).enumerate() {
        let word = u64::from_le_bytes(*word);
        let others = escaped(word) | (word & HIGH);
        if others != 0 {
            let at = others.trailing_zeros();
            return ((word >> (at & 56)) as u8 == b'"').then(|| index * WINDOW + at as usize / 8);
        }
    }
    None
}

/// Bytes of a text whose commas are found together.
pub(crate) const BLOCK: usize = 64;

/// Which bytes are commas: the lowest bit is the first byte's. `None` where not all are ASCII.
#[inline]
pub(crate) fn commas(block: &[u8; BLOCK]) -> Option<u64> {
    let (words, _) = block.as_chunks::<WINDOW>();
    let mut all = 0;
    let found = words.iter().rev().fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        all |= word;
        // The high bit of each byte that is none: no carry leaves a byte that is ASCII.
        let others = (word ^ each(b',')).wrapping_add(!HIGH);
        // The product brings the eight bits side by side into its highest byte.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        found << WINDOW | ((!others & HIGH) >> 7).wrapping_mul(GATHER) >> 56
    });
    (all & HIGH == 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn commas_are_where_they_are(block: [u8; 32], places: u64) {
            let mut bytes = [0; BLOCK];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = if places >> at & 1 == 1 { b',' } else { block[at % 32] };
            }
            let want = (0..BLOCK).filter(|at| bytes[*at] == b',').fold(0, |all, at| all | 1_u64 << at);
            prop_assert_eq!(commas(&bytes), bytes.is_ascii().then_some(want));
        }

        #[test]
        fn a_text_has_escapes_where_a_byte_needs_one(text in "[ -~é]{0,20}[\\x00-\\x7fé\\\\\"]{0,1}[ -~é]{0,20}") {
            let want = text.bytes().any(|byte| matches!(byte, 0..b' ' | b'"' | b'\\'));
            prop_assert_eq!(has_escapes(text.as_bytes()), want);
        }

        #[test]
        fn a_plain_text_ends_at_its_first_quote(text in "[ -~]{0,40}", odd in "[\\x00-\\x7fé]{0,3}", at in 0_usize..40) {
            let mut text = text;
            text.insert_str(at.min(text.len()), &odd);
            text.push_str("\"        ");
            let stop = text.bytes().position(|byte| !matches!(byte, b' '..=0x7f) || matches!(byte, b'"' | b'\\'));
            let want = stop.filter(|at| text.as_bytes()[*at] == b'"' && *at < PLAIN_MAX);
            prop_assert_eq!(plain(text.as_bytes()), want);
        }
    }
}
