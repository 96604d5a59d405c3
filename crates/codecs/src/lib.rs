//! Wire formats of inference protocols: bytes to tensors and back.
//!
//! * [`v1`]: KServe's V1 JSON (`{"instances": …}` to `{"predictions": …}`);
//! * [`v2`]: the Open Inference Protocol's JSON and its binary tensor extension;
//! * [`tfs`]: TensorFlow Serving's REST bodies;
//! * [`saved_model`]: the signatures in TensorFlow's files;
//! * [`textproto`]: the text format of configuration files;
//! * [`grpc`]: the messages of the gRPC services of both, of health and of reflection.
//!
//! All but V1 fill a [`call::Call`]: tensors by name, raw ones where they lie in the request. Numbers go straight into
//! aligned memory that is kept from call to call and answers straight into the reply, without a tree of values
//! between.
//!
//! Not here: HTTP, and what a model makes of the tensors.

pub mod call;
mod decimal;
mod emit;
mod fill;
pub mod grpc;
pub mod json;
pub mod saved_model;
pub mod textproto;
pub mod tfs;
pub mod v1;
pub mod v2;
pub mod wire;
mod words;
