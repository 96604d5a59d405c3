//! The messages of the gRPC services, without the transport.
//!
//! * [`frame`]: the five bytes before each message, and `grpc-timeout`;
//! * [`oip`]: `inference.GRPCInferenceService`, as KServe, Triton and MLServer have it;
//! * [`tfs`]: `tensorflow.serving.PredictionService` and `ModelService`;
//! * [`small`]: health and reflection;
//! * [`descriptor`]: the descriptors of all of them, which reflection hands out.
//!
//! Messages with tensors are read in place, see [`crate::wire`]. Not here: HTTP/2, models.

pub mod descriptor;
pub mod frame;
pub mod oip;
pub mod small;
pub mod tfs;
