//! numpy's `.npy` files.
//!
//! The header is a Python literal; the few forms that numpy writes are parsed, and nothing else. Arrays of
//! objects are pickles inside and are refused, as skops does.
//!
//! Not here: archives of them (`skops`).

use std::sync::Arc;

use bytes::Bytes;

use crate::array::{Dtype, Elements, Kind, NdArray};
use crate::error::{LoadError, Result};

/// Reads one array.
pub fn read(bytes: &Bytes) -> Result<NdArray> {
    let bad = |what: &str| LoadError::malformed("npy", 0, what);
    let (header_len, start) = match bytes.as_ref() {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            (usize::from(u16::from_le_bytes([*a, *b])), 10)
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12)
        }
        _ => return Err(bad("no npy header")),
    };
    let end = start + header_len;
    let header = bytes.get(start..end).and_then(|header| std::str::from_utf8(header).ok());
    let header = header.ok_or_else(|| bad("the header is cut off"))?;
    let literal =
        Parser { rest: header, depth: 0 }.value().ok_or_else(|| bad("the header is no Python literal"))?;
    let dtype = literal.entry("descr").and_then(dtype_of).ok_or_else(|| bad("the dtype is not known"))?;
    let fortran = matches!(literal.entry("fortran_order"), Some(Literal::Bool(true)));
    let shape = literal.entry("shape").and_then(shape_of).ok_or_else(|| bad("the shape is not known"))?;
    if dtype.kind == Kind::Object {
        return Err(LoadError::Refused {
            global: "numpy object array".into(),
            reason: "it is a pickle",
            offset: 0,
        });
    }
    let size = NdArray::count_of(&shape).and_then(|count| count.checked_mul(dtype.size));
    let left = bytes.len() - end;
    match size {
        Some(size) if size <= left => {
            let elements = Elements::Raw(bytes.slice(end..end + size));
            Ok(NdArray { dtype: Arc::new(dtype), shape, fortran, elements })
        }
        _ => Err(LoadError::Truncated {
            what: "an array",
            offset: end,
            needed: size.unwrap_or(usize::MAX) as u64,
            left,
        }),
    }
}

fn shape_of(literal: &Literal) -> Option<Vec<usize>> {
    let Literal::List(items) = literal else { return None };
    if items.len() > 32 {
        return None;
    }
    items
        .iter()
        .map(|item| if let Literal::Int(int) = item { usize::try_from(*int).ok() } else { None })
        .collect()
}

fn dtype_of(literal: &Literal) -> Option<Dtype> {
    let fields = match literal {
        Literal::Text(text) => return Dtype::parse(text),
        Literal::List(fields) => fields,
        _ => return None,
    };
    let mut made = Dtype { kind: Kind::Void, size: 0, big_endian: false, fields: Vec::new() };
    for field in fields {
        let Literal::List(pair) = field else { return None };
        let [Literal::Text(name), Literal::Text(text)] = pair.as_slice() else { return None };
        let dtype = Dtype::parse(text)?;
        let offset = made.size;
        made.size = made.size.checked_add(dtype.size)?;
        // Unnamed fields are padding.
        if !name.is_empty() {
            made.fields.push((name.clone(), offset, Arc::new(dtype)));
        }
    }
    Some(made)
}

enum Literal {
    Text(String),
    Int(i64),
    Bool(bool),
    List(Vec<Literal>),
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    fn entry(&self, name: &str) -> Option<&Literal> {
        let Self::Dict(pairs) = self else { return None };
        pairs.iter().find(|(key, _)| matches!(key, Self::Text(text) if text == name)).map(|(_, value)| value)
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn eat(&mut self, token: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> Option<Literal> {
        self.depth += 1;
        if self.depth > 16 {
            return None;
        }
        let value = self.inner();
        self.depth -= 1;
        value
    }

    fn inner(&mut self) -> Option<Literal> {
        if self.eat('{') {
            let mut pairs = Vec::new();
            while !self.eat('}') {
                let key = self.value()?;
                if !self.eat(':') {
                    return None;
                }
                pairs.push((key, self.value()?));
                if !self.eat(',') && !self.rest.trim_start().starts_with('}') {
                    return None;
                }
            }
            return Some(Literal::Dict(pairs));
        }
        for (open, close) in [('(', ')'), ('[', ']')] {
            if self.eat(open) {
                return self.list(close);
            }
        }
        self.atom()
    }

    fn list(&mut self, close: char) -> Option<Literal> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.value()?);
            if !self.eat(',') && !self.rest.trim_start().starts_with(close) {
                return None;
            }
        }
        Some(Literal::List(items))
    }

    fn atom(&mut self) -> Option<Literal> {
        for quote in ['\'', '"'] {
            if self.eat(quote) {
                let (text, rest) = self.rest.split_once(quote)?;
                self.rest = rest;
                return Some(Literal::Text(text.to_owned()));
            }
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "True" => Some(Literal::Bool(true)),
            "False" => Some(Literal::Bool(false)),
            _ => word.trim_end_matches('L').parse().ok().map(Literal::Int),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Bytes {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file.into()
    }

    #[test]
    fn records_with_padding_are_read() {
        let header =
            "{'descr': [('a', '<i2'), ('', '|V2'), ('b', '<f4')], 'fortran_order': False, 'shape': (1,), }\n";
        let array = read(&file(header, &[7, 0, 9, 9, 0, 0, 128, 63])).expect("an array");
        assert_eq!(array.field_i64s("a").expect("a"), [7]);
        assert_eq!(array.field_f64s("b").expect("b"), [1.0]);
    }

    #[test]
    fn broken_headers_are_errors() {
        for header in [
            "",
            "{",
            "{'descr': 'O', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f8', 'shape': (9,)}",
            "(((((((((((((((((((((",
        ] {
            assert!(read(&file(header, &[])).is_err(), "{header}");
        }
    }
}
