//! Wire formats of inference protocols: bytes to numbers and back.
//!
//! * [`v1`]: KServe's V1 JSON (`{"instances": …}` to `{"predictions": …}`).
//!
//! Requests go straight into the batch's buffer and answers straight into the reply's, without a tree of
//! values between; the general parser is used only for rows that are not plain numbers.
//!
//! Not here: HTTP, and what a model makes of the numbers.

pub mod json;
pub mod v1;
