//! Small values that several crates share: quantities, percentages, selectors, durations, address ranges.
//!
//! Each is a type whose value, once it exists, is legal; each parses and prints the way Kubernetes does. Exactness
//! matters more than speed here, because these texts are compared with what other programs print.
//!
//! Not here: anything that does IO, waits, or knows an API object.

pub mod duration;
pub mod net;
pub mod percent;
pub mod quantity;
pub mod selector;
