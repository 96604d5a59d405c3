//! The part of SPDY/3.1 that port-forward needs, as a codec without IO.
//!
//! kubectl tunnels SPDY through a WebSocket and opens two streams a connection. Header blocks are zlib with a dictionary
//! that the protocol fixes; it is primed here as a stored block, and our own few headers go out as stored blocks, so no
//! zlib with dictionaries is needed. Flow control is not part of what these clients do.

use flate2::{Decompress, FlushDecompress};

/// Largest frame taken, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Largest header block once unpacked, in bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Set on a stream's last frame in one direction.
const FIN: u8 = 1;

/// Words of the protocol's dictionary, each with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges \
     age allow authorization cache-control connection content-base content-encoding content-language content-length \
     content-location content-md5 content-range content-type date etag expect expires from host if-match \
     if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
     proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
     user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
     keep-alive origin";

/// The rest of the dictionary, as it is.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
     Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
     Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
     Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, \
     GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
     text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        out.extend_from_slice(&length(word.len()));
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(REST.as_bytes());
    out
}

fn length(size: usize) -> [u8; 4] {
    u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes()
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream with its headers.
    Open {
        /// Its number.
        id: u32,
        /// Names in lower case.
        headers: Vec<(String, String)>,
    },
    /// Bytes of a stream, maybe the last ones.
    Data {
        /// Its number.
        id: u32,
        /// The bytes.
        data: Vec<u8>,
        /// Nothing follows.
        is_last: bool,
    },
    /// The stream is given up.
    Reset {
        /// Its number.
        id: u32,
    },
    /// To be sent back as it is.
    Ping(Vec<u8>),
    /// The client is leaving.
    GoAway,
    /// Of no meaning here.
    Other,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the SPDY connection is damaged: {0}")]
pub struct Damaged(&'static str);

/// Turns bytes into frames.
pub struct Reader {
    buffer: Vec<u8>,
    inflate: Decompress,
    has_started: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self { buffer: Vec::new(), inflate: Decompress::new(false), has_started: false }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
}

impl Reader {
    /// Takes what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more arrives.
    ///
    /// # Errors
    /// [`Damaged`]: the connection must end.
    pub fn next(&mut self) -> Result<Option<Frame>, Damaged> {
        let (Some(first), Some(second)) = (word(&self.buffer, 0), word(&self.buffer, 4)) else {
            return Ok(None);
        };
        let size = usize::try_from(second & 0x00ff_ffff).unwrap_or(usize::MAX);
        if size > FRAME_BYTES_MAX {
            return Err(Damaged("a frame is too large"));
        }
        if self.buffer.len() < 8 + size {
            return Ok(None);
        }
        let frame: Vec<u8> = self.buffer.drain(..8 + size).collect();
        let is_last = (second >> 24) as u8 & FIN != 0;
        if first >> 31 == 0 {
            return Ok(Some(Frame::Data { id: first, data: frame[8..].to_vec(), is_last }));
        }
        self.control(first & 0xffff, &frame).map(Some)
    }

    fn control(&mut self, kind: u32, frame: &[u8]) -> Result<Frame, Damaged> {
        let id = || word(frame, 8).map(|id| id & 0x7fff_ffff).ok_or(Damaged("a control frame is too short"));
        Ok(match kind {
            1 => Frame::Open { id: id()?, headers: self.headers(frame.get(18..).unwrap_or_default())? },
            3 => Frame::Reset { id: id()? },
            6 => Frame::Ping(frame.to_vec()),
            7 => Frame::GoAway,
            8 => {
                // Unpacked although unused: the packed stream has a memory.
                self.headers(frame.get(12..).unwrap_or_default())?;
                Frame::Other
            }
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, packed: &[u8]) -> Result<Vec<(String, String)>, Damaged> {
        let mut packed = packed;
        if !self.has_started {
            self.has_started = true;
            let dictionary = dictionary();
            self.unpack(&stored(&dictionary))?;
            // The zlib header and the dictionary's checksum.
            packed = packed.get(6..).ok_or(Damaged("no header block"))?;
        }
        let plain = self.unpack(packed)?;
        read_pairs(&plain).ok_or(Damaged("a header block is not whole"))
    }

    fn unpack(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, Damaged> {
        let mut out = Vec::with_capacity(4096);
        loop {
            let before = (self.inflate.total_in(), out.len());
            self.inflate
                .decompress_vec(packed, &mut out, FlushDecompress::Sync)
                .map_err(|_| Damaged("a header block cannot be unpacked"))?;
            let taken = usize::try_from(self.inflate.total_in() - before.0).unwrap_or(usize::MAX);
            packed = packed.get(taken..).unwrap_or_default();
            if out.len() == out.capacity() && out.len() < HEADER_BYTES_MAX {
                out.reserve(4096);
            } else if packed.is_empty() {
                return Ok(out);
            } else if taken == 0 && out.len() == before.1 {
                return Err(Damaged("a header block is too large"));
            }
        }
    }
}

fn read_pairs(plain: &[u8]) -> Option<Vec<(String, String)>> {
    let count = word(plain, 0)?;
    let mut at = 4;
    let mut text = || {
        let size = usize::try_from(word(plain, at)?).ok()?;
        let bytes = plain.get(at + 4..(at + 4).checked_add(size)?)?;
        at += 4 + size;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let mut out = Vec::new();
    for _ in 0..count {
        let name = text()?.to_lowercase();
        out.push((name, text()?));
    }
    Some(out)
}

/// A deflate block that holds bytes as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = vec![0];
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(&(!size).to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

fn control(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3, 0, kind];
    out.extend_from_slice(&length(body.len()));
    out[4] = flags;
    out.extend_from_slice(body);
    out
}

/// Accepts a stream, without headers of ours. `is_first` on a connection's first one.
pub fn reply(id: u32, is_first: bool) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if is_first {
        body.extend_from_slice(&[0x78, 0x01]);
    }
    body.extend_from_slice(&stored(&0u32.to_be_bytes()));
    // An empty block is a flush: Go's reader gives out nothing before it.
    body.extend_from_slice(&stored(&[]));
    control(2, 0, &body)
}

/// Bytes of a stream, maybe its last ones.
pub fn data(id: u32, bytes: &[u8], is_last: bool) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&length(bytes.len()));
    out[4] = if is_last { FIN } else { 0 };
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        // Adler-32, as clients announce it.
        let (a, b) = dictionary.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let mut block = vec![0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
        let mut pairs = 1u32.to_be_bytes().to_vec();
        for text in ["Port", "80"] {
            pairs.extend_from_slice(&length(text.len()));
            pairs.extend_from_slice(text.as_bytes());
        }
        block.extend_from_slice(&stored(&pairs));
        let mut body = vec![0, 0, 0, 5, 0, 0, 0, 0, 0, 0];
        body.extend_from_slice(&block);
        let bytes = [control(1, 0, &body), data(5, b"abc", true)].concat();
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for byte in bytes {
            reader.push(&[byte]);
            seen.extend(reader.next().unwrap());
        }
        let headers = vec![("port".to_owned(), "80".to_owned())];
        let want =
            [Frame::Open { id: 5, headers }, Frame::Data { id: 5, data: b"abc".to_vec(), is_last: true }];
        assert_eq!(seen, want);
    }

    #[test]
    fn damage_ends_the_connection() {
        let mut reader = Reader::default();
        reader.push(&control(1, 0, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0xff, 0xff]));
        assert!(reader.next().is_err());
        let mut reader = Reader::default();
        reader.push(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]);
        assert!(reader.next().is_err());
    }
}
