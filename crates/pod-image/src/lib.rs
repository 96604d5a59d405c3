//! The static `pod` binary (shim, launcher, installer) as bytes, so that one file is the whole product.
//!
//! `build.rs` builds it; whoever needs it writes [`BYTES`] to a file once and runs that.

/// The binary, an ELF executable of this machine's architecture.
pub const BYTES: &[u8] = include_bytes!(env!("POD_BINARY"));

/// The first 16 hex digits of a hash of [`BYTES`]: a name under which different builds do not meet.
pub fn fingerprint() -> String {
    // FNV-1a over 8-byte words: not for safety, only to tell builds apart without hashing megabytes at each start.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ BYTES.len() as u64;
    for word in BYTES.chunks(8) {
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
        assert!(BYTES.starts_with(b"\x7fELF"));
        assert!(BYTES.len() <= 6 << 20, "{} bytes", BYTES.len());
        assert!(
            !BYTES.windows(15).any(|window| window == b"/lib64/ld-linux"),
            "it asks for a dynamic linker"
        );
        assert_eq!(fingerprint().len(), 16);
    }
}
