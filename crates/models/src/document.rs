//! Documents of JSON and UBJSON, as far as boosted-tree libraries write them.
//!
//! Runs of numbers, nearly all of such a file, are kept as runs: a number costs eight bytes and a file cannot ask
//! for more memory than a small multiple of its size. `NaN` and `Infinity` are read, because the libraries write
//! them. Depth and the number of other values are bounded by [`Limits`].
//!
//! Not here: what the fields mean (`xgboost`, `catboost`).

use crate::error::{LoadError, Result};
use crate::limits::Limits;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Numbers(Vec<f64>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The entry of a map.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The entry at a path of names with dots.
    pub(crate) fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self, |value, name| value.get(name))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number, also one that is written as a text.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bool(truth) => Some(f64::from(u8::from(*truth))),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A whole number that is not negative, also one that is written as a text.
    pub(crate) fn size(&self) -> Option<usize> {
        let number = self.number()?;
        (number >= 0.0 && number <= u32::MAX as f64 && number.fract() == 0.0).then_some(number as usize)
    }

    pub(crate) fn numbers(&self) -> Option<&[f64]> {
        match self {
            Self::Numbers(numbers) => Some(numbers),
            Self::List(items) if items.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// The items of a list whose items are not all numbers.
    pub(crate) fn items(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) => Some(items),
            Self::Numbers(numbers) if numbers.is_empty() => Some(&[]),
            _ => None,
        }
    }

    /// Texts of a list; empty where there is none.
    pub(crate) fn texts(&self) -> Vec<String> {
        let items = self.items().unwrap_or_default();
        items.iter().filter_map(Value::text).map(str::to_owned).collect()
    }
}

/// Whether `{…` is UBJSON: a JSON object goes on with a quote or its end.
pub(crate) fn is_ubjson(bytes: &[u8]) -> bool {
    let after = bytes.iter().skip(1).find(|byte| !byte.is_ascii_whitespace());
    bytes.first() == Some(&b'{') && !matches!(after, Some(b'"' | b'}') | None)
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    depth_max: usize,
    values_left: usize,
    values_max: usize,
    format: &'static str,
}

impl<'b> Reader<'b> {
    fn new(bytes: &'b [u8], limits: &Limits, format: &'static str) -> Self {
        // Parsing recurses: whatever the limit says, the stack must hold.
        let depth_max = limits.depth_max.min(512);
        Self {
            bytes,
            at: 0,
            depth_max,
            values_left: limits.values_max,
            values_max: limits.values_max,
            format,
        }
    }

