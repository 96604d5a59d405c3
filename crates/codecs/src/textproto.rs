//! Protocol buffers' text format, as people write it into configuration files.
//!
//! A message is a list of fields in the order of the file; which fields there may be is for the reader of that file to
//! say ([`Message::only`]), with the line of what it does not know. Read as protobuf's own parser does: `:` before a
//! message is optional, so are `,` and `;` after a field; lists in `[]`; `{}` or `<>`; strings in either quotes, put
//! together when several follow each other; `#` to the end of the line; integers decimal, hexadecimal or octal.
//!
//! Not here: what the fields mean (`infer::config`), extensions and `Any`, which no configuration file uses.

use std::fmt;

/// Messages within messages, at most.
const DEPTH_MAX: usize = 32;
/// Bytes of a text, at most.
const BYTES_MAX: usize = 16 << 20;

/// What a text breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TextError {
    /// Counted from 1.
    pub line: usize,
    /// For people.
    pub what: String,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number, a truth or an enum's word, as it is written.
    Word(String),
    /// A string's bytes.
    Text(Vec<u8>),
    /// A message.
    Message(Message),
}

/// A field with its line.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Where it begins.
    pub line: usize,
}

/// A message: fields in the order of the text; repeated ones occur several times.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// The fields.
    pub fields: Vec<Field>,
    /// Where it begins.
    pub line: usize,
}

type Result<T> = std::result::Result<T, TextError>;

/// Reads a text.
pub fn parse(text: &str) -> Result<Message> {
    if text.len() > BYTES_MAX {
        return Err(TextError { line: 1, what: format!("the text is larger than {BYTES_MAX} bytes") });
    }
    let mut reader = Reader { rest: text, line: 1 };
    reader.message(None, 0)
}

impl Field {
    fn wrong(&self, expected: &str) -> TextError {
        let what = format!("{} is {}, expected {expected}", self.name, self.value);
        TextError { line: self.line, what }
    }

    /// The message that it holds.
    pub fn message(&self) -> Result<&Message> {
        match &self.value {
            Value::Message(message) => Ok(message),
            _ => Err(self.wrong("a message")),
        }
    }

