//! The protobuf wire format: fields out of bytes, and bytes out of fields.
//!
//! ONNX needs two dozen messages of it; a reader of our own hands out slices of the file instead of copies and
//! refuses with the offset, which a generated decoder does not.
//!
//! Not here: what the fields mean (`proto`).

use bytes::Bytes;
use models::LoadError;

/// A field's content.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// Reads one message.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

pub(crate) fn malformed(offset: usize, what: impl Into<String>) -> LoadError {
    LoadError::Malformed { format: "ONNX", what: what.into(), offset }
}

impl<'a> Reader<'a> {
    /// A reader of a whole file.
    pub(crate) fn new(whole: &'a Bytes) -> Self {
        Self { whole, rest: whole }
    }

    /// A reader of a message inside the same file.
    pub(crate) fn inside(&self, bytes: &'a [u8]) -> Self {
        Self { whole: self.whole, rest: bytes }
    }

    /// Where in the file it stands.
    pub(crate) fn offset(&self) -> usize {
        (self.rest.as_ptr() as usize).saturating_sub(self.whole.as_ptr() as usize)
    }

    /// The file's own bytes behind a slice of it, without a copy.
    pub(crate) fn share(&self, bytes: &[u8]) -> Bytes {
        // An empty slice may lie at the very end, where `slice_ref` still finds it; one of no file would panic.
        if bytes.is_empty() { Bytes::new() } else { self.whole.slice_ref(bytes) }
    }

    fn varint(&mut self) -> Result<u64, LoadError> {
        let mut value = 0_u64;
        for index in 0..10 {
            let Some((byte, rest)) = self.rest.split_first() else {
                return Err(malformed(self.offset(), "a number is cut off"));
            };
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << (7 * index).min(63);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed(self.offset(), "a number of more than ten bytes"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(malformed(self.offset(), "a fixed number is cut off"));
        };
        self.rest = rest;
        Ok(*head)
    }

    /// The next field with its number; `None` at the end of the message.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, LoadError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let offset = self.offset();
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0);
        let Some(number) = number else { return Err(malformed(offset, "a field without a number")) };
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.fixed()?),
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).ok().filter(|len| *len <= self.rest.len());
                let Some(len) = len else {
                    return Err(malformed(offset, format!("field {number} is longer than what is left")));
                };
                let (head, rest) = self.rest.split_at(len);
                self.rest = rest;
                Field::Bytes(head)
            }
            5 => Field::Fixed32(self.fixed()?),
            kind => return Err(malformed(offset, format!("field {number} has the wire type {kind}"))),
        };
        Ok(Some((number, field)))
    }
}

impl<'a> Field<'a> {
    fn wrong(reader: &Reader<'_>, expected: &str) -> LoadError {
        malformed(reader.offset(), format!("a field that should be {expected}"))
    }