    fn error<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(LoadError::malformed(self.format, self.at, what))
    }

    fn spend(&mut self, depth: usize) -> Result<()> {
        if depth > self.depth_max {
            return Err(LoadError::TooLarge { what: "nesting of the document", limit: self.depth_max });
        }
        match self.values_left.checked_sub(1) {
            Some(left) => self.values_left = left,
            None => return Err(LoadError::TooLarge { what: "number of values", limit: self.values_max }),
        }
        Ok(())
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'b [u8]> {
        let left = self.bytes.len() - self.at;
        if count > left {
            return Err(LoadError::Truncated { what, offset: self.at, needed: count as u64, left });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8> {
        Ok(self.take(1, what)?[0])
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

/// Collects items: a run as long as all are numbers.
enum Items {
    Run(Vec<f64>),
    Mixed(Vec<Value>),
}

impl Items {
    fn push(&mut self, reader: &mut Reader<'_>, depth: usize, value: Value) -> Result<()> {
        match (&mut *self, value) {
            (Self::Run(run), Value::Number(number)) => run.push(number),
            (Self::Run(run), value) => {
                let mut mixed = Vec::with_capacity(run.len() + 1);
                for number in run.drain(..) {
                    reader.spend(depth)?;
                    mixed.push(Value::Number(number));
                }
                reader.spend(depth)?;
                mixed.push(value);
                *self = Self::Mixed(mixed);
            }
            (Self::Mixed(mixed), value) => {
                reader.spend(depth)?;
                mixed.push(value);
            }
        }
        Ok(())
    }

    fn done(self) -> Value {
        match self {
            Self::Run(run) => Value::Numbers(run),
            Self::Mixed(mixed) => Value::List(mixed),
        }
    }
}

/// Reads a JSON document.
pub(crate) fn json(bytes: &[u8], limits: &Limits) -> Result<Value> {
    let mut reader = Reader::new(bytes, limits, "JSON");
    reader.spaces();
    let value = reader.json_value(0)?;
    reader.spaces();
    if reader.at < bytes.len() {
        return reader.error("something follows the document");
    }
    Ok(value)
}

impl Reader<'_> {
    fn spaces(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn json_value(&mut self, depth: usize) -> Result<Value> {
        match self.peek() {
            Some(b'{') => self.json_map(depth),
            Some(b'[') => self.json_list(depth),
            Some(b'"') => Ok(Value::Text(self.json_text()?)),
            Some(_) => self.json_word(),
            None => Err(LoadError::Truncated { what: "a value", offset: self.at, needed: 1, left: 0 }),
        }
    }

    fn json_map(&mut self, depth: usize) -> Result<Value> {
        self.spend(depth)?;
        self.at += 1;
        let mut entries = Vec::new();
        self.spaces();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Map(entries));
        }
        loop {
            self.spaces();
            if self.peek() != Some(b'"') {
                return self.error("a name in quotes is expected");
            }
            self.spend(depth)?;
            let name = self.json_text()?;
            self.spaces();
            if self.byte("a colon")? != b':' {
                return self.error("a colon is expected");
            }
            self.spaces();
            entries.push((name, self.json_value(depth + 1)?));
            self.spaces();
            match self.byte("the end of an object")? {
                b',' => {}
                b'}' => return Ok(Value::Map(entries)),
                _ => return self.error("a comma or the end of the object is expected"),
            }
        }
    }

    fn json_list(&mut self, depth: usize) -> Result<Value> {
        self.spend(depth)?;
        self.at += 1;
        let mut items = Items::Run(Vec::new());
        self.spaces();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(items.done());
        }
        loop {
            self.spaces();
            let value = self.json_value(depth + 1)?;
            items.push(self, depth, value)?;
            self.spaces();
            match self.byte("the end of a list")? {
                b',' => {}
                b']' => return Ok(items.done()),
                _ => return self.error("a comma or the end of the list is expected"),
            }
        }
    }

    /// A text. Escapes are left to `serde_json`, which has all of them.
    fn json_text(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut has_escape = false;
        loop {
            match self.byte("the end of a text")? {
                b'"' => break,
                b'\\' => {
                    has_escape = true;
                    self.byte("an escape")?;
                }
                _ => {}
            }
        }
        let quoted = &self.bytes[start..self.at];
        let text = if has_escape {
            serde_json::from_slice(quoted).ok()
        } else {
            std::str::from_utf8(&quoted[1..quoted.len() - 1]).ok().map(str::to_owned)
        };
        text.ok_or_else(|| LoadError::malformed(self.format, start, "a text that is not legal"))
    }

    fn json_word(&mut self) -> Result<Value> {
        let start = self.at;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        while self.peek().is_some_and(is_word) {
            self.at += 1;
        }
        let word = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        match word {
            "null" => return Ok(Value::Null),
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            _ => {}
        }
        match word.parse::<f64>() {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => Err(LoadError::malformed(self.format, start, "neither a number nor a known word")),
        }
    }
}

/// Reads a UBJSON document.
pub(crate) fn ubjson(bytes: &[u8], limits: &Limits) -> Result<Value> {
    let mut reader = Reader::new(bytes, limits, "UBJSON");
    let marker = reader.byte("a marker")?;
    reader.ubj_value(marker, 0)
}

/// Bytes of a number by its marker; 0 for what is no number.
fn width_of(marker: u8) -> usize {
    match marker {
        b'i' | b'U' => 1,
        b'I' => 2,
        b'l' | b'd' => 4,
        b'L' | b'D' => 8,
        _ => 0,
    }
}

/// A number of [`width_of`] bytes, most significant first.
fn number_of(marker: u8, bytes: &[u8]) -> f64 {
    let mut word = [0_u8; 8];
    word[8 - bytes.len()..].copy_from_slice(bytes);
    let bits = u64::from_be_bytes(word);
    match marker {
        b'i' => f64::from(bits as u8 as i8),
        b'U' => f64::from(bits as u8),
        b'I' => f64::from(bits as u16 as i16),
        b'l' => f64::from(bits as u32 as i32),
        b'd' => f64::from(f32::from_bits(bits as u32)),
        b'L' => bits as i64 as f64,
        _ => f64::from_bits(bits),
    }
}

