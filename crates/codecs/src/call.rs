//! One request's tensors by name, as every protocol's decoder leaves them.
//!
//! A [`Call`] is a connection's scratch: it is filled by one decoder, read through [`Call::view`] beside the
//! body it came from, and filled again. Raw tensors stay in the body and are only pointed at; what has to be
//! converted (JSON numbers, varints, escaped texts) goes into one aligned arena whose memory is kept. The arena
//! grows with what was read, never with what a shape claims; the one form that says much in few bytes (TensorFlow's
//! repeated last value) has a bound of its own.
//!
//! Not here: whether the tensors fit a model.

use models::{DType, Shape, Storage, Tensor};

use crate::json::JsonError;
use crate::wire::WireError;

/// Tensors of one request, at most.
pub const TENSORS_MAX: usize = 4096;

/// Why a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is not JSON.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// It is not a protobuf message.
    #[error("malformed message: {0}")]
    Wire(#[from] WireError),
    /// The message as a whole is not what it must be.
    #[error("{0}")]
    Request(String),
    /// One tensor is not what it must be.
    #[error("input {name:?}: {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Wrong {
    /// A complaint about the whole.
    pub fn request(why: impl Into<String>) -> Self {
        Self::Request(why.into())
    }

    /// A complaint about one tensor.
    pub fn tensor(name: &str, why: impl Into<String>) -> Self {
        Self::Tensor { name: name.chars().take(200).collect(), why: why.into() }
    }
}

/// A run of bytes in the body, or in the call's own memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) own: bool,
}

impl Span {
    pub(crate) fn body(start: usize, end: usize) -> Self {
        Self { start, end, own: false }
    }

    /// Nothing in it.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Most bytes that an arena grows by beyond what is asked for.
pub(crate) const GROWTH_MAX: usize = 16 << 20;

/// Bytes aligned to eight, kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    words: Vec<u64>,
    len: usize,
}

impl Arena {
    pub(crate) fn clear(&mut self) {
        const KEEP: usize = 1 << 16;
        if self.words.len() > KEEP / 8 && self.len < KEEP {
            self.words = Vec::new();
        }
        self.len = 0;
    }

    /// Where the next tensor begins.
    pub(crate) fn align(&mut self) -> usize {
        self.len = self.len.next_multiple_of(8);
        self.len
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it holds memory for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.words.capacity() * 8
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len.min(self.words.len() * 8)]
    }

    pub(crate) fn span(&self, start: usize) -> Span {
        Span { start, end: self.len, own: true }
    }

    /// Room for so many more bytes, all of which count.
    #[inline]
    pub(crate) fn grow(&mut self, count: usize) -> &mut [u8] {
        let start = self.len;
        self.len += count;
        if self.len > self.words.len() * 8 {
            self.enlarge();
        }
        &mut bytemuck::cast_slice_mut(&mut self.words)[start..self.len]
    }

    #[cold]
    fn enlarge(&mut self) {
        // Twice as much would hold three times a large request while it is copied.
        let more = self.words.len().min(GROWTH_MAX / 8);
        let words = (self.words.len() + more).max(self.len.div_ceil(8)).max(32);
        self.words.reserve_exact(words - self.words.len());
        self.words.resize(words, 0);
    }

    #[inline]
    pub(crate) fn push<T: bytemuck::NoUninit>(&mut self, value: T) {
        self.grow(size_of::<T>()).copy_from_slice(bytemuck::bytes_of(&value));
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// A text in the layout of tensors.
    pub(crate) fn push_text(&mut self, bytes: &[u8]) {
        self.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.extend(bytes);
    }

    /// A text of several parts.
    pub(crate) fn push_text_of(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.push(u32::try_from(len).unwrap_or(u32::MAX));
        parts.iter().for_each(|part| self.extend(part));
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Copies the last `count` bytes behind everything, `times` over.
    pub(crate) fn repeat_last(&mut self, count: usize, times: usize) {
        let from = self.len.saturating_sub(count);
        let end = self.len + count * times;
        self.grow(count * times);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        for start in (from + count..end).step_by(count.max(1)) {
            bytes.copy_within(from..from + count, start);
        }
    }
}

/// One tensor of a request.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// Its name.
    pub name: Span,
    /// Its type.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Shape,
    /// Its bytes.
    pub data: Span,
}

