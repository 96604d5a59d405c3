//! What a server and its workers say to each other, version 1.
//!
//! A worker has one or more *lanes*. A lane is a `SOCK_SEQPACKET` unix socket, over which one message is one packet, and
//! a memory file (`memfd`), in which everything large lies. On a lane the server asks and the worker answers, one call
//! after the other, so that neither ever has to look for the end or the owner of anything.
//!
//! A packet is a header of 32 bytes, then `count` descriptors, or for [`Kind::Refusal`] a text. All numbers are
//! little-endian.
//!
//! ```text
//! header      version u8 | kind u8 | detail u8 | entry u8 | count u32 | call u64 | rows u64 | mark u64
//! descriptor  dtype u8 | rank u8 | 0 u16 | 0 u32 | offset u64 | length u64 | rank times u64: the dimensions
//! ```
//!
//! | kind | from | detail | descriptors | `mark` |
//! |---|---|---|---|---|
//! | 1 load | server | 0 | one `UINT8 [n]`: JSON of [`Load`] | where free memory begins |
//! | 2 ready | worker | 0 | one `UINT8 [n]`: JSON of [`Ready`] | 0 |
//! | 3 run | server | [`Verb`] | the inputs, in the order of the signature | where free memory begins |
//! | 4 answer | worker | 0 | the outputs, in the order of the signature | nanoseconds that the call took in the worker |
//! | 5 refusal | worker | [`Fault`] | none: UTF-8 text follows the header | 0 |
//!
//! `load` is sent once, on the first lane, and answered by `ready` or `refusal`; calls come after it, on any lane, and
//! are answered by `answer` or `refusal` with the number of their call. A worker whose lane ends (end of file) exits.
//!
//! Offsets and lengths are bytes in the lane's memory file; tensors begin at multiples of 64. The server writes inputs
//! from 0 on. The worker writes its answer from `mark` on and may make the file longer, up to [`Load::memory_bytes_max`];
//! nobody can make it shorter (it is sealed). What lies there is the receiver's from the packet until its own next one.
//! An entry is a signature's place in [`Ready::entries`], 0 where there are none. A dtype is its place in [`DTYPES`]; texts lie as `models::Tensor` has them: for each a `u32` length and its bytes.
//!
//! Not here: moving packets (`lane`, `child`), keeping workers alive (`keeper`).

mod documents;

use models::{DType, RANK_MAX, Shape};

pub use documents::{Described, DescribedEntry, DescribedTensor, Load, Ready};

/// The version that is spoken; a worker of another one is refused.
pub const VERSION: u8 = 1;
/// Bytes of a packet, at most: far below the kernel's default for a socket's buffer.
pub const PACKET_BYTES_MAX: usize = 64 << 10;
/// Tensors of a call, at most, so that the descriptors of all fit a packet.
pub const TENSORS_MAX: usize = 700;
/// Bytes of a refusal's text, at most; what is longer is cut.
pub const TEXT_BYTES_MAX: usize = 8 << 10;
/// Where tensors may begin: multiples of this.
pub const ALIGNMENT: u64 = 64;
/// Signatures of a model, at most: a call names one by a byte.
pub const ENTRIES_MAX: usize = 256;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;

/// Element types in the order of their numbers.
pub const DTYPES: [DType; 14] = [
    DType::Bool,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
    DType::Text,
];

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Read this model.
    Load = 1,
    /// It is read.
    Ready = 2,
    /// Evaluate this.
    Run = 3,
    /// The answer.
    Answer = 4,
    /// There is none.
    Refusal = 5,
}

/// What is asked of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Tensors in, tensors out.
    Predict = 0,
    /// A JSON document in (one `UINT8 [n]`), a JSON document out, for models that take documents.
    Document = 1,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller's: shape, type or value of an input.
    Input = 1,
    /// The model's or the worker's.
    Internal = 2,
}

/// The fixed part of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// A [`Verb`] or a [`Fault`] by number, where the kind has one.
    pub detail: u8,
    /// Which signature is called, see [`Ready::entries`].
    pub entry: u8,
    /// The number of the call.
    pub call: u64,
    /// Rows of the call.
    pub rows: u64,
    /// See the table of kinds.
    pub mark: u64,
}

