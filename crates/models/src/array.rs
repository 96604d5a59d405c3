//! numpy's arrays and dtypes as plain data.
//!
//! Bytes stay as they lie in the file until a caller asks for them as numbers of one type: a forest's node
//! tables are read field by field and never exist as a general array of values.
//!
//! Not here: where the bytes come from (`pickle`, `npy`).

use std::sync::Arc;

use bytes::Bytes;

use crate::graph::Id;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `b`: one byte, 0 or 1.
    Bool,
    /// `i`: signed.
    Int,
    /// `u`: unsigned.
    Uint,
    /// `f`: 2, 4 or 8 bytes.
    Float,
    /// `U`: UCS-4, padded with zeros.
    Text,
    /// `S`: bytes, padded with zeros.
    Bytes,
    /// `O`: a reference to a Python object.
    Object,
    /// `V`: a record, or padding.
    Void,
    /// `c`, `m`, `M`: kept so that files load, never evaluated.
    Other,
}

/// A numpy dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dtype {
    /// What an element is.
    pub kind: Kind,
    /// Bytes of one element.
    pub size: usize,
    /// Whether the bytes are in big-endian order.
    pub big_endian: bool,
    /// The fields of a record: name, offset, dtype.
    pub fields: Vec<(String, usize, Arc<Dtype>)>,
}

impl Dtype {
    /// Reads numpy's short form: `f8`, `<i4`, `|b1`, `U12`, `V64`, `O`.
    pub fn parse(text: &str) -> Option<Self> {
        let (order, rest) = match text.as_bytes().first()? {
            b'<' | b'|' | b'=' => (false, &text[1..]),
            b'>' => (true, &text[1..]),
            _ => (false, text),
        };
        let mut chars = rest.chars();
        let kind = match chars.next()? {
            'b' => Kind::Bool,
            'i' => Kind::Int,
            'u' => Kind::Uint,
            'f' => Kind::Float,
            'U' => Kind::Text,
            'S' | 'a' => Kind::Bytes,
            'O' => Kind::Object,
            'V' => Kind::Void,
            'c' | 'm' | 'M' => Kind::Other,
            _ => return None,
        };
        let digits = chars.as_str();
        let digits = digits.split('[').next().unwrap_or(digits);
        let count: usize = match digits {
            "" if kind == Kind::Object => 8,
            "" => 0,
            _ => digits.parse().ok()?,
        };
        let size = if kind == Kind::Text { count.checked_mul(4)? } else { count };
        let size_is_legal = match kind {
            Kind::Bool => size == 1,
            Kind::Int | Kind::Uint => matches!(size, 1 | 2 | 4 | 8),
            Kind::Float => matches!(size, 2 | 4 | 8 | 16),
            _ => size <= 1 << 24,
        };
        size_is_legal.then_some(Self { kind, size, big_endian: order, fields: Vec::new() })
    }

    /// The name numpy prints, for messages.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Bool => "bool".into(),
            Kind::Int => format!("int{}", self.size * 8),
            Kind::Uint => format!("uint{}", self.size * 8),
            Kind::Float => format!("float{}", self.size * 8),
            Kind::Text => format!("<U{}", self.size / 4),
            Kind::Bytes => format!("|S{}", self.size),
            Kind::Object => "object".into(),
            Kind::Void => format!("void{}", self.size * 8),
            Kind::Other => "complex or time".into(),
        }
    }
}

/// The elements of an array.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Raw bytes in the order of [`NdArray::fortran`].
    Raw(Bytes),
    /// References, for dtype `object`.
    Objects(Vec<Id>),
}

/// An array; a numpy scalar is one without dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct NdArray {
    /// What each element is.
    pub dtype: Arc<Dtype>,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Whether the first index varies fastest.
    pub fortran: bool,
    /// The elements.
    pub elements: Elements,
}

