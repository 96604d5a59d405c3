//! Compressed bodies, in and out.
//!
//! What comes out of one is bounded by the same limit as a plain body: a small file that unpacks to gigabytes is refused
//! when it reaches the limit.
//!
//! Not here: which codings a header names (`http`).

use std::io::Read;

use crate::http::Encoding;

/// Unpacks a body to at most `bytes_max` bytes.
pub(crate) fn unpack(
    encoding: Encoding,
    packed: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, (u16, &'static str)> {
    let read = |reader: &mut dyn Read| {
        let mut body = Vec::new();
        let limit = bytes_max as u64 + 1;
        match reader.take(limit).read_to_end(&mut body) {
            Ok(_) if body.len() > bytes_max => Err((413, "the request's body is too large when unpacked")),
            Ok(_) => Ok(body),
            Err(_) => Err((400, "the body is not what content-encoding says")),
        }
    };
    match encoding {
        Encoding::Gzip => read(&mut flate2::read::MultiGzDecoder::new(packed)),
        // The name means zlib's format; some clients send the bare stream.
        Encoding::Deflate if packed.first().is_some_and(|byte| byte & 0x0f == 8) => {
            read(&mut flate2::read::ZlibDecoder::new(packed))
        }
        Encoding::Deflate => read(&mut flate2::read::DeflateDecoder::new(packed)),
        Encoding::Identity => Ok(packed.to_vec()),
        Encoding::Unknown => Err((415, "bodies may be compressed by gzip or deflate only")),
    }
}

/// Replies smaller than this go as they are: packing them costs more than sending them.
pub(crate) const PACK_BYTES_MIN: usize = 4 << 10;

/// Packs a reply's body by gzip, quickly rather than tightly.
pub(crate) fn pack(body: &[u8]) -> Vec<u8> {
    let out = Vec::with_capacity(body.len() / 4);
    let mut packer = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    // Writing to memory does not fail.
    let _ = std::io::Write::write_all(&mut packer, body);
    packer.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_unpacks_beyond_the_limit_is_refused() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&vec![b'a'; 1 << 20]).expect("memory");
        let packed = packer.finish().expect("memory");
        assert_eq!(unpack(Encoding::Gzip, &packed, 1 << 20).map(|body| body.len()), Ok(1 << 20));
        assert_eq!(unpack(Encoding::Gzip, &packed, (1 << 20) - 1).map_err(|(status, _)| status), Err(413));
        assert_eq!(unpack(Encoding::Gzip, b"not gzip", 10).map_err(|(status, _)| status), Err(400));
    }
}