    /// The UTF-8 string that it holds.
    pub fn text(&self) -> Result<&str> {
        let text = match &self.value {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        text.ok_or_else(|| self.wrong("a string"))
    }

    /// The word of an enum.
    pub fn word(&self) -> Result<&str> {
        match &self.value {
            Value::Word(word) => Ok(word),
            _ => Err(self.wrong("a word")),
        }
    }

    /// The integer that it holds.
    pub fn int(&self) -> Result<i64> {
        let Value::Word(word) = &self.value else { return Err(self.wrong("an integer")) };
        let (sign, digits) = word.strip_prefix('-').map_or((1, word.as_str()), |digits| (-1, digits));
        let number = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] => i128::from_str_radix(&digits[2..], 16),
            [b'0', _, ..] => i128::from_str_radix(&digits[1..], 8),
            _ => digits.parse(),
        };
        // Rust reads signs where protobuf has none.
        let number = number.ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        number.and_then(|number| i64::try_from(sign * number).ok()).ok_or_else(|| self.wrong("an integer"))
    }

    /// The integer that it holds, which must not be negative.
    pub fn count(&self) -> Result<u64> {
        u64::try_from(self.int()?).map_err(|_| self.wrong("an integer that is not negative"))
    }

    /// The truth that it holds.
    pub fn truth(&self) -> Result<bool> {
        match &self.value {
            Value::Word(word) if matches!(word.as_str(), "true" | "True" | "t" | "1") => Ok(true),
            Value::Word(word) if matches!(word.as_str(), "false" | "False" | "f" | "0") => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// The field `value` of a wrapped number (`google.protobuf.Int64Value` and its kind), 0 where it is absent.
    pub fn wrapped(&self) -> Result<i64> {
        let message = self.message()?;
        message.only(&["value"])?;
        message.get("value").map_or(Ok(0), Field::int)
    }
}

impl Message {
    /// The last field of a name, which is the one that counts.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.fields.iter().rev().find(|field| field.name == name)
    }

    /// All fields of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| field.name == name)
    }

    /// Refuses a field that is none of these.
    pub fn only(&self, names: &[&str]) -> Result<()> {
        match self.fields.iter().find(|field| !names.contains(&field.name.as_str())) {
            Some(field) => {
                let what = format!("unknown field {:?}; known are {}", field.name, names.join(", "));
                Err(TextError { line: field.line, what })
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Text(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Self::Message(_) => f.write_str("a message"),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn error<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(TextError { line: self.line, what: what.into() })
    }

    /// Passes over white space and comments.
    fn skip(&mut self) {
        loop {
            match self.rest.bytes().next() {
                Some(b'\n') => {
                    self.line += 1;
                    self.rest = &self.rest[1..];
                }
                Some(b' ' | b'\t' | b'\r' | 0x0b | 0x0c) => self.rest = &self.rest[1..],
                Some(b'#') => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip();
        let is_there = self.rest.as_bytes().first() == Some(&byte);
        if is_there {
            self.rest = &self.rest[1..];
        }
        is_there
    }

    /// The fields up to `end`, or up to the end of the text.
    fn message(&mut self, end: Option<u8>, depth: usize) -> Result<Message> {
        if depth > DEPTH_MAX {
            return self.error("messages lie too deep in each other");
        }
        let mut message = Message { fields: Vec::new(), line: self.line };
        loop {
            self.skip();
            match (self.rest.bytes().next(), end) {
                (None, None) => return Ok(message),
                (None, Some(end)) => return self.error(format!("the text ends before {:?}", end as char)),
                (Some(byte), Some(end)) if byte == end => {
                    self.rest = &self.rest[1..];
                    return Ok(message);
                }
                _ => self.field(&mut message.fields, depth)?,
            }
        }
    }

    fn field(&mut self, fields: &mut Vec<Field>, depth: usize) -> Result<()> {
        let line = self.line;
        let name = self.name()?.to_owned();
        let has_colon = self.take(b':');
        if self.take(b'[') {
            if !self.take(b']') {
                loop {
                    let value = self.value(true, depth)?;
                    fields.push(Field { name: name.clone(), value, line });
                    if self.take(b']') {
                        break;
                    }
                    if !self.take(b',') {
                        return self.error("expected , or ] in a list");
                    }
                }
            }
        } else {
            let value = self.value(has_colon, depth)?;
            fields.push(Field { name, value, line });
        }
        if !self.take(b',') {
            self.take(b';');
        }
        Ok(())
    }

    fn name(&mut self) -> Result<&'a str> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let end = self.rest.bytes().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
            let found: String = self.rest.chars().take(12).collect();
            return self.error(format!("expected the name of a field, found {found:?}"));
        }
        self.rest = rest;
        Ok(name)
    }

    fn value(&mut self, has_colon: bool, depth: usize) -> Result<Value> {
        self.skip();
        let end = match self.rest.bytes().next() {
            Some(b'{') => b'}',
            Some(b'<') => b'>',
            _ if !has_colon => return self.error("expected : or { after the name of a field"),
            Some(b'"' | b'\'') => return self.texts().map(Value::Text),
            _ => return self.word().map(Value::Word),
        };
        self.rest = &self.rest[1..];
        self.message(Some(end), depth + 1).map(Value::Message)
    }

    fn word(&mut self) -> Result<String> {
        let sign = if self.take(b'-') { "-" } else { "" };
        self.skip();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-');
        let end = self.rest.bytes().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return self.error("expected a value");
        }
        self.rest = rest;
        Ok(format!("{sign}{word}"))
    }

    /// One string or several beside each other.
    fn texts(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(quote @ (b'"' | b'\'')) = self.rest.bytes().next() {
            self.rest = &self.rest[1..];
            self.one_text(quote, &mut bytes)?;
            self.skip();
        }
        Ok(bytes)
    }

    fn one_text(&mut self, quote: u8, out: &mut Vec<u8>) -> Result<()> {
        loop {
            let all = self.rest.as_bytes();
            let end = all.iter().position(|byte| *byte == quote || matches!(byte, b'\\' | b'\n'));
            let Some(end) = end else { return self.error("a string does not end") };
            out.extend_from_slice(&all[..end]);
            let found = all[end];
            self.rest = &self.rest[end + 1..];
            match found {
                b'\n' => return self.error("a string does not end on its line"),
                b'\\' => self.escape(out)?,
                _ => return Ok(()),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(code) = self.rest.chars().next() else { return self.error("a string does not end") };
        let simple = match code {
            'n' => Some(b'\n'),
            't' => Some(b'\t'),
            'r' => Some(b'\r'),
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'v' => Some(11),
            '\\' | '\'' | '"' | '?' => Some(code as u8),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            self.rest = &self.rest[1..];
            return Ok(());
        }
        let (start, base, most) = match code {
            '0'..='7' => (0, 8, 3),
            'x' | 'X' => (1, 16, 2),
            'u' => (1, 16, 4),
            'U' => (1, 16, 8),
            _ => return self.error(format!("unknown escape \\{code}")),
        };
        let digits = self.rest[start..].bytes().take(most).take_while(|byte| (*byte as char).is_digit(base));
        let end = start + digits.count();
        let number = u32::from_str_radix(&self.rest[start..end], base).ok();
        match (number, code) {
            (Some(number), 'u' | 'U') if end == start + most => match char::from_u32(number) {
                Some(letter) => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                None => return self.error("an escape that is no letter"),
            },
            (Some(number), '0'..='7' | 'x' | 'X') if number < 256 => out.push(number as u8),
            _ => return self.error(format!("a broken escape \\{code}")),
        }
        self.rest = &self.rest[end..];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(message: &Message) -> String {
        let field = |field: &Field| match &field.value {
            Value::Message(inner) => format!("{}{{{}}}", field.name, show(inner)),
            value => format!("{}={value}", field.name),
        };
        message.fields.iter().map(field).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn all_ways_to_write_a_field_are_read() {
        for (text, want) in [
            ("", ""),
            ("a: 1 # note\nb: -2", "a=1 b=-2"),
            ("a { b: 1 } c: { d: 'x' } e < f: true >", "a{b=1} c{d=\"x\"} e{f=true}"),
            ("a: 1, b: 2; c { }", "a=1 b=2 c{}"),
            ("a: [1, 2,3] b: [{c: 1}, {c: 2}] e: []", "a=1 a=2 a=3 b{c=1} b{c=2}"),
            ("a: [ ] b [{c:1}]", "b{c=1}"),
            ("a: 'one' \"two\"\n 'three'", "a=\"onetwothree\""),
            (r#"a: "\"\n\x41\101\u00e9""#, "a=\"\\\"\\nAAé\""),
            ("a: TYPE_FP32 b: 1.5e-3 c: - 4", "a=TYPE_FP32 b=1.5e-3 c=-4"),
        ] {
            assert_eq!(parse(text).map(|message| show(&message)).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, want) in [
            ("a", "line 1: expected : or {"),
            ("a: 1\n\nb", "line 3: expected : or {"),
            ("a {\n b: 1", "line 2: the text ends before '}'"),
            ("a: 'x\n'", "line 1: a string does not end on its line"),
            ("a: 'x", "line 1: a string does not end"),
            ("a: '\\", "line 1: a string does not end"),
            ("a: '\\q'", "unknown escape"),
            ("a: '\\é'", "unknown escape"),
            ("a: '\\777'", "a broken escape"),
            ("a: '\\u00'", "a broken escape"),
            ("a: '\\uD800'", "no letter"),
            ("a:", "expected a value"),
            ("a: }", "expected a value"),
            ("}", "expected the name"),
            ("é: 1", "expected the name"),
            ("a: [1 2]", "expected , or ]"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert!(parse(&"a {".repeat(100_000)).is_err());
    }

    #[test]
    fn values_are_read_as_what_they_are_meant_to_be() {
        let message = parse("a: 0x10 b: 010 c: '7' d: -1 e: 99999999999999999999 f { value: 3 } g: t h: --1")
            .expect("a text");
        let get = |name| message.get(name).expect(name);
        assert_eq!((get("a").int(), get("b").int(), get("d").int()), (Ok(16), Ok(8), Ok(-1)));
        assert_eq!((get("f").wrapped(), get("g").truth()), (Ok(3), Ok(true)));
        for error in [
            get("c").int().expect_err("a string"),
            get("d").count().expect_err("negative"),
            get("e").int().expect_err("too large"),
            get("h").int().expect_err("two signs"),
        ] {
            assert!(error.to_string().contains("expected an integer"), "{error}");
        }
        assert!(message.only(&["a"]).expect_err("b").to_string().contains("unknown field \"b\""));
    }
}
