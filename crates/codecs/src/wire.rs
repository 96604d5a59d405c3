//! Protobuf's wire format: fields of a message in, fields out.
//!
//! A cursor and a few writers instead of generated types: the messages that carry tensors are read in place
//! (a raw tensor is a slice of the request), and the others are a handful of fields each. Field numbers are
//! written where they are used and held against the descriptors that the reflection service gives
//! ([`crate::grpc::descriptor`]).
//!
//! Not here: which messages there are (`grpc`).

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A number has more than ten bytes.
    #[error("a number is too long")]
    Varint,
    /// A field has the number 0 or a wire type that is none.
    #[error("a field has no legal tag")]
    Tag,
    /// A field has another wire type than its type's.
    #[error("field {0} has the wrong wire type")]
    Type(u32),
    /// A text is not UTF-8.
    #[error("field {0} is not UTF-8")]
    Utf8(u32),
}

/// A field's value as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A number of varying length.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Bytes: a text, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

/// A field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// As bytes or a message.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Type(self.number)),
        }
    }

    /// As a text.
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Utf8(self.number))
    }

    /// As an integer of any kind but the zigzag ones.
    pub fn int(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(WireError::Type(self.number)),
        }
    }

    /// Each number of a repeated field of varints, packed or one by one.
    pub fn ints(&self, mut each: impl FnMut(u64)) -> Result<(), WireError> {
        match self.value {
            Value::Varint(number) => each(number),
            Value::Bytes(bytes) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    each(varint(&mut rest)?);
                }
            }
            _ => return Err(WireError::Type(self.number)),
        }
        Ok(())
    }
}

#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    if let Some((first, after)) = rest.split_first()
        && *first < 0x80
    {
        *rest = after;
        return Ok(u64::from(*first));
    }
    let mut number = 0_u64;
    for (index, byte) in rest.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(number);
        }
    }
    Err(if rest.len() < 10 { WireError::Truncated } else { WireError::Varint })
}

/// The fields of a message, in the order of the wire. Groups, which nothing here has, are refused.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of this message.
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn read(&mut self) -> Result<Field<'a>, WireError> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Tag)?;
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireError::Tag);
        }
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => {
                let (head, tail) = self.rest.split_first_chunk::<8>().ok_or(WireError::Truncated)?;
                self.rest = tail;
                Value::Fixed64(u64::from_le_bytes(*head))
            }
            2 => {
                let len = usize::try_from(varint(&mut self.rest)?).map_err(|_| WireError::Truncated)?;
                let (head, tail) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
                self.rest = tail;
                Value::Bytes(head)
            }
            5 => {
                let (head, tail) = self.rest.split_first_chunk::<4>().ok_or(WireError::Truncated)?;
                self.rest = tail;
                Value::Fixed32(u32::from_le_bytes(*head))
            }
            _ => return Err(WireError::Tag),
        };
        Ok(Field { number, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Appends a bare varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes a varint has.
pub fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends an integer field unless it is zero.
pub fn put_int(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put_varint(out, u64::from(field) << 3);
        put_varint(out, number);
    }
}

/// Appends bytes or a text unless they are empty.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes_always(out, field, bytes);
    }
}

/// Appends bytes or a text, as a member of a repeated field or a map.
pub fn put_bytes_always(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_len(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the tag and length of a field whose bytes the caller appends.
pub fn put_len(out: &mut Vec<u8>, field: u32, len: usize) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, len as u64);
}

/// Appends a single-precision field unless it is zero.
pub fn put_f32(out: &mut Vec<u8>, field: u32, number: f32) {
    if number.to_bits() != 0 {
        put_varint(out, u64::from(field) << 3 | 5);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Appends a message that `write` appends the fields of. Its length is known only then; where it needs more
/// than one byte, the message moves up by the others.
pub fn put_message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, u64::from(field) << 3 | 2);
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    let more = varint_len(len as u64) - 1;
    if more > 0 {
        out.extend_from_slice(&[0; 9][..more]);
        out.copy_within(at + 1..at + 1 + len, at + 1 + more);
    }
    let mut rest = len as u64;
    for (index, byte) in out[at..=at + more].iter_mut().enumerate() {
        *byte = rest as u8 & 0x7f | if index < more { 0x80 } else { 0 };
        rest >>= 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = Vec::new();
            put_int(&mut out, 1, u64::MAX);
            put_message(&mut out, 3, |out| put_bytes_always(out, 2, &vec![7; size]));
            put_f32(&mut out, 500, 1.5);
            let fields: Vec<_> = Fields::of(&out).collect::<Result<_, _>>().expect("legal");
            assert_eq!(fields[0], Field { number: 1, value: Value::Varint(u64::MAX) });
            let inner: Vec<_> =
                Fields::of(fields[1].bytes().expect("bytes")).collect::<Result<_, _>>().expect("legal");
            assert_eq!(inner[0].bytes().expect("bytes").len(), size);
            assert_eq!(fields[2], Field { number: 500, value: Value::Fixed32(1.5_f32.to_bits()) });
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let long = [0xff; 11];
        for (bytes, want) in [
            (&[0x08][..], WireError::Truncated),
            (&[0x0a, 5, 1], WireError::Truncated),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], WireError::Truncated),
            (&[0x00, 1], WireError::Tag),
            (&[0x0b, 1], WireError::Tag),
            (&[0x0d, 1, 2, 3], WireError::Truncated),
            (&long, WireError::Varint),
        ] {
            let got = Fields::of(bytes).collect::<Result<Vec<_>, _>>();
            assert_eq!(got, Err(want), "{bytes:?}");
        }
    }
}
