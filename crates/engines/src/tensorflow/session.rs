//! A session of TensorFlow behind safe functions.
//!
//! Tensors are copied both ways: a graph may keep what it is fed (a variable may be assigned an input), so memory that is
//! only lent would be read after the call. Texts are the library's own values; those of inputs are freed when the last
//! holder of their tensor lets go.
//!
//! Not here: signatures (`codecs::saved_model`), what callers see (`model`).

#![allow(unsafe_code)] // Calls of foreign functions; each block says why it is sound.

use std::alloc::Layout;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

use codecs::saved_model::{MetaGraph, Place};
use codecs::tfs::{of_tf_type, tf_type};
use models::{DType, Outputs, RANK_MAX, Shape, Tensor};

use super::api::{self, Api, Text};
pub(super) use crate::error::Failed;

/// `TF_INVALID_ARGUMENT`.
pub(super) const INVALID_ARGUMENT: i32 = 3;
/// `TF_INTERNAL`, also for what the library did not report.
const INTERNAL: i32 = 13;

fn own(text: impl Into<String>) -> Failed {
    Failed { code: INTERNAL, text: text.into() }
}

/// A value of the library that is deleted in the end.
struct Held<T> {
    raw: *mut T,
    delete: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: the library gave the value to this handle alone, with this function to delete it.
        unsafe { (self.delete)(self.raw) }
    }
}

/// Makes a call that tells its outcome by a status.
fn checked<T>(api: &Api, call: impl FnOnce(*mut api::Status) -> T) -> Result<T, Failed> {
    // SAFETY: a new status is ours; the handle deletes it.
    let status = unsafe { Held { raw: (api.new_status)(), delete: api.delete_status } };
    let result = call(status.raw);
    // SAFETY: the status is alive, and its text lives as long.
    let (code, text) = unsafe { ((api.code)(status.raw), CStr::from_ptr((api.message)(status.raw))) };
    if code == 0 { Ok(result) } else { Err(Failed { code, text: text.to_string_lossy().into_owned() }) }
}

/// The library's version.
pub(super) fn version(api: &Api) -> String {
    // SAFETY: it takes nothing and gives a C string that lives as long as the library.
    unsafe { CStr::from_ptr((api.version)()) }.to_string_lossy().into_owned()
}

/// Where a tensor is in the graph of one session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point(api::Output);

// SAFETY: an operation is a part of its graph, which does not change once it is loaded; it is only handed back to the
// session that it belongs to.
unsafe impl Send for Point {}
// SAFETY: as above.
unsafe impl Sync for Point {}

/// A loaded SavedModel.
pub(super) struct Session {
    api: &'static Api,
    raw: *mut api::Session,
    // Behind the session, which uses it: fields are dropped after the value's own `drop`.
    graph: Held<api::Graph>,
}

