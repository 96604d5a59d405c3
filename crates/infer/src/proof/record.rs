//! TensorFlow's record files: length, checksum of the length, bytes, checksum of the bytes.
//!
//! Not here: what is in a record.

/// The records of a file, up to the first that is broken.
pub(super) struct Records<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    pub(super) fn of(file: &'a [u8]) -> Self {
        Self { rest: file, offset: 0 }
    }

    fn read(&mut self) -> Option<&'a [u8]> {
        let (len, after) = self.rest.split_first_chunk::<8>()?;
        let (len_sum, after) = after.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*len_sum) != masked(len) {
            return None;
        }
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (record, after) = after.split_at_checked(len)?;
        let (sum, after) = after.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*sum) != masked(record) {
            return None;
        }
        self.offset += self.rest.len() - after.len();
        self.rest = after;
        Some(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<&'a [u8], String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_none() {
            self.rest = &[];
        }
        Some(record.ok_or_else(|| format!("the record at byte {} is broken", self.offset)))
    }
}

/// The checksum as it is stored: rotated and shifted, so that checksums of files with checksums stay good ones.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's CRC, a byte at a time: files of requests are small.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0_u32, |sum, byte| (sum >> 8) ^ TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize])
}

const fn table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

/// A file of records, for tests.
#[cfg(test)]
pub(super) fn written(records: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    for record in records {
        let len = (record.len() as u64).to_le_bytes();
        file.extend_from_slice(&len);
        file.extend_from_slice(&masked(&len).to_le_bytes());
        file.extend_from_slice(record);
        file.extend_from_slice(&masked(record).to_le_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_are_read_until_one_is_broken() {
        let mut file = written(&[b"one", b"", b"three"]);
        let all: Result<Vec<_>, _> = Records::of(&file).collect();
        assert_eq!(all, Ok(vec![&b"one"[..], b"", b"three"]));
        for cut in 1..file.len() {
            let whole = [0, 19, 35].contains(&cut);
            assert_eq!(Records::of(&file[..cut]).all(|record| record.is_ok()), whole, "{cut}");
        }
        let last = file.len() - 6;
        file[last] ^= 1;
        let all: Vec<_> = Records::of(&file).collect();
        assert_eq!(all[2], Err("the record at byte 35 is broken".to_owned()));
    }
}
