//! What kind of file a model is, told by its first bytes, and how it is unpacked.
//!
//! Names lie (`model.pkl` is as often a joblib file, compressed or not), so content decides. Unpacking stops at
//! the limit: a few kilobytes that unpack to terabytes cost the limit's memory at most, and an error.
//!
//! Not here: reading what is inside (`pickle`, `skops`).

use std::io::Read;

use bytes::Bytes;

use crate::document;
use crate::error::{LoadError, Result};
use crate::limits::Limits;
use crate::xgboost;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// zlib (joblib's `compress=N`).
    Zlib,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// The older `.lzma`.
    Lzma,
    /// LZ4 frames.
    Lz4,
}

impl Packing {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zlib => "zlib",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bz2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
        }
    }

    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            // A zlib header is a multiple of 31 with method 8 and a window of at most 32 KiB.
            [first @ 0x78, second, ..]
                if (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31) =>
            {
                Self::Zlib
            }
            _ => Self::None,
        }
    }
}

/// What lies inside the packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A pickle, plain or as joblib writes it.
    Pickle,
    /// A zip archive with `schema.json`: skops.
    Zip,
    /// A JSON document.
    Json,
    /// A UBJSON document.
    Ubjson,
    /// XGBoost's older binary form.
    XgboostBinary,
    /// LightGBM's text.
    Lightgbm,
    /// CatBoost's binary form.
    Catboost,
    /// An XML document: PMML.
    Xml,
}

/// Unpacks a file and says what lies inside.
pub fn open(bytes: Bytes, limits: &Limits) -> Result<(Packing, Content, Bytes)> {
    if bytes.len() > limits.bytes_max {
        return Err(LoadError::TooLarge { what: "file in bytes", limit: limits.bytes_max });
    }
    let packing = Packing::of(&bytes);
    let inner = unpack(packing, bytes, limits)?;
    let content = content_of(&inner)?;
    Ok((packing, content, inner))
}

fn unpack(packing: Packing, bytes: Bytes, limits: &Limits) -> Result<Bytes> {
    let input: &[u8] = &bytes;
    match packing {
        Packing::None => Ok(bytes),
        Packing::Zlib => drain(flate2::read::ZlibDecoder::new(input), packing, limits),
        Packing::Gzip => drain(flate2::read::MultiGzDecoder::new(input), packing, limits),
        Packing::Bzip2 => drain(bzip2::read::MultiBzDecoder::new(input), packing, limits),
        Packing::Xz => drain(lzma_rust2::XzReader::new_mem_limit(input, true, 256 << 10), packing, limits),
        Packing::Lz4 => drain(lz4_flex::frame::FrameDecoder::new(input), packing, limits),
        Packing::Lzma => {
            let memory_kib = u32::try_from(limits.bytes_max >> 10).unwrap_or(u32::MAX).min(256 << 10);
            match lzma_rust2::LzmaReader::new_mem_limit(input, memory_kib, None) {
                Ok(reader) => drain(reader, packing, limits),
                Err(error) => Err(LoadError::malformed("lzma", 0, error.to_string())),
            }
        }
    }
}

fn drain(reader: impl Read, packing: Packing, limits: &Limits) -> Result<Bytes> {
    let mut out = Vec::new();
    let bound = limits.bytes_max as u64 + 1;
    match reader.take(bound).read_to_end(&mut out) {
        Ok(_) if out.len() > limits.bytes_max => {
            Err(LoadError::TooLarge { what: "unpacked file in bytes", limit: limits.bytes_max })
        }
        Ok(_) => Ok(out.into()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(LoadError::Truncated {
            what: "the packed data",
            offset: out.len(),
            needed: out.len() as u64 + 1,
            left: out.len(),
        }),
        Err(error) => Err(LoadError::malformed(packing.name(), out.len(), error.to_string())),
    }
}

fn content_of(bytes: &[u8]) -> Result<Content> {
    match bytes {
        [] => Err(LoadError::Unknown { what: "the file is empty".into() }),
        [b'P', b'K', 3, 4, ..] => Ok(Content::Zip),
        [0x80, 0..=5, ..] => Ok(Content::Pickle),
        [0x80, version, ..] => {
            Err(LoadError::unsupported(format!("pickle protocol {version} (0 to 5 are known)")))
        }
        [b'Z', b'F', ..] => Err(LoadError::unsupported("joblib files from before joblib 0.10")),
        [0x89, b'H', b'D', b'F', ..] => Err(LoadError::unsupported("HDF5 files (Keras)")),
        [b'{', ..] if document::is_ubjson(bytes) => Ok(Content::Ubjson),
        [b'{', ..] => Ok(Content::Json),
        [b'b', b'i', b'n', b'f', ..] => Ok(Content::XgboostBinary),
        [b't', b'r', b'e', b'e', b'\n' | b'\r', ..] => Ok(Content::Lightgbm),
        [b'C', b'B', b'M', b'1', ..] => Ok(Content::Catboost),
        [b'<', b'?' | b'!' | b'P' | b'p', ..] | [0xef, 0xbb, 0xbf, b'<', ..] => Ok(Content::Xml),
        _ if xgboost::is_binary(bytes) => Ok(Content::XgboostBinary),
        // Protocols 0 and 1 have no header; these are the opcodes that writers begin with.
        [b'(' | b'c' | b']' | b'}' | b')', ..] if bytes.contains(&b'.') => Ok(Content::Pickle),
        _ => {
            let first: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Err(LoadError::Unknown { what: format!("it begins with the bytes {}", first.join(" ")) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![b'('; 1 << 20]).expect("memory");
        let packed = packed.finish().expect("memory");
        let limits = Limits { bytes_max: 1 << 16, ..Limits::default() };
        let error = open(packed.into(), &limits).expect_err("too large");
        assert_eq!(error, LoadError::TooLarge { what: "unpacked file in bytes", limit: 1 << 16 });
    }

    #[test]
    fn foreign_files_are_named() {
        for (bytes, word) in [(&b"\x89HDF\r\n"[..], "HDF5"), (b"", "empty"), (b"ELF", "45 4c 46")] {
            let error = open(Bytes::copy_from_slice(bytes), &Limits::default()).expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
