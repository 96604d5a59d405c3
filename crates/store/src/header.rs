//! The header of each stored value: {format, encoding, key id}.
//!
//! Four bytes: format (1), encoding (0 raw, 1 zstd), key id (u16, little endian; 0: not encrypted). With zstd the raw
//! length follows (u32, little endian), so that a damaged value cannot ask for unbounded memory. Old samples stay in
//! the tests: every later format must still read them.

use bytes::Bytes;

use crate::{Error, VALUE_BYTES_MAX};

/// The value format that this binary writes.
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 4;
/// Below this many bytes a value stays raw: one page of the database holds it anyway.
const ZSTD_BYTES_MIN: usize = 2048;
const ZSTD_LEVEL: i32 = 1;

/// How the bytes behind the header are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// Zstandard.
    Zstd,
}

/// What is known of a stored value before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The value format.
    pub format: u8,
    /// How the value is coded.
    pub encoding: Encoding,
    /// Which key encrypts it; 0: none.
    pub key_id: u16,
}

impl Header {
    /// Reads the header of a stored value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is too short, newer than this binary, or of an unknown encoding.
    pub fn read(stored: &[u8]) -> Result<Self, Error> {
        let [format, encoding, key_low, key_high] =
            *stored.first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged("it has no header"))?;
        if format == 0 || format > FORMAT {
            return Err(damaged(&format!("format {format} is unknown to this binary")));
        }
        let encoding = match encoding {
            0 => Encoding::Raw,
            1 => Encoding::Zstd,
            other => return Err(damaged(&format!("encoding {other} is unknown to this binary"))),
        };
        Ok(Self { format, encoding, key_id: u16::from_le_bytes([key_low, key_high]) })
    }
}

fn damaged(detail: &str) -> Error {
    Error::Corrupt { what: "a stored value".into(), detail: detail.into() }
}

/// The stored form of a value.
pub(crate) fn encode(value: &[u8]) -> Vec<u8> {
    if value.len() >= ZSTD_BYTES_MIN
        && let Ok(packed) = zstd::bulk::compress(value, ZSTD_LEVEL)
        && packed.len() + 4 < value.len()
    {
        let mut out = Vec::with_capacity(HEADER_BYTES + 4 + packed.len());
        out.extend_from_slice(&[FORMAT, 1, 0, 0]);
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(&packed);
        return out;
    }
    let mut out = Vec::with_capacity(HEADER_BYTES + value.len());
    out.extend_from_slice(&[FORMAT, 0, 0, 0]);
    out.extend_from_slice(value);
    out
}

/// The value of a stored form.
pub(crate) fn decode(stored: &[u8]) -> Result<Bytes, Error> {
    let header = Header::read(stored)?;
    if header.key_id != 0 {
        return Err(damaged(&format!("it is encrypted with key {}, which this binary lacks", header.key_id)));
    }
    let body = &stored[HEADER_BYTES..];
    match header.encoding {
        Encoding::Raw => Ok(Bytes::copy_from_slice(body)),
        Encoding::Zstd => {
            let (length, packed) =
                body.split_first_chunk::<4>().ok_or_else(|| damaged("it has no length"))?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > VALUE_BYTES_MAX {
                return Err(damaged(&format!("it claims {length} bytes")));
            }
            let raw = zstd::bulk::decompress(packed, length).map_err(|e| damaged(&e.to_string()))?;
            if raw.len() != length {
                return Err(damaged(&format!("it has {} bytes instead of {length}", raw.len())));
            }
            Ok(Bytes::from(raw))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_sizes_come_back() {
        for size in [0, 1, ZSTD_BYTES_MIN - 1, ZSTD_BYTES_MIN, 100_000] {
            let value: Vec<u8> = (0..size).map(|i| (i % 7) as u8).collect();
            assert_eq!(decode(&encode(&value)).unwrap(), value);
        }
    }

    /// Written by format 1. These bytes never change.
    #[test]
    fn samples_of_format_1_are_read() {
        let raw = [1, 0, 0, 0, b'{', b'}'];
        assert_eq!(decode(&raw).unwrap(), "{}");
        let packed = [
            1u8, 1, 0, 0, 211, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x48, 0x9d, 0x00, 0x00, 0x60, 0x7b,
            0x22, 0x6b, 0x69, 0x6e, 0x64, 0x22, 0x3a, 0x22, 0x61, 0x22, 0x7d, 0x01, 0x00, 0x44, 0x0a, 0x20,
            0x01,
        ];
        assert_eq!(decode(&packed).unwrap(), format!("{{\"kind\":\"{}\"}}", "a".repeat(200)));
        let header = Header::read(&packed).unwrap();
        assert_eq!(header, Header { format: 1, encoding: Encoding::Zstd, key_id: 0 });
    }

    #[test]
    fn damage_is_an_error() {
        let huge = [1, 1, 0, 0, 255, 255, 255, 255, 0];
        for bad in [&[][..], &[1, 0, 0], &[0, 0, 0, 0], &[2, 0, 0, 0], &[1, 9, 0, 0], &[1, 0, 7, 0, 1], &huge]
        {
            assert!(matches!(decode(bad), Err(Error::Corrupt { .. })), "{bad:?}");
        }
        let mut short = encode(&vec![b'a'; 5000]);
        short.truncate(short.len() - 3);
        assert!(decode(&short).is_err());
    }
}
