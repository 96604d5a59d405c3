//! The cluster in a process: configuration, wiring of the parts, and its data folder.

pub mod folder;
pub mod kubeconfig;
