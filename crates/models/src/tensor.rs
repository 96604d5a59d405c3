//! Tensors: numbers or texts with a shape, wherever their bytes live.
//!
//! A tensor is described by dtype, shape and a run of bytes in little-endian order, so that the same value can
//! lie in a request buffer, in memory of our own, or in a region shared with another process (the backends
//! that run there). Texts are laid out as in the binary tensor extension of the Open Inference Protocol: for
//! each a `u32` length and its bytes.
//!
//! Not here: making or mapping shared regions (their owner implements [`Region`]).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian; views of them would need swapping on this machine");

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
    /// Texts or bytes of any length.
    Text,
}

impl DType {
    /// Bytes of an element; 0 where elements differ.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Text => 0,
        }
    }

    /// The name in the Open Inference Protocol.
    pub fn v2_name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "UINT8",
            Self::U16 => "UINT16",
            Self::U32 => "UINT32",
            Self::U64 => "UINT64",
            Self::I8 => "INT8",
            Self::I16 => "INT16",
            Self::F16 => "FP16",
            Self::BF16 => "BF16",
            Self::I32 => "INT32",
            Self::I64 => "INT64",
            Self::F32 => "FP32",
            Self::F64 => "FP64",
            Self::Text => "BYTES",
        }
    }

    /// The type of that name in the Open Inference Protocol.
    pub fn of_v2_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"BOOL" => Self::Bool,
            b"UINT8" => Self::U8,
            b"UINT16" => Self::U16,
            b"UINT32" => Self::U32,
            b"UINT64" => Self::U64,
            b"INT8" => Self::I8,
            b"INT16" => Self::I16,
            b"INT32" => Self::I32,
            b"INT64" => Self::I64,
            b"FP16" => Self::F16,
            b"BF16" => Self::BF16,
            b"FP32" => Self::F32,
            b"FP64" => Self::F64,
            b"BYTES" => Self::Text,
            _ => return None,
        })
    }
}

/// A Rust type that is an element.
pub trait Element: bytemuck::Pod {
    /// Its type.
    const DTYPE: DType;
}

impl Element for u8 {
    const DTYPE: DType = DType::U8;
}
impl Element for u16 {
    const DTYPE: DType = DType::U16;
}
impl Element for u32 {
    const DTYPE: DType = DType::U32;
}
impl Element for u64 {
    const DTYPE: DType = DType::U64;
}
impl Element for i8 {
    const DTYPE: DType = DType::I8;
}
impl Element for i16 {
    const DTYPE: DType = DType::I16;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for i64 {
    const DTYPE: DType = DType::I64;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for f64 {
    const DTYPE: DType = DType::F64;
}

/// The most dimensions a tensor has.
pub const RANK_MAX: usize = 8;

/// Dimensions, outermost first, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; RANK_MAX],
    rank: usize,
}

impl Shape {
    /// `None` when there are more than [`RANK_MAX`] dimensions or the number of elements overflows.
    pub fn new(dims: &[usize]) -> Option<Self> {
        if dims.len() > RANK_MAX {
            return None;
        }
        dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim))?;
        let mut own = [0; RANK_MAX];
        own[..dims.len()].copy_from_slice(dims);
        Some(Self { dims: own, rank: dims.len() })
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// How many elements.
    pub fn count(&self) -> usize {
        self.dims().iter().product()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// A run of bytes that something else owns, for example a mapping shared with another process.
pub trait Region: Send + Sync {
    /// The bytes, which stay where they are for the life of the value.
    fn bytes(&self) -> &[u8];
}

/// Where the bytes are.
#[derive(Clone)]
pub enum Storage<'a> {
    /// Our own memory, aligned for every element type.
    Owned(Buffer),
    /// A part of a shared region: offset and length in bytes.
    Shared(Arc<dyn Region>, usize, usize),
    /// Memory of the caller.
    Borrowed(&'a [u8]),
}

/// Bytes aligned to eight.
#[derive(Debug, Clone, Default)]
pub struct Buffer {
    words: Vec<u64>,
    len: usize,
}

impl Buffer {
    /// A copy of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self { words, len: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn resize<T: Element>(&mut self, count: usize) -> &mut [T] {
        self.len = count * size_of::<T>();
        self.words.clear();
        self.words.resize(self.len.div_ceil(8), 0);
        &mut bytemuck::cast_slice_mut(&mut self.words)[..count]
    }

    fn push_text(&mut self, text: &str) {
        let needed = (self.len + 4 + text.len()).div_ceil(8);
        self.words.resize(needed, 0);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        let start = self.len + 4;
        bytes[self.len..start].copy_from_slice(&(text.len() as u32).to_le_bytes());
        bytes[start..start + text.len()].copy_from_slice(text.as_bytes());
        self.len = start + text.len();
    }
}

/// A tensor.
#[derive(Clone)]
pub struct Tensor<'a> {
    dtype: DType,
    shape: Shape,
    storage: Storage<'a>,
}

