//! A member's life, and what is remembered of it (rule 7.7).

use serde::{Deserialize, Serialize};

use super::number::{DiskId, OpNumber, ReplicaId, View};

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
    /// The op that put its disk in the place of a lost one; 0 for the first disk of the member.
    pub since: OpNumber,
}

/// How a disk has come to its place in the cluster (rule 7.19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Succession {
    /// It was formatted with the cluster.
    #[default]
    First,
    /// It shall take the place of one that is lost. No op that puts it there is known to be committed: it counts for nothing.
    Asking,
    /// The op has put it there. It counts once it is whole and has installed the log of this view, or of a later one.
    Appointed {
        /// The op.
        op: OpNumber,
        /// The view: two above every one that was heard of when the op was known to be committed.
        view: View,
    },
    /// It has taken the place that the op gave it.
    Whole {
        /// The op.
        op: OpNumber,
    },
}

impl Succession {
    /// Whether its replica takes part in quorums.
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(self, Succession::First | Succession::Whole { .. })
    }

    /// The op that put the disk in the place of a lost one; 0 for a first disk, and as long as none is known.
    #[must_use]
    pub fn since(&self) -> OpNumber {
        match self {
            Succession::First | Succession::Asking => OpNumber::ZERO,
            Succession::Appointed { op, .. } | Succession::Whole { op } => *op,
        }
    }

    /// Whether no number in it is one that no cluster reaches.
    pub(crate) fn is_plausible(&self, max: u64) -> bool {
        self.since().0 < max && !matches!(self, Succession::Appointed { view, .. } if view.number >= max)
    }
}

/// Why a member's messages do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// The disk takes the place of a lost one, and is not whole yet.
    #[error("its disk takes the place of a lost one, and does not count yet")]
    Rejoins,
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