/// One output that the client asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Its name.
    pub name: Span,
    /// As raw bytes or as JSON, if the client said so for this one.
    pub binary: Option<bool>,
    /// The classification extension: this many top classes instead of the tensor; 0 is the tensor.
    pub classes: u32,
}

/// The parameters of a request that mean something to a server; others are skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    /// All outputs as raw bytes.
    pub binary_output: bool,
    /// Triton's priority: 1 is the highest, 0 the default.
    pub priority: u64,
    /// Triton's timeout in microseconds; 0 is none.
    pub timeout_us: u64,
    /// The request belongs to a sequence, which only stateful models know.
    pub has_sequence: bool,
    /// Triton's streaming clients ask for an empty last response.
    pub empty_final: bool,
}

/// Which model a request names, where the protocol puts that into the body.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target {
    /// The model's name.
    pub name: Span,
    /// V2's version, a text.
    pub version_text: Span,
    /// TensorFlow Serving's version.
    pub version: Option<i64>,
    /// TensorFlow Serving's label.
    pub label: Span,
    /// TensorFlow Serving's signature.
    pub signature: Span,
}

/// A decoded request. See the module's text.
#[derive(Debug, Default)]
pub struct Call {
    pub(crate) own: Arena,
    pub(crate) inputs: Vec<Input>,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) id: Span,
    pub(crate) target: Target,
    pub(crate) parameters: Parameters,
    /// The tensors came as raw bytes, so the answer's go so too.
    pub(crate) raw: bool,
    /// Decoders' notes, kept for their memory.
    pub(crate) notes: Vec<usize>,
    pub(crate) spans: Vec<Span>,
}

impl Call {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the request; keeps the memory unless it is much.
    pub fn clear(&mut self) {
        self.own.clear();
        self.inputs.clear();
        self.wanted.clear();
        self.notes.clear();
        self.spans.clear();
        self.id = Span::default();
        self.target = Target::default();
        self.parameters = Parameters::default();
        self.raw = false;
    }

    /// The request, read beside the body it was decoded from.
    pub fn view<'a>(&'a self, body: &'a [u8]) -> View<'a> {
        View { call: self, body }
    }

    /// Keeps a text: in the body if it lies there, else in our own memory.
    pub(crate) fn keep(&mut self, text: &str, body: &[u8]) -> Span {
        if let Some(start) = text.as_ptr().addr().checked_sub(body.as_ptr().addr())
            && start + text.len() <= body.len()
        {
            return Span::body(start, start + text.len());
        }
        let start = self.own.len();
        self.own.extend(text.as_bytes());
        self.own.span(start)
    }

    pub(crate) fn bytes<'a>(&'a self, span: Span, body: &'a [u8]) -> &'a [u8] {
        let bytes = if span.own { self.own.bytes() } else { body };
        bytes.get(span.start..span.end).unwrap_or_default()
    }

    pub(crate) fn text<'a>(&'a self, span: Span, body: &'a [u8]) -> &'a str {
        std::str::from_utf8(self.bytes(span, body)).unwrap_or_default()
    }

    /// Adds a checked tensor.
    pub(crate) fn add(&mut self, input: Input, body: &[u8]) -> Result<(), Wrong> {
        if self.inputs.len() == TENSORS_MAX {
            return Err(Wrong::request(format!("more than {TENSORS_MAX} tensors in a request")));
        }
        self.check(&input, body)?;
        self.inputs.push(input);
        Ok(())
    }