impl<'a> Tensor<'a> {
    /// Checks that the bytes match dtype and shape; `None` if they do not.
    pub fn new(dtype: DType, shape: Shape, storage: Storage<'a>) -> Option<Self> {
        let tensor = Self { dtype, shape, storage };
        if let Storage::Shared(region, offset, len) = &tensor.storage {
            region.bytes().get(*offset..offset.checked_add(*len)?)?;
        }
        let fits = match dtype {
            DType::Text => {
                // Bytes that are no UTF-8 are elements too; whoever asks for texts learns it.
                let mut count = 0;
                tensor.elements().all(|element| {
                    count += 1;
                    element.is_some()
                }) && count == shape.count()
            }
            _ => shape.count().checked_mul(dtype.size())? == tensor.bytes().len(),
        };
        fits.then_some(tensor)
    }

    /// A view of numbers in the caller's memory; `None` when their count is not the shape's.
    pub fn borrowed<T: Element>(numbers: &'a [T], dims: &[usize]) -> Option<Self> {
        Self::new(T::DTYPE, Shape::new(dims)?, Storage::Borrowed(bytemuck::cast_slice(numbers)))
    }

    /// A tensor of our own.
    pub fn owned<T: Element>(numbers: &[T], dims: &[usize]) -> Option<Tensor<'static>> {
        let mut buffer = Buffer::default();
        buffer.resize::<T>(numbers.len()).copy_from_slice(numbers);
        Tensor::new(T::DTYPE, Shape::new(dims)?, Storage::Owned(buffer))
    }

    /// A tensor of texts.
    pub fn of_texts<S: AsRef<str>>(texts: &[S], dims: &[usize]) -> Option<Tensor<'static>> {
        let mut buffer = Buffer::default();
        for text in texts {
            buffer.push_text(text.as_ref());
        }
        Tensor::new(DType::Text, Shape::new(dims)?, Storage::Owned(buffer))
    }

    /// A copy in memory of its own.
    pub fn to_static(&self) -> Tensor<'static> {
        let storage = Storage::Owned(Buffer::of(self.bytes()));
        Tensor { dtype: self.dtype, shape: self.shape, storage }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Owned(buffer) => buffer.bytes(),
            Storage::Shared(region, offset, len) => &region.bytes()[*offset..offset + len],
            Storage::Borrowed(bytes) => bytes,
        }
    }

    /// The elements, if they are of this type and lie aligned.
    pub fn slice<T: Element>(&self) -> Option<&[T]> {
        if T::DTYPE != self.dtype {
            return None;
        }
        bytemuck::try_cast_slice(self.bytes()).ok()
    }

    /// The elements as `f64`: in place where they are, else converted; `None` for texts.
    pub fn to_f64s(&self) -> Option<Cow<'_, [f64]>> {
        if let Some(slice) = self.slice::<f64>() {
            return Some(Cow::Borrowed(slice));
        }
        let bytes = self.bytes();
        let numbers: Vec<f64> = match self.dtype {
            DType::F64 => widened::<f64>(bytes, |x| x),
            DType::F32 => widened::<f32>(bytes, f64::from),
            DType::U64 => widened::<u64>(bytes, |x| x as f64),
            DType::I64 => widened::<i64>(bytes, |x| x as f64),
            DType::U32 => widened::<u32>(bytes, f64::from),
            DType::I32 => widened::<i32>(bytes, f64::from),
            DType::U16 => widened::<u16>(bytes, f64::from),
            DType::I16 => widened::<i16>(bytes, f64::from),
            DType::F16 => widened::<u16>(bytes, f64_of_half),
            DType::BF16 => widened::<u16>(bytes, |x| f64::from(f32::from_bits(u32::from(x) << 16))),
            DType::I8 => widened::<i8>(bytes, f64::from),
            DType::Bool | DType::U8 => widened::<u8>(bytes, f64::from),
            DType::Text => return None,
        };
        Some(Cow::Owned(numbers))
    }

    /// The texts; an element that breaks the layout or is not UTF-8 is `None` and the last.
    pub fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        let mut elements = self.elements();
        let mut over = false;
        std::iter::from_fn(move || {
            let text = elements.next().filter(|_| !over)?;
            let text = text.and_then(|bytes| std::str::from_utf8(bytes).ok());
            over = text.is_none();
            Some(text)
        })
    }

    /// The bytes of each text; an element that breaks the layout is `None` and the last.
    pub fn elements(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = if self.dtype == DType::Text { self.bytes() } else { &[] };
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let element = rest.split_first_chunk::<4>().and_then(|(head, tail)| {
                let len = u32::from_le_bytes(*head) as usize;
                tail.split_at_checked(len)
            });
            rest = element.map_or(&[][..], |(_, after)| after);
            Some(element.map(|(bytes, _)| bytes))
        })
    }
}

