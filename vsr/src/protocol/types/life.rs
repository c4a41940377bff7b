//! A member's life, and what is remembered of it (rule 7.7).

use serde::{Deserialize, Serialize};

use super::number::{DiskId, OpNumber, ReplicaId};

/// One start of a replica on one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The id of the disk, given when it was formatted.
    pub disk_id: DiskId,
    /// How often the replica was started on it.
    pub starts: u64,
    /// Drawn at random at each start: two copies of one disk may have counted as many starts.
    pub nonce: u64,
}

/// What is remembered of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The member.
    pub replica: ReplicaId,
    /// The newest life that was heard of.
    pub life: Life,
    /// The highest committed op that it is known to have acknowledged.
    pub acknowledged: OpNumber,
}

/// Why a member's messages do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// The disk was formatted anew, or is another one.
    #[error("its disk is not the one that is known under its id")]
    OtherDisk,
    /// An older start, or an older copy of the disk; or a second process on a copy.
    #[error("a newer start of it, or another process on a copy of its disk, was heard")]
    OlderStart,
    /// The log ends before an op that the member acknowledged.
    #[error("its log ends before what it acknowledged: its disk is an older copy")]
    OlderDisk,
}