impl Header {
    /// A header without details.
    pub fn new(kind: Kind, call: u64) -> Self {
        Self { kind, detail: 0, entry: 0, call, rows: 0, mark: 0 }
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The element type.
    pub dtype: DType,
    /// The dimensions.
    pub shape: Shape,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

impl Place {
    /// The first byte behind it; `None` where that is no number.
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }
}

/// Why a packet makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It ends before what it announces.
    #[error("a packet of {0} bytes ends before what it announces")]
    Short(usize),
    /// Another version of the protocol.
    #[error("version {0} of the protocol, expected {VERSION}")]
    Version(u8),
    /// A number that stands for nothing.
    #[error("{field} {value} is unknown")]
    Unknown {
        /// Of what.
        field: &'static str,
        /// The number.
        value: u64,
    },
    /// A tensor whose shape, length and place contradict each other.
    #[error("tensor {0}: shape, length and place contradict each other")]
    Tensor(usize),
}

/// Writes a packet with descriptors; `packet` is cleared first.
pub fn write(packet: &mut Vec<u8>, header: &Header, places: &[Place]) {
    debug_assert!(places.len() <= TENSORS_MAX, "callers count before");
    begin(packet, header, places.len() as u32);
    for place in places {
        let dtype = DTYPES.iter().position(|dtype| *dtype == place.dtype).unwrap_or(DTYPES.len());
        let dims = place.shape.dims();
        packet.extend_from_slice(&[dtype as u8, dims.len() as u8, 0, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(&place.offset.to_le_bytes());
        packet.extend_from_slice(&place.length.to_le_bytes());
        for dim in dims {
            packet.extend_from_slice(&(*dim as u64).to_le_bytes());
        }
    }
}

/// Writes a refusal; `packet` is cleared first.
pub fn write_refusal(packet: &mut Vec<u8>, call: u64, fault: Fault, text: &str) {
    begin(packet, &Header { detail: fault as u8, ..Header::new(Kind::Refusal, call) }, 0);
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    packet.extend_from_slice(&text.as_bytes()[..end]);
}

fn begin(packet: &mut Vec<u8>, header: &Header, count: u32) {
    packet.clear();
    packet.extend_from_slice(&[VERSION, header.kind as u8, header.detail, header.entry]);
    packet.extend_from_slice(&count.to_le_bytes());
    packet.extend_from_slice(&header.call.to_le_bytes());
    packet.extend_from_slice(&header.rows.to_le_bytes());
    packet.extend_from_slice(&header.mark.to_le_bytes());
}

/// A packet that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Anything with descriptors, which now lie in the caller's list.
    Tensors(Header),
    /// A refusal.
    Refusal(Header, Fault, &'a str),
}

/// Reads a packet; `places` is cleared first. Each tensor's length fits its dtype and shape, and its end is a number;
/// whether it lies within the memory is for the caller to check.
pub fn read<'a>(packet: &'a [u8], places: &mut Vec<Place>) -> Result<Packet<'a>, Wrong> {
    places.clear();
    let short = || Wrong::Short(packet.len());
    let (head, mut rest) = packet.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
    if head[0] != VERSION {
        return Err(Wrong::Version(head[0]));
    }
    let kind = match head[1] {
        1 => Kind::Load,
        2 => Kind::Ready,
        3 => Kind::Run,
        4 => Kind::Answer,
        5 => Kind::Refusal,
        other => return Err(Wrong::Unknown { field: "kind", value: other.into() }),
    };
    let word = |at: usize| head[at..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let header =
        Header { kind, detail: head[2], entry: head[3], call: word(8), rows: word(16), mark: word(24) };
    if kind == Kind::Refusal {
        let fault = match header.detail {
            1 => Fault::Input,
            2 => Fault::Internal,
            other => return Err(Wrong::Unknown { field: "fault", value: other.into() }),
        };
        // A text that was cut in the middle of a character is still a text up to there.
        let text = match std::str::from_utf8(rest) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default(),
        };
        return Ok(Packet::Refusal(header, fault, text));
    }
    let count = (word(0) >> 32) as usize;
    if count > TENSORS_MAX {
        return Err(Wrong::Unknown { field: "a count of tensors,", value: count as u64 });
    }
    for index in 0..count {
        places.push(place(&mut rest, index).map_err(|wrong| wrong.unwrap_or_else(short))?);
    }
    Ok(Packet::Tensors(header))
}