fn widened<T: bytemuck::AnyBitPattern>(bytes: &[u8], widen: impl Fn(T) -> f64) -> Vec<f64> {
    bytes.chunks_exact(size_of::<T>()).map(|chunk| widen(bytemuck::pod_read_unaligned(chunk))).collect()
}

/// The value of an IEEE 754 number of half precision.
pub fn f64_of_half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(bits & 0x3ff);
    let magnitude = match bits >> 10 & 0x1f {
        0 => fraction * 2.0_f64.powi(-24),
        31 if bits & 0x3ff == 0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2.0_f64.powi(i32::from(exponent) - 15),
    };
    sign * magnitude
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype.v2_name(), self.shape)
    }
}

/// The tensors a backend answers with. The caller keeps it from call to call, so that a steady load reuses the
/// same memory.
#[derive(Debug, Default)]
pub struct Outputs {
    tensors: Vec<Tensor<'static>>,
    used: usize,
}

impl Outputs {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the tensors and keeps their memory.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The tensors, in the order of the signature's outputs.
    pub fn tensors(&self) -> &[Tensor<'static>] {
        &self.tensors[..self.used]
    }

    /// Adds a tensor of numbers, all zero, to be filled.
    pub fn numbers<T: Element>(&mut self, shape: Shape) -> &mut [T] {
        self.next(T::DTYPE, shape).resize(shape.count())
    }

