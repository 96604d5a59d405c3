//! Changes of protobuf messages that leave them messages.
//!
//! A field within a message cannot grow by chance: the lengths around it would have to grow by as much at once. Here a
//! field is taken out, doubled, put in or changed, and every length around it is written anew.
//!
//! Not here: changes of bytes (`mutate`), what the fields mean.

use std::ops::Range;

use crate::mutate::{Dice, edge_number};

/// How deep messages are followed.
const DEPTH_MAX: usize = 12;
/// Fields that are looked at, at most.
const FIELDS_MAX: usize = 512;

/// A field, as it lies in the input.
struct Field {
    whole: Range<usize>,
    /// Where the field that it lies in is in the list.
    parent: Option<usize>,
    kind: Kind,
}

enum Kind {
    Number { value: Range<usize> },
    Bytes { length: Range<usize>, content: Range<usize> },
    Fixed,
}

/// A number and where it ends.
fn varint(bytes: &[u8], start: usize) -> Option<(u64, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.get(start..)?.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * index).min(63);
        if byte & 0x80 == 0 {
            return Some((number, start + index + 1));
        }
    }
    None
}

/// As protobuf writes a number.
pub(crate) fn varint_of(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Lists the fields of a range; `None` if it is no message.
fn list(
    bytes: &[u8],
    range: Range<usize>,
    parent: Option<usize>,
    depth: usize,
    all: &mut Vec<Field>,
) -> Option<()> {
    let mut at = range.start;
    while at < range.end {
        if all.len() >= FIELDS_MAX {
            return None;
        }
        let (tag, value) = varint(bytes, at)?;
        let (end, kind) = match tag & 7 {
            0 => {
                let end = varint(bytes, value)?.1;
                (end, Kind::Number { value: value..end })
            }
            1 => (value + 8, Kind::Fixed),
            5 => (value + 4, Kind::Fixed),
            2 => {
                let (length, start) = varint(bytes, value)?;
                let end = start.checked_add(usize::try_from(length).ok()?)?;
                (end, Kind::Bytes { length: value..start, content: start..end })
            }
            _ => return None,
        };
        if tag < 8 || end > range.end {
            return None;
        }
        let (own, inner) = (
            all.len(),
            match &kind {
                Kind::Bytes { content, .. } if depth < DEPTH_MAX && !content.is_empty() => {
                    Some(content.clone())
                }
                _ => None,
            },
        );
        all.push(Field { whole: at..end, parent, kind });
        // Bytes that are no message are bytes.
        if let Some(inner) = inner
            && list(bytes, inner, Some(own), depth + 1, all).is_none()
        {
            all.truncate(own + 1);
        }
        at = end;
    }
    Some(())
}

/// Puts bytes in the place of a range that lies in the field `parent`, and writes all lengths around it anew.
fn replace(input: &mut Vec<u8>, fields: &[Field], range: Range<usize>, new: &[u8], parent: Option<usize>) {
    let mut grown = new.len() as i64 - range.len() as i64;
    input.splice(range, new.iter().copied());
    let mut around = parent;
    // From the inside out: each length lies before all that has changed so far.
    while let Some(Field { kind: Kind::Bytes { length, content }, parent, .. }) =
        around.map(|index| &fields[index])
    {
        let bytes = varint_of((content.len() as i64 + grown).max(0) as u64);
        grown += bytes.len() as i64 - length.len() as i64;
        input.splice(length.clone(), bytes);
        around = *parent;
    }
}

/// Puts bytes in the place of a range; where the input is a message, it is one afterwards, too.
pub(crate) fn put(input: &[u8], range: Range<usize>, new: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut output = input.to_vec();
    if range.len() != new.len() && list(input, 0..input.len(), None, 0, &mut fields).is_none() {
        fields.clear();
    }
    let lies_in = |field: &Field| match &field.kind {
        Kind::Bytes { content, .. } => content.start <= range.start && range.end <= content.end,
        _ => false,
    };
    // Fields come after those that they lie in.
    let innermost = fields.iter().rposition(lies_in);
    replace(&mut output, &fields, range, new, innermost);
    output
}

/// A field that was not there.
fn fresh(dice: &mut Dice) -> Vec<u8> {
    let number = 1 + dice.below(16) as u64;
    match dice.below(3) {
        0 => [varint_of(number << 3), varint_of(edge_number(dice))].concat(),
        1 => [varint_of(number << 3), varint_of(dice.below(16) as u64)].concat(),
        _ => {
            let content: Vec<u8> = (0..dice.below(9)).map(|_| dice.below(128) as u8).collect();
            [varint_of(number << 3 | 2), varint_of(content.len() as u64), content].concat()
        }
    }
}

/// Changes one field of a message; `false` if the input is none.
pub(crate) fn change(dice: &mut Dice, input: &mut Vec<u8>) -> bool {
    let mut fields = Vec::new();
    if input.is_empty() || list(input, 0..input.len(), None, 0, &mut fields).is_none() {
        return false;
    }
    let own = dice.below(fields.len());
    let chosen = &fields[own];
    let at = chosen.whole.start;
    match (dice.below(5), &chosen.kind) {
        (0, _) => replace(input, &fields, chosen.whole.clone(), &[], chosen.parent),
        (1, _) => {
            let other = input[fields[dice.below(fields.len())].whole.clone()].to_vec();
            replace(input, &fields, at..at, &other, chosen.parent);
        }
        (2, Kind::Bytes { content, .. }) => {
            replace(input, &fields, content.end..content.end, &fresh(dice), Some(own));
        }
        (3 | 4, Kind::Bytes { content, .. }) => {
            let from = content.start + dice.below(content.len() + 1);
            let to = from + dice.below((content.end - from).min(8) + 1);
            let new: Vec<u8> = (0..dice.below(5)).map(|_| dice.below(128) as u8).collect();
            replace(input, &fields, from..to, &new, Some(own));
        }
        (3, Kind::Number { value }) => {
            let new = varint_of(edge_number(dice));
            replace(input, &fields, value.clone(), &new, chosen.parent);
        }
        _ => replace(input, &fields, at..at, &fresh(dice), chosen.parent),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_message_is_a_message() {
        let start = [&[10, 6, 18, 4, 26, 2, 8, 1, 16][..], &[5, 34, 1, b'x']].concat();
        let mut dice = Dice::new(3);
        for _ in 0..2000 {
            let mut input = start.clone();
            for _ in 0..4 {
                // Empty is a message too, but one in which nothing can be changed.
                let is_message = change(&mut dice, &mut input);
                assert!(is_message || input.is_empty(), "{input:?}");
                let mut fields = Vec::new();
                assert!(list(&input, 0..input.len(), None, 0, &mut fields).is_some(), "{input:?}");
            }
        }
        assert!(!change(&mut dice, &mut b"a text".to_vec()));
        assert_eq!(put(&[18, 2, 8, 1], 3..4, &[0xee, 3]), [18, 3, 8, 0xee, 3]);
        assert_eq!(put(b"a text", 0..1, b"the"), b"the text");
    }
}
