//! The log and its way to the disk: the slots, the bodies kept in memory, what is written, and the messages that wait for a write.

pub(super) mod body_cache;
pub(super) mod intake;
#[allow(clippy::module_inception, reason = "the folder is named after what it is about")]
pub(super) mod log;
pub(super) mod outbox;
pub(super) mod writes;
