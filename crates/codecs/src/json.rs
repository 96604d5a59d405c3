//! A cursor over JSON text, for the few shapes that inference requests have.
//!
//! Numbers become `f64` directly. What is skipped is skipped by structure with a bound on depth; what is
//! malformed is reported with its offset. `NaN`, `Infinity` and `-Infinity` are taken, as Python's parser and
//! TensorFlow Serving take them.
//!
//! Not here: which keys a request has (`v1`).

use crate::{decimal, words};

/// How deep skipped values may nest.
const DEPTH_MAX: usize = 128;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct JsonError {
    /// What was expected or found.
    pub what: &'static str,
    /// Where in the body.
    pub offset: usize,
}

/// The two precisions of JSON numbers.
pub trait Float: fast_float2::FastFloat + std::ops::Neg<Output = Self> {
    /// Not a number.
    const NOT_A_NUMBER: Self;
    /// Beyond all numbers.
    const BEYOND: Self;
    /// Below all numbers.
    const BELOW: Self;
    /// Neither of them.
    fn is_finite(self) -> bool;
    /// `digits / 10^fraction` with its sign, rounded once: of at most seven digits and six places, so that both are exact.
    fn of_decimal(is_negative: bool, digits: u32, fraction: usize) -> Self;
}

impl Float for f32 {
    const NOT_A_NUMBER: Self = Self::NAN;
    const BEYOND: Self = Self::INFINITY;
    const BELOW: Self = Self::NEG_INFINITY;
    fn is_finite(self) -> bool {
        self.is_finite()
    }

    #[inline]
    fn of_decimal(is_negative: bool, digits: u32, fraction: usize) -> Self {
        const TENS: [f32; 8] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];
        let number = digits as Self / TENS[fraction & 7];
        Self::from_bits(number.to_bits() | u32::from(is_negative) << 31)
    }
}

impl Float for f64 {
    const NOT_A_NUMBER: Self = Self::NAN;
    const BEYOND: Self = Self::INFINITY;
    const BELOW: Self = Self::NEG_INFINITY;
    fn is_finite(self) -> bool {
        self.is_finite()
    }

    #[inline]
    fn of_decimal(is_negative: bool, digits: u32, fraction: usize) -> Self {
        const TENS: [f64; 8] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];
        let number = Self::from(digits) / TENS[fraction & 7];
        // No branch: signs are hard to foresee.
        Self::from_bits(number.to_bits() | u64::from(is_negative) << 63)
    }
}

/// Numbers that a block of text can hold at most: each with a comma.
const RUN: usize = words::BLOCK / 2;

