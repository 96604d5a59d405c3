//! A session of ONNX Runtime behind safe functions.
//!
//! Each value of the library is held by a handle that releases it; each call's status becomes an error. Inputs of numbers
//! are lent to the library where they lie, for the time of the run; texts and outputs are copied.
//!
//! Not here: what a graph's inputs and outputs are to the server (`model`).

#![allow(unsafe_code)] // Calls of foreign functions; each block says why it is sound.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;

use models::{DType, Outputs, RANK_MAX, Shape, Storage, Tensor};

use super::api::{self, Api, StatusPtr};
use super::options::{Level, Options, Provider};
pub(super) use crate::error::Failed;

/// `ORT_INVALID_ARGUMENT`.
pub(super) const INVALID_ARGUMENT: i32 = 2;

/// A failure that the library did not report.
fn own(text: impl Into<String>) -> Failed {
    Failed { code: 0, text: text.into() }
}

/// A value of the library that is released in the end.
struct Held<T> {
    raw: *mut T,
    release: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: the library gave the value to this handle alone, with this function to release it.
        unsafe { (self.release)(self.raw) }
    }
}

/// The library with what all sessions share. It lives as long as the process.
pub(super) struct Runtime {
    pub(super) api: Api,
    env: *mut api::Env,
    memory: *mut api::MemoryInfo,
    allocator: *mut api::Allocator,
}

// SAFETY: the environment, the description of the CPU's memory and the default allocator may be used from any thread; they
// are never changed or released.
unsafe impl Send for Runtime {}
// SAFETY: as above.
unsafe impl Sync for Runtime {}

/// What an input or output is declared to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) name: String,
    /// `None` where it is no tensor: then `kind` says what it is.
    pub(super) element: Option<i32>,
    pub(super) kind: i32,
    /// The dimensions; below 0 is any.
    pub(super) dims: Vec<i64>,
}

impl Runtime {
    /// Makes the environment of an open library.
    pub(super) fn new(api: Api) -> Result<Self, Failed> {
        const WARNING: c_int = 2;
        const ARENA: c_int = 1;
        const DEFAULT: c_int = 0;
        let (mut env, mut memory, mut allocator) = (null_mut(), null_mut(), null_mut());
        // SAFETY: the name is a C string, the places are ours and live through the calls.
        unsafe {
            check(&api, (api.create_env)(WARNING, c"slipway".as_ptr(), &mut env))?;
            check(&api, (api.create_cpu_memory_info)(ARENA, DEFAULT, &mut memory))?;
            check(&api, (api.default_allocator)(&mut allocator))?;
        }
        Ok(Self { api, env, memory, allocator })
    }

    /// The execution providers that the library was built with.
    pub(super) fn providers(&self) -> Result<Vec<String>, Failed> {
        let (mut list, mut count) = (null_mut(), 0);
        // SAFETY: the library fills the places with a list of so many C strings, which is given back once.
        unsafe {
            check(&self.api, (self.api.available_providers)(&mut list, &mut count))?;
            let names = (0..usize::try_from(count).unwrap_or(0))
                .map(|place| CStr::from_ptr(*list.add(place)).to_string_lossy().into_owned())
                .collect();
            check(&self.api, (self.api.release_available_providers)(list, count))?;
            Ok(names)
        }
    }

    fn options(&self, options: &Options) -> Result<Held<api::SessionOptions>, Failed> {
        let api = &self.api;
        let mut raw = null_mut();
        // SAFETY: the place is ours.
        unsafe { check(api, (api.create_session_options)(&mut raw))? };
        let held = Held { raw, release: api.release_session_options };
        let level = match options.level {
            Level::None => 0,
            Level::Basic => 1,
            Level::Extended => 2,
            Level::All => 99,
        };
        let threads = |count: u32| c_int::try_from(count).unwrap_or(c_int::MAX);
        // SAFETY: the options are alive, and the values are those of the header's enumerations.
        unsafe {
            check(api, (api.set_optimization_level)(raw, level))?;
            check(api, (api.set_execution_mode)(raw, c_int::from(options.parallel)))?;
            check(api, (api.set_intra_op_threads)(raw, threads(options.intra_op_threads)))?;
            check(api, (api.set_inter_op_threads)(raw, threads(options.inter_op_threads)))?;
        }
        for provider in &options.providers {
            self.append(raw, provider)?;
        }
        Ok(held)
    }

