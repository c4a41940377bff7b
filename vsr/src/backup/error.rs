//! What is in a file, and why there is none.

use std::path::PathBuf;

use crate::cause::Cause;
use crate::protocol::{ClusterId, CommitNumber, Halt, OpNumber, View};
use crate::traits::storage::StorageError;

/// What is in a file of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The cluster that it comes from.
    pub cluster: ClusterId,
    /// The last op that the state contains.
    pub op: OpNumber,
    /// The view in which that op was prepared.
    pub view: View,
    /// What was known to be committed where it was made: ops above it may never have been.
    pub commit: CommitNumber,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why there is no file, or no storage that goes on from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The storage refuses.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file, or its folder, refuses.
    #[error("{doing} {}: {cause}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: Cause,
    },
    /// There is something under the name of the file.
    #[error("{} is there already: choose another name, nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// It is none of this module's files, or damaged.
    #[error("{} is no whole backup: {what}; nothing was done with it: take another copy", path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The log does not reach back to the beginning, and no checkpoint can be read.
    #[error(
        "this storage has no state: its log begins after op {base}, and no checkpoint of it can be read; use that of another replica"
    )]
    NoState {
        /// The last op that was dropped from the log.
        base: OpNumber,
    },
    /// Something that is committed is not here, or not intact.
    #[error("op {op} is not intact here, and op {commit} is committed: use the storage of another replica")]
    Incomplete {
        /// The first op that is missing.
        op: OpNumber,
        /// What is known to be committed.
        commit: CommitNumber,
    },
    /// Nothing is there that a new cluster could begin with.
    #[error(
        "this storage knows of no op that is committed: there is nothing to begin with; format a new cluster without a backup"
    )]
    Empty,
    /// The log cannot be applied.
    #[error("the log of this storage cannot be applied: {0}")]
    Halt(Halt),
    /// The log is not applied to its end.
    #[error("the log of this storage cannot be applied: {0}")]
    Stuck(String),
    /// The new cluster would have the name of the one that the file comes from.
    #[error(
        "the backup is of cluster {0}, and so is this storage: give the new cluster another number, so that replicas and clients of the old one \
         are refused"
    )]
    SameCluster(ClusterId),
    /// The storage was formatted for something else, or is in use.
    #[error("this storage holds a replica, or was not formatted to take a backup: format an empty one for it")]
    NotForIt,
    /// The session table does not fit the limits of the new cluster.
    #[error("the backup was made in a cluster with other limits of sessions: give the new cluster the same constants")]
    OtherLimits,
}
