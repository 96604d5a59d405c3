//! What a connection keeps from request to request, so that a steady load asks the allocator for nothing.
//!
//! Not here: the buffers that bytes are read into (`buffers`).

use models::Outputs;

use crate::exchange::{Protocol, Reply};
use crate::routes::tfs::Tfs;
use crate::routes::v1::V1;
use crate::routes::v2::{Ids, V2};

/// Buffers that live as long as the connection.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) v1: V1,
    pub(super) v2: V2,
    pub(super) tfs: Tfs,
    pub(super) outputs: Outputs,
    pub(super) reply: Reply,
    /// Of events.
    pub(super) ids: Ids,
}

impl Scratch {
    /// Gives back what a large request left, so that idle connections stay small.
    pub(super) fn shrink(&mut self) {
        const KEEP: usize = 64 << 10;
        self.v1.shrink();
        self.v2.shrink();
        self.tfs.shrink();
        if self.reply.body.capacity() > KEEP {
            self.reply.body = Vec::new();
        }
        if self.outputs.tensors().iter().map(|tensor| tensor.bytes().len()).sum::<usize>() > KEEP {
            self.outputs = Outputs::new();
        }
    }
}