    fn append(&self, raw: *mut api::SessionOptions, provider: &Provider) -> Result<(), Failed> {
        let api = &self.api;
        let c = |text: &str| CString::new(text).map_err(|_| own(format!("{text:?} has a zero byte")));
        let settings = provider.settings.iter().map(|(key, value)| Ok((c(key)?, c(value)?)));
        let settings = settings.collect::<Result<Vec<_>, Failed>>()?;
        let keys: Vec<*const c_char> = settings.iter().map(|(key, _)| key.as_ptr()).collect();
        let values: Vec<*const c_char> = settings.iter().map(|(_, value)| value.as_ptr()).collect();
        let short = provider.name.strip_suffix("ExecutionProvider").unwrap_or(&provider.name);
        // SAFETY: the options are alive; keys and values are as many C strings, which live through the calls; a
        // provider's options are released after they were copied into the session's.
        unsafe {
            match short {
                // It is always there, as the last.
                "CPU" => Ok(()),
                "CUDA" => {
                    let mut made = null_mut();
                    check(api, (api.create_cuda_options)(&mut made))?;
                    let made = Held { raw: made, release: api.release_cuda_options };
                    check(
                        api,
                        (api.update_cuda_options)(made.raw, keys.as_ptr(), values.as_ptr(), keys.len()),
                    )?;
                    check(api, (api.append_cuda)(raw, made.raw))
                }
                "Tensorrt" => {
                    let mut made = null_mut();
                    check(api, (api.create_tensor_rt_options)(&mut made))?;
                    let made = Held { raw: made, release: api.release_tensor_rt_options };
                    check(
                        api,
                        (api.update_tensor_rt_options)(made.raw, keys.as_ptr(), values.as_ptr(), keys.len()),
                    )?;
                    check(api, (api.append_tensor_rt)(raw, made.raw))
                }
                other => {
                    let name = c(other)?;
                    check(
                        api,
                        (api.append_provider)(raw, name.as_ptr(), keys.as_ptr(), values.as_ptr(), keys.len()),
                    )
                }
            }
        }
    }
}

/// Turns a status into a result and gives it back.
fn check(api: &Api, status: StatusPtr) -> Result<(), Failed> {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: a status that is not null is ours until it is released, and its text lives as long.
    unsafe {
        let code = (api.get_error_code)(status);
        let text = CStr::from_ptr((api.get_error_message)(status)).to_string_lossy().into_owned();
        (api.release_status)(status);
        Err(Failed { code, text })
    }
}

