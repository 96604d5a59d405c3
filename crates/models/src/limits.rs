//! How much a model file may ask of the reader.
//!
//! Every count in a file is checked against what the file can really hold before anything is allocated, and
//! what files can multiply (compression, memo references, small opcodes that make large values) is bounded
//! here. The defaults let through every model that scikit-learn writes on an ordinary machine.
//!
//! Not here: how large a request to a loaded model may be (`infer`).

/// Bounds for one load. All are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file, and of what it unpacks to.
    pub bytes_max: usize,
    /// Values (numbers, strings, containers, objects) that a file may build.
    pub values_max: usize,
    /// How deep containers may nest, and estimators within estimators.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 4 << 30, values_max: 32_000_000, depth_max: 512 }
    }
}