/// Reads one descriptor; `None` as an error is a packet that ends early.
fn place(rest: &mut &[u8], index: usize) -> Result<Place, Option<Wrong>> {
    let (head, tail) = rest.split_first_chunk::<24>().ok_or(None)?;
    let word = |at: usize| head[at..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let unknown = |field, value: u8| Some(Wrong::Unknown { field, value: value.into() });
    let dtype = *DTYPES.get(usize::from(head[0])).ok_or_else(|| unknown("dtype", head[0]))?;
    let rank = usize::from(head[1]);
    if rank > RANK_MAX {
        return Err(unknown("rank", head[1]));
    }
    let (dims, tail) = tail.split_at_checked(rank * 8).ok_or(None)?;
    *rest = tail;
    let mut own = [0; RANK_MAX];
    for (dim, bytes) in own.iter_mut().zip(dims.chunks_exact(8)) {
        let number = bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        *dim = usize::try_from(number).map_err(|_| Some(Wrong::Tensor(index)))?;
    }
    let shape = Shape::new(&own[..rank]).ok_or(Some(Wrong::Tensor(index)))?;
    let made = Place { dtype, shape, offset: word(8), length: word(16) };
    let fits = dtype == DType::Text
        || shape.count().checked_mul(dtype.size()).is_some_and(|bytes| bytes as u64 == made.length);
    if !fits || made.end().is_none() {
        return Err(Some(Wrong::Tensor(index)));
    }
    Ok(made)
}

/// The next place where a tensor may begin.
pub fn aligned(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place_of(dtype: DType, dims: &[usize], offset: u64, length: u64) -> Place {
        Place { dtype, shape: Shape::new(dims).expect("small"), offset, length }
    }

    #[test]
    fn what_is_written_is_read() {
        let places = [
            place_of(DType::F64, &[2, 4], 0, 64),
            place_of(DType::Text, &[2], 64, 9),
            place_of(DType::I64, &[], 128, 8),
        ];
        let detail = Verb::Document as u8;
        let header = Header { detail, entry: 3, rows: 2, mark: 192, ..Header::new(Kind::Run, 7) };
        let (mut packet, mut read_places) = (Vec::new(), Vec::new());
        write(&mut packet, &header, &places);
        assert_eq!(read(&packet, &mut read_places), Ok(Packet::Tensors(header)));
        assert_eq!(read_places, places);
        write_refusal(&mut packet, 7, Fault::Input, "row 1: é");
        let header = Header { detail: 1, ..Header::new(Kind::Refusal, 7) };
        assert_eq!(read(&packet, &mut read_places), Ok(Packet::Refusal(header, Fault::Input, "row 1: é")));
    }

    #[test]
    fn the_largest_packet_fits_its_bound() {
        let places = vec![place_of(DType::F64, &[1; RANK_MAX], 0, 8); TENSORS_MAX];
        let mut packet = Vec::new();
        write(&mut packet, &Header::new(Kind::Run, 1), &places);
        assert!(packet.len() <= PACKET_BYTES_MAX, "{}", packet.len());
        write_refusal(&mut packet, 1, Fault::Internal, &"é".repeat(TEXT_BYTES_MAX));
        assert!(packet.len() <= HEADER_BYTES + TEXT_BYTES_MAX, "{}", packet.len());
    }

    #[test]
    fn packets_that_contradict_themselves_are_refused() {
        let good = place_of(DType::F64, &[2, 4], 0, 64);
        let mut packet = Vec::new();
        let mut check = |place: Place, change: &dyn Fn(&mut Vec<u8>)| {
            write(&mut packet, &Header::new(Kind::Answer, 1), &[place]);
            change(&mut packet);
            read(&packet, &mut Vec::new()).err()
        };
        assert_eq!(check(good, &|_| ()), None);
        assert_eq!(check(good, &|packet| packet[0] = 9), Some(Wrong::Version(9)));
        assert_eq!(check(good, &|packet| packet.truncate(60)), Some(Wrong::Short(60)));
        assert_eq!(check(Place { length: 63, ..good }, &|_| ()), Some(Wrong::Tensor(0)));
        assert_eq!(check(Place { offset: u64::MAX, ..good }, &|_| ()), Some(Wrong::Tensor(0)));
        let unknown = |field, value| Some(Wrong::Unknown { field, value });
        assert_eq!(check(good, &|packet| packet[1] = 77), unknown("kind", 77));
        assert_eq!(check(good, &|packet| packet[HEADER_BYTES] = 14), unknown("dtype", 14));
        assert_eq!(check(good, &|packet| packet[HEADER_BYTES + 1] = 9), unknown("rank", 9));
        assert!(matches!(check(good, &|packet| packet[7] = 1), Some(Wrong::Unknown { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 1..6_u8) {
            let mut places = Vec::new();
            let _ = read(&bytes, &mut places);
            if bytes.len() > 8 {
                bytes[..8].copy_from_slice(&[VERSION, kind, 1, 0, 1, 0, 0, 0]);
                let _ = read(&bytes, &mut places);
            }
        }
    }
}