impl NdArray {
    /// How many elements a shape has, unless that overflows.
    pub fn count_of(shape: &[usize]) -> Option<usize> {
        shape.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim))
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::Raw(bytes) if self.dtype.size > 0 => bytes.len() / self.dtype.size,
            Elements::Raw(_) => Self::count_of(&self.shape).unwrap_or(0),
            Elements::Objects(ids) => ids.len(),
        }
    }

    /// The elements as `f64` in C order; `None` for text, objects and records.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        let Elements::Raw(bytes) = &self.elements else { return None };
        self.in_c_order(read_f64s(bytes, &self.dtype, 0, self.dtype.size)?)
    }

    /// The elements as `i64` in C order; `None` where they are no integers.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        let Elements::Raw(bytes) = &self.elements else { return None };
        self.in_c_order(read_i64s(bytes, &self.dtype, 0, self.dtype.size)?)
    }

    /// The elements of dtype `U` (or `S`, as Latin-1) in C order.
    pub fn to_texts(&self) -> Option<Vec<String>> {
        let Elements::Raw(bytes) = &self.elements else { return None };
        let size = self.dtype.size;
        if size == 0 {
            return Some(vec![String::new(); self.len()]);
        }
        let big = self.dtype.big_endian;
        let texts: Vec<String> = match self.dtype.kind {
            Kind::Text => bytes.chunks_exact(size).map(|chunk| ucs4(chunk, big)).collect(),
            Kind::Bytes => bytes
                .chunks_exact(size)
                .map(|chunk| chunk.iter().map(|byte| char::from(*byte)).collect::<String>())
                .map(|text| text.trim_end_matches('\0').to_owned())
                .collect(),
            _ => return None,
        };
        self.in_c_order(texts)
    }

    /// One field of a record array as `f64`s.
    pub fn field_f64s(&self, name: &str) -> Option<Vec<f64>> {
        let (bytes, offset, dtype) = self.field(name)?;
        read_f64s(bytes, dtype, offset, self.dtype.size)
    }

    /// One field of a record array as `i64`s.
    pub fn field_i64s(&self, name: &str) -> Option<Vec<i64>> {
        let (bytes, offset, dtype) = self.field(name)?;
        read_i64s(bytes, dtype, offset, self.dtype.size)
    }

    fn field(&self, name: &str) -> Option<(&[u8], usize, &Dtype)> {
        let Elements::Raw(bytes) = &self.elements else { return None };
        let (_, offset, dtype) = self.dtype.fields.iter().find(|(field, ..)| field == name)?;
        let end = offset.checked_add(dtype.size)?;
        (end <= self.dtype.size && dtype.size > 0).then_some((bytes, *offset, dtype))
    }

    /// Reorders what was read in the file's order; one- and zero-dimensional arrays have only one.
    pub(crate) fn in_c_order<T: Clone>(&self, read: Vec<T>) -> Option<Vec<T>> {
        if !self.fortran || self.shape.len() < 2 || read.is_empty() {
            return Some(read);
        }
        let mut ordered = Vec::with_capacity(read.len());
        let mut index = vec![0_usize; self.shape.len()];
        for _ in 0..read.len() {
            let mut at = 0;
            for (i, dim) in index.iter().zip(&self.shape).rev() {
                at = at * dim + i;
            }
            ordered.push(read.get(at)?.clone());
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Some(ordered)
    }
}

fn ucs4(chunk: &[u8], big: bool) -> String {
    let codes = chunk.chunks_exact(4).map(|four| {
        let four = [four[0], four[1], four[2], four[3]];
        if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    });
    let text: String = codes.map(|code| char::from_u32(code).unwrap_or('\u{fffd}')).collect();
    text.trim_end_matches('\0').to_owned()
}

/// Copies an element of `N` bytes out in little-endian order.
fn element<const N: usize>(bytes: &[u8], big: bool) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    if big {
        out.reverse();
    }
    out
}

