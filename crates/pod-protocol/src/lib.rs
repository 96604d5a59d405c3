//! The small protocols of a pod, as serde types that both ends share.
//!
//! * [`launch`]: what the workflow controller tells the launcher inside a container, and what comes back.
//! * [`shim`]: what the node tells the shim that owns a pod's processes, and the files of the pod folder.
//!
//! Types only: no IO, so that the static `pod` binary stays small.

pub mod launch;
pub mod shim;
