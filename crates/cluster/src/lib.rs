//! What everyone who talks to a Kubernetes API shares: one watch for all kinds, one way to read an object.
//!
//! The code that reads a Pod is large, and the compiler makes it anew for each source of bytes and in each crate
//! that asks. Here it is made once: [`watch`] is an untyped machine under typed events, [`read`] takes every object
//! through the same reader, and `kept` has the compiler leave one copy for the crates above.
//!
//! Not here: what is done about objects (the controllers), the platform's own kinds (`api`).

mod kept;
mod raw;
mod watch;

use serde::de::DeserializeOwned;
use serde_json::Value;

#[doc(hidden)]
pub use kept::hold;
pub use watch::{watch, watch_with};

/// Reads an object out of a tree, by way of its text: a reader of trees would be a second copy of all types.
pub fn read<K: DeserializeOwned>(tree: &Value) -> serde_json::Result<K> {
    serde_json::from_str(&tree.to_string())
}