    pub(crate) fn bytes(self, reader: &Reader<'_>) -> Result<&'a [u8], LoadError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Self::wrong(reader, "bytes")),
        }
    }

    pub(crate) fn message(self, reader: &Reader<'a>) -> Result<Reader<'a>, LoadError> {
        Ok(reader.inside(self.bytes(reader)?))
    }

    pub(crate) fn text(self, reader: &Reader<'_>) -> Result<String, LoadError> {
        let bytes = self.bytes(reader)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Self::wrong(reader, "a text in UTF-8"))?;
        Ok(text.to_owned())
    }

    pub(crate) fn int(self, reader: &Reader<'_>) -> Result<i64, LoadError> {
        match self {
            Self::Varint(value) => Ok(value as i64),
            _ => Err(Self::wrong(reader, "a whole number")),
        }
    }

    pub(crate) fn float(self, reader: &Reader<'_>) -> Result<f32, LoadError> {
        match self {
            Self::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(Self::wrong(reader, "a float")),
        }
    }

    /// Adds whole numbers, packed or not.
    pub(crate) fn ints(self, reader: &Reader<'a>, to: &mut Vec<i64>) -> Result<(), LoadError> {
        if let Self::Bytes(bytes) = self {
            let mut inner = reader.inside(bytes);
            while !inner.rest.is_empty() {
                to.push(inner.varint()? as i64);
            }
            return Ok(());
        }
        to.push(self.int(reader)?);
        Ok(())
    }

    /// Adds floats, packed or not.
    pub(crate) fn floats(self, reader: &Reader<'_>, to: &mut Vec<f32>) -> Result<(), LoadError> {
        if let Self::Bytes(bytes) = self {
            let (chunks, []) = bytes.as_chunks::<4>() else { return Err(Self::wrong(reader, "floats")) };
            to.extend(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)));
            return Ok(());
        }
        to.push(self.float(reader)?);
        Ok(())
    }

    /// Adds doubles, packed or not.
    pub(crate) fn doubles(self, reader: &Reader<'_>, to: &mut Vec<f64>) -> Result<(), LoadError> {
        match self {
            Self::Bytes(bytes) => {
                let (chunks, []) = bytes.as_chunks::<8>() else { return Err(Self::wrong(reader, "doubles")) };
                to.extend(chunks.iter().map(|chunk| f64::from_le_bytes(*chunk)));
            }
            Self::Fixed64(bytes) => to.push(f64::from_le_bytes(bytes)),
            _ => return Err(Self::wrong(reader, "a double")),
        }
        Ok(())
    }
}

/// Writes one message.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Bytes {
        self.0.into()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn int(&mut self, number: u32, value: i64) {
        self.varint(u64::from(number) << 3);
        self.varint(value as u64);
    }

    pub(crate) fn float(&mut self, number: u32, value: f32) {
        self.varint(u64::from(number) << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    /// A text that is left out when it is empty.
    pub(crate) fn text(&mut self, number: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(number, text.as_bytes());
        }
    }

    /// Whole numbers, packed.
    pub(crate) fn ints(&mut self, number: u32, values: &[i64]) {
        let mut packed = Self::default();
        values.iter().for_each(|value| packed.varint(*value as u64));
        self.bytes(number, &packed.0);
    }

    /// Floats, packed.
    pub(crate) fn floats(&mut self, number: u32, values: &[f32]) {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(number, &packed);
    }

    /// Doubles, packed.
    pub(crate) fn doubles(&mut self, number: u32, values: &[f64]) {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(number, &packed);
    }

    pub(crate) fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(number, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut writer = Writer::default();
        writer.int(1, -3);
        writer.float(2, 1.5);
        writer.text(3, "name");
        writer.ints(4, &[1, 300, -1]);
        writer.message(5, |inner| inner.int(1, 7));
        let bytes = Bytes::from(writer.0);
        let mut reader = Reader::new(&bytes);
        let mut ints = Vec::new();
        while let Some((number, field)) = reader.next().expect("well formed") {
            match number {
                1 => assert_eq!(field.int(&reader).expect("an int"), -3),
                2 => assert_eq!(field.float(&reader).expect("a float"), 1.5),
                3 => assert_eq!(field.text(&reader).expect("a text"), "name"),
                4 => field.ints(&reader, &mut ints).expect("ints"),
                _ => {
                    let mut inner = field.message(&reader).expect("a message");
                    assert_eq!(inner.next().expect("a field"), Some((1, Field::Varint(7))));
                }
            }
        }
        assert_eq!(ints, [1, 300, -1]);
    }

    #[test]
    fn a_claim_beyond_the_file_is_refused() {
        for bad in [&[0x0a, 0xff, 0xff, 0xff, 0x7f, 1][..], &[0x08], &[0x0d, 1], &[0x0b], &[0x00, 1]] {
            let bytes = Bytes::copy_from_slice(bad);
            assert!(Reader::new(&bytes).next().is_err(), "{bad:?}");
        }
    }
}