impl Reader<'_> {
    fn ubj_value(&mut self, marker: u8, depth: usize) -> Result<Value> {
        let width = width_of(marker);
        if width > 0 {
            return Ok(Value::Number(number_of(marker, self.take(width, "a number")?)));
        }
        match marker {
            b'Z' | b'N' => Ok(Value::Null),
            b'T' => Ok(Value::Bool(true)),
            b'F' => Ok(Value::Bool(false)),
            b'C' => Ok(Value::Text(char::from(self.byte("a character")?).to_string())),
            b'S' => Ok(Value::Text(self.ubj_text()?)),
            b'{' => self.ubj_map(depth),
            b'[' => self.ubj_list(depth),
            _ => self.error(format!("the unknown marker {:?}", char::from(marker))),
        }
    }

    fn ubj_len(&mut self) -> Result<usize> {
        let marker = self.byte("a length")?;
        let width = width_of(marker);
        if width == 0 || matches!(marker, b'd' | b'D') {
            return self.error("a length that is no integer");
        }
        let len = number_of(marker, self.take(width, "a length")?);
        // Nothing is longer than the file, so that no length is too large to be exact.
        if len < 0.0 || len > self.bytes.len() as f64 {
            return self.error(format!("a length of {len}, beyond the file"));
        }
        Ok(len as usize)
    }

    fn ubj_text(&mut self) -> Result<String> {
        let len = self.ubj_len()?;
        let start = self.at;
        let bytes = self.take(len, "a text")?;
        let text = std::str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| LoadError::malformed(self.format, start, "a text that is not UTF-8"))
    }

    /// Type and count of a container that says them.
    fn ubj_head(&mut self) -> Result<(Option<u8>, Option<usize>)> {
        let mut kind = None;
        if self.peek() == Some(b'$') {
            self.at += 1;
            kind = Some(self.byte("a type")?);
            if self.peek() != Some(b'#') {
                return self.error("a typed container without a count");
            }
        }
        if self.peek() == Some(b'#') {
            self.at += 1;
            return Ok((kind, Some(self.ubj_len()?)));
        }
        Ok((None, None))
    }

    fn ubj_map(&mut self, depth: usize) -> Result<Value> {
        self.spend(depth)?;
        let (kind, count) = self.ubj_head()?;
        let mut entries = Vec::new();
        loop {
            match count {
                Some(count) if entries.len() == count => break,
                None if self.peek() == Some(b'}') => {
                    self.at += 1;
                    break;
                }
                _ => {}
            }
            self.spend(depth)?;
            let name = self.ubj_text()?;
            let marker = match kind {
                Some(kind) => kind,
                None => self.byte("a marker")?,
            };
            entries.push((name, self.ubj_value(marker, depth + 1)?));
        }
        Ok(Value::Map(entries))
    }

    fn ubj_list(&mut self, depth: usize) -> Result<Value> {
        self.spend(depth)?;
        let (kind, count) = self.ubj_head()?;
        if let (Some(kind), Some(count)) = (kind, count)
            && width_of(kind) > 0
        {
            let width = width_of(kind);
            let bytes = self.take(count.saturating_mul(width), "a list of numbers")?;
            return Ok(Value::Numbers(bytes.chunks_exact(width).map(|b| number_of(kind, b)).collect()));
        }
        let (mut items, mut read) = (Items::Run(Vec::new()), 0);
        loop {
            match count {
                Some(count) if read == count => break,
                None if self.peek() == Some(b']') => {
                    self.at += 1;
                    break;
                }
                _ => {}
            }
            let marker = match kind {
                Some(kind) => kind,
                None => self.byte("a marker")?,
            };
            let value = self.ubj_value(marker, depth + 1)?;
            items.push(self, depth, value)?;
            read += 1;
        }
        Ok(items.done())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read_the_same() {
        let text =
            br#" {"a": [1, 2.5, -3e2], "b": {"c": "x\u00e9", "d": [null, true]}, "n": [NaN, -Infinity]} "#;
        let read = json(text, &Limits::default()).expect("legal");
        assert_eq!(read.at("a").and_then(Value::numbers), Some(&[1.0, 2.5, -300.0][..]));
        assert_eq!(read.at("b.c").and_then(Value::text), Some("xé"));
        assert_eq!(read.at("b.d").and_then(Value::items), Some(&[Value::Null, Value::Bool(true)][..]));
        assert!(read.at("n").and_then(Value::numbers).expect("numbers")[0].is_nan());
        let bytes = b"{i\x01a[$d#i\x02\x3f\x80\0\0\xbf\x80\0\0i\x01b[U\x05Si\x01x]}";
        let read = ubjson(bytes, &Limits::default()).expect("legal");
        assert_eq!(read.at("a").and_then(Value::numbers), Some(&[1.0, -1.0][..]));
        assert_eq!(
            read.at("b").and_then(Value::items),
            Some(&[Value::Number(5.0), Value::Text("x".into())][..])
        );
    }

    #[test]
    fn claims_beyond_the_file_are_errors() {
        let limits = Limits { depth_max: 40, ..Limits::default() };
        for bytes in
            [&b"{L\x7f\0\0\0\0\0\0\0a"[..], b"[$d#L\0\0\0\0\x10\0\0\0", b"[#l\x7f\xff\xff\xffZ", b"{i\xff"]
        {
            assert!(ubjson(bytes, &limits).is_err(), "{bytes:?}");
        }
        for text in ["[".repeat(100), "[".repeat(100_000), "{\"a\":1".into(), "\"\\".into(), "[1,]".into()] {
            assert!(json(text.as_bytes(), &limits).is_err());
        }
        assert!(ubjson(&b"[".repeat(100_000), &limits).is_err());
    }
}