    /// Adds a tensor of truth values.
    pub fn truths(&mut self, shape: Shape, values: impl Iterator<Item = bool>) {
        let buffer = self.next(DType::Bool, shape);
        buffer.words.clear();
        buffer.words.resize(shape.count().div_ceil(8), 0);
        buffer.len = shape.count();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut buffer.words);
        for (byte, value) in bytes.iter_mut().zip(values) {
            *byte = u8::from(value);
        }
    }

    /// Adds a tensor of texts.
    pub fn texts<'t>(&mut self, shape: Shape, texts: impl Iterator<Item = &'t str>) {
        let buffer = self.next(DType::Text, shape);
        buffer.words.clear();
        buffer.len = 0;
        for text in texts {
            buffer.push_text(text);
        }
    }

    /// Adds a tensor whose bytes lie ready, in the layout of its type; false, and nothing is added, when they
    /// do not fit the shape.
    pub fn bytes(&mut self, dtype: DType, shape: Shape, bytes: &[u8]) -> bool {
        let fits = dtype == DType::Text || shape.count().checked_mul(dtype.size()) == Some(bytes.len());
        if fits {
            let buffer = self.next(dtype, shape);
            buffer.words.clear();
            buffer.words.resize(bytes.len().div_ceil(8), 0);
            buffer.len = bytes.len();
            bytemuck::cast_slice_mut::<u64, u8>(&mut buffer.words)[..bytes.len()].copy_from_slice(bytes);
        }
        fits
    }

    /// Adds a tensor whose `length` bytes `fill` writes, in the layout of its type; it starts from zeros or from what
    /// an earlier tensor left. Nothing is added where `fill` fails or the bytes do not fit the shape, which is an
    /// error of the kind `InvalidData`.
    pub fn filled(
        &mut self,
        dtype: DType,
        shape: Shape,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let buffer = self.next(dtype, shape);
        buffer.words.resize(length.div_ceil(8), 0);
        buffer.len = length;
        let filled = fill(&mut bytemuck::cast_slice_mut::<u64, u8>(&mut buffer.words)[..length]);
        let fits = match dtype {
            DType::Text => {
                let tensor = &self.tensors[self.used - 1];
                let mut count = 0;
                let counted = tensor.elements().inspect(|_| count += 1).all(|element| element.is_some());
                counted && count == shape.count()
            }
            _ => shape.count().checked_mul(dtype.size()) == Some(length),
        };
        let done = match filled {
            Ok(()) if !fits => Err(std::io::ErrorKind::InvalidData.into()),
            other => other,
        };
        if done.is_err() {
            self.used -= 1;
        }
        done
    }

    fn next(&mut self, dtype: DType, shape: Shape) -> &mut Buffer {
        if self.used == self.tensors.len() {
            self.tensors.push(Tensor { dtype, shape, storage: Storage::Owned(Buffer::default()) });
        }
        let tensor = &mut self.tensors[self.used];
        self.used += 1;
        tensor.dtype = dtype;
        tensor.shape = shape;
        if !matches!(tensor.storage, Storage::Owned(_)) {
            tensor.storage = Storage::Owned(Buffer::default());
        }
        match &mut tensor.storage {
            Storage::Owned(buffer) => buffer,
            Storage::Shared(..) | Storage::Borrowed(_) => unreachable!("it was made owned above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<u8>);

    impl Region for Fixed {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn the_same_numbers_read_from_every_storage() {
        let numbers = [1.5_f64, -2.0];
        let raw: Vec<u8> = [9_u8].into_iter().chain(numbers.iter().flat_map(|n| n.to_le_bytes())).collect();
        let region = Arc::new(Fixed(raw));
        let shape = Shape::new(&[1, 2]).expect("small");
        let tensors = [
            Tensor::borrowed(&numbers, &[1, 2]).expect("fits"),
            Tensor::owned(&numbers, &[1, 2]).expect("fits"),
            // Unaligned on purpose: such a region must still be readable.
            Tensor::new(DType::F64, shape, Storage::Shared(region, 1, 16)).expect("fits"),
        ];
        for tensor in tensors {
            assert_eq!(*tensor.to_f64s().expect("numbers"), numbers);
        }
    }

    #[test]
    fn a_shape_that_does_not_fit_is_refused() {
        assert!(Tensor::borrowed(&[1.0_f64], &[2]).is_none());
        assert!(Shape::new(&[usize::MAX, 2]).is_none());
        let shape = Shape::new(&[2]).expect("small");
        assert!(Tensor::new(DType::Text, shape, Storage::Borrowed(&[255, 255, 255, 255, 1])).is_none());
    }

    #[test]
    fn small_floats_widen_exactly() {
        let halves = [0x3c00_u16, 0xc000, 0x0001, 0x7c00, 0x3555, 0x8000];
        let want = [1.0, -2.0, 2.0_f64.powi(-24), f64::INFINITY, 0.333_251_953_125, -0.0];
        assert_eq!(halves.map(f64_of_half), want);
        assert!(f64_of_half(0x7e00).is_nan());
        let shape = Shape::new(&[1]).expect("small");
        let brain = Tensor::new(DType::BF16, shape, Storage::Borrowed(&[0xc0, 0x3f])).expect("fits");
        assert_eq!(*brain.to_f64s().expect("numbers"), [1.5]);
    }

    #[test]
    fn bytes_that_are_no_texts_are_elements() {
        let shape = Shape::new(&[2]).expect("small");
        let bytes = [1, 0, 0, 0, 0xff, 1, 0, 0, 0, b'a'];
        let tensor = Tensor::new(DType::Text, shape, Storage::Borrowed(&bytes)).expect("fits");
        let elements: Vec<_> = tensor.elements().collect();
        assert_eq!(elements, [Some(&[0xff_u8][..]), Some(b"a")]);
        assert_eq!(tensor.texts().collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn outputs_are_filled_by_whoever_has_the_bytes() {
        let mut outputs = Outputs::new();
        let shape = Shape::new(&[2]).expect("small");
        let fill = |bytes: &'static [u8]| {
            move |room: &mut [u8]| {
                room.copy_from_slice(bytes);
                Ok(())
            }
        };
        outputs.filled(DType::U8, shape, 2, fill(&[7, 8])).expect("it fits");
        outputs.filled(DType::U8, shape, 3, fill(&[7, 8, 9])).expect_err("too long");
        outputs.filled(DType::Text, shape, 5, fill(&[1, 0, 0, 0, b'a'])).expect_err("one text of two");
        outputs
            .filled(DType::U8, shape, 2, |_| Err(std::io::ErrorKind::NotFound.into()))
            .expect_err("failed");
        outputs.filled(DType::Text, shape, 9, fill(&[1, 0, 0, 0, b'a', 0, 0, 0, 0])).expect("two texts");
        let tensors = outputs.tensors();
        assert_eq!((tensors.len(), tensors[0].bytes()), (2, &[7, 8][..]));
        assert_eq!(tensors[1].texts().collect::<Vec<_>>(), [Some("a"), Some("")]);
    }

    #[test]
    fn outputs_are_reused() {
        let mut outputs = Outputs::new();
        outputs.texts(Shape::new(&[2]).expect("small"), ["a", "long text"].into_iter());
        let texts: Vec<_> = outputs.tensors()[0].texts().collect();
        assert_eq!(texts, [Some("a"), Some("long text")]);
        outputs.clear();
        outputs.numbers::<i64>(Shape::new(&[1]).expect("small"))[0] = 7;
        assert_eq!(outputs.tensors()[0].slice::<i64>().expect("ints"), [7]);
        assert_eq!(outputs.tensors().len(), 1);
    }
}
