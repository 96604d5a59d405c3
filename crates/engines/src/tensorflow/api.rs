//! The C interface of TensorFlow: the functions that are used, by their names.
//!
//! Not here: what is done with them (`session`).

#![allow(unsafe_code)] // Foreign functions are found here; each block says why it is sound.

use std::ffi::{c_char, c_int, c_void};

use crate::error::Error;
use crate::library::Library;

/// Values of the library, known by their addresses only.
macro_rules! opaque {
    ($($name:ident)*) => { $(#[derive(Debug)] pub(super) enum $name {})* };
}
opaque! { Status SessionOptions Graph Session Operation Tensor }

/// `TF_Buffer`.
#[repr(C)]
pub(super) struct Buffer {
    pub(super) data: *const c_void,
    pub(super) length: usize,
    deallocator: Option<unsafe extern "C" fn(*mut c_void, usize)>,
}

/// `TF_Output`: one output of an operation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) operation: *mut Operation,
    pub(super) index: c_int,
}

/// `TF_TString`, whose inside is the library's own.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Text(pub(super) [u8; 24]);

/// Frees a tensor's memory.
pub(super) type Deallocator = unsafe extern "C" fn(*mut c_void, usize, *mut c_void);

macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of an open library.
        pub(super) struct Api {
            pub(super) library: Library,
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// Finds all of them.
            pub(super) fn new(library: Library) -> Result<Self, Error> {
                // SAFETY: each symbol is a function of the type that the library's header gives it.
                unsafe {
                    Ok(Self {
                        $($name: std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(library.symbol($symbol)?),)*
                        library,
                    })
                }
            }
        }
    };
}

functions! {
    version = c"TF_Version": fn() -> *const c_char;
    new_status = c"TF_NewStatus": fn() -> *mut Status;
    delete_status = c"TF_DeleteStatus": fn(*mut Status);
    code = c"TF_GetCode": fn(*const Status) -> c_int;
    message = c"TF_Message": fn(*const Status) -> *const c_char;
    new_options = c"TF_NewSessionOptions": fn() -> *mut SessionOptions;
    delete_options = c"TF_DeleteSessionOptions": fn(*mut SessionOptions);
    set_config = c"TF_SetConfig": fn(*mut SessionOptions, *const c_void, usize, *mut Status);
    new_graph = c"TF_NewGraph": fn() -> *mut Graph;
    delete_graph = c"TF_DeleteGraph": fn(*mut Graph);
    operation = c"TF_GraphOperationByName": fn(*mut Graph, *const c_char) -> *mut Operation;
    operation_outputs = c"TF_OperationNumOutputs": fn(*mut Operation) -> c_int;
    new_buffer = c"TF_NewBuffer": fn() -> *mut Buffer;
    delete_buffer = c"TF_DeleteBuffer": fn(*mut Buffer);
    load = c"TF_LoadSessionFromSavedModel": fn(*const SessionOptions, *const Buffer, *const c_char, *const *const c_char, c_int, *mut Graph, *mut Buffer, *mut Status) -> *mut Session;
    close_session = c"TF_CloseSession": fn(*mut Session, *mut Status);
    delete_session = c"TF_DeleteSession": fn(*mut Session, *mut Status);
    run = c"TF_SessionRun": fn(*mut Session, *const Buffer, *const Output, *const *mut Tensor, c_int, *const Output, *mut *mut Tensor, c_int, *const *const Operation, c_int, *mut Buffer, *mut Status);
    allocate_tensor = c"TF_AllocateTensor": fn(c_int, *const i64, c_int, usize) -> *mut Tensor;
    new_tensor = c"TF_NewTensor": fn(c_int, *const i64, c_int, *mut c_void, usize, Deallocator, *mut c_void) -> *mut Tensor;
    delete_tensor = c"TF_DeleteTensor": fn(*mut Tensor);
    tensor_type = c"TF_TensorType": fn(*const Tensor) -> c_int;
    rank = c"TF_NumDims": fn(*const Tensor) -> c_int;
    dimension = c"TF_Dim": fn(*const Tensor, c_int) -> i64;
    byte_size = c"TF_TensorByteSize": fn(*const Tensor) -> usize;
    data = c"TF_TensorData": fn(*const Tensor) -> *mut c_void;
    text_init = c"TF_StringInit": fn(*mut Text);
    text_copy = c"TF_StringCopy": fn(*mut Text, *const c_char, usize);
    text_data = c"TF_StringGetDataPointer": fn(*const Text) -> *const c_char;
    text_size = c"TF_StringGetSize": fn(*const Text) -> usize;
    text_free = c"TF_StringDealloc": fn(*mut Text);
}
