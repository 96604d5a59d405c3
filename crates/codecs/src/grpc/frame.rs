//! What gRPC adds to HTTP/2: a prefix before each message, a timeout, percent-coded error texts.

use std::time::Duration;

/// Bytes before each message: one for compressed or not, four for the length.
pub const PREFIX: usize = 5;

/// The prefix of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The message is compressed as `grpc-encoding` says.
    pub compressed: bool,
    /// Bytes of the message.
    pub len: usize,
}

/// Reads a prefix; `None` while it is not all there. The error is a flag that gRPC does not know.
pub fn prefix(bytes: &[u8]) -> Result<Option<Prefix>, &'static str> {
    let Some((flag, rest)) = bytes.split_first() else { return Ok(None) };
    if *flag > 1 {
        return Err("the message's prefix has an unknown flag");
    }
    let Some(len) = rest.first_chunk::<4>() else { return Ok(None) };
    Ok(Some(Prefix { compressed: *flag == 1, len: u32::from_be_bytes(*len) as usize }))
}

/// Begins a message: appends its prefix, to be completed by [`end`], and returns where it begins.
pub fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; PREFIX]);
    out.len() - PREFIX
}

/// Completes the prefix of the message that began at `at` and reaches to the end.
pub fn end(out: &mut [u8], at: usize, compressed: bool) {
    let len = u32::try_from(out.len() - at - PREFIX).unwrap_or(u32::MAX);
    out[at] = u8::from(compressed);
    out[at + 1..at + PREFIX].copy_from_slice(&len.to_be_bytes());
}

/// The value of `grpc-timeout`: up to eight digits and a unit.
pub fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// An error text as the value of `grpc-message`: printable ASCII without `%`, all else percent-coded.
pub fn message_value(text: &str) -> String {
    use std::fmt::Write as _;
    const LONG: usize = 4096;
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes().take(LONG) {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            value.push(char::from(byte));
        } else {
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_written() {
        let mut out = vec![9];
        let at = begin(&mut out);
        out.extend_from_slice(b"abc");
        end(&mut out, at, false);
        assert_eq!(prefix(&out[1..]), Ok(Some(Prefix { compressed: false, len: 3 })));
        assert_eq!(prefix(&out[1..4]), Ok(None));
        assert_eq!(prefix(&[]), Ok(None));
        assert!(prefix(&[2]).is_err());
        let huge = prefix(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(huge, Ok(Some(Prefix { compressed: false, len: 0xffff_ffff })));
    }

    #[test]
    fn timeouts_have_units() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "m", "1", "-1m", "999999999n", "1x", "1 m", "é"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn error_texts_are_percent_coded() {
        assert_eq!(message_value("50% é\n"), "50%25 %C3%A9%0A");
    }
}
