//! JSON values to elements of a tensor.
//!
//! The type is known before the values: each is parsed to exactly that type (64-bit integers keep all their bits,
//! single precision is rounded once) and what does not fit it is refused with its offset. Lists may nest as far
//! as tensors have dimensions; the first value of each level sets its length, and a list that is shorter or
//! longer is refused as ragged.
//!
//! Not here: what the shape should be.

use std::marker::PhantomData;

use base64::Engine as _;
use models::{DType, RANK_MAX, Shape};

use crate::call::Arena;
use crate::json::{Cursor, Float, JsonError};

/// How a protocol spells what is not a plain number or text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// `null` is NaN.
    pub(crate) nulls: bool,
    /// `{"b64": "…"}` are bytes.
    pub(crate) b64: bool,
}

/// The shape that lists turned out to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    dims: [usize; RANK_MAX],
    known: [bool; RANK_MAX],
    rank: Option<usize>,
}

impl Found {
    pub(crate) fn new() -> Self {
        Self { dims: [0; RANK_MAX], known: [false; RANK_MAX], rank: None }
    }

    /// Counts a single value as a list of one; `None` if the lists before were longer.
    pub(crate) fn one(&mut self) -> Option<()> {
        let fits = self.rank.is_none_or(|rank| rank == 1) && (!self.known[0] || self.dims[0] == 1);
        self.rank = Some(1);
        self.known[0] = true;
        self.dims[0] = 1;
        fits.then_some(())
    }

    /// The dimensions; none for a single value.
    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims[..self.rank.unwrap_or(0)]
    }

    /// With one dimension more in front.
    pub(crate) fn shape_of_rows(&self, rows: usize) -> Option<Shape> {
        let mut dims = [0; RANK_MAX + 1];
        dims[0] = rows;
        let own = self.dims();
        dims[1..=own.len()].copy_from_slice(own);
        Shape::new(&dims[..=own.len()])
    }
}

/// Reads one value (an element, or lists of them) behind what is in the arena.
pub(crate) fn read(
    cursor: &mut Cursor<'_>,
    dtype: DType,
    rules: Rules,
    arena: &mut Arena,
    found: &mut Found,
) -> Result<(), JsonError> {
    macro_rules! signed {
        ($type:ty) => {
            walk(cursor, 0, found, &mut |cursor: &mut Cursor<'_>| {
                let (negative, magnitude) = cursor.integer()?;
                let wide = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
                match <$type>::try_from(wide) {
                    Ok(number) => Ok(arena.push(number)),
                    Err(_) => cursor.error("a number out of range"),
                }
            })
        };
    }
    match dtype {
        DType::F64 => walk(cursor, 0, found, &mut Floats::<f64> { arena, rules, is: PhantomData }),
        DType::F32 => walk(cursor, 0, found, &mut Floats::<f32> { arena, rules, is: PhantomData }),
        DType::I8 => signed!(i8),
        DType::I16 => signed!(i16),
        DType::I32 => signed!(i32),
        DType::I64 => signed!(i64),
        DType::U8 => signed!(u8),
        DType::U16 => signed!(u16),
        DType::U32 => signed!(u32),
        DType::U64 => signed!(u64),
        DType::Bool => walk(cursor, 0, found, &mut |cursor: &mut Cursor<'_>| {
            arena.push(u8::from(cursor.truth()?));
            Ok(())
        }),
        DType::Text => walk(cursor, 0, found, &mut |cursor: &mut Cursor<'_>| text(cursor, rules, arena)),
        DType::F16 | DType::BF16 => {
            cursor.error("FP16 and BF16 have no form in JSON, send them as raw bytes")
        }
    }
}

/// Reads elements of one type.
trait Elements {
    /// One.
    fn one(&mut self, cursor: &mut Cursor<'_>) -> Result<(), JsonError>;

    /// As many of a list as can be read at once, each with the comma behind it.
    fn many(&mut self, _: &mut Cursor<'_>) -> usize {
        0
    }
}

impl<F: FnMut(&mut Cursor<'_>) -> Result<(), JsonError>> Elements for F {
    fn one(&mut self, cursor: &mut Cursor<'_>) -> Result<(), JsonError> {
        self(cursor)
    }
}

struct Floats<'a, T> {
    arena: &'a mut Arena,
    rules: Rules,
    is: PhantomData<T>,
}

impl<T: Float + bytemuck::NoUninit> Elements for Floats<'_, T> {
    #[inline]
    fn one(&mut self, cursor: &mut Cursor<'_>) -> Result<(), JsonError> {
        let is_null = self.rules.nulls && cursor.null();
        let number = if is_null { T::NOT_A_NUMBER } else { cursor.float()? };
        self.arena.push(number);
        Ok(())
    }

    #[inline]
    fn many(&mut self, cursor: &mut Cursor<'_>) -> usize {
        cursor.numbers::<T>(|run| self.arena.extend(bytemuck::cast_slice(run)))
    }
}

fn walk(
    cursor: &mut Cursor<'_>,
    level: usize,
    found: &mut Found,
    elements: &mut impl Elements,
) -> Result<(), JsonError> {
    if cursor.peek() != Some(b'[') {
        match found.rank {
            Some(rank) if rank != level => return cursor.error("lists are not of one depth"),
            _ => found.rank = Some(level),
        }
        return elements.one(cursor);
    }
    if level == RANK_MAX || found.rank.is_some_and(|rank| rank <= level) {
        return cursor.error(if level == RANK_MAX {
            "lists nested too deeply for a tensor"
        } else {
            "lists are not of one depth"
        });
    }
    cursor.eat(b'[');
    let mut count = 0;
    if cursor.peek() != Some(b']') {
        if found.rank.is_none_or(|rank| rank == level + 1) {
            count = elements.many(cursor);
            if count > 0 {
                found.rank = Some(level + 1);
            }
        }
        loop {
            walk(cursor, level + 1, found, elements)?;
            count += 1;
            if !cursor.eat(b',') {
                break;
            }
        }
    } else if found.rank.is_none() {
        found.rank = Some(level + 1);
    }
    if found.known[level] && found.dims[level] != count {
        return cursor.error("lists of different lengths in one dimension");
    }
    found.known[level] = true;
    found.dims[level] = count;
    cursor.expect(b']', "expected a comma or a closing bracket")
}

fn text(cursor: &mut Cursor<'_>, rules: Rules, arena: &mut Arena) -> Result<(), JsonError> {
    if rules.b64 && cursor.peek() == Some(b'{') {
        let mut seen = 0;
        cursor.object(|cursor, key| {
            seen += 1;
            if key != "b64" || seen > 1 {
                return cursor.error("expected {\"b64\": …}");
            }
            let encoded = cursor.text()?;
            from_base64(cursor, encoded.as_bytes(), arena)
        })?;
        return if seen == 1 { Ok(()) } else { cursor.error("expected {\"b64\": …}") };
    }
    let text = cursor.text()?;
    arena.push_text(text.as_bytes());
    Ok(())
}

fn from_base64(cursor: &Cursor<'_>, encoded: &[u8], arena: &mut Arena) -> Result<(), JsonError> {
    let start = arena.len();
    arena.push(0_u32);
    let room = arena.grow(base64::decoded_len_estimate(encoded.len()));
    let Ok(len) = base64::engine::general_purpose::STANDARD.decode_slice(encoded, room) else {
        return cursor.error("malformed base64");
    };
    arena.truncate(start);
    arena.push(u32::try_from(len).unwrap_or(u32::MAX));
    arena.grow(len);
    Ok(())
}
