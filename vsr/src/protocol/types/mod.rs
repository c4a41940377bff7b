//! The words of the protocol: what is in messages and on the disk, and the numbers and limits that they are made of. Nothing here uses
//! another part of the protocol.

pub(super) mod account;
pub(super) mod checkpoint;
pub(super) mod checksum;
pub(super) mod entry;
pub(super) mod event;
pub(super) mod life;
pub mod limits;
pub(super) mod map;
pub(super) mod membership;
pub(super) mod message;
pub(super) mod number;
pub(super) mod options;
pub(super) mod quorum;
pub(super) mod random;
pub(super) mod vsr_state;
