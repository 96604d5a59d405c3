//! The static `pod` binary (shim, launcher, installer), packed, so that one file is the whole product.
//!
//! `build.rs` builds and packs it; whoever needs it lets [`unpack`] write it to a file once and runs that.

use std::io::{self, Write};

/// The binary, an ELF executable of this machine's architecture, as a zlib stream. A static, not a constant: a constant would
/// be there once more in each crate that names it.
static PACKED: &[u8] = include_bytes!(env!("POD_BINARY"));

/// Bytes of the binary, unpacked.
pub fn len() -> u64 {
    env!("POD_BINARY_BYTES").parse().expect("build.rs writes a number")
}

/// Writes the binary.
pub fn unpack(to: &mut impl Write) -> io::Result<()> {
    let mut unpacking = flate2::write::ZlibDecoder::new(to);
    unpacking.write_all(PACKED)?;
    unpacking.finish()?;
    Ok(())
}

/// The first 16 hex digits of a hash of the binary: a name under which different builds do not meet.
pub fn fingerprint() -> String {
    // FNV-1a over 8-byte words: not for safety, only to tell builds apart without hashing megabytes at each start.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ len();
    for word in PACKED.chunks(8) {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(padded)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_static_and_small() {
        let mut bytes = Vec::new();
        unpack(&mut bytes).expect("what build.rs packed");
        assert_eq!(bytes.len() as u64, len());
        assert!(bytes.starts_with(b"\x7fELF"));
        assert!(bytes.len() <= 6 << 20, "{} bytes", bytes.len());
        assert!(
            !bytes.windows(15).any(|window| window == b"/lib64/ld-linux"),
            "it asks for a dynamic linker"
        );
        assert_eq!(fingerprint().len(), 16);
    }
}
