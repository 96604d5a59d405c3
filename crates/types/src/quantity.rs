//! Kubernetes resource quantities: `100m`, `1.5Gi`, `12e6`.
//!
//! A value is a whole number of billionths in 128 bits, so sums and comparisons are exact, as upstream's are; a float would
//! lose `0.1`. Printing is canonical: the largest suffix that leaves a whole number, in the family of suffixes that
//! the text used. What is finer than a billionth is rounded up (away from zero), as upstream does, and what is beyond
//! 2^63-1 is capped there.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
const CAP: i128 = i64::MAX as i128 * NANOS;
/// More digits than any legal value has; bounds the work on hostile input.
const TEXT_BYTES_MAX: usize = 64;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// The family of suffixes that a quantity is printed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `m`, `k`, `M`, `G`: powers of 1,000.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`: powers of 1,024.
    BinarySi,
    /// `e3`, `e6`: powers of 1,000 as an exponent.
    DecimalExponent,
}

/// An exact amount of a resource. Equality and order look at the amount, not at the format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'; \"{0}\" does not"
)]
pub struct QuantityError(pub String);

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number of units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANOS, format }
    }

    /// A number of thousandths, as CPU is counted.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// The amount in units, rounded up (upstream's `Value()`).
    pub fn units(&self) -> i64 {
        clamp_i64(div_up(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded up (upstream's `MilliValue()`).
    pub fn millis(&self) -> i64 {
        clamp_i64(div_up(self.nanos, NANOS / 1000))
    }

    /// The amount as a float, for ratios and metrics only.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// Whether the amount is exactly zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// The family of suffixes that it prints with.
    pub fn format(&self) -> Format {
        self.format
    }
}

/// Quotient rounded away from zero, which is what upstream calls up.
fn div_up(value: i128, by: i128) -> i128 {
    let whole = value / by;
    if value % by == 0 { whole } else { whole + value.signum() }
}

fn clamp_i64(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text).ok_or_else(|| QuantityError(text.chars().take(TEXT_BYTES_MAX).collect()))
    }
}

fn parse(text: &str) -> Option<Quantity> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let (negative, unsigned) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number_len = unsigned.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, suffix) = unsigned.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || whole.len() + fraction.len() == 0 {
        return None;
    }
    let (format, exponent10, shift2) = parse_suffix(suffix)?;
    let magnitude = scale(&format!("{whole}{fraction}"), exponent10 - fraction.len() as i32, shift2);
    let nanos = magnitude.min(CAP);
    Some(Quantity { nanos: if negative { -nanos } else { nanos }, format })
}

/// The format, a power of ten and a power of two that a suffix stands for.
fn parse_suffix(suffix: &str) -> Option<(Format, i32, u32)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::DecimalSi, *power, 0));
    }
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::BinarySi, 0, *power));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Format::DecimalExponent, exponent.clamp(-1000, 1000), 0))
}

/// `digits * 10^exponent10 * 2^shift2` in billionths, rounded up, capped.
fn scale(digits: &str, exponent10: i32, shift2: u32) -> i128 {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let power = exponent10 + 9;
    // The number of decimal digits before the shift; beyond 30 it is over the cap for certain.
    let places = digits.len() as i32 + power;
    if places > 30 {
        return CAP;
    }
    if places < -20 {
        return 1;
    }
    // With a binary suffix the fraction must survive the shift, so it is multiplied before it is divided.
    // At most 36 digits matter: what is beyond them only decides that there is a rest to round up.
    let (kept, dropped) = digits.split_at(digits.len().min(36 - shift_digits(shift2)));
    let rest_dropped = dropped.bytes().any(|b| b != b'0');
    let value: i128 = kept.parse().unwrap_or(i128::MAX >> shift2);
    let Some(value) = value.checked_mul(1i128 << shift2) else { return CAP };
    let power = power + dropped.len() as i32;
    if power >= 0 {
        let scaled = 10i128.checked_pow(power as u32).and_then(|factor| value.checked_mul(factor));
        return scaled.map_or(CAP, |scaled| scaled + i128::from(rest_dropped));
    }
    let Some(divisor) = 10i128.checked_pow(power.unsigned_abs()) else { return 1 };
    let rest = value % divisor != 0 || rest_dropped;
    value / divisor + i128::from(rest)
}

/// How many decimal digits a shift by `bits` may add.
fn shift_digits(bits: u32) -> usize {
    bits as usize * 302 / 1000 + 1
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // As upstream: a small number or a fraction loses nothing when it is written as a decimal one.
        let is_plain = self.nanos.abs() >= 1024 * NANOS && self.nanos % NANOS == 0;
        match self.format {
            Format::BinarySi if is_plain => self.fmt_binary(f),
            Format::BinarySi | Format::DecimalSi => self.fmt_decimal(f, false),
            Format::DecimalExponent => self.fmt_decimal(f, true),
        }
    }
}

impl Quantity {
    fn fmt_binary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.nanos / NANOS;
        let fits = |bits: u32| units % (1i128 << bits) == 0;
        match BINARY.iter().rev().find(|(_, bits)| fits(*bits)) {
            Some((suffix, bits)) => write!(f, "{}{suffix}", units >> bits),
            None => write!(f, "{units}"),
        }
    }

    fn fmt_decimal(&self, f: &mut fmt::Formatter<'_>, as_exponent: bool) -> fmt::Result {
        let (mut mantissa, mut power) = (self.nanos, -9);
        while power < 18 && mantissa % 1000 == 0 {
            mantissa /= 1000;
            power += 3;
        }
        if as_exponent {
            return if power == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{power}") };
        }
        let suffix = DECIMAL.iter().find(|(_, of)| *of == power).map_or("", |(suffix, _)| suffix);
        write!(f, "{mantissa}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The sum keeps the left side's format, unless the left side is zero.
impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_canonical_form_is_upstreams() {
        let cases = [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1024", "1024"),
            ("1.1Ki", "1126400m"),
            (".1Mi", "104857600m"),
            ("2048.5Ki", "2097664"),
            ("12e6", "12e6"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("100n", "100n"),
            ("0.0000000001", "1n"),
            (".5", "500m"),
            ("5.", "5"),
            ("+3", "3"),
            ("-1.5", "-1500m"),
            ("123456789012345678901234567890", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("1e-3", "1e-3"),
            ("0.25Gi", "256Mi"),
        ];
        for (text, want) in cases {
            assert_eq!(read(text).to_string(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        let too_long = "1".repeat(100);
        for text in ["", "a", "1.2.3", "1x", "1 Gi", "Gi", "--1", "1e", ".", "1KB", "1ki", "1e1.5", &too_long]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn sums_and_order_are_exact() {
        let tenths: Quantity = std::iter::repeat_n(read("0.1"), 10).sum();
        assert_eq!(tenths, read("1"));
        assert!(read("999Mi") < read("1Gi"));
        assert!(read("1000Mi") < read("1G") + read("1Gi"));
        assert_eq!((read("1Gi") - read("1Mi")).to_string(), "1023Mi");
        assert_eq!(read("1.0001").millis(), 1001);
        assert_eq!(read("100m").units(), 1);
    }

    #[test]
    fn printing_and_reading_again_changes_nothing() {
        for text in ["1", "17m", "3Gi", "1e9", "123456789", "999n", "1Ei", "7.25Mi"] {
            let once = read(text);
            assert_eq!(read(&once.to_string()), once, "{text}");
            assert_eq!(read(&once.to_string()).to_string(), once.to_string(), "{text}");
        }
    }
}
