//! Cells that are texts.
//!
//! A table is rows of `f64`, and most models never see anything else. A text in such a table is a NaN whose low
//! half is the text's place in the batch's [`Texts`]: columns are picked, joined and handed on without a second
//! kind of table. Arithmetic never meets such a cell, because [`super::flow`] lets texts only into columns whose
//! transforms know them, and NaNs of a request are made plain before they enter.
//!
//! Not here: which columns take texts (`flow`), what encoders make of them (`encode`, `vectorize`).

use std::cell::RefCell;

/// The upper half of a text's cell: a quiet NaN that no processor makes by itself.
const MARK: u64 = 0xFFFC_0000;

/// The texts of a batch. Steps that put texts in (imputers) add to it.
#[derive(Debug, Default)]
pub(crate) struct Texts(RefCell<Arena>);

#[derive(Debug, Default)]
struct Arena {
    all: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds a text and returns its cell; a missing one (NaN) beyond 2^32 texts.
    pub(super) fn add(&self, text: &str) -> f64 {
        let mut arena = self.0.borrow_mut();
        let Ok(place) = u32::try_from(arena.ends.len()) else { return f64::NAN };
        arena.all.push_str(text);
        let end = arena.all.len();
        arena.ends.push(end);
        f64::from_bits(MARK << 32 | u64::from(place))
    }

    /// Calls `with` with the text of a cell; `None` for numbers.
    pub(super) fn read<T>(&self, cell: f64, with: impl FnOnce(&str) -> T) -> Option<T> {
        let bits = cell.to_bits();
        if bits >> 32 != MARK {
            return None;
        }
        let arena = self.0.borrow();
        let place = (bits & u64::from(u32::MAX)) as usize;
        let end = *arena.ends.get(place)?;
        let start = if place == 0 { 0 } else { arena.ends[place - 1] };
        Some(with(&arena.all[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_numbers_are_none() {
        let texts = Texts::default();
        let cells: Vec<f64> = ["red", "", "größer"].iter().map(|text| texts.add(text)).collect();
        let read: Vec<_> = cells.iter().map(|cell| texts.read(*cell, str::to_owned)).collect();
        assert_eq!(read, [Some("red".to_owned()), Some(String::new()), Some("größer".to_owned())]);
        assert!(cells.iter().all(|cell| cell.is_nan()));
        for number in [0.0, 1.5, f64::NAN, -f64::NAN, f64::NEG_INFINITY, f64::from_bits(MARK << 32 | 9)] {
            assert_eq!(texts.read(number, str::to_owned), None);
        }
    }
}