// SAFETY: sessions may be run from several threads at once, as the library's documentation says of `TF_SessionRun`; the
// graph is only read.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Reads the graph with these tags from a SavedModel's folder; `config` is a `ConfigProto`.
    pub(super) fn open(
        api: &'static Api,
        folder: &Path,
        tags: &[String],
        config: &[u8],
    ) -> Result<(Self, MetaGraph), Failed> {
        let c = |bytes: &[u8]| CString::new(bytes).map_err(|_| own("a name with a zero byte"));
        let path = c(folder.as_os_str().as_bytes())?;
        let tags = tags.iter().map(|tag| c(tag.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let tags: Vec<*const c_char> = tags.iter().map(|tag| tag.as_ptr()).collect();
        let count = c_int::try_from(tags.len()).map_err(|_| own("too many tags"))?;
        // SAFETY: new values are ours; the handles delete them.
        let (options, graph, meta) = unsafe {
            (
                Held { raw: (api.new_options)(), delete: api.delete_options },
                Held { raw: (api.new_graph)(), delete: api.delete_graph },
                Held { raw: (api.new_buffer)(), delete: api.delete_buffer },
            )
        };
        // SAFETY: the options are alive, and so are the bytes, which are copied.
        checked(api, |status| unsafe {
            (api.set_config)(options.raw, config.as_ptr().cast(), config.len(), status);
        })?;
        // SAFETY: all values are alive; the tags are as many C strings as told; no run options are the defaults.
        let raw = checked(api, |status| unsafe {
            (api.load)(options.raw, null(), path.as_ptr(), tags.as_ptr(), count, graph.raw, meta.raw, status)
        })?;
        let session = Self { api, raw, graph };
        // SAFETY: the buffer is alive, and the library filled it with so many bytes.
        let bytes = unsafe {
            let buffer = &*meta.raw;
            if buffer.length == 0 {
                &[][..]
            } else {
                std::slice::from_raw_parts(buffer.data.cast::<u8>(), buffer.length)
            }
        };
        let graph =
            MetaGraph::read(bytes).map_err(|error| own(format!("malformed MetaGraphDef: {error}")))?;
        Ok((session, graph))
    }

    /// Finds a tensor of the graph.
    pub(super) fn point(&self, place: &Place) -> Result<Point, Failed> {
        let absent = || own(format!("the graph has no {}:{}", place.operation, place.output));
        let name = CString::new(place.operation.as_str()).map_err(|_| absent())?;
        // SAFETY: the graph is alive and the name a C string.
        let operation = unsafe { (self.api.operation)(self.graph.raw, name.as_ptr()) };
        let index = c_int::try_from(place.output).map_err(|_| absent())?;
        // SAFETY: the operation, if there is one, lives as long as the graph.
        if operation.is_null() || index >= unsafe { (self.api.operation_outputs)(operation) } {
            return Err(absent());
        }
        Ok(Point(api::Output { operation, index }))
    }

    /// Feeds tensors, fetches others and adds these in their order. The points are this session's.
    pub(super) fn run(
        &self,
        feeds: &[Point],
        inputs: &[Tensor<'_>],
        fetches: &[Point],
        outputs: &mut Outputs,
    ) -> Result<(), Failed> {
        let api = self.api;
        if feeds.len() != inputs.len() {
            return Err(own("as many tensors are fed as there are inputs"));
        }
        let values = inputs.iter().map(|tensor| self.value(tensor)).collect::<Result<Vec<_>, _>>()?;
        let raw: Vec<*mut api::Tensor> = values.iter().map(|value| value.raw).collect();
        let points = |all: &[Point]| all.iter().map(|point| point.0).collect::<Vec<_>>();
        let (feeds, wanted) = (points(feeds), points(fetches));
        let mut made = vec![null_mut(); wanted.len()];
        let (fed, fetched) = (feeds.len() as c_int, wanted.len() as c_int);
        // SAFETY: session, points and values are alive, and the lists have the lengths that are told; no options, targets
        // or metadata are asked for; the library fills `made` with tensors that are ours.
        let done = checked(api, |status| unsafe {
            (api.run)(
                self.raw,
                null(),
                feeds.as_ptr(),
                raw.as_ptr(),
                fed,
                wanted.as_ptr(),
                made.as_mut_ptr(),
                fetched,
                null(),
                0,
                null_mut(),
                status,
            );
        });
        let made: Vec<Held<api::Tensor>> = made
            .into_iter()
            .filter(|raw| !raw.is_null())
            .map(|raw| Held { raw, delete: api.delete_tensor })
            .collect();
        done?;
        if made.len() != wanted.len() {
            return Err(own("the library left an output out"));
        }
        made.iter().try_for_each(|value| self.take(value, outputs))
    }

    /// A copy of a tensor as the library's.
    fn value(&self, tensor: &Tensor<'_>) -> Result<Held<api::Tensor>, Failed> {
        let api = self.api;
        let kind = tf_type(tensor.dtype()).0 as c_int;
        let dims: Vec<i64> =
            tensor.dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        let rank = dims.len() as c_int;
        let raw = if tensor.dtype() == DType::Text {
            let texts = Texts::of(api, tensor);
            let (data, length) = texts.into_raw();
            let arg = std::ptr::from_ref(api).cast_mut().cast();
            // SAFETY: the memory holds as many texts as the dimensions say, and goes to the tensor with the function
            // that frees both; the functions' table lives for ever.
            unsafe { (api.new_tensor)(kind, dims.as_ptr(), rank, data.cast(), length, free_texts, arg) }
        } else {
            // SAFETY: the dimensions are as many as told.
            unsafe { (api.allocate_tensor)(kind, dims.as_ptr(), rank, tensor.bytes().len()) }
        };
        if raw.is_null() {
            return Err(own("the library has no memory for a tensor"));
        }
        let held = Held { raw, delete: api.delete_tensor };
        let bytes = tensor.bytes();
        if tensor.dtype() != DType::Text && !bytes.is_empty() {
            // SAFETY: the library's tensor is new and has room for so many bytes, which nobody else looks at yet.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), (api.data)(held.raw).cast(), bytes.len())
            };
        }
        Ok(held)
    }

    /// Copies a tensor of the library's into the outputs.
    fn take(&self, value: &Held<api::Tensor>, outputs: &mut Outputs) -> Result<(), Failed> {
        let api = self.api;
        // SAFETY: the tensor is alive; a dimension below its rank is asked for; its data has so many bytes and stays
        // until it is deleted.
        let (kind, dims, data, length) = unsafe {
            let dims = (0..(api.rank)(value.raw))
                .map(|place| usize::try_from((api.dimension)(value.raw, place)).ok());
            let dims: Option<Vec<usize>> = dims.collect();
            ((api.tensor_type)(value.raw), dims, (api.data)(value.raw), (api.byte_size)(value.raw))
        };
        let dtype = u64::try_from(kind).ok().and_then(of_tf_type);
        let dtype = dtype.ok_or_else(|| own(format!("an output of the type {kind}")))?;
        let shape = dims.filter(|dims| dims.len() <= RANK_MAX).and_then(|dims| Shape::new(&dims));
        let shape = shape.ok_or_else(|| own("an output has too many dimensions"))?;
        let wanted = if dtype == DType::Text { size_of::<Text>() } else { dtype.size() };
        if shape.count().checked_mul(wanted) != Some(length) {
            return Err(own("an output has other bytes than its shape"));
        }
        if length == 0 {
            outputs.bytes(dtype, shape, &[]);
            return Ok(());
        }
        if dtype != DType::Text {
            // SAFETY: as above.
            outputs.bytes(dtype, shape, unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) });
            return Ok(());
        }
        let mut flat = Vec::new();
        for place in 0..shape.count() {
            // SAFETY: the tensor holds so many texts, each of which says where its bytes are and how many.
            let bytes = unsafe {
                let text = data.cast::<Text>().add(place);
                let (start, size) = ((api.text_data)(text), (api.text_size)(text));
                if size == 0 { &[][..] } else { std::slice::from_raw_parts(start.cast::<u8>(), size) }
            };
            let size = u32::try_from(bytes.len()).map_err(|_| own("a text of more than 4 GB"))?;
            flat.extend_from_slice(&size.to_le_bytes());
            flat.extend_from_slice(bytes);
        }
        outputs.bytes(dtype, shape, &flat);
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let api = self.api;
        // SAFETY: the session is alive until here, and nothing runs in it any more. What closing says is of no use.
        let _ = checked(api, |status| unsafe { (api.close_session)(self.raw, status) });
        // SAFETY: as above.
        let _ = checked(api, |status| unsafe { (api.delete_session)(self.raw, status) });
    }
}

