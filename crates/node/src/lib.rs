//! What a kubelet does: pods under the shim, volumes, images, network, logs, exec, adoption.
//!
//! A node knows a `kube::Client` and nothing of the server behind it. Each pod has one task that observes, decides
//! ([`pod::decide`], pure) and acts; the processes themselves belong to the pod's shim (`pod shim`), so that they
//! survive this process and are adopted by the next one.
//!
//! Not here: which node a pod goes to (the scheduler), and who owns pods (controllers).

pub mod cgroups;
pub mod events;
pub mod folder;
pub mod images;
pub mod logs;
pub mod network;
mod node;
pub mod pod;
mod ready;
pub mod register;
pub mod shim;
pub mod streams;
pub mod volumes;

pub use node::{Context, Error, Node, NodeConfig, stop_all};