/// Calls `read` on each element that begins `offset` bytes into each `stride`.
fn strided<T>(bytes: &[u8], offset: usize, size: usize, stride: usize, read: impl Fn(&[u8]) -> T) -> Vec<T> {
    bytes.chunks_exact(stride).map(|chunk| read(&chunk[offset..offset + size])).collect()
}

fn read_f64s(bytes: &[u8], dtype: &Dtype, offset: usize, stride: usize) -> Option<Vec<f64>> {
    let (big, size) = (dtype.big_endian, dtype.size);
    if stride == 0 {
        return None;
    }
    let floats = match (dtype.kind, size) {
        (Kind::Float, 8) => strided(bytes, offset, 8, stride, |e| f64::from_le_bytes(element(e, big))),
        (Kind::Float, 4) => {
            strided(bytes, offset, 4, stride, |e| f64::from(f32::from_le_bytes(element(e, big))))
        }
        (Kind::Float, 2) => strided(bytes, offset, 2, stride, |e| half(u16::from_le_bytes(element(e, big)))),
        _ => read_i64s(bytes, dtype, offset, stride)?.into_iter().map(|int| int as f64).collect(),
    };
    Some(floats)
}

fn read_i64s(bytes: &[u8], dtype: &Dtype, offset: usize, stride: usize) -> Option<Vec<i64>> {
    let (big, size) = (dtype.big_endian, dtype.size);
    if stride == 0 {
        return None;
    }
    let ints = match (dtype.kind, size) {
        (Kind::Int, 8) => strided(bytes, offset, 8, stride, |e| i64::from_le_bytes(element(e, big))),
        (Kind::Int, 4) => {
            strided(bytes, offset, 4, stride, |e| i64::from(i32::from_le_bytes(element(e, big))))
        }
        (Kind::Int, 2) => {
            strided(bytes, offset, 2, stride, |e| i64::from(i16::from_le_bytes(element(e, big))))
        }
        (Kind::Int, 1) => strided(bytes, offset, 1, stride, |e| i64::from(e[0] as i8)),
        (Kind::Uint | Kind::Bool, 1) => strided(bytes, offset, 1, stride, |e| i64::from(e[0])),
        (Kind::Uint, 2) => {
            strided(bytes, offset, 2, stride, |e| i64::from(u16::from_le_bytes(element(e, big))))
        }
        (Kind::Uint, 4) => {
            strided(bytes, offset, 4, stride, |e| i64::from(u32::from_le_bytes(element(e, big))))
        }
        (Kind::Uint, 8) => strided(bytes, offset, 8, stride, |e| u64::from_le_bytes(element(e, big)))
            .into_iter()
            .map(|int| i64::try_from(int).ok())
            .collect::<Option<Vec<i64>>>()?,
        _ => return None,
    };
    Some(ints)
}

/// IEEE 754 half precision.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_dtypes_are_read_and_odd_ones_refused() {
        for (text, kind, size) in [
            ("f8", Kind::Float, 8),
            ("<i4", Kind::Int, 4),
            ("|b1", Kind::Bool, 1),
            ("U3", Kind::Text, 12),
            ("O8", Kind::Object, 8),
        ] {
            let dtype = Dtype::parse(text).expect(text);
            assert_eq!((dtype.kind, dtype.size), (kind, size), "{text}");
        }
        for text in ["", "x8", "f3", "i", "U99999999999999999999", "b2", "é1"] {
            assert!(Dtype::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn fortran_order_is_undone() {
        let dtype = Arc::new(Dtype::parse("<i2").expect("a dtype"));
        let raw: Vec<u8> = [1_i16, 4, 2, 5, 3, 6].iter().flat_map(|int| int.to_le_bytes()).collect();
        let array = NdArray { dtype, shape: vec![2, 3], fortran: true, elements: Elements::Raw(raw.into()) };
        assert_eq!(array.to_f64s().expect("numbers"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn halves_are_exact() {
        for (bits, want) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2_f64.powi(-24)), (0x7c00, f64::INFINITY)]
        {
            assert_eq!(half(bits), want);
        }
    }
}