/// A cursor.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where it is.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Moves to a place it was at before.
    pub fn seek(&mut self, offset: usize) {
        self.at = offset.min(self.bytes.len());
    }

    /// An error here.
    pub fn error<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError { what, offset: self.at })
    }

    /// The next byte that is no white space, which stays.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Consumes this byte if it comes next.
    #[inline]
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Consumes this byte or fails.
    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { self.error(what) }
    }

    /// Nothing but white space is left.
    pub fn end(&mut self) -> Result<(), JsonError> {
        if self.peek().is_none() { Ok(()) } else { self.error("unexpected text after the JSON value") }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.bytes[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// A number, truth value, `null` or not-a-number, as a `f64`; `None`, without moving, for other values.
    #[inline]
    pub fn number(&mut self) -> Result<Option<f64>, JsonError> {
        let number = match self.peek() {
            Some(b'0'..=b'9' | b'-') => return self.digits().map(Some),
            Some(b't') if self.word(b"true") => 1.0,
            Some(b'f') if self.word(b"false") => 0.0,
            Some(b'n') if self.word(b"null") => f64::NAN,
            Some(b'N') if self.word(b"NaN") => f64::NAN,
            Some(b'I') if self.word(b"Infinity") => f64::INFINITY,
            _ => return Ok(None),
        };
        Ok(Some(number))
    }

    /// A number that begins with a digit or a sign; also `-Infinity`.
    #[inline]
    fn digits<T: Float>(&mut self) -> Result<T, JsonError> {
        let rest = &self.bytes[self.at..];
        if let Some(short) = decimal::short(rest) {
            self.at += short.len;
            return Ok(T::of_decimal(short.is_negative, short.digits, short.fraction));
        }
        self.general()
    }

    /// Reads numbers of a list, each with the comma behind it and at most one space before it, and says how many; `push`
    /// is given them in runs. It stops before an element that is anything else, is not finite, or is the last.
    ///
    /// Where an element ends is known from the commas, before its number is: so the processor reads several at once.
    pub fn numbers<T: Float>(&mut self, mut push: impl FnMut(&[T])) -> usize {
        let bytes = self.bytes;
        let (mut count, mut at, mut block) = (0, self.at, self.at);
        while let Some(rest) = bytes.get(block..).filter(|rest| !rest.is_empty()) {
            let commas = match rest.first_chunk() {
                Some(rest) => words::commas(rest),
                None => {
                    let mut padded = [0; words::BLOCK];
                    padded[..rest.len()].copy_from_slice(rest);
                    words::commas(&padded)
                }
            };
            // No number is so long.
            let Some(mut commas @ 1..) = commas else { break };
            let (mut run, mut len) = ([T::NOT_A_NUMBER; RUN], 0);
            while commas != 0 {
                let comma = block + commas.trailing_zeros() as usize;
                commas &= commas - 1;
                let start = at + usize::from(bytes[at] == b' ');
                let short = bytes[start..].first_chunk().and_then(|text| decimal::whole(text, comma - start));
                let number = match short {
                    Some(short) => T::of_decimal(short.is_negative, short.digits, short.fraction),
                    None => {
                        self.at = start;
                        match self.general::<T>() {
                            Ok(number) if self.at == comma && number.is_finite() => number,
                            _ => {
                                push(&run[..len]);
                                self.at = at;
                                return count + len;
                            }
                        }
                    }
                };
                run[len % RUN] = number;
                len += 1;
                at = comma + 1;
            }
            push(&run[..len]);
            count += len;
            block += words::BLOCK;
        }
        self.at = at;
        count
    }

    #[inline(never)]
    fn general<T: Float>(&mut self) -> Result<T, JsonError> {
        if self.word(b"-Infinity") {
            return Ok(T::BELOW);
        }
        let rest = &self.bytes[self.at..];
        // JSON forbids what the float parser would take: "-.5", "1.", "01".
        let unsigned = rest.strip_prefix(b"-").unwrap_or(rest);
        let leading_zero = unsigned.first() == Some(&b'0') && unsigned.get(1).is_some_and(u8::is_ascii_digit);
        if leading_zero || !unsigned.first().is_some_and(u8::is_ascii_digit) {
            return self.error("not a number");
        }
        match fast_float2::parse_partial::<T, _>(rest) {
            Ok((number, used)) if rest[used - 1].is_ascii_digit() => {
                self.at += used;
                Ok(number)
            }
            _ => self.error("not a number"),
        }
    }

    /// A number of exactly this precision. NaN and the infinities are taken by their words; a literal that is
    /// beyond the type's range is refused, for it would come out as an infinity that nobody wrote.
    #[inline]
    pub fn float<T: Float>(&mut self) -> Result<T, JsonError> {
        match self.peek() {
            Some(b'0'..=b'9' | b'-') => {}
            Some(b'N') if self.word(b"NaN") => return Ok(T::NOT_A_NUMBER),
            Some(b'I') if self.word(b"Infinity") => return Ok(T::BEYOND),
            _ => return self.error("expected a number"),
        }
        let start = self.at;
        let number = self.digits::<T>()?;
        if number.is_finite() || self.bytes[start..].starts_with(b"-I") {
            Ok(number)
        } else {
            Err(JsonError { what: "a number out of range", offset: start })
        }
    }

    /// An integer as sign and magnitude. `1.0` and `1e3` are integers too, `1.5` is none.
    #[inline]
    pub fn integer(&mut self) -> Result<(bool, u64), JsonError> {
        let first = self.peek();
        let start = self.at;
        let negative = first == Some(b'-');
        let rest = &self.bytes[start + usize::from(negative)..];
        let mut magnitude = 0_u64;
        let mut count = 0;
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            let next = magnitude.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit)));
            let Some(next) = next else { return self.error("a number out of range") };
            magnitude = next;
            count += 1;
        }
        let is_plain = !matches!(rest.get(count), Some(b'.' | b'e' | b'E'));
        if count > 0 && is_plain {
            if count > 1 && rest[0] == b'0' {
                return self.error("not a number");
            }
            self.at = start + usize::from(negative) + count;
            return Ok((negative, magnitude));
        }
        if !matches!(first, Some(b'0'..=b'9' | b'-')) {
            return self.error("expected a number");
        }
        let number = self.general::<f64>()?;
        // Up to 2^53 every integer has a double of its own.
        if number.fract() != 0.0 || number.abs() > 9_007_199_254_740_992.0 {
            return Err(JsonError { what: "expected an integer", offset: start });
        }
        Ok((number < 0.0, number.abs() as u64))
    }

    /// A truth value, or 0 or 1.
    pub fn truth(&mut self) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b't') if self.word(b"true") => Ok(true),
            Some(b'f') if self.word(b"false") => Ok(false),
            Some(b'0' | b'1') => match self.integer()? {
                (false, number @ (0 | 1)) => Ok(number == 1),
                _ => self.error("expected a truth value"),
            },
            _ => self.error("expected a truth value"),
        }
    }

    /// Consumes `null` if it comes next.
    pub fn null(&mut self) -> bool {
        self.peek() == Some(b'n') && self.word(b"null")
    }

    /// Walks an object: `member` is called at each value, with its key, and consumes the value.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, std::borrow::Cow<'a, str>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{', "expected an object")?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.text()?;
            self.expect(b':', "expected a colon")?;
            member(self, key)?;
            if !self.eat(b',') {
                return Ok(self.expect(b'}', "expected a comma or a closing brace")?);
            }
        }
    }

    /// Walks a list: `element` is called at each value and consumes it.
    pub fn list<E: From<JsonError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[', "expected a list")?;
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if !self.eat(b',') {
                return Ok(self.expect(b']', "expected a comma or a closing bracket")?);
            }
        }
    }

    /// A text without escapes, as it lies in the body; otherwise through the general parser.
    pub fn text(&mut self) -> Result<std::borrow::Cow<'a, str>, JsonError> {
        let start = self.at_text()?;
        let rest = &self.bytes[start + 1..];
        if let Some(len) = words::plain(rest) {
            self.at = start + len + 2;
            return Ok(std::str::from_utf8(&rest[..len]).unwrap_or_default().into());
        }
        self.any_text(start)
    }

    #[inline(never)]
    fn any_text(&mut self, start: usize) -> Result<std::borrow::Cow<'a, str>, JsonError> {
        self.skip_text()?;
        let raw = &self.bytes[start..self.at];
        let inner = &raw[1..raw.len() - 1];
        if !inner.contains(&b'\\') && !inner.iter().any(|byte| *byte < 0x20) {
            return match std::str::from_utf8(inner) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(JsonError { what: "a text that is not UTF-8", offset: start }),
            };
        }
        let parsed = serde_json::from_slice::<String>(raw);
        parsed.map(Into::into).map_err(|_| JsonError { what: "a malformed text", offset: start })
    }

    fn at_text(&mut self) -> Result<usize, JsonError> {
        if self.peek() == Some(b'"') { Ok(self.at) } else { self.error("expected a text") }
    }

    fn skip_text(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', &self.bytes[self.at..]) else {
                return Err(JsonError { what: "a text without end", offset: start });
            };
            self.at += found;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Ok(());
            }
            self.at = (self.at + 2).min(self.bytes.len());
        }
    }

    /// Moves past one value and returns its bytes, which are balanced but not otherwise checked.
    pub fn skip(&mut self) -> Result<&'a [u8], JsonError> {
        let Some(_) = self.peek() else { return self.error("unexpected end of the JSON text") };
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                None => return self.error("unexpected end of the JSON text"),
                Some(b'"') => self.skip_text()?,
                Some(b'[' | b'{') => {
                    depth += 1;
                    self.at += 1;
                    if depth > DEPTH_MAX {
                        return self.error("values nested too deeply");
                    }
                }
                Some(b']' | b'}') => {
                    let Some(outer) = depth.checked_sub(1) else { return self.error("expected a value") };
                    depth = outer;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                Some(_) => self.skip_word()?,
            }
            if depth == 0 {
                return Ok(&self.bytes[start..self.at]);
            }
        }
    }

    fn skip_word(&mut self) -> Result<(), JsonError> {
        let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let count = self.bytes[self.at..].iter().take_while(is_word).count();
        if count == 0 {
            return self.error("expected a value");
        }
        self.at += count;
        Ok(())
    }
}

/// Appends a number: the shortest form that reads back, with a fraction. JSON has no word for what is not
/// finite; KServe's servers write `null` then.
pub fn push_f64(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// What is written for numbers that are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFinite {
    /// `null`, as KServe's servers write.
    Null,
    /// `NaN`, `Infinity` and `-Infinity`, as TensorFlow Serving and Python write.
    Words,
}

/// Appends a number of either precision in the shortest form that reads back at that precision.
#[inline]
pub fn push_float<T: ryu::Float + Float>(out: &mut Vec<u8>, number: T, other: NotFinite) {
    if Float::is_finite(number) {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else if other == NotFinite::Null {
        out.extend_from_slice(b"null");
    } else {
        out.extend_from_slice(match ryu::Buffer::new().format(number) {
            "inf" => b"Infinity",
            "-inf" => b"-Infinity",
            _ => b"NaN",
        });
    }
}

/// Appends an integer.
pub fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an integer.
pub fn push_i64(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a text with its quotes.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if !words::has_escapes(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests;