/// A loaded graph.
pub(super) struct Session {
    runtime: &'static Runtime,
    held: Held<api::Session>,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

// SAFETY: sessions may be run from several threads at once, as the library's documentation says of `Run`.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Reads a graph, with the files of weights that it names beside it.
    pub(super) fn open(runtime: &'static Runtime, path: &Path, options: &Options) -> Result<Self, Failed> {
        let api = &runtime.api;
        let options = runtime.options(options)?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| own(error.to_string()))?;
        let mut raw = null_mut();
        // SAFETY: environment and options are alive, the path is a C string, the place is ours.
        unsafe { check(api, (api.create_session)(runtime.env, name.as_ptr(), options.raw, &mut raw))? };
        let held = Held { raw, release: api.release_session };
        let mut session = Self { runtime, held, inputs: Vec::new(), outputs: Vec::new() };
        session.inputs = session.names(api.input_count, api.input_name)?;
        session.outputs = session.names(api.output_count, api.output_name)?;
        Ok(session)
    }

    fn names(
        &self,
        count: unsafe extern "C" fn(*const api::Session, *mut usize) -> StatusPtr,
        name: unsafe extern "C" fn(
            *const api::Session,
            usize,
            *mut api::Allocator,
            *mut *mut c_char,
        ) -> StatusPtr,
    ) -> Result<Vec<CString>, Failed> {
        let (api, allocator) = (&self.runtime.api, self.runtime.allocator);
        let mut total = 0;
        // SAFETY: the session is alive and the place is ours.
        unsafe { check(api, count(self.held.raw, &mut total))? };
        let one = |place| {
            let mut text = null_mut();
            // SAFETY: the place is below the count; the text is a C string of the allocator's, which it gets back.
            unsafe {
                check(api, name(self.held.raw, place, allocator, &mut text))?;
                let own = CStr::from_ptr(text).to_owned();
                check(api, (api.allocator_free)(allocator, text.cast()))?;
                Ok(own)
            }
        };
        (0..total).map(one).collect()
    }

    /// What the inputs are.
    pub(super) fn inputs(&self) -> Result<Vec<Declared>, Failed> {
        self.declared(&self.inputs, self.runtime.api.input_type)
    }

    /// What the outputs are.
    pub(super) fn outputs(&self) -> Result<Vec<Declared>, Failed> {
        self.declared(&self.outputs, self.runtime.api.output_type)
    }

    fn declared(
        &self,
        names: &[CString],
        get: unsafe extern "C" fn(*const api::Session, usize, *mut *mut api::TypeInfo) -> StatusPtr,
    ) -> Result<Vec<Declared>, Failed> {
        const TENSOR: c_int = 1;
        let api = &self.runtime.api;
        let one = |(place, name): (usize, &CString)| {
            let name = name.to_string_lossy().into_owned();
            let (mut raw, mut kind) = (null_mut(), 0);
            // SAFETY: the place is below the count, and the places for the results are ours.
            unsafe { check(api, get(self.held.raw, place, &mut raw))? };
            let info = Held { raw, release: api.release_type };
            // SAFETY: the type is alive.
            unsafe { check(api, (api.kind_of_type)(info.raw, &mut kind))? };
            if kind != TENSOR {
                return Ok(Declared { name, element: None, kind, dims: Vec::new() });
            }
            let mut tensor = std::ptr::null();
            // SAFETY: the type is alive and a tensor's; the view of it lives as long.
            let (element, dims) = unsafe {
                check(api, (api.as_tensor_info)(info.raw, &mut tensor))?;
                described(api, tensor)?
            };
            Ok(Declared { name, element: Some(element), kind, dims })
        };
        names.iter().enumerate().map(one).collect()
    }

    /// Runs the graph and adds its outputs, in their order.
    pub(super) fn run(&self, inputs: &[Tensor<'_>], outputs: &mut Outputs) -> Result<(), Failed> {
        let api = &self.runtime.api;
        // Both hold the memory that values point at until the run is over.
        let aligned: Vec<Tensor<'_>> = inputs.iter().map(aligned).collect();
        let values = aligned.iter().map(|tensor| self.value(tensor)).collect::<Result<Vec<_>, _>>()?;
        let raw: Vec<*const api::Value> = values.iter().map(|value| value.raw.cast_const()).collect();
        let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
        let (names, wanted) = (pointers(&self.inputs), pointers(&self.outputs));
        let mut made = vec![null_mut(); wanted.len()];
        // SAFETY: session, names and values are alive; each list has the length that is told; null options are the
        // defaults; the library fills `made` with values that are ours.
        let status = unsafe {
            (api.run)(
                self.held.raw,
                std::ptr::null(),
                names.as_ptr(),
                raw.as_ptr(),
                raw.len(),
                wanted.as_ptr(),
                wanted.len(),
                made.as_mut_ptr(),
            )
        };
        let made: Vec<Held<api::Value>> = made
            .into_iter()
            .filter(|raw| !raw.is_null())
            .map(|raw| Held { raw, release: api.release_value })
            .collect();
        check(api, status)?;
        if made.len() != wanted.len() {
            return Err(own("the library left an output out"));
        }
        made.iter().try_for_each(|value| self.take(value, outputs))
    }

    /// A tensor as a value of the library's. Numbers stay where they are, aligned, and must outlive it.
    fn value(&self, tensor: &Tensor<'_>) -> Result<Held<api::Value>, Failed> {
        let (api, element) = (&self.runtime.api, super::model::element(tensor.dtype()));
        let dims: Vec<i64> =
            tensor.dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        let mut raw = null_mut();
        if tensor.dtype() == DType::Text {
            // SAFETY: the allocator lives for ever, the dimensions are as many as told, the place is ours.
            unsafe {
                let allocator = self.runtime.allocator;
                check(api, (api.create_tensor)(allocator, dims.as_ptr(), dims.len(), element, &mut raw))?;
            }
            let held = Held { raw, release: api.release_value };
            for (place, text) in tensor.elements().flatten().enumerate() {
                let mut room = null_mut();
                // SAFETY: the value is alive with as many elements as the tensor; the room has the length that was
                // asked for.
                unsafe {
                    check(api, (api.text_buffer)(held.raw, place, text.len(), &mut room))?;
                    std::ptr::copy_nonoverlapping(text.as_ptr(), room.cast::<u8>(), text.len());
                }
            }
            return Ok(held);
        }
        let bytes = tensor.bytes();
        // SAFETY: the bytes are those of the type and dimensions (a tensor's invariant), aligned, and outlive the value;
        // the library does not write to inputs.
        unsafe {
            let data = bytes.as_ptr().cast_mut().cast();
            check(
                api,
                (api.create_tensor_with_data)(
                    self.runtime.memory,
                    data,
                    bytes.len(),
                    dims.as_ptr(),
                    dims.len(),
                    element,
                    &mut raw,
                ),
            )?;
        }
        Ok(Held { raw, release: api.release_value })
    }

    /// Copies a value of the library's into the outputs.
    fn take(&self, value: &Held<api::Value>, outputs: &mut Outputs) -> Result<(), Failed> {
        let api = &self.runtime.api;
        let (mut is_tensor, mut info) = (0, null_mut());
        // SAFETY: the value is alive, the places are ours.
        unsafe { check(api, (api.is_tensor)(value.raw, &mut is_tensor))? };
        if is_tensor == 0 {
            return Err(own("an output is no tensor"));
        }
        // SAFETY: the value is alive and a tensor.
        unsafe { check(api, (api.tensor_info)(value.raw, &mut info))? };
        let info = Held { raw: info, release: api.release_tensor_info };
        // SAFETY: the description is alive.
        let (element, dims) = unsafe { described(api, info.raw)? };
        let dtype =
            super::model::dtype(element).ok_or_else(|| own(format!("an output of the type {element}")))?;
        let dims: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        let shape = dims.filter(|dims| dims.len() <= RANK_MAX).and_then(|dims| Shape::new(&dims));
        let shape = shape.ok_or_else(|| own("an output has too many dimensions"))?;
        if dtype == DType::Text {
            let bytes = self.texts(value, shape.count())?;
            outputs.bytes(dtype, shape, &bytes);
            return Ok(());
        }
        let length = shape.count() * dtype.size();
        let mut data = null_mut();
        // SAFETY: the value is a tensor of numbers with so many bytes, which stay until it is released. Where there
        // are none, the address may be null and is not read.
        let bytes = unsafe {
            check(api, (api.tensor_data)(value.raw, &mut data))?;
            if length == 0 { &[][..] } else { std::slice::from_raw_parts(data.cast::<u8>(), length) }
        };
        outputs.bytes(dtype, shape, bytes);
        Ok(())
    }

    /// The texts of a value in the layout of tensors.
    fn texts(&self, value: &Held<api::Value>, count: usize) -> Result<Vec<u8>, Failed> {
        let api = &self.runtime.api;
        let mut length = 0;
        // SAFETY: the value is a tensor of texts.
        unsafe { check(api, (api.texts_length)(value.raw, &mut length))? };
        let (mut all, mut starts) = (vec![0_u8; length], vec![0_usize; count]);
        // SAFETY: as above; the buffers have the lengths that are told: all bytes, and one start for each text.
        unsafe {
            let text = all.as_mut_ptr().cast();
            check(api, (api.texts_content)(value.raw, text, length, starts.as_mut_ptr(), count))?;
        }
        starts.push(length);
        let mut flat = Vec::with_capacity(length + 4 * count);
        for pair in starts.windows(2) {
            let text = all.get(pair[0]..pair[1]).ok_or_else(|| own("texts overlap"))?;
            let length = u32::try_from(text.len()).map_err(|_| own("a text of more than 4 GB"))?;
            flat.extend_from_slice(&length.to_le_bytes());
            flat.extend_from_slice(text);
        }
        Ok(flat)
    }
}

/// The element type and the dimensions.
///
/// # Safety
///
/// `info` is alive.
unsafe fn described(api: &Api, info: *const api::TensorInfo) -> Result<(i32, Vec<i64>), Failed> {
    let (mut element, mut rank) = (0, 0);
    // SAFETY: the description is alive, the places are ours, and the list has room for all dimensions.
    unsafe {
        check(api, (api.element_type)(info, &mut element))?;
        check(api, (api.rank)(info, &mut rank))?;
        let mut dims = vec![0_i64; rank];
        check(api, (api.dimensions)(info, dims.as_mut_ptr(), rank))?;
        Ok((element, dims))
    }
}

/// The tensor itself where its numbers are aligned, else a copy.
fn aligned<'t>(tensor: &'t Tensor<'_>) -> Tensor<'t> {
    let bytes = tensor.bytes();
    if !bytes.as_ptr().addr().is_multiple_of(tensor.dtype().size().max(1)) {
        return tensor.to_static();
    }
    let shape = Shape::new(tensor.dims()).expect("it is a tensor's");
    Tensor::new(tensor.dtype(), shape, Storage::Borrowed(bytes)).expect("it is the tensor's own")
}
