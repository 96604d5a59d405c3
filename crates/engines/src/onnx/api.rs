//! The C interface of ONNX Runtime: the functions that are used, by their places in its table.
//!
//! `OrtApi` is a struct of function pointers that only ever grows at its end, so a place means the same in every version
//! that has it. Only those of interface version [`VERSION`] are named here; asking the library for a version that it does
//! not have gives no table.
//!
//! Not here: what is done with them (`session`).

#![allow(unsafe_code)] // Foreign functions are found here; each block says why it is sound.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::discover::Kind;
use crate::error::Error;
use crate::library::Library;

/// The version of the interface that is asked for, of ONNX Runtime 1.16.
pub(super) const VERSION: u32 = 16;

/// Values of the library, known by their addresses only.
macro_rules! opaque {
    ($($name:ident)*) => { $(#[derive(Debug)] pub(super) enum $name {})* };
}
opaque! { Status Env Session SessionOptions RunOptions Value TypeInfo TensorInfo MemoryInfo Allocator CudaOptions TensorRtOptions }

/// Null, or why a call failed.
pub(super) type StatusPtr = *mut Status;

macro_rules! functions {
    ($($name:ident = $place:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions, and the version of the library that they are from.
        pub(super) struct Api {
            pub(super) library: Library,
            pub(super) version: String,
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// # Safety
            ///
            /// `table` is an `OrtApi` of at least [`VERSION`].
            unsafe fn of(library: Library, version: String, table: *const *const c_void) -> Self {
                // SAFETY: every place is below the end of that version's table, all of whose entries are functions;
                // the types are those of the library's header.
                unsafe {
                    Self { library, version, $($name: std::mem::transmute::<*const c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(*table.add($place)),)* }
                }
            }
        }
    };
}

functions! {
    get_error_code = 1: fn(*const Status) -> c_int;
    get_error_message = 2: fn(*const Status) -> *const c_char;
    create_env = 3: fn(c_int, *const c_char, *mut *mut Env) -> StatusPtr;
    create_session = 7: fn(*const Env, *const c_char, *const SessionOptions, *mut *mut Session) -> StatusPtr;
    run = 9: fn(*mut Session, *const RunOptions, *const *const c_char, *const *const Value, usize, *const *const c_char, usize, *mut *mut Value) -> StatusPtr;
    create_session_options = 10: fn(*mut *mut SessionOptions) -> StatusPtr;
    set_execution_mode = 13: fn(*mut SessionOptions, c_int) -> StatusPtr;
    set_optimization_level = 23: fn(*mut SessionOptions, c_int) -> StatusPtr;
    set_intra_op_threads = 24: fn(*mut SessionOptions, c_int) -> StatusPtr;
    set_inter_op_threads = 25: fn(*mut SessionOptions, c_int) -> StatusPtr;
    input_count = 30: fn(*const Session, *mut usize) -> StatusPtr;
    output_count = 31: fn(*const Session, *mut usize) -> StatusPtr;
    input_type = 33: fn(*const Session, usize, *mut *mut TypeInfo) -> StatusPtr;
    output_type = 34: fn(*const Session, usize, *mut *mut TypeInfo) -> StatusPtr;
    input_name = 36: fn(*const Session, usize, *mut Allocator, *mut *mut c_char) -> StatusPtr;
    output_name = 37: fn(*const Session, usize, *mut Allocator, *mut *mut c_char) -> StatusPtr;
    create_tensor = 48: fn(*mut Allocator, *const i64, usize, c_int, *mut *mut Value) -> StatusPtr;
    create_tensor_with_data = 49: fn(*const MemoryInfo, *mut c_void, usize, *const i64, usize, c_int, *mut *mut Value) -> StatusPtr;
    is_tensor = 50: fn(*const Value, *mut c_int) -> StatusPtr;
    tensor_data = 51: fn(*mut Value, *mut *mut c_void) -> StatusPtr;
    texts_length = 53: fn(*const Value, *mut usize) -> StatusPtr;
    texts_content = 54: fn(*const Value, *mut c_void, usize, *mut usize, usize) -> StatusPtr;
    as_tensor_info = 55: fn(*const TypeInfo, *mut *const TensorInfo) -> StatusPtr;
    kind_of_type = 56: fn(*const TypeInfo, *mut c_int) -> StatusPtr;
    element_type = 60: fn(*const TensorInfo, *mut c_int) -> StatusPtr;
    rank = 61: fn(*const TensorInfo, *mut usize) -> StatusPtr;
    dimensions = 62: fn(*const TensorInfo, *mut i64, usize) -> StatusPtr;
    tensor_info = 65: fn(*const Value, *mut *mut TensorInfo) -> StatusPtr;
    create_cpu_memory_info = 69: fn(c_int, c_int, *mut *mut MemoryInfo) -> StatusPtr;
    allocator_free = 76: fn(*mut Allocator, *mut c_void) -> StatusPtr;
    default_allocator = 78: fn(*mut *mut Allocator) -> StatusPtr;
    release_status = 93: fn(*mut Status);
    release_session = 95: fn(*mut Session);
    release_value = 96: fn(*mut Value);
    release_type = 98: fn(*mut TypeInfo);
    release_tensor_info = 99: fn(*mut TensorInfo);
    release_session_options = 100: fn(*mut SessionOptions);
    available_providers = 125: fn(*mut *mut *mut c_char, *mut c_int) -> StatusPtr;
    release_available_providers = 126: fn(*mut *mut c_char, c_int) -> StatusPtr;
    append_tensor_rt = 170: fn(*mut SessionOptions, *const TensorRtOptions) -> StatusPtr;
    create_tensor_rt_options = 171: fn(*mut *mut TensorRtOptions) -> StatusPtr;
    update_tensor_rt_options = 172: fn(*mut TensorRtOptions, *const *const c_char, *const *const c_char, usize) -> StatusPtr;
    release_tensor_rt_options = 174: fn(*mut TensorRtOptions);
    append_cuda = 204: fn(*mut SessionOptions, *const CudaOptions) -> StatusPtr;
    create_cuda_options = 205: fn(*mut *mut CudaOptions) -> StatusPtr;
    update_cuda_options = 206: fn(*mut CudaOptions, *const *const c_char, *const *const c_char, usize) -> StatusPtr;
    release_cuda_options = 208: fn(*mut CudaOptions);
    append_provider = 216: fn(*mut SessionOptions, *const c_char, *const *const c_char, *const *const c_char, usize) -> StatusPtr;
    text_buffer = 252: fn(*mut Value, usize, usize, *mut *mut c_char) -> StatusPtr;
}

/// What `OrtGetApiBase` gives.
#[repr(C)]
struct Base {
    get_api: unsafe extern "C" fn(u32) -> *const *const c_void,
    version: unsafe extern "C" fn() -> *const c_char,
}

impl Api {
    /// Finds the functions of an open library.
    pub(super) fn new(library: Library) -> Result<Self, Error> {
        let address = library.symbol(c"OrtGetApiBase")?;
        // SAFETY: the symbol is that function in every version of the library; it gives a table that lives as long as
        // the library, which is never closed.
        let base = unsafe {
            let get = std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *const Base>(address);
            &*get()
        };
        // SAFETY: it takes nothing and gives a C string that lives as long as the library.
        let version = unsafe { CStr::from_ptr((base.version)()) }.to_string_lossy().into_owned();
        // Newer libraries speak older interfaces; older ones would print a complaint besides giving none.
        let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).unwrap_or(0);
        // SAFETY: any number may be asked for.
        let table = if minor >= VERSION { unsafe { (base.get_api)(VERSION) } } else { std::ptr::null() };
        if table.is_null() {
            let (name, path) = (Kind::OnnxRuntime.name(), library.path().to_owned());
            return Err(Error::TooOld { library: name, path, found: version, needed: "1.16" });
        }
        // SAFETY: the library gave the table for that version.
        Ok(unsafe { Self::of(library, version, table) })
    }
}