/// Texts in memory of ours, as the library lays them out.
struct Texts {
    data: *mut Text,
    count: usize,
}

/// The memory of so many texts; never none, because no memory has no address.
fn layout(count: usize) -> Layout {
    Layout::array::<Text>(count.max(1)).expect("a tensor's elements fit the memory")
}

impl Texts {
    fn of(api: &Api, tensor: &Tensor<'_>) -> Self {
        let count = tensor.dims().iter().product();
        let layout = layout(count);
        // SAFETY: the layout has a size that is not 0.
        let data = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<Text>();
        if data.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        let mut texts = tensor.elements().flatten();
        for place in 0..count {
            let bytes = texts.next().unwrap_or_default();
            // SAFETY: the place is in the memory that was just made; the bytes are copied.
            unsafe {
                let text = data.add(place);
                (api.text_init)(text);
                (api.text_copy)(text, bytes.as_ptr().cast(), bytes.len());
            }
        }
        Self { data, count }
    }

    /// The memory and its length; from now on [`free_texts`] frees it.
    fn into_raw(self) -> (*mut Text, usize) {
        (self.data, self.count * size_of::<Text>())
    }
}

/// Frees the texts of a tensor and their memory.
///
/// # Safety
///
/// `data` and `length` are what [`Texts::into_raw`] gave, and `api` is the table of functions. It is called once.
unsafe extern "C" fn free_texts(data: *mut c_void, length: usize, api: *mut c_void) {
    let (data, count) = (data.cast::<Text>(), length / size_of::<Text>());
    // SAFETY: as the caller promises; the table lives for ever.
    unsafe {
        let api = &*api.cast::<Api>();
        (0..count).for_each(|place| (api.text_free)(data.add(place)));
        std::alloc::dealloc(data.cast(), layout(count));
    }
}
