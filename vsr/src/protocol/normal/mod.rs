//! Normal operation: requests become ops, ops are committed and applied, replies and answers go out.

pub(super) mod agreed_clock;
pub(super) mod apply;
pub(super) mod backup;
mod checkpointing;
pub(super) mod checkpoints;
pub(super) mod digests;
pub(super) mod forwards;
pub(super) mod pipeline;
pub(super) mod primary;
pub(super) mod progress;
pub(super) mod read_rounds;
pub(super) mod reads;
pub(super) mod sessions;
