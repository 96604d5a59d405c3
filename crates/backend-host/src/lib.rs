//! Engines that live in processes of their own: foreign libraries and foreign code next to the server, never in it.
//!
//! A worker that crashes costs the calls in it, one that hangs costs its time limit, and neither costs the server its
//! memory or its descriptors. Tensors lie in memory that both processes share; what goes over the socket are their
//! places ([`protocol`]).
//!
//! * [`Hosted`] is a model in one or more workers, as a `models::Backend`: `pool` gives calls a free lane, `keeper` keeps
//!   a worker alive, `process` starts it, `logs` bounds what it prints.
//! * [`Python`] is the engine for models that need Python; its worker is `python/worker.py`.
//! * [`child`] is the worker's side for engines in Rust.
//!
//! Not here: the model server (`infer`), which knows engines as `models::Engines` and their models as `models::Backend`.

pub mod child;
mod hosted;
mod keeper;
mod lane;
mod logs;
mod memory;
pub mod native;
mod pool;
mod process;
pub mod protocol;
mod python;

pub use hosted::{Hosted, Spec};
pub use process::Program;
pub use python::Python;