    /// Checks that the bytes are those of the type and shape, once, when a decoder has the tensor.
    pub(crate) fn check(&self, input: &Input, body: &[u8]) -> Result<(), Wrong> {
        let bytes = self.bytes(input.data, body);
        if Tensor::new(input.dtype, input.shape, Storage::Borrowed(bytes)).is_none() {
            let name = self.text(input.name, body);
            let (dtype, shape) = (input.dtype.v2_name(), input.shape);
            let why = if input.dtype.size() == 0 {
                format!(
                    "{} bytes do not hold the {} elements of {dtype}{shape:?}",
                    bytes.len(),
                    shape.count()
                )
            } else {
                let needed = shape.count() as u128 * input.dtype.size() as u128;
                format!("{dtype}{shape:?} takes {needed} bytes, got {}", bytes.len())
            };
            return Err(Wrong::tensor(name, why));
        }
        Ok(())
    }
}

/// A decoded request beside its body.
#[derive(Clone, Copy)]
pub struct View<'a> {
    call: &'a Call,
    body: &'a [u8],
}

impl<'a> View<'a> {
    /// The request's id; empty if it has none.
    pub fn id(&self) -> &'a str {
        self.call.text(self.call.id, self.body)
    }

    /// The named model; empty where the protocol has it in the path.
    pub fn model(&self) -> &'a str {
        self.call.text(self.call.target.name, self.body)
    }

    /// V2's version; empty if none is asked for.
    pub fn version_text(&self) -> &'a str {
        self.call.text(self.call.target.version_text, self.body)
    }

    /// TensorFlow Serving's version.
    pub fn version(&self) -> Option<i64> {
        self.call.target.version
    }

    /// TensorFlow Serving's label; empty if none is asked for.
    pub fn label(&self) -> &'a str {
        self.call.text(self.call.target.label, self.body)
    }

    /// TensorFlow Serving's signature; empty if none is asked for.
    pub fn signature(&self) -> &'a str {
        self.call.text(self.call.target.signature, self.body)
    }

    /// What the request says beside its tensors.
    pub fn parameters(&self) -> Parameters {
        self.call.parameters
    }

    /// Whether the tensors came as raw bytes.
    pub fn is_raw(&self) -> bool {
        self.call.raw
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.call.inputs.len()
    }

    /// No tensors.
    pub fn is_empty(&self) -> bool {
        self.call.inputs.is_empty()
    }

    /// The name of a tensor.
    pub fn name(&self, index: usize) -> &'a str {
        self.call.inputs.get(index).map_or("", |input| self.call.text(input.name, self.body))
    }

    /// The dimensions of a tensor.
    pub fn dims(&self, index: usize) -> &'a [usize] {
        self.call.inputs.get(index).map_or(&[], |input| input.shape.dims())
    }

    /// A tensor; its bytes are the body's where they lay there.
    pub fn tensor(&self, index: usize) -> Option<Tensor<'a>> {
        let input = self.call.inputs.get(index)?;
        let bytes = self.call.bytes(input.data, self.body);
        Tensor::new(input.dtype, input.shape, Storage::Borrowed(bytes))
    }

    /// All of them by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&'a str, Tensor<'a>)> {
        let own = *self;
        (0..self.len()).filter_map(move |index| Some((own.name(index), own.tensor(index)?)))
    }

    /// The outputs that were asked for; none means all.
    pub fn wanted(&self) -> impl ExactSizeIterator<Item = (&'a str, Wanted)> {
        let own = *self;
        self.call.wanted.iter().map(move |wanted| (own.call.text(wanted.name, own.body), *wanted))
    }

    /// Whether this output goes as raw bytes in a V2 JSON answer. As in Triton, what is said for one output
    /// counts more than what is said for all.
    pub fn is_binary(&self, output: &str) -> bool {
        let own = self.wanted().find(|(name, _)| *name == output).and_then(|(_, wanted)| wanted.binary);
        own.unwrap_or(self.call.parameters.binary_output)
    }
}
